"""How deep must an approximate engine look? Measured on the library's own vectors.

Tracks of the library are the queries, each of them left out of its own answer. For four kinds of weights (all equal,
drawn from the flat Dirichlet distribution, one dimension alone, Dirichlet with random signs) the true neighbours come
from an exact scan, and their places in the approximate order tell the depth. Depths are chosen on one half of the
queries; the recall that is reported is of the other half.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.search.ranking import normalised
from msim_tf.search.vectors import Rows

WEIGHT_KINDS = ("uniform", "dirichlet", "one-dimension", "signed")
ALONE = "alone"
# Share of true neighbours that the chosen depth must reach on its own half, above the target for the other.
_SAFETY = 0.997
# Times that depth, for queries from outside, which lie between the library's tracks and are harder than these.
_HEADROOM = 1.5
_SHALLOWEST = 64

# rows, at most ``depth``, in approximate order, for a weighted query [size]
Order = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """Depths and what they reach.

    Attributes:
        depths: kind of weights -> rows to look at for ``k`` hits; ``ALONE`` where an engine has an order of its own for
            single dimensions.
        recall: kind of weights, or ``ALONE`` -> share of the true ``k`` nearest that are found, on queries that did not
            choose the depth.
        k: hits per query.
        queries: queries per kind behind each recall.
        rows: size of the library then.
    """

    depths: dict[str, int]
    recall: dict[str, float]
    k: int
    queries: int
    rows: int

    def depth(self, weights: np.ndarray, count: int, *, alone: bool = False) -> int:
        """Rows to look at for ``count`` hits under ``weights`` (magnitudes sum to 1).

        Between the three kinds of positive weights the logarithm of the depth is interpolated over the largest weight:
        1/n where all are equal, sum(1/i)/n on average under flat Dirichlet weights, 1 for a single dimension.
        """
        if alone:
            return round(self.depths[ALONE] * max(1.0, count / self.k))
        depth = math.exp(np.interp(np.abs(weights).max(), _anchors(len(weights)), self._log_depths))
        if (weights < 0).any():
            depth = max(depth, self.depths["signed"])
        return round(depth * max(1.0, count / self.k))

    @cached_property
    def _log_depths(self) -> np.ndarray:
        """Of the kinds of positive weights, the deeper the more one of them weighs."""
        return np.log(np.maximum.accumulate([self.depths[kind] for kind in WEIGHT_KINDS[:3]]))

    def to_json(self) -> dict[str, Any]:
        """The calibration as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Calibration:
        """The inverse of ``to_json``."""
        return cls(**value)


@cache
def _anchors(dimensions: int) -> tuple[float, ...]:
    """The largest weight where all are equal, on average under Dirichlet weights, and of a single dimension."""
    # The longest of n pieces of a stick that is broken at random is (1 + 1/2 + ... + 1/n) / n of it on average (random
    # division of an interval; David and Nagaraja, Order Statistics).
    return 1 / dimensions, sum(1 / i for i in range(1, dimensions + 1)) / dimensions, 1.0


def sample_weights(kind: str, number: int, dimensions: int, rng: np.random.Generator) -> np.ndarray:
    """Weights of one kind.

    Returns:
        [number, dimensions] float64, magnitudes summing to 1 in every row.
    """
    if kind == "uniform":
        return np.full((number, dimensions), 1.0 / dimensions)
    if kind == "one-dimension":
        return np.eye(dimensions)[np.arange(number) % dimensions]
    weights = rng.dirichlet(np.ones(dimensions), number)
    return weights * rng.choice([-1.0, 1.0], weights.shape) if kind == "signed" else weights


def calibrate(
    rows: Rows,
    layout: EmbeddingLayout,
    order: Order,
    *,
    alone: Order | None = None,
    k: int = 10,
    queries: int = 240,
    target: float = 0.99,
    deepest: int = 2**15,
    seed: int = 0,
) -> Calibration:
    """The depths at which ``order`` reaches ``target`` recall, and what they reach.

    Args:
        rows: the library.
        layout: its subspaces.
        order: the approximate order: for a weighted query [size] and a depth, at most so many rows, best first.
        alone: the order that is taken for a single dimension, if that is another.
        k: hits per query.
        queries: queries per kind of weights, half of them to choose the depth.
        target: recall to reach for every kind.
        deepest: no depth is greater; if the target needs more, ``Calibration.recall`` shows it.
        seed: of the sample.
    """
    # The queries are tracks of the library, [n, size]; every kind of weights is asked of all of them.
    rng = np.random.default_rng(seed)
    own = rng.choice(len(rows), min(queries, len(rows)), replace=False)
    vectors = normalised(rows.take(own), layout)
    weights = {kind: sample_weights(kind, len(own), len(layout.names), rng) for kind in WEIGHT_KINDS}
    truth = true_neighbours(rows, layout, vectors, weights, own, min(k, len(rows) - 1))

    # Per kind of weights the place of each true neighbour in the approximate order, [n, k]. Half of the queries choose
    # the depths.
    choosing = np.arange(len(own)) % (2 * len(layout.names)) < len(layout.names)  # whole rounds of single dimensions
    deepest = min(deepest, len(rows))
    places = {kind: _places(order, vectors, weights[kind], truth[kind], deepest, layout) for kind in WEIGHT_KINDS}
    if alone is not None:
        single = "one-dimension"
        weights[ALONE] = weights[single]
        places[ALONE] = _places(alone, vectors, weights[single], truth[single], deepest, layout)

    # All but a few of the true neighbours lie within the depth, which some headroom is added to.
    depths = {}
    for kind, place in places.items():
        deep = math.ceil(_HEADROOM * (np.quantile(place[choosing], _SAFETY, method="higher") + 1))
        depths[kind] = int(np.clip(deep, min(_SHALLOWEST, deepest), deepest))

    # The other half measures the recall that these depths reach; where it falls short, the depth is doubled.
    calibration = Calibration(depths, {}, k, int((~choosing).sum()), len(rows))
    while True:
        recall = {}
        for kind, place in places.items():
            # [n] the depth that each query looks at under its weights; of its k true neighbours those within it count.
            own_weights = weights[kind][~choosing]
            query_depths = np.array([calibration.depth(row, k, alone=kind == ALONE) for row in own_weights])
            recall[kind] = float((place[~choosing] < query_depths[:, None]).mean())
        depths = calibration.depths
        short = [kind for kind in places if recall[kind] < target and depths[kind] < deepest]
        if not short:
            return replace(calibration, recall=recall)
        calibration = replace(calibration, depths=depths | {kind: min(deepest, 2 * depths[kind]) for kind in short})


def true_neighbours(
    rows: Rows,
    layout: EmbeddingLayout,
    queries: np.ndarray,
    weights: dict[str, np.ndarray],
    own: np.ndarray,
    k: int,
) -> dict[str, np.ndarray]:
    """The ``k`` nearest of every query by an exact scan, one pass over the library for all kinds of weights.

    Args:
        rows: the library.
        layout: its subspaces.
        queries: [n, size] float32, normalised.
        weights: kind -> [n, dimensions].
        own: [n] rows of the queries, left out.
        k: how many.

    Returns:
        kind -> [n, k] rows, in no order.
    """
    best = {kind: np.full((len(queries), k), -np.inf, np.float32) for kind in weights}
    neighbours = {kind: np.zeros((len(queries), k), np.intp) for kind in weights}
    for start, block in rows.blocks():
        # [dimensions, n, block] inner products of unit subspaces: the greater, the nearer. A query is not its own
        # neighbour; NaN keeps it last under negative weights, too.
        unit = normalised(block, layout)
        similar = np.stack([queries[:, part] @ unit[:, part].T for part in layout.slices.values()])
        inside = (own >= start) & (own < start + len(block))
        similar[:, inside, own[inside] - start] = np.nan
        for kind, chosen in weights.items():
            # [n, block] weighted sums, beside the [n, k] best so far: the best k of both stay.
            scores = np.einsum("dnm,nd->nm", similar, chosen.astype(np.float32))
            scores = np.concatenate([best[kind], np.nan_to_num(scores, nan=-np.inf)], axis=1)
            number = np.arange(start, start + len(block))
            candidates = np.concatenate([neighbours[kind], np.broadcast_to(number, (len(queries), len(block)))], axis=1)
            keep = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            best[kind] = np.take_along_axis(scores, keep, 1)
            neighbours[kind] = np.take_along_axis(candidates, keep, 1)
    return neighbours


def _places(
    order: Order, vectors: np.ndarray, weights: np.ndarray, truth: np.ndarray, deepest: int, layout: EmbeddingLayout
) -> np.ndarray:
    """Place of each true neighbour in the approximate order; ``deepest`` where it is not there: [n, k] int."""
    # Per query the order is inverted: row -> its place, ``deepest`` for rows that are not in it.
    places = np.full(truth.shape, deepest)
    for query in range(len(vectors)):
        weighted = vectors[query] * np.repeat(weights[query], layout.widths).astype(np.float32)
        rows = order(weighted, deepest)
        place = np.full(rows.max() + 1, deepest)
        place[rows[::-1]] = np.arange(len(rows))[::-1]
        # [k] true neighbours; rows beyond the greatest one proposed are not in the order.
        within = truth[query] < len(place)
        places[query, within] = place[truth[query, within]]
    return places
