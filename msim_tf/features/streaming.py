"""A waveform that comes in blocks, re-cut: into turns that suit the processor, and into blocks of
whole frames with the samples around them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np


def in_turns(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The same blocks, taken until they hold so many samples and only then handed on.

    What makes them and what uses them drive each other's code and data from the
    processor's caches, so they take long turns.

    Args:
        blocks: [n] arrays of any lengths.
        samples: length of a turn.
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
    whole, overlap = (frames - 1) * hop + 2 * margin, 2 * margin - hop
    waiting, length = [np.zeros(margin, np.float32)], margin
    for piece in itertools.chain(blocks, [np.zeros(margin)]):
        block = np.asarray(piece, np.float32)
        while length + len(block) >= whole:
            taken = whole - length
            full = joined([*waiting, block[:taken]])
            yield full
            # The next one begins inside this: a piece of many frames is cut into views, not copied.
            block = block[taken - overlap :] if taken >= overlap else joined([full[-overlap:], block[taken:]])
            waiting, length = [], 0
        waiting.append(block)
        length += len(block)
    left = 1 + (length - 2 * margin) // hop
    if left > 0:
        yield joined(waiting)[: (left - 1) * hop + 2 * margin]


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """Arrays of rows as one; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
