"""How well vectors predict triplets.

Conventions: a triplet is right when its positive is strictly nearer to the anchor than its negative; a tie is wrong.
Vectors are compared block by block, and many weightings of the subspaces at once: a million triplets need no more
memory than their outcomes. Systems that are to be compared are scored on the same triplets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.embeddings import Embeddings, shortlist
from msim_tf.errors import InputError
from msim_tf.evaluate.agreement import query_interval
from msim_tf.evaluate.statistics import Interval
from msim_tf.evaluate.triplets import Dropped, Triplets, matched, scorable

METRICS = ("euclidean", "cosine")
_BLOCK = 4096


def triplet_score(anchor_positive: np.ndarray, anchor_negative: np.ndarray) -> float:
    """Share of triplets whose positive is nearer to the anchor than the negative.

    A tie counts as wrong (paper, section 4.1: "smaller than").

    Args:
        anchor_positive: [num_triplets] float, distances >= 0.
        anchor_negative: [num_triplets] float, same order.

    Returns:
        A score in [0, 1]; 0.5 is chance.

    Raises:
        InputError: if the shapes differ or there is no triplet.
    """
    anchor_positive, anchor_negative = np.asarray(anchor_positive), np.asarray(anchor_negative)
    if anchor_positive.shape != anchor_negative.shape or anchor_positive.ndim != 1:
        raise InputError(f"distances of shapes {anchor_positive.shape} and {anchor_negative.shape}, expected [n] twice")
    if not anchor_positive.size:
        raise InputError("no triplet is left to score; see what was dropped and why")
    return float(np.mean(anchor_positive < anchor_negative))


def weight_rows(layout: EmbeddingLayout, weights: Mapping[str, float]) -> np.ndarray:
    """Weights of the dimensions as one row for ``triplet_distances``; a dimension not named weighs 0.

    Returns:
        [1, d] float.

    Raises:
        InputError: if a name is not in the layout, a weight is negative, or all are 0.
    """
    unknown = [name for name in weights if name not in layout.names]
    if unknown:
        raise InputError(f"dimension {unknown[0]!r} is not in this embedding, which has {', '.join(layout.names)}")
    row = np.array([[float(weights.get(name, 0.0)) for name in layout.names]])
    if not np.isfinite(row).all() or row.min() < 0 or not row.any():
        raise InputError(f"weights {dict(weights)}: expected numbers >= 0, at least one above 0")
    return row


def triplet_distances(
    embeddings: Embeddings, rows: np.ndarray, weights: np.ndarray, *, metric: str = "euclidean"
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Distances of all triplets under several weightings of the subspaces, from one look at the vectors.

    Args:
        embeddings: vectors with ``d`` parts.
        rows: [n, 4] rows of anchor, positive, anchor of the far pair, negative; see ``triplet_rows``.
        weights: [s, d] float >= 0; a mask is a row of zeros and ones. A weight multiplies a squared distance.
        metric: "euclidean" (squared here; the order is the same) or "cosine" (1 - cosine of the weighted vectors, 1 if
            one has no length).

    Yields:
        Which triplets, then [s, block] distances anchor-positive and anchor-negative, float64.

    Raises:
        InputError: if the metric is unknown.
    """
    if metric not in METRICS:
        raise InputError(f"metric {metric!r}, expected one of {', '.join(METRICS)}")
    distance = _euclidean if metric == "euclidean" else _cosine
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(rows)))
        # Four gathers of [block, size]; then [s, d] weights x [d, block] parts -> [s, block].
        anchor, positive, far_anchor, negative = (
            embeddings.embeddings[rows[block, column]].astype(np.float64) for column in range(4)
        )
        yield (
            block,
            distance(anchor, positive, embeddings.parts, weights),
            distance(far_anchor, negative, embeddings.parts, weights),
        )


def _products(x: np.ndarray, y: np.ndarray, parts: Sequence[slice]) -> np.ndarray:
    """Inner products inside each part: [d, block]."""
    return np.stack([np.einsum("ij,ij->i", x[:, part], y[:, part]) for part in parts])


def _euclidean(x: np.ndarray, y: np.ndarray, parts: Sequence[slice], weights: np.ndarray) -> np.ndarray:
    """Weighted squared distances, sum over parts of w * |x - y|^2: [s, block] from [block, size]."""
    difference = x - y
    return weights @ _products(difference, difference, parts)


def _cosine(x: np.ndarray, y: np.ndarray, parts: Sequence[slice], weights: np.ndarray) -> np.ndarray:
    """1 - cosine of vectors whose parts are scaled by sqrt(w), sum w <x, y> / (|x|_w * |y|_w): [s, block]."""
    length = np.sqrt((weights @ _products(x, x, parts)) * (weights @ _products(y, y, parts)))
    inner = weights @ _products(x, y, parts)
    return 1.0 - np.divide(inner, length, out=np.zeros_like(inner), where=length > 0)


def triplet_outcomes(
    embeddings: Embeddings, rows: np.ndarray, weights: np.ndarray, *, metric: str = "euclidean"
) -> np.ndarray:
    """Which triplets each weighting predicts; arguments as ``triplet_distances``.

    Returns:
        [s, n] bool.
    """
    outcomes = np.empty((len(weights), len(rows)), bool)
    for block, near, far in triplet_distances(embeddings, rows, weights, metric=metric):
        outcomes[:, block] = near < far
    return outcomes


@dataclass(frozen=True, eq=False)
class TripletResult:
    """How one system did on one set of triplets.

    Attributes:
        name: the system.
        triplets: those scored, in order.
        near: [n] distance anchor to positive.
        far: [n] distance anchor to negative.
        metric: the distance.
        dropped: what could not be scored.
    """

    name: str
    triplets: Triplets
    near: np.ndarray
    far: np.ndarray
    metric: str
    dropped: Dropped

    @property
    def correct(self) -> np.ndarray:
        """[n] bool, positive strictly nearer."""
        return self.near < self.far

    @property
    def score(self) -> float:
        """The triplet score."""
        return triplet_score(self.near, self.far)

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the score over whole queries: triplets that share their anchor are not independent."""
        return query_interval(self.correct, self.triplets)

    def lines(self) -> list[str]:
        """The result in words: score, interval, N, filters, what was dropped."""
        filters = ", ".join(self.triplets.filters) or "no filter"
        head = (
            f"{self.name}: triplet score {self.score:.4f} "
            f"(95 % {self.interval.low:.4f} to {self.interval.high:.4f} over queries), "
            f"N = {len(self.correct)}, {self.metric}, {self.triplets.name}, {filters}"
        )
        return [head, *self.dropped.lines()]


def in_words_of(triplets: Triplets, system: Embeddings) -> Embeddings:
    """The vectors that the triplets need, under the names that the triplets use.

    Systems name the same track differently ("TRABC", "TRABC.mp3"); after this all of them can be scored together.

    Raises:
        InputError: if the system has a vector for none of them.
    """
    # Name in the triplets -> name in the file; the vectors move along, the same one under two names if need be.
    names = matched(triplets.identifiers, system.identifiers, paths=triplets.paths)
    if not names:
        raise InputError(
            f"{system.name}: no vector for any of the {len(triplets.identifiers)} identifiers of {triplets.name} "
            f"(it needs {shortlist(triplets.identifiers[:2])}; the vectors are of {shortlist(system.identifiers[:2])})"
        )
    rows = system.rows(names.values())
    return Embeddings(system.name, tuple(names), system.embeddings[rows], system.layout, system.meta)


def score_systems(
    triplets: Triplets,
    systems: Sequence[Embeddings],
    *,
    metric: str = "euclidean",
    weights: Mapping[str, float] | None = None,
) -> list[TripletResult]:
    """Scores every system on the same triplets: those that all of them have vectors for, so that results can be paired.

    Args:
        triplets: any reading, already filtered by agreement.
        systems: at least one.
        metric: see ``triplet_distances``.
        weights: weight of each dimension, for systems with subspaces; None weighs all coordinates 1.

    Raises:
        InputError: if two systems share a name, or no triplet is left.
    """
    names = [system.name for system in systems]
    if not systems or len(set(names)) < len(names):
        raise InputError(f"systems {names}: expected at least one, each under its own name")
    # One missing vector drops a triplet for all systems: only then are their outcomes pairs.
    common = set(systems[0].identifiers).intersection(*(system.identifiers for system in systems[1:]))
    kept, dropped = scorable(triplets, common)
    if not len(kept):
        raise InputError(
            f"{triplets.name}: no triplet is left to score; {'; '.join(dropped.lines(shown=10)) or 'the file has none'}"
        )

    # A single weighting, [1, d], over the same code as the many of Table 2; distances are [n].
    results = []
    for system in systems:
        row = np.ones((1, len(system.parts)))
        if weights is not None:
            if system.layout is None:
                raise InputError(f"{system.name} has no subspaces to weigh; leave out the weights")
            row = weight_rows(system.layout, weights)
        near, far = np.empty(len(kept)), np.empty(len(kept))
        for block, block_near, block_far in triplet_distances(system, triplet_rows(kept, system), row, metric=metric):
            near[block], far[block] = block_near[0], block_far[0]
        if metric == "euclidean":  # squared until here
            near, far = np.sqrt(near), np.sqrt(far)
        results.append(TripletResult(system.name, kept, near, far, metric, dropped))
    return results


def triplet_rows(triplets: Triplets, system: Embeddings) -> np.ndarray:
    """Rows of anchor, positive, anchor of the far pair and negative in ``system``, [n, 4] int; all must be there."""
    columns = (triplets.anchor, triplets.positive, triplets.far_anchor or triplets.anchor, triplets.negative)
    return np.stack([system.rows(names) for names in columns], axis=1)
