"""A waveform that arrives in blocks, re-cut: into runs that suit the CPU's caches, and into blocks of whole frames with
the samples around them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np


def in_turns(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The same blocks, but a whole run of them is made before its first one is handed on.

    Decoding and feature extraction evict each other's code and data from the CPU's caches when they alternate block by
    block; long runs are faster.

    Args:
        blocks: [n] arrays of any lengths.
        samples: a run ends when it holds so many; the last one may hold fewer.
    """
    waiting: list[np.ndarray] = []
    length = 0
    for block in blocks:
        waiting.append(block)
        length += len(block)
        if length >= samples:
            yield from waiting
            waiting, length = [], 0
    yield from waiting


def whole_frames(blocks: Iterable[np.ndarray], frames: int, *, hop: int, margin: int) -> Iterator[np.ndarray]:
    """Re-cuts a stream into blocks of whole frames, each with the samples around it (zeros outside the clip).

    Args:
        blocks: consecutive [n] pieces of the clip, of any lengths; copied unless float32.
        frames: frames of a block; the last one holds the rest.
        hop: samples from frame to frame.
        margin: samples that a frame needs on either side of its centre.

    Yields:
        [(frames - 1) * hop + 2 * margin] float32; a clip of n samples has 1 + n // hop frames in all.
    """
    # A block of frames spans ``whole`` samples, and begins ``overlap`` samples before the end of the one before it.
    whole, overlap = (frames - 1) * hop + 2 * margin, 2 * margin - hop

    # ``waiting`` are pieces of ``length`` samples that do not fill a block yet; silence surrounds the clip.
    waiting, length = [np.zeros(margin, np.float32)], margin
    for piece in itertools.chain(blocks, [np.zeros(margin)]):
        block = np.asarray(piece, np.float32)
        while length + len(block) >= whole:
            missing = whole - length
            full = joined([*waiting, block[:missing]])
            yield full
            # The next block begins inside this one: a piece of many frames is cut into views, not copied.
            block = block[missing - overlap :] if missing >= overlap else joined([full[-overlap:], block[missing:]])
            waiting, length = [], 0
        waiting.append(block)
        length += len(block)

    # Of the rest, the samples that fill whole frames.
    left = 1 + (length - 2 * margin) // hop
    if left > 0:
        yield joined(waiting)[: (left - 1) * hop + 2 * margin]


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """Arrays of rows as one; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
