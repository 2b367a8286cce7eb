"""Triplets and how well vectors predict them.

A triplet is (anchor, positive, negative): listeners found the positive nearer to the anchor. Conventions: identifiers are text; a *clip* of
a track has the identifier ``<track>@<start in seconds>``, so both readings of Dim-Sim (exact 3 s clips, whole-track mean) are the same
computation on other identifiers. Distances are compared block by block: a million triplets need no more memory than their outcomes.
A triplet that cannot be scored is never an error: it is dropped, counted, and its reason kept.

Does not read files (``triplet_files``) and does not decide significance (``statistics``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.evaluate.embeddings import Embeddings
from msim_tf.evaluate.statistics import Interval, wilson_interval

METRICS = ("euclidean", "cosine")
_BLOCK = 4096


@dataclass(frozen=True)
class Clip:
    """What must be embedded for one member of a triplet: ``seconds`` of ``track`` from ``start`` (None: all of it)."""

    identifier: str
    track: str
    start: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Dropped:
    """What was left out and why.

    Attributes:
        reasons: reason -> ids of the triplets dropped for it.
        missing: identifiers without a vector, each once.
    """

    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def __add__(self, other: Dropped) -> Dropped:
        reasons = dict(self.reasons)
        for reason, triplet_ids in other.reasons.items():
            reasons[reason] = reasons.get(reason, ()) + tuple(triplet_ids)
        return Dropped(reasons, tuple(dict.fromkeys(self.missing + other.missing)))

    @property
    def count(self) -> int:
        """Triplets dropped, all reasons together."""
        return sum(len(triplet_ids) for triplet_ids in self.reasons.values())

    def lines(self) -> list[str]:
        """One line per reason with its count; then every identifier without a vector."""
        lines = [f"dropped {len(ids)}: {reason}" for reason, ids in self.reasons.items() if ids]
        if self.missing:
            lines.append(f"{len(self.missing)} without a vector: {' '.join(self.missing)}")
        return lines


@dataclass(frozen=True, eq=False)
class Triplets:
    """Triplets in the order of their file.

    Attributes:
        name: where they are from, for tables.
        triplet_ids: [n], unique.
        anchor: [n] identifiers.
        positive: [n] identifiers, what most listeners found nearer to the anchor.
        negative: [n] identifiers.
        agreement: [n] float, share of the votes for the positive, in (0.5, 1]; NaN where the file tells only the outcome.
        starts: [n, 3] seconds of anchor, positive, negative in their tracks, or None.
        clip_seconds: length of the clips that listeners heard, or None.
        exact_clips: whether the identifiers are those of clips (``clip_reading``) rather than of tracks.
        filters: what was applied so far, for the tables.
    """

    name: str
    triplet_ids: tuple[str, ...]
    anchor: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    agreement: np.ndarray
    starts: np.ndarray | None = None
    clip_seconds: float | None = None
    exact_clips: bool = False
    filters: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.triplet_ids)

    def take(self, keep: np.ndarray, *, note: str | None = None) -> Triplets:
        """The triplets at ``keep`` ([n] bool), remembering ``note`` among the filters."""
        rows = np.flatnonzero(keep)
        return replace(
            self,
            triplet_ids=tuple(self.triplet_ids[row] for row in rows),
            anchor=tuple(self.anchor[row] for row in rows),
            positive=tuple(self.positive[row] for row in rows),
            negative=tuple(self.negative[row] for row in rows),
            agreement=self.agreement[rows],
            starts=None if self.starts is None else self.starts[rows],
            filters=self.filters + ((note,) if note else ()),
        )

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Every identifier that occurs, once."""
        return tuple(dict.fromkeys(self.anchor + self.positive + self.negative))

    def clips(self) -> tuple[Clip, ...]:
        """What must be embedded before these triplets can be scored: each track, or after ``clip_reading`` each clip, once."""
        if self.starts is None or not self.exact_clips:
            return tuple(Clip(identifier, identifier) for identifier in self.identifiers)
        clips: dict[str, Clip] = {}
        for column, names in enumerate((self.anchor, self.positive, self.negative)):
            for name, start in zip(names, self.starts[:, column]):
                track = name.removesuffix(clip_suffix(float(start)))
                clips[name] = Clip(name, track, float(start), self.clip_seconds)
        return tuple(clips.values())


def clip_suffix(start: float) -> str:
    """What turns a track's identifier into the identifier of its clip at ``start`` seconds: ``@12.5``."""
    return f"@{start:.3f}".rstrip("0").rstrip(".")


def clip_reading(triplets: Triplets) -> Triplets:
    """The same triplets about their exact clips: every identifier becomes ``<track>@<start>``.

    Raises:
        InputError: if the file told no starts.
    """
    if triplets.starts is None:
        raise InputError(f"{triplets.name}: no start columns, so there are no clips to compare; use whole tracks")
    if triplets.exact_clips:
        return triplets
    suffixes = [[clip_suffix(float(start)) for start in row] for row in triplets.starts]
    return replace(
        triplets,
        anchor=tuple(name + row[0] for name, row in zip(triplets.anchor, suffixes)),
        positive=tuple(name + row[1] for name, row in zip(triplets.positive, suffixes)),
        negative=tuple(name + row[2] for name, row in zip(triplets.negative, suffixes)),
        exact_clips=True,
        filters=(*triplets.filters, "exact clips"),
    )


def agreeing(triplets: Triplets, threshold: float) -> tuple[Triplets, Dropped]:
    """Keeps triplets on which at least ``threshold`` of the listeners agree (paper, section 4.1: 0.9).

    A file that tells only outcomes (Dim-Sim "clean") has no agreement left to filter by and passes whole.

    Raises:
        InputError: if the threshold is not in [0.5, 1].
    """
    if not 0.5 <= threshold <= 1:
        raise InputError(f"agreement threshold is {threshold}, expected a share in [0.5, 1]")
    # A share such as 9/10 must pass 0.9 whatever its rounding.
    keep = np.isnan(triplets.agreement) | (triplets.agreement >= threshold - 1e-9)
    reason = f"agreement below {threshold:.0%}"
    note = f"agreement >= {threshold:.0%}"
    if len(triplets) and np.isnan(triplets.agreement).all():
        note = "as published (the file tells outcomes, not votes)"
    return triplets.take(keep, note=note), _dropped(triplets, {reason: ~keep})


def scorable(triplets: Triplets, known: Iterable[str]) -> tuple[Triplets, Dropped]:
    """Keeps triplets of three different identifiers that all have a vector.

    Args:
        triplets: any reading.
        known: identifiers with a vector.
    """
    known = set(known)
    members = list(zip(triplets.anchor, triplets.positive, triplets.negative))
    twice = np.array([len(set(member)) < 3 for member in members], bool)
    without = np.array([not known.issuperset(member) for member in members], bool) & ~twice
    missing = tuple(identifier for identifier in triplets.identifiers if identifier not in known)
    dropped = _dropped(triplets, {"same track twice": twice, "audio or vector missing": without})
    return triplets.take(~twice & ~without), replace(dropped, missing=missing)


def _dropped(triplets: Triplets, masks: Mapping[str, np.ndarray]) -> Dropped:
    ids = {reason: tuple(triplets.triplet_ids[row] for row in np.flatnonzero(mask)) for reason, mask in masks.items()}
    return Dropped({reason: names for reason, names in ids.items() if names})


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
        rows: [n, 3] rows of anchor, positive, negative.
        weights: [s, d] float >= 0; a mask is a row of zeros and ones. A weight multiplies a subspace's squared distance.
        metric: "euclidean" (squared here; the order is the same) or "cosine" (1 - cosine of the weighted vectors, 1 where one has no length).

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
        anchor, positive, negative = (
            embeddings.embeddings[rows[block, column]].astype(np.float64) for column in range(3)
        )
        yield (
            block,
            distance(anchor, positive, embeddings.parts, weights),
            distance(anchor, negative, embeddings.parts, weights),
        )


def _products(x: np.ndarray, y: np.ndarray, parts: Sequence[slice]) -> np.ndarray:
    """Inner products inside each part: [d, block]."""
    return np.stack([np.einsum("ij,ij->i", x[:, part], y[:, part]) for part in parts])


def _euclidean(x: np.ndarray, y: np.ndarray, parts: Sequence[slice], weights: np.ndarray) -> np.ndarray:
    difference = x - y
    return weights @ _products(difference, difference, parts)


def _cosine(x: np.ndarray, y: np.ndarray, parts: Sequence[slice], weights: np.ndarray) -> np.ndarray:
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
        """Wilson's 95 % interval of the score."""
        return wilson_interval(int(self.correct.sum()), len(self.correct))

    def lines(self) -> list[str]:
        """The result in words: score, interval, N, filters, what was dropped."""
        filters = ", ".join(self.triplets.filters) or "no filter"
        head = (
            f"{self.name}: triplet score {self.score:.4f} (95 % {self.interval.low:.4f} to {self.interval.high:.4f}), "
            f"N = {len(self.correct)}, {self.metric}, {self.triplets.name}, {filters}"
        )
        return [head, *self.dropped.lines()]


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
    known = set(systems[0].identifiers).intersection(*(system.identifiers for system in systems[1:]))
    kept, dropped = scorable(triplets, known)
    if not len(kept):
        raise InputError(
            f"{triplets.name}: no triplet is left to score; {'; '.join(dropped.lines()) or 'the file has none'}"
        )
    return [_result(system, kept, dropped, metric, weights) for system in systems]


def _result(
    system: Embeddings, kept: Triplets, dropped: Dropped, metric: str, weights: Mapping[str, float] | None
) -> TripletResult:
    row = np.ones((1, len(system.parts)))
    if weights is not None:
        if system.layout is None:
            raise InputError(f"{system.name} has no subspaces to weigh; leave out the weights")
        row = weight_rows(system.layout, weights)
    near, far = np.empty(len(kept)), np.empty(len(kept))
    for block, block_near, block_far in triplet_distances(system, triplet_rows(kept, system), row, metric=metric):
        near[block], far[block] = block_near[0], block_far[0]
    if metric == "euclidean":
        near, far = np.sqrt(near), np.sqrt(far)
    return TripletResult(system.name, kept, near, far, metric, dropped)


def triplet_rows(triplets: Triplets, system: Embeddings) -> np.ndarray:
    """Rows of anchor, positive and negative in ``system``: [n, 3] int; every identifier must have a vector."""
    return np.stack([system.rows(names) for names in (triplets.anchor, triplets.positive, triplets.negative)], axis=1)
