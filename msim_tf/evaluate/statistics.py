"""How sure a score is: Wilson's interval, McNemar's test, and bootstraps that respect pairs and groups.

Conventions: outcomes are bool arrays, True where a system is right; a difference is first minus second; everything
random is seeded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from msim_tf.errors import InputError

_CHUNK = 256  # resamples drawn at once, [_CHUNK, groups] of them


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """Outcome of McNemar's test.

    Attributes:
        first_only: items only the first system gets right.
        second_only: items only the second gets right.
        p_value: two-sided.
        method: "exact" or "corrected".
    """

    first_only: int
    second_only: int
    p_value: float
    method: str


@dataclass(frozen=True)
class Difference:
    """A difference of two scores, first minus second, with its bootstrap interval and two-sided p-value."""

    difference: float
    interval: Interval
    p_value: float


def wilson_interval(correct: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (E. B. Wilson, JASA 22, 1927), without continuity correction.

    Raises:
        InputError: if the counts make no proportion.
    """
    from scipy.stats import binomtest

    if not 0 <= correct <= total or total < 1:
        raise InputError(f"{correct} of {total} is not a proportion")
    # The proportions p with |correct / total - p| <= z * sqrt(p * (1 - p) / total): unlike the normal interval it stays
    # inside [0, 1] and has a width at 0 and 1, too.
    low, high = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return Interval(float(low), float(high))


def _paired(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise InputError(
            f"outcomes of shapes {first.shape} and {second.shape}: a paired test needs the same items twice"
        )
    return first, second


def mcnemar(first: np.ndarray, second: np.ndarray, *, method: str = "exact") -> McNemar:
    """Do two systems differ on the same items? (Q. McNemar, Psychometrika 12, 1947)

    Args:
        first: [n] bool, outcomes of the first system.
        second: [n] bool, same items.
        method: "exact" (binomial over the discordant items) or "corrected" (chi-squared with Edwards' continuity
            correction).

    Raises:
        InputError: if the outcomes are not paired or the method is unknown.
    """
    from scipy.stats import binomtest, chi2

    if method not in ("exact", "corrected"):
        raise InputError(f"McNemar method {method!r}, expected 'exact' or 'corrected'")
    # Items on which both are right or both are wrong say nothing of a difference. Of the others, if the systems are
    # equally good, each is as likely to be the one that is right: first_only ~ Binomial(discordant, 1 / 2).
    first, second = _paired(first, second)
    first_only, second_only = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = first_only + second_only
    if not discordant:
        p_value = 1.0  # equal on every item
    elif method == "exact":
        p_value = float(binomtest(first_only, discordant, 0.5).pvalue)
    else:
        # (|b - c| - 1)^2 / (b + c) is about chi-squared of one degree (A. Edwards, Psychometrika 13, 1948).
        excess = max(abs(first_only - second_only) - 1, 0)
        p_value = float(chi2.sf(excess**2 / discordant, 1))
    return McNemar(first_only, second_only, p_value, method)


def paired_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Percentile bootstrap of the difference of two scores on the same items.

    Args:
        first: [n] bool.
        second: [n] bool, same items.
        groups: [n] labels; whole groups are drawn (items of one track or artist are not independent). None draws
            items.
        resamples: how often.
        confidence: of the interval.
        seed: of the draws.

    Raises:
        InputError: if the outcomes are not paired.
    """
    # [n] -1, 0 or 1 -> [resamples] means: one draw decides for both systems, so what items have in common cancels.
    first, second = _paired(first, second)
    values = first.astype(np.float64) - second
    if groups is None:
        # n draws of -1, 0 and 1 are one multinomial draw of how often each comes: the cost does not depend on n.
        shares = np.array([(values < 0).mean(), (values == 0).mean(), (values > 0).mean()])
        counts = np.random.default_rng(seed).multinomial(values.size, shares / shares.sum(), size=resamples)
        draws = (counts[:, 2] - counts[:, 0]) / values.size
    else:
        draws = group_means(values, groups, resamples=resamples, seed=seed)
    # Twice the smaller tail beyond 0. Counting the observed sample as one draw keeps p above 0 (Davison and Hinkley,
    # Bootstrap Methods and their Application, section 4.2).
    tail = min((draws <= 0).sum(), (draws >= 0).sum()) + 1
    return Difference(
        float(values.mean()), percentile_interval(draws, confidence), min(1.0, 2.0 * float(tail) / (resamples + 1))
    )


def group_means(values: np.ndarray, groups: np.ndarray | None, *, resamples: int = 2_000, seed: int = 0) -> np.ndarray:
    """Means of ``values`` over bootstrap samples of whole groups.

    Args:
        values: [n] or [n, m] float; columns share their draws, so their differences are paired.
        groups: [n] labels, or None where every item is its own group.
        resamples: how often.
        seed: of the draws.

    Returns:
        [resamples] or [resamples, m].
    """
    values = np.asarray(values, np.float64)
    labels = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()

    # [groups] items and [groups] or [groups, m] sums of each: a resample needs no more of a group.
    sizes = np.bincount(labels).astype(np.float64)
    sums = np.zeros((len(sizes), *values.shape[1:]))
    np.add.at(sums, labels, values)

    # [chunk, groups] how often each resample draws each group. It draws as many groups as there are, and so another
    # number of items each time: a mean is a ratio of two sums.
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, _CHUNK):
        drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=min(_CHUNK, resamples - start))
        totals = drawn @ sums
        counts = drawn @ sizes
        means.append(totals / (counts if values.ndim == 1 else counts[:, None]))
    return np.concatenate(means)


def percentile_interval(draws: np.ndarray, confidence: float = 0.95) -> Interval:
    """The middle ``confidence`` of bootstrap ``draws`` ([resamples] float)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high))


def interval_around(mean: float, half: float) -> Interval:
    """The interval of a half-width about a mean of values in [0, 1], cut to that range."""
    return Interval(float(max(0.0, mean - half)), float(min(1.0, mean + half)))


def group_interval(values: np.ndarray, groups: np.ndarray) -> Interval:
    """The 95 % interval of a mean over whole groups, by ``group_error``.

    Args:
        values: [n] bool, or float in [0, 1]; at least one.
        groups: [n] labels; items of one group are not independent.
    """
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    return interval_around(mean, group_error((values - mean) / len(values), groups))


def group_error(influence: np.ndarray, groups: np.ndarray, *, confidence: float = 0.95) -> float:
    """Half-width of a confidence interval by the infinitesimal jackknife over groups.

    Args:
        influence: [n] float, derivative of the estimate by the weight of each item.
        groups: [n] labels; items of one group are not independent.
        confidence: of the interval, with Student's t for few groups.

    Returns:
        A half-width >= 0; infinite for a single group, which says nothing about others.
    """
    from scipy.stats import t

    # [n] -> [groups]: errors inside a group add up before they are squared, those of different groups are independent.
    # var = G / (G - 1) * sum over groups of (sum of influences)^2, with a factor for few groups.
    sums = np.bincount(np.unique(groups, return_inverse=True)[1].ravel(), weights=influence)
    if len(sums) < 2:
        return math.inf
    error = math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums))
    return float(t.ppf(0.5 + confidence / 2, len(sums) - 1)) * error
