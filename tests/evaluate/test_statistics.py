"""Intervals and tests against their formulas, exact fractions and direct computation."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from msim_tf.errors import InputError
from msim_tf.evaluate.statistics import (
    group_means,
    mcnemar,
    paired_bootstrap,
    percentile_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (0, 10), (10, 10), (349, 426), (357, 426), (1, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_by_its_formula(correct, total, confidence):
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = (centre - half) / (1 + z * z / total), (centre + half) / (1 + z * z / total)
    interval = wilson_interval(correct, total, confidence=confidence)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)
    # Rounding must not move the bounds off 0 and 1.
    assert (interval.low == 0) == (correct == 0)
    assert (interval.high == 1) == (correct == total)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_needs_a_proportion(correct, total):
    with pytest.raises(InputError, match="not a proportion"):
        wilson_interval(correct, total)


def _outcomes(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = (both, first, second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize("cells", [(10, 3, 9, 4), (300, 40, 48, 38), (5, 0, 6, 0), (4, 2, 2, 1), (1, 0, 0, 1)])
def test_mcnemar_is_the_sign_test_and_edwards_chi_squared(cells):
    first, second = _outcomes(*cells)
    exact, corrected = (mcnemar(first, second, method=method) for method in ("exact", "corrected"))
    assert (exact.first_only, exact.second_only) == cells[1:3]
    discordant = cells[1] + cells[2]
    # Twice the smaller tail of a fair coin, as an exact fraction.
    tail = sum(math.comb(discordant, heads) for heads in range(min(cells[1], cells[2]) + 1))
    assert exact.p_value == pytest.approx(min(1.0, float(Fraction(2 * tail, 2**discordant))), abs=1e-12)
    # statsmodels: statistic (|b - c| - 1)^2 / (b + c), chi-squared with one degree of freedom.
    statistic = (max(abs(cells[1] - cells[2]) - 1, 0)) ** 2 / discordant if discordant else 0.0
    assert corrected.p_value == pytest.approx(math.erfc(math.sqrt(statistic / 2)))


def test_paired_tests_need_pairs():
    with pytest.raises(InputError, match="same items twice"):
        mcnemar(np.ones(2, bool), np.ones(3, bool))
    with pytest.raises(InputError, match="same items twice"):
        paired_bootstrap(np.zeros(0, bool), np.zeros(0, bool))
    with pytest.raises(InputError, match="method 'mid-p'"):
        mcnemar(np.ones(2, bool), np.ones(2, bool), method="mid-p")


def test_bootstrap_agrees_with_drawing_items_and_with_theory():
    first, second = _outcomes(300, 60, 30, 36)
    actual = paired_bootstrap(first, second, resamples=20_000, seed=1)
    values = first.astype(float) - second
    drawn = np.random.default_rng(9).choice(values, (4000, values.size)).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert actual.difference == pytest.approx(30 / 426)
    assert actual.interval.low == pytest.approx(low, abs=0.004)
    assert actual.interval.high == pytest.approx(high, abs=0.004)
    error = values.std() / math.sqrt(values.size)
    assert actual.interval.high - actual.interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert actual.p_value == pytest.approx(2 * stats.norm.sf(actual.difference / error), rel=0.5)
    assert paired_bootstrap(first, second, resamples=500, seed=1) == paired_bootstrap(
        first, second, resamples=500, seed=1
    )


def test_equal_systems_differ_by_nothing():
    same = np.array([True, False, True])
    actual = paired_bootstrap(same, same, resamples=100)
    assert (actual.difference, actual.interval.low, actual.interval.high, actual.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_groups_widen_the_interval_as_the_design_effect_says():
    # Every item counts ten times: the error must stay that of the 50 groups, not of 500 items.
    first = np.repeat(np.arange(50) % 3 > 0, 10)
    second = np.repeat(np.arange(50) % 2 > 0, 10)
    groups = np.repeat(np.arange(50), 10)
    items = paired_bootstrap(first, second, resamples=4000).interval
    grouped = paired_bootstrap(first, second, groups=groups, resamples=4000).interval
    assert (grouped.high - grouped.low) / (items.high - items.low) == pytest.approx(math.sqrt(10), rel=0.12)


def test_group_means_are_ratios_of_drawn_sums():
    values = np.array([1.0, 2.0, 10.0])
    means = group_means(values, np.array(["a", "a", "b"]), resamples=400, seed=2)
    # Two groups drawn twice: aa -> 3/2, ab -> 13/3, bb -> 10.
    assert set(np.round(means, 6)) == {1.5, round(13 / 3, 6), 10.0}
    np.testing.assert_array_equal(
        means, group_means(values[:, None], np.array(["a", "a", "b"]), resamples=400, seed=2)[:, 0]
    )
    interval = percentile_interval(np.arange(101.0))
    assert (interval.low, interval.high) == pytest.approx((2.5, 97.5))
