"""Embeds exactly what triplets need: whole tracks, or the clips that listeners heard, from audio files or from a store.

A clip is cut from the features of its *whole* track, as training cuts its segments: a tempogram needs 9 s of context,
and one computed on a lone clip of 3 s is another feature. The first segment begins at the frame nearest to the clip's
start; a clip of 3 s holds one segment. Silent segments are left out, as in every embedding (``features.segments``).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from msim_tf.audio.scan import scan_folder
from msim_tf.data.store import FeatureStore
from msim_tf.embeddings import shortlist
from msim_tf.errors import InputError
from msim_tf.evaluate.triplets import Clip, Triplets, matched
from msim_tf.export.embedder import Embedder
from msim_tf.features.extractor import Features
from msim_tf.features.segments import whole_segments, without_silence
from msim_tf.parallel import READ_AHEAD, in_order
from msim_tf.params import FeatureParams

# Decoders disagree about the padding of MP3, so a clip may seem to end a little after its track.
_SLACK_SECONDS = 0.25
Part = tuple[Clip, Features, np.ndarray]


def clip_starts(clip: Clip, frames: int, params: FeatureParams) -> np.ndarray:
    """First frames of the clip's segments in its track.

    Args:
        clip: all of a track, or a part of it.
        frames: frames of the track.
        params: how its features were made.

    Returns:
        [n] int, at least one.

    Raises:
        InputError: if the track ends before the clip does.
    """
    if clip.start is None:
        starts = whole_segments(frames, params)
        if not len(starts):
            raise InputError(f"shorter than one segment of {params.segment_seconds:.2f} s")
        return starts
    # Whole segments from the nearest frame on; a clip at the very end may begin as much earlier as decoders differ.
    seconds = params.segment_seconds if clip.seconds is None else clip.seconds
    count = max(1, params.segments(params.frames(round(seconds * params.sr))))
    first, last = round(clip.start * params.frame_rate), frames - count * params.segment_frames
    if last < 0 or first - last > _SLACK_SECONDS * params.frame_rate:
        raise InputError(
            f"ends at {frames / params.frame_rate:.1f} s, before its clip of {seconds:g} s from {clip.start:g} s on "
            "does"
        )
    return min(first, last) + np.arange(count) * params.segment_frames


def embed_triplets(
    embedder: Embedder,
    triplets: Triplets,
    audio: str | Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Embeds what ``triplets`` need from a folder of audio files; each file is decoded once.

    Args:
        embedder: the model.
        triplets: about tracks or, after ``clip_reading``, about clips.
        audio: folder with a file ``<id>.<suffix>`` for each track, or the paths that the triplet file tells.
        progress: called with (tracks done, tracks in all).

    Returns:
        identifiers as the triplets write them; embeddings [n, size] float32; for each identifier left out the reason.

    Raises:
        InputError: if nothing can be embedded.
    """
    # Track -> its clips, so that one file is decoded once for all of them.
    scan = scan_folder(Path(audio))
    wanted = _by_track(triplets)
    names = matched(wanted, list(scan.files), paths=triplets.paths)
    failures = {clip.identifier: "no audio" for track in wanted if track not in names for clip in wanted[track]}

    def work(track: str) -> Features | str:
        return embedder.extract(scan.root / names[track])

    # Per clip the mean over its segments that are not silent, [size]; or the reason why it has no vector.
    params = embedder.metadata.features
    vectors: dict[str, np.ndarray] = {}
    for done, (track, features) in enumerate(in_order(work, list(names), READ_AHEAD), 1):
        for clip in wanted[track]:
            if isinstance(features, str):  # the reason why the track has none
                failures[clip.identifier] = features
                continue
            try:
                starts = clip_starts(clip, features.frames, params)
                vectors[clip.identifier] = embedder.embed_segments(features, without_silence(features, starts, params))
            except InputError as error:
                failures[clip.identifier] = str(error)
        progress(done, len(names))
    if not vectors:
        name, reason = next(iter(failures.items()))
        raise InputError(f"{audio}: nothing that {triplets.name} needs could be embedded; {name}: {reason}")
    return list(vectors), np.stack(list(vectors.values())), failures


def _by_track(triplets: Triplets) -> dict[str, list[Clip]]:
    """Track -> what triplets need of it."""
    wanted: dict[str, list[Clip]] = {}
    for clip in triplets.clips():
        wanted.setdefault(clip.track, []).append(clip)
    return wanted


class StoredParts:
    """What triplets need from a store: can be gone through more than once, one track in memory at a time.

    Args:
        store: features.
        triplets: about tracks or clips.

    Attributes:
        tracks: name of a track in the triplets -> its identifier in the store, for the tracks it has.
        failures: identifiers that cannot be embedded, with the reason.

    Raises:
        InputError: if the store has none of the tracks.
    """

    def __init__(self, store: FeatureStore, triplets: Triplets) -> None:
        wanted = _by_track(triplets)
        self.tracks = matched(wanted, store.identifiers, paths=triplets.paths)
        if not self.tracks:
            raise InputError(
                f"{store.path}: has none of the tracks of {triplets.name} ({shortlist(list(wanted)[:3])}); extract "
                "their audio first"
            )
        self.failures: dict[str, str] = {}
        for track, clips in wanted.items():
            if track not in self.tracks:
                self.failures |= {clip.identifier: "not in the store" for clip in clips}
        # Row in the store -> clips with the first frames of their segments, checked now and read later.
        self._store = store
        self._parts: dict[int, list[tuple[Clip, np.ndarray]]] = {}
        rows = {identifier: row for row, identifier in enumerate(store.identifiers)}
        for track, identifier in self.tracks.items():
            row = rows[identifier]
            for clip in wanted[track]:
                try:
                    starts = clip_starts(clip, int(store.frames[row]), store.params)
                    self._parts.setdefault(row, []).append((clip, starts))
                except InputError as error:
                    self.failures[clip.identifier] = str(error)

    @property
    def identifiers(self) -> tuple[str, ...]:
        """What can be embedded, as the triplets write it, in the order of iteration."""
        return tuple(clip.identifier for parts in self._parts.values() for clip, _ in parts)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all that is embedded: names, features and segments. It differs when other sound was extracted."""
        digest = hashlib.sha256()
        for row, parts in self._parts.items():
            features = self._store.read_clip(row)
            for array in (features.mel, features.onset, features.cens):
                digest.update(array.tobytes())
            for clip, starts in parts:
                digest.update(f"{clip.identifier}\0{starts.tolist()}\0".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.identifiers)

    def __iter__(self) -> Iterator[Part]:
        """Yields each clip, the features of its whole track, and the first frames of its segments that are not
        silent.
        """
        for clip, features, starts in self._whole_parts():
            yield clip, features, without_silence(features, starts, self._store.params)

    def _whole_parts(self) -> Iterator[Part]:
        """The same with all segments."""
        for row, parts in self._parts.items():
            features = self._store.read_clip(row)
            for clip, starts in parts:
                yield clip, features, starts

    def mels(self) -> Iterator[np.ndarray]:
        """Mel-spectrogram of each: all of a track, or the frames of a clip's segments."""
        for clip, features, starts in self._whole_parts():
            # [n_mels, frames], silence included: baselines take the sound as it is.
            if clip.start is None:
                yield features.mel
            else:
                yield features.mel[:, starts[0] : starts[-1] + self._store.params.segment_frames]
