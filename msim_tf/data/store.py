"""The feature store: what is on disk, and how it is read.

A store is a directory::

    store.db                     every clip with its state, the shards with their checksums, labels, annotations
    shards/00007.json            the description of a shard, see ``shards``
    shards/00007-*.mel.f16       [rows, n_mels] float16, the frames of the shard's clips one after the other
    shards/00007-*.cens.f16      [rows, n_chroma] float16
    shards/00007-*.onset.f16     [rows + clips * tempogram_lags] float16: each clip's onset envelope with its ramps
    teacher*.npz                 optional: what another model says of the tracks, see ``teacher_files``

The tempogram is not stored: the model computes it from the envelope (37 KB per segment instead of 270). Shards are raw
arrays opened by memory map; any batch of segments is gathered in one vectorised read. ``writer`` makes stores.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from msim_tf.checksums import BLOCK_BYTES, damaged_blocks
from msim_tf.data.augmentation import frames_spanned
from msim_tf.data.shards import ARRAYS, CURE, Shard, array_path, check_arrays, load_shard, open_array, row_width
from msim_tf.data.store_database import PENDING, StoreDatabase, database_path
from msim_tf.data.teacher_files import load_passages_or_vectors, load_teacher
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.features.extractor import Features
from msim_tf.labels.passages import Passages
from msim_tf.labels.tables import Labels
from msim_tf.performance import ReusedMemory, widened

_ATTEMPTS = 5  # at opening a store whose shards are being joined meanwhile


class FeatureStore:
    """A store opened for reading; safe to share between threads.

    A store that is extended meanwhile stays as it was when it was opened.

    Args:
        path: the store's directory.

    Attributes:
        params: how the features were made.
        identifiers: [n] the clips that can be read, sorted; an index below is an index into these.
        frames: [n] int, their frames.
        shards: [n] int, the numbers of their shards.

    Raises:
        InputError: if it is missing, unfinished, empty, damaged or of another format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        for attempt in range(_ATTEMPTS):
            try:
                self._open()
                return
            except FileNotFoundError as error:
                # Between reading the database and opening a shard, another process may have joined the shard to others.
                if attempt == _ATTEMPTS - 1:
                    raise InputError(f"{error.filename}: missing; {CURE}") from None

    def _open(self) -> None:
        with StoreDatabase(self.path) as database, database.transaction():
            self.params = database.params
            pending = database.count(PENDING)
            if pending:
                raise InputError(
                    f"{self.path}: extraction is unfinished ({pending} clips to go); "
                    "run the same msim extract command again, it resumes"
                )
            clips = database.readable_clips()
            if not clips.identifiers:
                failed = len(database.failures())
                raise InputError(
                    f"{self.path}: none of its {failed} clips could be extracted; "
                    "msim extract, given again, lists the reasons"
                )
            shards = database.shards()
        self.identifiers = clips.identifiers
        self.frames = clips.frames
        self.shards, self._row, self._onset_row = clips.shards, clips.rows, clips.onset_rows
        self._validate_rows(shards)
        used = {number: shards[number] for number in np.unique(self.shards).tolist()}
        # Shard -> array -> its mapped rows.
        self._arrays: dict[int, dict[str, np.ndarray]] = {}
        for number, shard in used.items():
            paths = {name: array_path(self.path, shard.stem, name) for name in ARRAYS}
            self._arrays[number] = {
                name: open_array(path, shard.sizes[name], row_width(self.params, name)) for name, path in paths.items()
            }
        self._blocks = {name: _Blocks(self.path, name, used, self._arrays) for name in ARRAYS}

    def _validate_rows(self, shards: Mapping[int, Shard]) -> None:
        """Refuses clips whose rows reach beyond their shard."""
        # [n] place of each clip's shard among the sorted numbers; a clip whose shard is not there is not sound.
        numbers = np.array(sorted(shards), np.int64)
        where = np.minimum(np.searchsorted(numbers, self.shards), len(numbers) - 1)
        sound = len(numbers) > 0 and numbers[where] == self.shards
        if np.all(sound):
            # [n] one past a clip's last row; its onset envelope is longer by the ramps at both ends.
            ends = {
                "mel": self._row + self.frames,
                "cens": self._row + self.frames,
                "onset": self._onset_row + self.frames + self.params.tempogram_lags,
            }
            for name, end in ends.items():
                # [shards] rows that each file holds, of ``width`` bytes -> [n] whether the clip's rows lie within.
                width = 2 * row_width(self.params, name)
                rows = np.array([shards[number].sizes[name] // width for number in numbers.tolist()])
                sound &= end <= rows[where]
            sound &= (self.frames >= self.params.segment_frames) & (self._row >= 0) & (self._onset_row >= 0)
        if not np.all(sound):
            wrong = self.identifiers[int(np.flatnonzero(~np.broadcast_to(sound, len(self.identifiers)))[0])]
            raise InputError(f"{database_path(self.path)}: the rows of {wrong} are not in its shard; {CURE}")

    def __len__(self) -> int:
        return len(self.identifiers)

    @functools.cached_property
    def labels(self) -> Labels:
        """The label table."""
        with StoreDatabase(self.path) as database:
            return database.labels()

    @functools.cached_property
    def teacher(self) -> Embeddings | None:
        """Another model's scores of tags (``labels.teacher``), if ``msim label`` was given any."""
        return load_teacher(self.path)

    @functools.cached_property
    def passages(self) -> Passages | None:
        """All that another model says of passages of the tracks; of whole tracks if ``msim label`` got no passages."""
        return load_passages_or_vectors(self.path, self.teacher)

    def read_clip(self, index: int) -> Features:
        """The features of a whole clip, as float32.

        Raises:
            InputError: if they are damaged.
        """
        arrays, frames = self._arrays[int(self.shards[index])], int(self.frames[index])
        rows = slice(int(self._row[index]), int(self._row[index]) + frames)
        onsets = slice(int(self._onset_row[index]), int(self._onset_row[index]) + frames + self.params.tempogram_lags)
        # Nothing is used before the blocks under it were compared with their checksums.
        for name in ARRAYS:
            part = onsets if name == "onset" else rows
            self._blocks[name].verify(self.shards[[index]], np.array([part.start]), np.array([part.stop]))
        # Stored [frames, bands] float16, returned [bands, frames] float32.
        return Features(
            mel=widened(arrays["mel"][rows]).T,
            onset=widened(arrays["onset"][onsets]),
            cens=widened(arrays["cens"][rows]).T,
        )

    def read_segments(
        self,
        clips: Sequence[int] | np.ndarray,
        starts: Sequence[int] | np.ndarray,
        stretch: np.ndarray | None = None,
        *,
        names: Sequence[str] = ARRAYS,
        memory: ReusedMemory | None = None,
    ) -> dict[str, np.ndarray]:
        """Segments of any clips.

        Args:
            clips: [n] indices of clips.
            starts: [n] first frame of each segment; start + segment_frames <= frames of the clip.
            stretch: [n] how many times faster than recorded each is read, by interpolation between frames; None for as
                recorded.
            names: of the features that are wanted.
            memory: where the arrays come from, for who reads one batch after another; by default they are new.

        Returns:
            float16 arrays ``mel`` [n, n_mels, frames], ``onset`` [n, frames + lags - 1], ``cens``
            [n, n_chroma, frames], as far as wanted.

        Raises:
            InputError: if a segment reaches beyond its clip, or a shard is damaged there.
        """
        # [n] frames of the clip that each segment covers, the more the faster it is played.
        clips, starts = np.asarray(clips), np.asarray(starts)
        stretch = np.ones(len(clips)) if stretch is None else stretch
        spanned = frames_spanned(self.params.segment_frames, stretch)
        if np.any(starts < 0) or np.any(starts + spanned > self.frames[clips]):
            raise InputError(f"{self.path}: a segment reaches beyond its clip")
        self._verify(clips, starts, stretch, names)

        # One array [n, *shape] per feature for the whole batch, which the segments are written into.
        shapes = {name: (len(clips), *self.params.input_shapes[name]) for name in names}
        empty = memory.empty if memory else np.empty
        batch = {name: empty(shape, np.float16) for name, shape in shapes.items()}

        # Most segments are copied as they are, each from its own shard. Lists, because one number of a list is cheaper
        # to read in a loop than one of an array.
        stretched = stretch != 1
        plain = np.flatnonzero(~stretched)
        plain_clips, plain_starts = clips[plain], starts[plain]
        shards = self.shards[plain_clips].tolist()
        for name, values in batch.items():
            first = (plain_starts + (self._onset_row if name == "onset" else self._row)[plain_clips]).tolist()
            length = values.shape[-1]
            for row, shard, start in zip(plain.tolist(), shards, first):
                # [frames, bands] as stored -> [bands, frames] as the model takes it.
                values[row] = self._arrays[shard][name][start : start + length].T

        # Those at another speed are interpolated, one shard at a time.
        for shard in np.unique(self.shards[clips[stretched]]).tolist():
            rows = np.flatnonzero(stretched & (self.shards[clips] == shard))
            part = self._gather_stretched(shard, clips[rows], starts[rows], stretch[rows], names)
            for name, value in part.items():
                batch[name][rows] = value
        return batch

    def _verify(self, clips: np.ndarray, starts: np.ndarray, stretch: np.ndarray, names: Sequence[str]) -> None:
        """Compares the blocks under some segments with their checksums, where that has not been done before."""
        spanned = frames_spanned(self.params.segment_frames, stretch)
        half = self.params.tempogram_lags // 2
        for name in names:
            # [n] first row and one past the last of each segment, counted in its shard.
            first, stop = self._row[clips] + starts, self._row[clips] + starts + spanned
            if name == "onset":
                # Half a window of the tempogram reaches over both ends, further at a higher speed.
                low = starts + np.floor(half * (1 - np.maximum(stretch, 1.0))).astype(np.int64)
                high = starts + half + np.ceil((self.params.segment_onsets - 1 - half) * stretch).astype(np.int64) + 1
                first = self._onset_row[clips] + np.maximum(low, 0)
                stop = self._onset_row[clips] + np.minimum(high, self.frames[clips] + 2 * half)
            self._blocks[name].verify(self.shards[clips], first, stop)

    def _gather_stretched(
        self, shard: int, clips: np.ndarray, starts: np.ndarray, stretch: np.ndarray, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Segments of one shard at another speed.

        Every frame, and every lag of the tempogram's window around it, is ``stretch`` as far apart.
        """
        arrays, half = self._arrays[shard], self.params.tempogram_lags // 2
        # [n, segment_frames] places in the clip, between its frames.
        starts, stretch = starts[:, None], stretch[:, None]
        frames = starts + np.arange(self.params.segment_frames) * stretch
        # [n, segment_onsets] the same for the envelope. Before the ramp at the start and after that at the end there is
        # nothing but their first and last value.
        onsets = starts + half + (np.arange(self.params.segment_onsets) - half) * stretch
        onsets = np.clip(onsets, 0, self.frames[clips][:, None] + 2 * half - 1)
        row, onset_row = self._row[clips][:, None], self._onset_row[clips][:, None]
        segments = {}
        for name in names:
            if name == "onset":
                segments[name] = _interpolated(arrays[name], onset_row, onsets)
            else:
                # [n, frames, bands] -> [n, bands, frames], as the model takes it.
                segments[name] = _interpolated(arrays[name], row, frames).swapaxes(1, 2)
        return segments


class _Blocks:
    """The blocks of one array over all shards, and which of them have been compared with their checksums."""

    def __init__(
        self, store: Path, name: str, shards: Mapping[int, Shard], arrays: Mapping[int, Mapping[str, np.ndarray]]
    ) -> None:
        self._store, self._name, self._shards, self._arrays = store, name, shards, arrays
        self._numbers = np.array(list(shards), np.int64)
        counts = [len(shard.checksums[name]) for shard in shards.values()]
        # Blocks are counted over all shards; those of shard i begin at bases[i].
        self._bases = np.cumsum([0, *counts])
        self._unverified = np.ones(self._bases[-1], bool)
        self._left = int(self._bases[-1])
        self._row_bytes = next((array[name].strides[0] for array in arrays.values() if array[name].size), 2)

    def verify(self, shards: np.ndarray, first: np.ndarray, stop: np.ndarray) -> None:
        """Verifies the blocks under rows first..stop (each [n]) of the shards ([n] numbers).

        Raises:
            InputError: naming the file, if a block is damaged.
        """
        if not self._left:
            return
        # [n] first and last block under each segment, counted over all shards.
        base = self._bases[np.searchsorted(self._numbers, shards)]
        low = base + first * self._row_bytes // BLOCK_BYTES
        high = base + (stop * self._row_bytes - 1) // BLOCK_BYTES
        # [n, most blocks of a segment], usually one or two; shorter segments repeat their last.
        spans = low[:, None] + np.arange(int((high - low).max(initial=0)) + 1)
        spans = np.minimum(spans, high[:, None])

        # Those that are new, shard by shard, so that each file is read in the order of its bytes.
        new = np.unique(spans[self._unverified[spans]])
        for position in np.unique(np.searchsorted(self._bases, new, side="right") - 1).tolist():
            own = new[(new >= self._bases[position]) & (new < self._bases[position + 1])]
            number = int(self._numbers[position])
            data = self._arrays[number][self._name].reshape(-1).view(np.uint8)
            checksums = self._shards[number].checksums[self._name]
            damaged = damaged_blocks(data, checksums, own - self._bases[position])
            if damaged.size:
                path = array_path(self._store, self._shards[number].stem, self._name)
                raise InputError(f"{path}: damaged at byte {int(damaged[0]) * BLOCK_BYTES} or after; {CURE}")
            self._unverified[own] = False
        if new.size:
            self._left = int(self._unverified.sum())


def _interpolated(array: np.ndarray, first: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rows of ``array`` between its rows: ``first`` + ``positions``, linearly."""
    # [...] whole rows on either side, and how far from the lower to the upper one.
    below = np.floor(positions).astype(np.int64)
    above = np.ceil(positions).astype(np.int64)
    fraction = (positions - below).astype(np.float32).reshape(positions.shape + (1,) * (array.ndim - 1))
    # low + fraction * (high - low) in place: [..., width] float32, with no further array of this size.
    low, high = widened(array[first + below]), widened(array[first + above])
    high -= low
    high *= fraction
    high += low
    return high


def check_store(path: str | Path) -> list[str]:
    """Reads all of a store and compares it with its checksums: one line per problem, naming the file and the cure."""
    path = Path(path)
    try:
        with StoreDatabase(path) as database:
            problems = database.check()
            shards = {} if problems else database.shards()
    except InputError as error:
        return [str(error)]
    # Of each shard its description, and every byte of its arrays.
    for shard in shards.values():
        try:
            load_shard(path, shard.number)
        except InputError as error:
            problems.append(str(error))
        problems += check_arrays(path, shard)
    # Last what only a reader notices: rows beyond a shard, labels or a teacher's file that cannot be read.
    if not problems:
        try:
            store = FeatureStore(path)
            _ = store.labels, store.teacher, store.passages
        except InputError as error:
            problems.append(str(error))
    return problems
