"""Immutable runs of tracks on disk, and rows that run through all of them.

A segment is a directory, written whole or not at all:

    vectors.npy        [rows, size] float16, every subspace of length 1; memory-mapped
    identifiers.json   [rows] text
    metadata.jsonl     one JSON object per row; memory-mapped and read row by row
    offsets.npy        [rows + 1] int64: where each line of metadata begins

A *row* counts through the segments in their order, removed tracks included. Nothing is pickled.
"""

from __future__ import annotations

import json
import mmap
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from msim_tf.errors import InputError
from msim_tf.files import atomic_directory, atomic_file, load_json

BLOCK = 8192  # rows handled at once, which bounds memory: 6 MB of float16 at 384 coordinates


@dataclass(frozen=True, eq=False)
class Segment:
    """Some tracks, in memory or memory-mapped.

    Attributes:
        vectors: [rows, size] float16.
        identifiers: [rows].
        metadata: [rows] canonical metadata.
        name: its directory's name, "" while it is only in memory.
    """

    vectors: np.ndarray
    identifiers: Sequence[str]
    metadata: Sequence[dict[str, Any]]
    name: str = ""

    def __len__(self) -> int:
        return len(self.identifiers)


class MetadataLines(Sequence[dict[str, Any]]):
    """Metadata of a segment on disk; a row is parsed when it is asked for."""

    def __init__(self, path: Path, offsets: np.ndarray) -> None:
        self._offsets = offsets
        with open(path, "rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(self._lines) != offsets[-1]:
            raise InputError(f"{path}: {len(self._lines)} bytes, its offsets.npy tells of {offsets[-1]}; index again")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: Any) -> Any:
        line = self._lines[self._offsets[row] : self._offsets[row + 1]]
        try:
            return orjson.loads(line)
        except (
            orjson.JSONDecodeError
        ):  # it refuses the half characters that stand for bytes of a name that is not UTF-8
            return json.loads(line.decode("ascii"))


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of an index, read-only.

    Attributes:
        segments: in row order.
    """

    segments: tuple[Segment, ...]

    @cached_property
    def starts(self) -> np.ndarray:
        """First row of each segment, and the number of rows at the end: [segments + 1] int."""
        return np.cumsum([0, *(len(segment) for segment in self.segments)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _place(self, row: int) -> tuple[Segment, int]:
        number = bisect_right(self._starts, row) - 1
        return self.segments[number], row - self._starts[number]

    @cached_property
    def _starts(self) -> list[int]:
        return list(map(int, self.starts))

    def identifier(self, row: int) -> str:
        """Identifier of one row."""
        segment, offset = self._place(row)
        return segment.identifiers[offset]

    def metadata(self, row: int) -> dict[str, Any]:
        """Metadata of one row."""
        segment, offset = self._place(row)
        return segment.metadata[offset]

    def take(self, rows: np.ndarray, part: slice = slice(None)) -> np.ndarray:
        """Stored vectors of ``rows``.

        Args:
            rows: [n] int.
            part: the coordinates wanted; all by default.

        Returns:
            [n, width of part] float16.
        """
        rows = np.asarray(rows, np.intp)
        if len(self.segments) == 1:
            return self.segments[0].vectors[rows, part]
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        taken = np.empty((len(rows), len(range(self.segments[0].vectors.shape[1])[part])), np.float16)
        for number in np.unique(numbers):
            here = numbers == number
            taken[here] = self.segments[number].vectors[rows[here] - self.starts[number], part]
        return taken

    def blocks(self, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Stored vectors from row ``first`` on: (row, [n <= BLOCK, size] float16) after one another."""
        for start, segment in zip(self.starts, self.segments):
            for offset in range(max(0, first - start), len(segment), BLOCK):
                yield int(start + offset), segment.vectors[offset : offset + BLOCK]


def write_segment(
    directory: Path, rows: int, blocks: Iterable[np.ndarray], tracks: Iterable[tuple[str, dict[str, Any]]]
) -> None:
    """Writes a segment, atomically.

    Args:
        directory: destination; must not exist.
        rows: how many.
        blocks: [n, size] float16 each, ``rows`` in total.
        tracks: identifier and metadata of each row.
    """
    with atomic_directory(directory) as temporary:
        with atomic_file(temporary / "vectors.npy") as file:
            _write_blocks(file, rows, blocks)
        identifiers, offsets = [], [0]
        with atomic_file(temporary / "metadata.jsonl") as file:
            for identifier, metadata in tracks:
                identifiers.append(identifier)
                offsets.append(offsets[-1] + file.write(json.dumps(metadata).encode("ascii") + b"\n"))
        with atomic_file(temporary / "offsets.npy") as file:
            np.save(file, np.array(offsets, np.int64), allow_pickle=False)
        with atomic_file(temporary / "identifiers.json", "w") as file:
            json.dump(identifiers, file)  # as ASCII, which keeps file names that are not UTF-8


def _write_blocks(file: Any, rows: int, blocks: Iterable[np.ndarray]) -> None:
    written = 0
    for block in blocks:
        if not written:
            header = {"descr": "<f2", "fortran_order": False, "shape": (rows, block.shape[1])}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(block, "<f2").tobytes())
        written += len(block)


def read_segment(directory: Path, *, rows: int, size: int) -> Segment:
    """Opens a segment by memory map.

    Args:
        directory: where ``write_segment`` put it.
        rows: how many there must be.
        size: coordinates there must be.

    Raises:
        InputError: if a file is missing, cut short or of another shape.
    """
    vectors = _mapped(directory / "vectors.npy", (rows, size), "<f2")
    offsets = _mapped(directory / "offsets.npy", (rows + 1,), "<i8")
    identifiers = load_json(directory / "identifiers.json", "the identifiers of an index")
    if not isinstance(identifiers, list) or len(identifiers) != rows:
        raise InputError(f"{directory / 'identifiers.json'}: expected a list of {rows} identifiers; index again")
    path = directory / "metadata.jsonl"
    try:
        return Segment(vectors, identifiers, MetadataLines(path, offsets), directory.name)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); index again") from error
    except ValueError as error:
        raise InputError(f"{path}: cannot be mapped ({error}); index again") from error


def _mapped(path: Path, shape: tuple[int, ...], kind: str) -> np.ndarray:
    try:
        # A plain array over the map: np.memmap's own indexing costs more than reading some rows.
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be mapped ({error}); index again") from error
    if array.shape != shape or array.dtype != np.dtype(kind):
        raise InputError(f"{path}: {array.dtype} {array.shape}, expected {np.dtype(kind)} {shape}; index again")
    return array
