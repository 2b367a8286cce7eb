"""Rows that come block by block and are wanted again: in memory while they are few, in a
temporary file when a clip is long.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from msim_tf.features.streaming import joined

_HELD_BYTES = 2**26


class Spool:
    """Rows that are appended in blocks and read back in order; beyond 64 MB they wait on disk,
    so that hours of audio fit in memory.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._held: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        self.rows = 0
        self.peak = np.float32(-np.inf)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def append(self, rows: np.ndarray) -> None:
        """Adds [n, width] float32 rows."""
        self.rows += len(rows)
        self.peak = max(self.peak, rows.max())
        self._held.append(rows)
        if 4 * self.rows * self._width > _HELD_BYTES:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115  (closed by the block that opened this)
            for held in self._held:
                self._file.write(held.data)
            self._held = []

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """So many rows at a time, at last what is left."""
        if self._file is None:
            whole = self.whole()
            yield from (whole[start : start + rows] for start in range(0, self.rows, rows))
            return
        self._file.seek(0)
        while data := self._file.read(4 * rows * self._width):
            yield np.frombuffer(data, np.float32).reshape(-1, self._width)

    def whole(self) -> np.ndarray:
        """All rows; those on disk as a mapped file, which lasts as long as the array."""
        if self._file is None:
            return joined(self._held)
        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=(self.rows, self._width))
