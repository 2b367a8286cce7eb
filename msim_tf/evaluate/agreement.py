"""How far judgements bind: intervals of a score that know what is not independent, and the ceiling that people set.

Triplets of one query share its anchor, and triplets anywhere share clips; an interval that counts triplets is then too
narrow. Two are given beside it: over whole queries, and over clips (triplets with a clip in common vary together; the
variance adds the products of their errors, as for dyadic data: Aronow, Samii, Assenova, Political Analysis 23, 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from msim_tf.errors import InputError
from msim_tf.evaluate.statistics import Interval, group_error, group_interval, interval_around
from msim_tf.evaluate.triplets import Triplets

MOST_QUERIES = 20_000  # whose draws fit in memory


@dataclass(frozen=True)
class ClusteredIntervals:
    """95 % intervals of a share of triplets.

    Attributes:
        query: over whole queries.
        clip: over clips.
        queries: how many queries there are.
        clips: how many clips.
    """

    query: Interval
    clip: Interval
    queries: int
    clips: int


@dataclass(frozen=True)
class Ceiling:
    """How well people predict people on the same triplets.

    Attributes:
        score: share of triplets on which a rater, left out, agrees with most of the others; a tie of theirs is half.
        interval: over whole queries.
        total: triplets with two votes or more, over which it is taken.
    """

    score: float
    interval: Interval
    total: int


def clustered_intervals(values: np.ndarray, triplets: Triplets) -> ClusteredIntervals:
    """Intervals of the mean of ``values``.

    Args:
        values: [n] float or bool, one per triplet, e.g. which are predicted.
        triplets: those that the values are of.

    Raises:
        InputError: if there is no triplet, or another number of values.
    """
    from scipy.sparse import csr_matrix
    from scipy.stats import t

    values = np.asarray(values, np.float64)
    if values.shape != (len(triplets),) or not len(values):
        raise InputError(f"{values.shape} values of {len(triplets)} triplets: expected one each, at least one")
    # [n] derivative of the mean by the weight of each triplet: what both intervals add up, each over its own groups.
    mean = float(values.mean())
    influence = (values - mean) / len(values)
    queries = np.array(triplets.queries)
    by_query = group_error(influence, queries)

    # [n, clips] which triplet holds which clip, and [n, n] which two triplets share one: sparse, for most share none.
    members = np.array(triplets.members)
    names, numbers = np.unique(members, return_inverse=True)
    clips = len(names)
    rows = np.repeat(np.arange(len(members)), members.shape[1])
    holds = csr_matrix((np.ones(members.size, np.int8), (rows, numbers.ravel())), shape=(len(members), clips)) > 0
    shared = (holds.astype(np.int32) @ holds.T.astype(np.int32)) > 0

    # Half-width over clips: var = sum of e_i * e_j over all (i, j) with a clip in common, i = j included; triplets with
    # several in common count once (Aronow et al.).
    variance = float(influence @ (shared @ influence))
    if clips < 2:
        by_clip = math.inf
    elif variance <= 0:
        # Few clips can make the sum negative; it is then no smaller than what queries alone explain.
        by_clip = by_query
    else:
        by_clip = float(t.ppf(0.975, clips - 1)) * math.sqrt(variance * clips / (clips - 1))
    return ClusteredIntervals(
        interval_around(mean, by_query), interval_around(mean, by_clip), len(set(triplets.queries)), clips
    )


def query_interval(values: np.ndarray, triplets: Triplets) -> Interval:
    """The 95 % interval of the mean of ``values`` over whole queries, which alone is cheap.

    Args:
        values: [n] float or bool, one per triplet, at least one.
        triplets: those that the values are of.
    """
    return group_interval(values, np.array(triplets.queries))


def query_groups(triplets: Triplets) -> np.ndarray | None:
    """What a bootstrap draws: the query of each triplet, [n] str; None, single triplets, if queries are too many."""
    return np.array(triplets.queries) if len(set(triplets.queries)) <= MOST_QUERIES else None


def rater_agreement(votes: np.ndarray) -> np.ndarray:
    """How often a rater, left out, sides with the majority of the others.

    Args:
        votes: [n, 2] counts for and against, whole numbers >= 0.

    Returns:
        [n] in [0, 1], the mean over the raters of each triplet; NaN where there are fewer than two.
    """
    votes = np.asarray(votes, np.float64)
    # [n, 2]: a rater of either side, against the votes that are left without this rater's own.
    own, other = votes, votes[:, ::-1]
    # Without the rater, the own side has one vote less; a tie among the others is half an agreement.
    sides = np.where(own - 1 > other, 1.0, np.where(own - 1 == other, 0.5, 0.0))
    # [n]: the mean over raters is a mean over both sides, each by its share of the raters.
    total = votes.sum(axis=1)
    shares = np.divide(own, total[:, None], out=np.zeros_like(own), where=total[:, None] > 0)
    return np.where(total >= 2, (shares * sides).sum(axis=1), np.nan)


def human_ceiling(triplets: Triplets) -> Ceiling | None:
    """The ceiling of these triplets; None where no triplet has two votes.

    Triplets that were chosen for their agreement have a high one: state it on those that were scored.
    """
    if triplets.votes is None:
        return None
    agreement = rater_agreement(triplets.votes)
    keep = ~np.isnan(agreement)
    if not keep.any():
        return None
    scored = triplets.take(keep)
    return Ceiling(float(agreement[keep].mean()), clustered_intervals(agreement[keep], scored).query, int(keep.sum()))
