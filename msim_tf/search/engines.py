"""Which rows can be among the nearest: the exact scan, and the interface it shares with other engines.

An engine proposes rows and ``query`` ranks them exactly, so the engine decides only how many true neighbours are seen and how long it takes.
With subspaces of length 1, sum of w_s * |q_s - x_s|^2 = const - 2 * sum of w_s * <q_s, x_s>: the query carries the weights, the stored vectors
never change, and dimensions of weight 0 are not even read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.performance import widened
from msim_tf.search.ranking import normalised
from msim_tf.search.segments import BLOCK, Rows, Segment
from msim_tf.search.threads import cores

# Rounding of float32 sums; rows this near to the last one wanted are proposed too, so that ties are settled by the exact ranking.
_MARGIN = 1e-5
# Stored coordinates are rounded to 11 bits, so a stored subspace has length 1 within 2**-11 and a distance, up to twice the weight, errs by twice as
# much either way. Where lengths are taken for 1, rows this near are proposed.
STORED_MARGIN = 4 * 2.0**-11


class Engine(Protocol):
    """What proposes rows."""

    name: str

    def top(
        self, rows: Rows, query: np.ndarray, weights: np.ndarray, count: int, *, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows that hold the ``count`` nearest, in no order; a few more than asked, fewer only where no more are allowed.

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
    if count < len(distances):
        last = np.partition(distances, count - 1)[count - 1]
        if np.isfinite(last):
            return np.flatnonzero(distances <= last + margin)
    return np.flatnonzero(np.isfinite(distances))


class ExactEngine:
    """Scores every row. Default below some 50,000 tracks, right at any size.

    Subspace-major float32 copies are held within ``memory`` bytes. If not all segments fit, those that do not are read from the float16 map, block
    by block on all cores, at about twice the time.
    """

    name = "exact"

    def __init__(self, layout: EmbeddingLayout, *, memory: int = 2**30) -> None:
        self._layout = layout
        self._memory = memory
        self._held: dict[Segment, tuple[np.ndarray, ...]] = {}

    def top(
        self, rows: Rows, query: np.ndarray, weights: np.ndarray, count: int, *, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """See ``Engine.top``; finds all of them."""
        distances = np.concatenate([self._distances(segment, query, weights) for segment in self._hold(rows)])
        if allowed is not None:
            distances[~allowed] = np.inf
        everything = len(self._held) == len(rows.segments)
        return smallest(distances, count, margin=_MARGIN if everything else STORED_MARGIN)

    def _hold(self, rows: Rows) -> Iterator[Segment]:
        """The segments; those that fit are copied to memory, those that are gone are dropped."""
        self._held = {segment: self._held[segment] for segment in rows.segments if segment in self._held}
        room = self._memory - sum(column.nbytes for columns in self._held.values() for column in columns)
        for segment in rows.segments:
            needed = 4 * segment.vectors.size
            if segment not in self._held and needed <= room:
                self._held[segment] = subspace_major(segment.vectors, self._layout)
                room -= needed
            yield segment

    def _distances(self, segment: Segment, query: np.ndarray, weights: np.ndarray) -> np.ndarray:
        held = self._held.get(segment)  # once: another thread's query may replace the dict
        if held is not None:
            return _weighted(held, query, weights, self._layout)
        return weighted_distances(segment.vectors, query, weights, self._layout)

    def forget(self) -> None:
        """See ``Engine.forget``."""
        self._held = {}

    def to_json(self) -> dict[str, Any]:
        """See ``Engine.to_json``."""
        return {"name": self.name}


def subspace_major(vectors: np.ndarray, layout: EmbeddingLayout) -> tuple[np.ndarray, ...]:
    """One contiguous float32 matrix per dimension, rows of length 1.

    Args:
        vectors: [n, size] float16.
        layout: the subspaces.

    Returns:
        [n, width] float32 for each dimension.
    """
    columns = tuple(np.empty((len(vectors), width), np.float32) for width in layout.widths)
    for start in range(0, len(vectors), BLOCK):
        unit = normalised(vectors[start : start + BLOCK], layout)
        for column, part in zip(columns, layout.slices.values()):
            column[start : start + BLOCK] = unit[:, part]
    return columns


def weighted_distances(
    vectors: np.ndarray, query: np.ndarray, weights: np.ndarray, layout: EmbeddingLayout
) -> np.ndarray:
    """Weighted distances from stored vectors, up to a constant and within ``STORED_MARGIN``; only dimensions that weigh are read.

    Args:
        vectors: [n, size] float16, memory-mapped or not.
        query: [size] float32, normalised.
        weights: [dimensions].
        layout: the subspaces.

    Returns:
        [n] float32.
    """
    weighted, spans = opposed(query, weights, layout), weighing_spans(weights, layout)
    starts = range(0, len(vectors), BLOCK)

    def block(start: int) -> np.ndarray:
        distances = np.zeros(len(vectors[start : start + BLOCK]), np.float32)
        for span in spans:
            distances += widened(vectors[start : start + BLOCK, span]) @ weighted[span]
        return distances

    return np.concatenate([np.zeros(0, np.float32), *cores().map(block, starts)])


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


def _weighted(
    columns: tuple[np.ndarray, ...], query: np.ndarray, weights: np.ndarray, layout: EmbeddingLayout
) -> np.ndarray:
    distances = np.zeros(len(columns[0]), np.float32)
    for column, weight, part in zip(columns, weights, layout.slices.values()):
        if weight:
            distances -= column @ (query[part] * np.float32(2 * weight))
    return distances
