"""One shard of a feature store: the features of some clips, one after the other, in three raw arrays.

The files of shard 7, in the directory ``shards``::

    00007.json                   its description: which clips, where in the arrays, and the checksums of the arrays
    00007-1f0c93ab.mel.f16       [rows, n_mels] float16
    00007-1f0c93ab.cens.f16      [rows, n_chroma] float16
    00007-1f0c93ab.onset.f16     [rows + clips * tempogram_lags] float16, each clip's onset envelope with its ramps

The description is written last, so a shard is whole as soon as it is there. The arrays' names hold a checksum of their
content: two attempts at one shard may run at once, on one machine or on two, and neither touches what the other has
published.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msim_tf.checksums import BlockChecksums, damaged_blocks, load_checked_json, save_checked_json
from msim_tf.errors import InputError
from msim_tf.files import TemporaryFile
from msim_tf.params import FeatureParams
from msim_tf.performance import row_blocks

if TYPE_CHECKING:  # whose module needs TensorFlow, which nobody who looks into a store does
    from msim_tf.features.extractor import Features

FORMAT = "msim-shard"
FORMAT_VERSION = 1
ARRAYS = ("mel", "cens", "onset")
CURE = "remove the store and extract it again with msim extract"
_BLOCK_ROWS = 2**14
_STEM = re.compile(r"[0-9]{5,}-[0-9a-f]{8}")


@dataclass(frozen=True)
class ShardClip:
    """One file of a shard's job, and what became of it.

    Attributes:
        identifier: path of the sound file relative to the music folder, POSIX style.
        size: its bytes; with ``modified`` the state by which a changed file is noticed.
        modified: its modification time in ns.
        reason: why it has no features; "" if it has.
        note: what is worth knowing of the file although it has features, e.g. that its end is missing.
        frames: its frames.
        row: its first row in mel and CENS.
        onset_row: its first value in the onset envelopes.
    """

    identifier: str
    size: int
    modified: int
    reason: str = ""
    note: str = ""
    frames: int = 0
    row: int = 0
    onset_row: int = 0


@dataclass(frozen=True, eq=False)
class Shard:
    """A finished shard, as its description has it.

    Attributes:
        number: its number in the store.
        stem: what the names of its arrays begin with.
        digest: of the features.
        clips: its clips, in the order of their rows.
        sizes: array -> bytes.
        checksums: array -> [blocks] uint32.
    """

    number: int
    stem: str
    digest: str
    clips: tuple[ShardClip, ...]
    sizes: Mapping[str, int]
    checksums: Mapping[str, np.ndarray]


def shard_directory(store: str | Path) -> Path:
    """Where the shards of ``store`` lie."""
    return Path(store) / "shards"


def description_path(store: str | Path, number: int) -> Path:
    """Where the description of a shard lies."""
    return shard_directory(store) / f"{number:05d}.json"


def array_path(store: str | Path, stem: str, name: str) -> Path:
    """Where the array ``name`` of a shard lies."""
    return shard_directory(store) / f"{stem}.{name}.f16"


def row_width(params: FeatureParams, name: str) -> int:
    """Numbers in a row of an array; the onset envelope has one."""
    return {"mel": params.n_mels, "cens": params.n_chroma, "onset": 1}[name]


class ShardWriter:
    """Appends clips to a new shard, and publishes it.

    Use it by ``contextlib.closing``: what was not published leaves nothing behind.

    Args:
        store: directory of the store.
        number: number of the shard.
        params: how its features are made.
    """

    def __init__(self, store: str | Path, number: int, params: FeatureParams) -> None:
        self._store, self._number, self._params = Path(store), number, params
        self._clips: list[ShardClip] = []
        self._row = self._onset_row = 0
        self._checksums = {name: BlockChecksums() for name in ARRAYS}
        self._sizes = dict.fromkeys(ARRAYS, 0)
        # Three temporary files, closed and removed together if one of them cannot be opened.
        with ExitStack() as stack:
            temporary = {name: TemporaryFile(array_path(store, f"{number:05d}", name)) for name in ARRAYS}
            for file in temporary.values():
                stack.enter_context(closing(file))
            self._files, self._stack = temporary, stack.pop_all()

    def add(self, clip: ShardClip, outcome: Features | str) -> ShardClip:
        """Appends a clip's features, or the reason why it has none.

        Features that hold a number which is not finite in float16 become such a reason: a store never holds one.
        """
        if not isinstance(outcome, str):
            # [bands, frames] -> [frames, bands]: a segment is then one consecutive piece of the file.
            rows = {"mel": outcome.mel.T, "cens": outcome.cens.T, "onset": outcome.onset}
            if all(_fits_half(values) for values in rows.values()):
                noted = dataclasses.replace(clip, note="; ".join(outcome.notes))
                return self._append(noted, rows)
            outcome = "its features hold numbers that are not finite; is the recording sound?"
        finished = dataclasses.replace(clip, reason=outcome, frames=0, row=0, onset_row=0)
        self._clips.append(finished)
        return finished

    def copy(self, clip: ShardClip, rows: Mapping[str, np.ndarray]) -> ShardClip:
        """Appends a clip as another shard holds it: array -> its rows."""
        return self._append(clip, rows)

    def _append(self, clip: ShardClip, rows: Mapping[str, np.ndarray]) -> ShardClip:
        # Block by block, so that hours of sound are never in memory as float16 beside their float32.
        for name, values in rows.items():
            for block in row_blocks(values, _BLOCK_ROWS):
                data = np.ascontiguousarray(block, np.float16).data.cast("B")
                self._files[name].file.write(data)
                self._checksums[name].update(data)
                self._sizes[name] += len(data)
        finished = dataclasses.replace(clip, frames=len(rows["mel"]), row=self._row, onset_row=self._onset_row)
        self._row += len(rows["mel"])
        self._onset_row += len(rows["onset"])
        self._clips.append(finished)
        return finished

    def publish(self) -> Shard:
        """Makes the shard part of the store's directory: first its arrays, then its description."""
        # Named by content, so that equal attempts write equal files and different ones never meet.
        checksums = {name: self._checksums[name].values for name in ARRAYS}
        content = zlib.crc32(b"".join(checksums[name].tobytes() for name in ARRAYS))
        stem = f"{self._number:05d}-{content:08x}"
        for name, temporary in self._files.items():
            temporary.publish(array_path(self._store, stem, name))
        # From here on the shard is finished for all others.
        shard = Shard(self._number, stem, self._params.digest, tuple(self._clips), dict(self._sizes), checksums)
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "number": shard.number,
            "stem": shard.stem,
            "digest": shard.digest,
            "arrays": {
                name: {"bytes": shard.sizes[name], "checksums": checksums[name].astype(">u4").tobytes().hex()}
                for name in ARRAYS
            },
            "clips": [vars(clip) for clip in shard.clips],
        }
        save_checked_json(description_path(self._store, self._number), description)
        return shard

    def close(self) -> None:
        """Removes what was not published."""
        self._stack.close()


def _fits_half(rows: np.ndarray) -> bool:
    """Whether every number is finite in float16."""
    with np.errstate(over="ignore"):
        return all(np.isfinite(block.astype(np.float16)).all() for block in row_blocks(rows, _BLOCK_ROWS))


def load_shard(store: str | Path, number: int) -> Shard:
    """Reads the description of a finished shard.

    Raises:
        InputError: if it is missing, damaged, or of another format.
    """
    path = description_path(store, number)
    cure = f"remove it and run msim extract again, or {CURE}"
    value = load_checked_json(path, "the description of a shard", cure=cure, header=(FORMAT, FORMAT_VERSION))
    try:
        arrays = value["arrays"]
        shard = Shard(
            number=value["number"],
            stem=value["stem"],
            digest=value["digest"],
            clips=tuple(ShardClip(**clip) for clip in value["clips"]),
            sizes={name: arrays[name]["bytes"] for name in ARRAYS},
            checksums={name: np.frombuffer(bytes.fromhex(arrays[name]["checksums"]), ">u4") for name in ARRAYS},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not the description of a shard ({error!r}); {CURE}") from error
    if shard.number != number or not _STEM.fullmatch(shard.stem):
        raise InputError(f"{path}: describes shard {shard.number} in files {shard.stem!r}; {CURE}")
    return shard


def open_array(path: Path, size: int, width: int) -> np.ndarray:
    """Maps an array of a shard: [rows, width] float16, or [rows] for a width of 1.

    Raises:
        InputError: if the file does not have ``size`` bytes.
        FileNotFoundError: if it is missing.
    """
    actual = path.stat().st_size
    if actual != size or size % (2 * width):
        raise InputError(f"{path}: {actual} bytes, expected {size}: the shard is damaged; {CURE}")
    # 2 bytes per number: [rows, width], and a plain vector for the envelope.
    shape = (size // 2 // width, width) if width > 1 else (size // 2,)
    if not size:  # an empty file cannot be mapped
        return np.empty(shape, np.float16)
    # A plain array over the map: np.memmap's own indexing costs more than the read.
    return np.asarray(np.memmap(path, np.float16, "r", shape=shape))


def check_arrays(store: str | Path, shard: Shard) -> list[str]:
    """Reads the arrays of a shard whole, and compares every block with its checksum: one line per damaged file."""
    problems = []
    for name in ARRAYS:
        path = array_path(store, shard.stem, name)
        try:
            data = open_array(path, shard.sizes[name], 1).view(np.uint8)
            damaged = damaged_blocks(data, shard.checksums[name])
        except FileNotFoundError:
            problems.append(f"{path}: missing; {CURE}")
        except InputError as error:
            problems.append(str(error))
        else:
            if damaged.size:
                problems.append(f"{path}: damaged ({damaged.size} of {len(shard.checksums[name])} blocks); {CURE}")
    return problems


def copied_clips(
    store: str | Path, shards: Iterable[tuple[Shard, Iterable[ShardClip]]], params: FeatureParams
) -> Iterator[tuple[ShardClip, dict[str, np.ndarray]]]:
    """Clips of several shards with their rows, for the shard that they are joined to.

    Raises:
        InputError: if a block of one of them is damaged: a copy would seal the damage with a fresh checksum.
    """
    for shard, clips in shards:
        problems = check_arrays(store, shard)
        if problems:
            raise InputError(problems[0])
        # Views into the maps, so that no clip is in memory as a whole.
        arrays = {
            name: open_array(array_path(store, shard.stem, name), shard.sizes[name], row_width(params, name))
            for name in ARRAYS
        }
        for clip in clips:
            rows = slice(clip.row, clip.row + clip.frames)
            onsets = slice(clip.onset_row, clip.onset_row + clip.frames + params.tempogram_lags)
            yield clip, {"mel": arrays["mel"][rows], "cens": arrays["cens"][rows], "onset": arrays["onset"][onsets]}
