"""The feature store: what is on disk, and how it is read.

A store is a directory::

    manifest.json           format, FeatureParams and digest, one entry per clip with its status, the label table
    shards/00000.json       the entries of the clips in this shard; written last, so its presence says that the shard is whole
    shards/00000.mel.f16    [rows, n_mels] float16, the frames of the shard's clips one after the other
    shards/00000.cens.f16   [rows, n_chroma] float16
    shards/00000.onset.f16  [rows + clips * tempogram_lags] float16: each clip's onset envelope with its ramps
    teacher*.npz            optional: what another model says of the tracks, see ``teacher_files``

The tempogram is not stored: the model computes it from the envelope (37 KB per segment instead of 270). Shards are raw arrays opened by memory
map; any batch of segments is gathered in one vectorised read. ``writer.py`` makes stores.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.data.augmentation import frames_spanned
from msim_tf.data.teacher_files import load_heard, load_teacher
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.features.extractor import Features
from msim_tf.files import load_json, save_json, validate_format
from msim_tf.labels.passages import Passages
from msim_tf.labels.tables import Labels
from msim_tf.params import FeatureParams
from msim_tf.performance import ReusedMemory, widened

FORMAT = "msim-feature-store"
FORMAT_VERSION = 1
OK, FAILED, PENDING = "ok", "failed", "pending"


@dataclass(frozen=True)
class ClipEntry:
    """One clip of the store.

    Attributes:
        identifier: path relative to the extracted folder, POSIX style.
        size: bytes of the audio file, with ``modified`` the mark by which a changed file is noticed.
        modified: modification time in ns.
        shard: number of its shard.
        status: "ok", "failed" or "pending".
        reason: why it failed.
        frames: its frames.
        row: first row in the shard's mel and CENS.
        onset_row: first value in the shard's onset envelopes.
    """

    identifier: str
    size: int
    modified: int
    shard: int
    status: str = PENDING
    reason: str = ""
    frames: int = 0
    row: int = 0
    onset_row: int = 0


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: what the store is and what became of every file.

    Attributes:
        params: how the features were made.
        clips: every file that was found, in order.
        labels: the label table, JSON of ``labels.tables.Labels``.
    """

    params: FeatureParams
    clips: tuple[ClipEntry, ...]
    labels: dict[str, Any]

    @property
    def failed(self) -> tuple[ClipEntry, ...]:
        """Clips that could not be extracted."""
        return tuple(clip for clip in self.clips if clip.status == FAILED)

    @property
    def complete(self) -> bool:
        """Whether every file has been dealt with."""
        return all(clip.status != PENDING for clip in self.clips)


def manifest_path(store: str | Path) -> Path:
    """Where the manifest of ``store`` lies."""
    return Path(store) / "manifest.json"


def shard_path(store: str | Path, shard: int, suffix: str) -> Path:
    """A file of one shard; ``suffix`` is "json", "mel.f16", "cens.f16" or "onset.f16"."""
    return Path(store) / "shards" / f"{shard:05d}.{suffix}"


def load_manifest(store: str | Path) -> Manifest:
    """Reads the manifest.

    Raises:
        InputError: if there is none, or it is damaged or of another format.
    """
    path = manifest_path(store)
    value = load_json(path, "the manifest of a feature store (msim extract makes one)")
    validate_format(value, path, name=FORMAT, version=FORMAT_VERSION)
    try:
        params = FeatureParams.from_json(value["feature_params"])
        clips = tuple(ClipEntry(**clip) for clip in value["clips"])
        labels = value["labels"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged manifest ({error}); extract again into a new directory") from error
    if params.digest != value["digest"]:
        raise InputError(f"{path}: says digest {value['digest']}, but its parameters give {params.digest}")
    return Manifest(params, clips, labels)


def save_manifest(store: str | Path, manifest: Manifest) -> None:
    """Writes the manifest, atomically."""
    value = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "digest": manifest.params.digest,
        "feature_params": manifest.params.to_json(),
        # As they are: dataclasses.asdict would copy each, which takes as long as writing them.
        "clips": [vars(clip) for clip in manifest.clips],
        "labels": manifest.labels,
    }
    save_json(manifest_path(store), value)


def write_labels(store: str | Path, labels: Labels) -> None:
    """Replaces the store's label table."""
    save_manifest(store, dataclasses.replace(load_manifest(store), labels=labels.to_json()))


class FeatureStore:
    """A store opened for reading; safe to share between threads.

    Args:
        path: the store's directory.

    Attributes:
        params: how the features were made.
        clips: the entries that were extracted; an index below is an index into these.
        identifiers: their identifiers, same order.
        labels: the label table.

    Raises:
        InputError: if it is missing, unfinished, empty, damaged or of another format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        manifest = load_manifest(path)
        if not manifest.complete:
            raise InputError(f"{path}: extraction is unfinished; run the same msim extract command again, it resumes")
        self.params = manifest.params
        self.clips = tuple(clip for clip in manifest.clips if clip.status == OK)
        if not self.clips:
            raise InputError(f"{path}: none of its {len(manifest.clips)} clips could be extracted; see manifest.json")
        self.identifiers = [clip.identifier for clip in self.clips]
        self.labels = Labels.from_json(manifest.labels)
        self._shard = np.array([clip.shard for clip in self.clips])
        self._row = np.array([clip.row for clip in self.clips])
        self._onset_row = np.array([clip.onset_row for clip in self.clips])
        self.frames = np.array([clip.frames for clip in self.clips])
        held: dict[int, list[ClipEntry]] = defaultdict(list)
        for clip in self.clips:
            held[clip.shard].append(clip)
        self._arrays = {shard: self._open_shard(shard, clips) for shard, clips in held.items()}

    def __len__(self) -> int:
        return len(self.clips)

    def read_clip(self, index: int) -> Features:
        """The features of a whole clip, as float32."""
        arrays, frames = self._arrays[self._shard[index]], self.frames[index]
        rows = slice(self._row[index], self._row[index] + frames)
        onsets = slice(self._onset_row[index], self._onset_row[index] + frames + self.params.tempogram_lags)
        return Features(
            mel=widened(arrays["mel"][rows]).T,
            onset=widened(arrays["onset"][onsets]),
            cens=widened(arrays["cens"][rows]).T,
        )

    @functools.cached_property
    def teacher(self) -> Embeddings | None:
        """Another model's scores of tags (``labels.teacher``), if ``msim label`` was given any."""
        return load_teacher(self.path)

    @functools.cached_property
    def passages(self) -> Passages | None:
        """All that another model says: of passages of the tracks or, if ``msim label`` was not given that, of whole ones."""
        return load_heard(self.path, self.teacher)

    def read_segments(
        self,
        clips: Sequence[int] | np.ndarray,
        starts: Sequence[int] | np.ndarray,
        stretch: np.ndarray | None = None,
        *,
        names: Sequence[str] = ("mel", "onset", "cens"),
        memory: ReusedMemory | None = None,
    ) -> dict[str, np.ndarray]:
        """Segments of any clips.

        Args:
            clips: [n] indices of clips.
            starts: [n] first frame of each segment; start + segment_frames <= frames of the clip.
            stretch: [n] how many times faster than recorded each is read, by interpolation between frames; None for as recorded.
            names: of the features that are wanted.
            memory: where the arrays come from, for who reads one batch after another; by default they are new.

        Returns:
            float16 arrays ``mel`` [n, n_mels, frames], ``onset`` [n, frames + lags - 1], ``cens`` [n, n_chroma, frames], as far as wanted.

        Raises:
            InputError: if a segment reaches beyond its clip.
        """
        clips, starts = np.asarray(clips), np.asarray(starts)
        stretch = np.ones(len(clips)) if stretch is None else stretch
        spanned = frames_spanned(self.params.segment_frames, stretch)
        if np.any(starts < 0) or np.any(starts + spanned > self.frames[clips]):
            raise InputError(f"{self.path}: a segment reaches beyond its clip")
        shapes = {name: (len(clips), *self.params.input_shapes[name]) for name in names}
        empty = memory.empty if memory else np.empty
        batch = {name: empty(shape, np.float16) for name, shape in shapes.items()}
        stretched = stretch != 1
        self._copy(batch, np.flatnonzero(~stretched), clips, starts)
        for shard in np.unique(self._shard[clips[stretched]]):
            rows = np.flatnonzero(stretched & (self._shard[clips] == shard))
            part = self._gather_stretched(shard, clips[rows], starts[rows], stretch[rows], names)
            for name, value in part.items():
                batch[name][rows] = value
        return batch

    def _copy(self, batch: dict[str, np.ndarray], rows: np.ndarray, clips: np.ndarray, starts: np.ndarray) -> None:
        """Fills ``rows`` of the batch with segments as they are: one copy for each, turned on the way, from whichever shard."""
        shards, starts, clips = self._shard[clips[rows]].tolist(), starts[rows], clips[rows]
        for name, values in batch.items():
            first = (starts + (self._onset_row if name == "onset" else self._row)[clips]).tolist()
            length = values.shape[-1]
            for row, shard, start in zip(rows.tolist(), shards, first):
                values[row] = self._arrays[shard][name][start : start + length].T

    def _gather_stretched(
        self, shard: int, clips: np.ndarray, starts: np.ndarray, stretch: np.ndarray, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """As ``_gather``, at another speed: every frame, and every lag of the tempogram's window around it, is ``stretch`` as far apart."""
        arrays, half = self._arrays[shard], self.params.tempogram_lags // 2
        starts, stretch = starts[:, None], stretch[:, None]
        frames = starts + np.arange(self.params.segment_frames) * stretch
        # Before the ramp at the start and after that at the end there is nothing but their first and last value.
        onsets = starts + half + (np.arange(self.params.segment_onsets) - half) * stretch
        onsets = np.clip(onsets, 0, self.frames[clips][:, None] + 2 * half - 1)
        row, onset_row = self._row[clips][:, None], self._onset_row[clips][:, None]
        return {
            name: _interpolated(arrays["onset"], onset_row, onsets)
            if name == "onset"
            else _interpolated(arrays[name], row, frames).swapaxes(1, 2)
            for name in names
        }

    def _open_shard(self, shard: int, clips: list[ClipEntry]) -> dict[str, np.ndarray]:
        rows = max(clip.row + clip.frames for clip in clips)
        onsets = max(clip.onset_row + clip.frames for clip in clips) + self.params.tempogram_lags
        shapes = {"mel": (rows, self.params.n_mels), "cens": (rows, self.params.n_chroma), "onset": (onsets,)}
        return {
            name: self._open_array(shard_path(self.path, shard, f"{name}.f16"), shape) for name, shape in shapes.items()
        }

    def _open_array(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        """The first rows of a shard's file; after them there may be rows of clips that have left the folder since."""
        row = 2 * int(np.prod(shape[1:]))
        found = path.stat().st_size if path.exists() else 0
        if found < row * shape[0] or found % row:
            raise InputError(f"{path}: {found} bytes, expected {row * shape[0]}: the shard is damaged; extract again")
        # A plain array over the map: np.memmap's own indexing costs more than the read.
        return np.asarray(np.memmap(path, np.float16, "r", shape=shape))


def _interpolated(array: np.ndarray, first: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rows of ``array`` between its rows: ``first`` + ``positions``, linearly."""
    below = np.floor(positions).astype(np.int64)
    above = np.ceil(positions).astype(np.int64)
    fraction = (positions - below).astype(np.float32).reshape(positions.shape + (1,) * (array.ndim - 1))
    low, high = widened(array[first + below]), widened(array[first + above])
    high -= low
    high *= fraction
    high += low
    return high
