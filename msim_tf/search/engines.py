"""Which rows can be among the nearest: the exact scan, and the interface it shares with other engines.

An engine proposes rows and ``query`` ranks them exactly, so the engine decides only how many true neighbours are seen
and how long it takes. With subspaces of length 1, sum of w_s * |q_s - x_s|^2 = const - 2 * sum of w_s * <q_s, x_s>: the
query carries the weights, the stored vectors never change, and dimensions of weight 0 are not even read.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.performance import widened
from msim_tf.search.ranking import normalised
from msim_tf.search.threads import cores
from msim_tf.search.vectors import Rows

# Rounding of float32 sums; rows this near to the last one wanted are proposed too: the exact ranking settles ties.
_MARGIN = 1e-5
# Stored coordinates are rounded to 11 bits, so a stored subspace has length 1 within 2**-11 and a distance, up to twice
# the weight, errs by twice as much either way. Where lengths are taken for 1, rows this near are proposed.
STORED_MARGIN = 4 * 2.0**-11


class Engine(Protocol):
    """What proposes rows."""

    name: str

    def top(
        self, rows: Rows, query: np.ndarray, weights: np.ndarray, count: int, *, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows that hold the ``count`` nearest, in no order: a few more than that, or fewer if no more are allowed.

        Args:
            rows: everything stored.
            query: [size] float32, normalised.
            weights: [dimensions], relative, may be 0 or negative.
            count: how many are wanted, >= 1.
            allowed: [rows] bool; None allows all.
        """
        ...

    def forget(self) -> None:
        """Rows were renumbered: drops what was derived from the old ones."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What the index should remember of the engine."""
        ...


def smallest(distances: np.ndarray, count: int, *, margin: float = _MARGIN) -> np.ndarray:
    """Positions of the ``count`` smallest finite distances, and of all that equal the last of them within rounding.

    Args:
        distances: [n] float32; infinity means not allowed.
        count: how many.
        margin: what is equal.

    Returns:
        [>= min(count, finite)] int, in ascending position.
    """
    # A partial sort finds the count-th smallest in linear time; everything up to it and its ties is kept.
    if count < len(distances):
        last = np.partition(distances, count - 1)[count - 1]
        if np.isfinite(last):
            return np.flatnonzero(distances <= last + margin)
    return np.flatnonzero(np.isfinite(distances))


class ExactEngine:
    """Scores every row. Default below some 50,000 tracks, right at any size.

    The first rows are copied to memory, dimension by dimension in float32, as many as ``memory`` bytes take. The others
    are read from the float16 file, block by block on all cores, at about twice the time.
    """

    name = "exact"

    def __init__(self, layout: EmbeddingLayout, *, memory: int = 2**30) -> None:
        self._layout = layout
        self._most_copied = memory // (4 * layout.size)
        self._copies: tuple[tuple[np.ndarray, ...], ...] = ()  # of consecutive rows: [n, width] float32 per dimension

    def top(
        self, rows: Rows, query: np.ndarray, weights: np.ndarray, count: int, *, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """See ``Engine.top``; finds all of them."""
        # [n] distances, up to a constant, of the rows that were copied: a matrix-vector product per copy and dimension.
        copies = self._copied(rows)
        copied = sum(len(columns[0]) for columns in copies)
        parts: list[np.ndarray] = []
        for columns in copies:
            sums = np.zeros(len(columns[0]), np.float32)
            for column, weight, part in zip(columns, weights, self._layout.slices.values()):
                if weight:
                    # -2 * w_s * <q_s, x_s>: [n, width] @ [width] -> [n]. Dimensions of weight 0 are not read.
                    sums -= column @ (query[part] * np.float32(2 * weight))
            parts.append(sums)

        # Blocks that were not copied are read and multiplied on all cores.
        weighted, spans = opposed(query, weights, self._layout), weighing_spans(weights, self._layout)
        blocks = (block for _, block in rows.blocks(copied))
        parts += cores().map(lambda block: _stored_distances(block, weighted, spans), blocks)

        # [rows] in the order of the rows; what is not allowed is infinitely far.
        distances = np.concatenate([np.zeros(0, np.float32), *parts])
        if allowed is not None:
            distances[~allowed] = np.inf
        return smallest(distances, count, margin=_MARGIN if copied == len(rows) else STORED_MARGIN)

    def _copied(self, rows: Rows) -> tuple[tuple[np.ndarray, ...], ...]:
        """The copies, after those rows were added to them that are new and have room."""
        copies = self._copies  # once: another thread's query may replace them
        first, last = sum(len(columns[0]) for columns in copies), min(len(rows), self._most_copied)
        if first < last:
            added = subspace_major(rows, first, last, self._layout)
            # A library that grows often would end in many small copies: join those that are not greater than what
            # follows.
            while copies and len(copies[-1][0]) <= len(added[0]):
                added = tuple(np.concatenate(pair) for pair in zip(copies[-1], added))
                copies = copies[:-1]
            self._copies = copies = (*copies, added)
        return copies

    def forget(self) -> None:
        """See ``Engine.forget``."""
        self._copies = ()

    def to_json(self) -> dict[str, Any]:
        """See ``Engine.to_json``."""
        return {"name": self.name}


def subspace_major(rows: Rows, first: int, last: int, layout: EmbeddingLayout) -> tuple[np.ndarray, ...]:
    """Rows ``first`` to ``last`` as one contiguous float32 matrix per dimension, each row of length 1.

    Returns:
        [last - first, width] float32 for each dimension.
    """
    # A dimension of weight 0 then costs no memory traffic at all, and a product reads memory in its order.
    columns = tuple(np.empty((last - first, width), np.float32) for width in layout.widths)
    for start, block in rows.blocks(first):
        # In half precision a subspace's length is off by up to 2**-11. Made 1 again, copies need only float32's margin.
        unit = normalised(block[: max(0, last - start)], layout)
        for column, part in zip(columns, layout.slices.values()):
            column[start - first : start - first + len(unit)] = unit[:, part]
    return columns


def _stored_distances(block: np.ndarray, weighted: np.ndarray, spans: list[slice]) -> np.ndarray:
    """Weighted distances of stored vectors [n, size] float16: [n] float32, up to a constant and ``STORED_MARGIN``.

    Only coordinates of dimensions that weigh are read.
    """
    distances = np.zeros(len(block), np.float32)
    for span in spans:
        distances += widened(block[:, span]) @ weighted[span]
    return distances


def opposed(query: np.ndarray, weights: np.ndarray, layout: EmbeddingLayout) -> np.ndarray:
    """What a stored vector is multiplied with to get its weighted distance, up to a constant: [size] float32."""
    return query * np.repeat(-2 * weights, layout.widths).astype(np.float32)


def weighing_spans(weights: np.ndarray, layout: EmbeddingLayout) -> list[slice]:
    """The coordinates of all dimensions that weigh, neighbours in one slice."""
    spans: list[slice] = []
    for weight, part in zip(weights.tolist(), layout.slices.values()):
        if weight and spans and spans[-1].stop == part.start:
            spans[-1] = slice(spans[-1].start, part.stop)
        elif weight:
            spans.append(part)
    return spans
