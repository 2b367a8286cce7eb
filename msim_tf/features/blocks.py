"""A waveform that comes in blocks, re-cut: into turns that suit the processor, and into blocks of whole frames with the samples around them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np


def in_turns(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The same blocks, taken until they hold so many samples and only then handed on.

    What makes them and what uses them drive each other's code and data from the processor's caches, so they take long turns.

    Args:
        blocks: [n] arrays of any lengths.
        samples: length of a turn.
    """
    taken: list[np.ndarray] = []
    length = 0
    for block in blocks:
        taken.append(block)
        length += len(block)
        if length >= samples:
            yield from taken
            taken, length = [], 0
    yield from taken


def whole_frames(blocks: Iterable[np.ndarray], frames: int, *, hop: int, margin: int) -> Iterator[np.ndarray]:
    """Re-cuts a stream into blocks of whole frames, each with the samples around it (zeros outside the clip).

    Args:
        blocks: consecutive [n] float32 pieces of the clip, of any lengths.
        frames: frames of a block; the last one holds the rest.
        hop: samples from frame to frame.
        margin: samples that a frame needs on either side of its centre.

    Yields:
        [(frames - 1) * hop + 2 * margin] float32; a clip of n samples has 1 + n // hop frames in all.
    """
    whole = (frames - 1) * hop + 2 * margin
    # Every block has memory of its own, which TensorFlow may use without a copy.
    waiting, length = np.empty(whole, np.float32), 0
    for block in itertools.chain([np.zeros(margin, np.float32)], blocks, [np.zeros(margin, np.float32)]):
        done = 0
        while done < len(block):
            taken = min(len(block) - done, whole - length)
            waiting[length : length + taken] = block[done : done + taken]
            done, length = done + taken, length + taken
            if length == whole:
                yield waiting
                rest = waiting[frames * hop :]
                waiting, length = np.empty(whole, np.float32), len(rest)
                waiting[:length] = rest
    left = 1 + (length - 2 * margin) // hop
    if left > 0:
        yield waiting[: (left - 1) * hop + 2 * margin]
