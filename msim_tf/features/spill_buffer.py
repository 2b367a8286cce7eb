"""Rows that arrive block by block and are read again: in memory while they are few, in a temporary file when a clip is
long.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from msim_tf.features.streaming import joined

_HELD_BYTES = 2**26


class SpillBuffer:
    """Rows that are appended in blocks and read back in order; beyond 64 MB they wait on disk,
    so that hours of audio fit in memory.

    Args:
        width: numbers in a row.

    Attributes:
        rows: how many there are.
        peak: the largest number; -inf without rows.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._in_memory: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        self.rows = 0
        self.peak = np.float32(-np.inf)

    def __enter__(self) -> SpillBuffer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def append(self, rows: np.ndarray) -> None:
        """Adds [n, width] float32 rows."""
        self.rows += len(rows)
        self.peak = max(self.peak, rows.max())
        self._in_memory.append(rows)

        # A number has 4 bytes. Beyond the limit every further block goes straight to the file.
        if 4 * self.rows * self._width > _HELD_BYTES:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115  (closed by the block that opened this)
            for block in self._in_memory:
                self._file.write(block.data)
            self._in_memory = []

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """All rows, ``rows`` at a time; the last block holds the rest. Each is [n, width]."""
        if self._file is None:
            whole = self.whole()
            for start in range(0, self.rows, rows):
                yield whole[start : start + rows]
            return

        # Read, not mapped: the memory of one block is used once and freed.
        self._file.seek(0)
        while data := self._file.read(4 * rows * self._width):
            yield np.frombuffer(data, np.float32).reshape(-1, self._width)

    def whole(self) -> np.ndarray:
        """[rows, width]; from disk a mapped file, which lasts as long as the array."""
        if self._file is None:
            return joined(self._in_memory)
        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=(self.rows, self._width))
