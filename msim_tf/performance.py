"""What NumPy does slowly or keeps too long: widening half floats, large new arrays, and the pages of mapped files."""

from __future__ import annotations

import mmap
import weakref
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

_SIGN_AND_HALF = np.int32(-0x7000_2000)  # bits of a float32 that a float16 shifted by 13 can fill
_EXPONENTS_APART = np.float32(2.0 ** (127 - 15))
_ALIGNMENT = 64  # bytes; TensorFlow takes an array that begins at a multiple of them without a copy


def widened(embeddings: np.ndarray) -> np.ndarray:
    """A float32 copy.

    NumPy converts float16 number by number. Moving its ten bits of fraction to their place in a float32, and scaling by
    the difference of the exponents' offsets, gives the same numbers (normal, subnormal and zero; nothing that is stored
    is infinite) seven times faster.

    Args:
        embeddings: [...] float; if it is float16, all finite.

    Returns:
        [...] float32.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.dtype != np.float16:
        return np.array(embeddings, np.float32)
    # [...] int32. Widening repeats the sign in all bits above; shifted, exponent and fraction are at their places in a
    # float32, and the mask leaves the topmost of the signs.
    bits = np.ascontiguousarray(embeddings).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _SIGN_AND_HALF
    wide = bits.view(np.float32)
    wide *= _EXPONENTS_APART
    return wide


class ReusedMemory:
    """Arrays for one batch after another, in memory that is used again when nothing refers to the array any more.

    Memory that is fetched from the system for every batch costs more than filling it. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = defaultdict(list)

    def empty(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Like ``numpy.empty``, of whatever was there before, aligned for TensorFlow."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        free = self._free[size]
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(size + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        # Over a memoryview, because NumPy lets a view of a view hold on to the array below both, and to that only.
        whole: np.ndarray = np.frombuffer(memory.data[start : start + size], dtype)
        weakref.finalize(whole, free.append, memory)
        return whole.reshape(shape)


def row_blocks(rows: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """So many rows at a time, at last what is left; memory of a mapped file is given back behind each block."""
    for start in range(0, len(rows), count):
        yield rows[start : start + count]
        release_pages(rows)


def release_pages(array: np.ndarray) -> None:
    """Gives back the memory that reading a mapped file has filled; the next access reads the file again.

    The system would do so itself, but only when memory runs short, and until then counts all of the file as this
    process's. Arrays in ordinary memory stay as they are.
    """
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
