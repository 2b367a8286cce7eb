"""The stored vectors of an index, numbered by row: in memory, or in an append-only file that is memory-mapped.

    vectors-000001.f16   [rows, size] float16, little-endian, row after row; every subspace of length 1
    vectors-000001.crc   [rows] uint32, little-endian: the CRC-32 of each row's bytes

How many rows count, the database says; what a killed process appended after them is overwritten by the next. A row
keeps its number until the file is written anew without the rows that nothing uses (another file, with the next number).
A row of a file is verified when it is first used.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from msim_tf.errors import InputError
from msim_tf.files import sync_directory

BLOCK = 8192  # rows handled at once, which bounds memory: 6 MB of float16 at 384 coordinates


def vectors_path(directory: Path, number: int) -> Path:
    """The file of vectors with this number."""
    return directory / f"vectors-{number:06d}.f16"


class VectorFile:
    """Vectors in a file, mapped.

    Attributes:
        path: the file; its checksums lie beside it.
        vectors: [rows, size] float16.
    """

    def __init__(self, path: Path, *, rows: int, size: int) -> None:
        """Maps a file.

        Args:
            path: the file.
            rows: how many rows count.
            size: coordinates of a row.

        Raises:
            InputError: if one of the two files is missing or too short.
        """
        self.path = path
        self.vectors = _mapped(path, "<f2", (rows, size))
        self._checksums = _mapped(path.with_suffix(".crc"), "<u4", (rows,))
        self._verified = np.zeros(rows, bool)

    def verify(self, rows: np.ndarray | slice = slice(None)) -> None:
        """Compares rows with their checksums, each once.

        Raises:
            InputError: if one does not match.
        """
        if self._verified[rows].all():
            return
        # Only rows that were never read: [m] numbers, and the checksums of the bytes that are on disk now.
        numbers = np.arange(len(self.vectors))[rows]
        numbers = numbers[~self._verified[numbers]]
        actual = row_checksums(self.vectors[numbers])
        wrong = numbers[actual != self._checksums[numbers]]
        if wrong.size:
            raise InputError(
                f"{self.path}: damaged ({len(wrong)} vectors do not match their checksums, the first is that of row "
                f"{wrong[0]}); restore it from a copy, or embed everything again with msim index --rebuild"
            )
        self._verified[numbers] = True

    def appended(self, blocks: Iterable[np.ndarray]) -> VectorFile:
        """Writes rows after those that count and flushes them to disk.

        Args:
            blocks: [n, size] float16 each.

        Returns:
            The same file with the new rows.
        """
        rows, size = self.vectors.shape
        with open(self.path, "r+b") as vectors, open(self.path.with_suffix(".crc"), "r+b") as checksums:
            # A killed process may have left rows that nothing counts.
            vectors.truncate(2 * size * rows)
            checksums.truncate(4 * rows)
            vectors.seek(0, os.SEEK_END)
            checksums.seek(0, os.SEEK_END)
            for block in blocks:
                stored = np.ascontiguousarray(block, "<f2")
                vectors.write(stored.tobytes())
                checksums.write(row_checksums(stored).astype("<u4").tobytes())
                rows += len(block)
            # On disk before the caller's transaction counts them: else a crash could leave rows that hold anything.
            for file in (vectors, checksums):
                file.flush()
                os.fsync(file.fileno())
        # The old map is too short for the new rows: map the file again, and keep what was verified.
        longer = VectorFile(self.path, rows=rows, size=size)
        longer._verified[: len(self._verified)] = self._verified
        return longer

    @classmethod
    def create(cls, path: Path, size: int) -> VectorFile:
        """A file of no rows; what is there under its name is replaced.

        Args:
            path: the file.
            size: coordinates of a row.
        """
        for name in (path, path.with_suffix(".crc")):
            with open(name, "wb"):
                pass
        sync_directory(path.parent)
        return cls(path, rows=0, size=size)


def row_checksums(vectors: np.ndarray) -> np.ndarray:
    """CRC-32 of each row: [n, size] float16 -> [n] uint32."""
    return np.array([zlib.crc32(row) for row in np.ascontiguousarray(vectors, "<f2")], np.uint32)


def _mapped(path: Path, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The beginning of a file as an array, read-only."""
    needed = np.dtype(kind).itemsize * int(np.prod(shape))
    try:
        size = path.stat().st_size
        if size < needed:
            raise InputError(
                f"{path}: truncated ({size} bytes, expected {needed}); restore it from a copy, or embed everything "
                "again with msim index --rebuild"
            )
        # A plain array over the map: np.memmap's own indexing costs more than reading some rows.
        return np.asarray(np.memmap(path, kind, "r", shape=shape)) if needed else np.zeros(shape, kind)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it from a copy") from error


class Rows:
    """All stored vectors, read-only: those of a file, if there is one, and then those that were not saved yet.

    Args:
        file: the file, or None.
        fresh: [n, size] float16 each, in memory.
        size: coordinates of a row.
    """

    def __init__(self, size: int, file: VectorFile | None = None, fresh: tuple[np.ndarray, ...] = ()) -> None:
        self.size = size
        self.file = file
        self.fresh = fresh
        self._parts = [*([file.vectors] if file else []), *fresh]
        self.starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, rows: np.ndarray, part: slice = slice(None)) -> np.ndarray:
        """Stored vectors of ``rows``.

        Args:
            rows: [n] int.
            part: the coordinates wanted; all by default.

        Returns:
            [n, width of part] float16.
        """
        # The first part is the file's, where there is one: its rows are compared with their checksums.
        rows = np.asarray(rows, np.intp)
        if self.file:
            self.file.verify(rows[rows < self.starts[1]])
        if len(self._parts) == 1:
            return self._parts[0][rows, part]
        # Gather from each part the rows that are in it.
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        values = np.empty((len(rows), len(range(self.size)[part])), np.float16)
        for number in np.unique(numbers):
            here = numbers == number
            values[here] = self._parts[number][rows[here] - self.starts[number], part]
        return values

    def blocks(self, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Stored vectors from row ``first`` on: (row, [n <= BLOCK, size] float16) after one another."""
        for start, part in zip(self.starts.tolist(), self._parts):
            # Blocks do not reach over the end of a part, so each is a view and never a copy.
            for offset in range(max(0, first - start), len(part), BLOCK):
                if self.file and not start:
                    self.file.verify(slice(offset, offset + BLOCK))
                yield start + offset, part[offset : offset + BLOCK]

    def extended(self, vectors: np.ndarray) -> Rows:
        """With further rows in memory, [n, size] float16."""
        return Rows(self.size, self.file, (*self.fresh, vectors))
