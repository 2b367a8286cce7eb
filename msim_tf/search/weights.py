"""Weights that a listener's own choices reveal, and profiles that keep them.

A choice is "B is closer to A than C". With D_s the distances of dimension s, x = D(A, C) - D(A, B) speaks for the
dimensions in which B is closer. Choices are modelled as logistic, P(choice) = 1 / (1 + exp(-w.x)), and

    sum over choices of log(1 + exp(-w.x / r)) + ridge / 2 * |w - scale|^2     over w >= 0

with r the root mean square of all x, is convex with one minimum, found by L-BFGS-B. The ridge pulls toward equal
weights, so that few choices move little and none at all leaves equal weights. Only the ratios of w matter, and where
choices contradict each other these are noise; so w is blended with equal weights, whose part is the square root of the
likelihood ratio, exp(-gain / 2): 1 if w explains the choices no better than equal weights do (each at its best
steepness), soon nothing if it does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.checksums import load_checked_json, save_checked_json
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.errors import InputError

FORMAT = "msim-weights"
FORMAT_VERSION = 1
_CHECKED = "checked"
# Chosen by simulated listeners (as in the tests) of skewed, equal and random tastes, 6 to 100 choices each.
SCALE = 1.0
RIDGE = 0.2
_FOLDS = 10
_FIGURES = ("agreement", "equal_agreement", "gain_low", "gain_high")
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Profile:
    """Weights under a name.

    Attributes:
        name: what the user calls them.
        weights: dimension -> weight >= 0, summing to 1.
        choices: how many choices they were learnt from; 0 for weights set by hand.
        agreement: share of choices that weights learnt from choices about *other* queries explain; NaN below two
            queries.
        equal_agreement: share that equal weights explain; if it is not below ``agreement``, the profile does not help.
        gain_low: lower end of the 95 % interval of ``agreement - equal_agreement``, over whole queries; NaN if unknown.
        gain_high: its upper end.
    """

    name: str
    weights: dict[str, float]
    choices: int = 0
    agreement: float = float("nan")
    equal_agreement: float = float("nan")
    gain_low: float = float("nan")
    gain_high: float = float("nan")

    @property
    def helps(self) -> bool:
        """Whether the learnt weights explain unseen choices better than equal weights do, beyond chance."""
        return self.gain_low > 0


def choice_differences(
    anchors: np.ndarray,
    nearer: np.ndarray,
    farther: np.ndarray,
    layout: EmbeddingLayout,
    *,
    far_anchors: np.ndarray | None = None,
) -> np.ndarray:
    """How much nearer the chosen track is in each dimension.

    Args:
        anchors: [n, size] float, normalised.
        nearer: [n, size], the chosen ones.
        farther: [n, size], the others.
        layout: the subspaces.
        far_anchors: [n, size], what ``farther`` is compared with, in comparisons of two pairs; None means ``anchors``.

    Returns:
        [n, dimensions] float64 in [-4, 4].
    """
    # Per dimension [n, width] -> [n]: squared distance to the other track less that to the chosen one.
    far_anchors = anchors if far_anchors is None else far_anchors
    columns = [
        (np.square(far_anchors[:, part] - farther[:, part]) - np.square(anchors[:, part] - nearer[:, part])).sum(1)
        for part in layout.slices.values()
    ]
    return np.stack(columns, 1).astype(np.float64)


def fitted_weights(differences: np.ndarray, *, ridge: float = RIDGE, scale: float = SCALE) -> np.ndarray:
    """The weights described at the head of this module.

    Args:
        differences: [n, dimensions] float, see ``choice_differences``; n may be 0.
        ridge: pull toward equal weights, > 0.
        scale: the weight that it pulls to, > 0.

    Returns:
        [dimensions] float64, >= 0, summing to 1; equal where choices say nothing.
    """
    from scipy.optimize import minimize

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        # The sum at the head of this module and its gradient, by logaddexp, so that no exponential overflows:
        # [n] margins w.x, and d/dw log(1 + exp(-w.x)) = -x / (1 + exp(w.x)).
        margins = differences @ weights
        value = np.logaddexp(0, -margins).sum() + ridge / 2 * np.square(weights - scale).sum()
        slope = -differences.T @ np.exp(-np.logaddexp(0, margins)) + ridge * (weights - scale)
        return float(value), slope

    # [n, dimensions] of root mean square 1, so that the ridge means the same for every model.
    dimensions = differences.shape[1]
    spread = np.sqrt(np.square(differences).mean()) if differences.any() else 1.0
    differences = differences / spread
    fitted = minimize(loss, np.full(dimensions, scale), jac=True, method="L-BFGS-B", bounds=[(0, None)] * dimensions).x

    # Blend with equal weights by what the fit gained on them, both of sum 1, each at its best steepness.
    equal = np.full(dimensions, 1 / dimensions)
    if not fitted.any():
        return equal
    gain = _least_loss(differences @ equal) - _least_loss(differences @ fitted / fitted.sum())
    part = np.exp(-max(gain, 0.0) / 2)
    return part * equal + (1 - part) * fitted / fitted.sum()


def _least_loss(margins: np.ndarray) -> float:
    """The logistic loss of choices at the best steepness >= 0."""
    from scipy.optimize import minimize_scalar

    minimum = minimize_scalar(
        lambda steepness: np.logaddexp(0, -steepness * margins).sum(), bounds=(0, 300), method="bounded"
    )
    # Steepness 0 costs log(2) per choice; a bounded search comes near its ends but not to them.
    return min(float(minimum.fun), len(margins) * float(np.log(2)))


def learn_profile(
    name: str,
    differences: np.ndarray,
    layout: EmbeddingLayout,
    *,
    queries: Sequence[str] | None = None,
    ridge: float = RIDGE,
    scale: float = SCALE,
) -> Profile:
    """Weights learnt from choices, and whether they explain choices about queries that they have not seen.

    Args:
        name: of the profile.
        differences: [n, dimensions], see ``choice_differences``; n >= 1.
        layout: names the dimensions.
        queries: [n] what each choice was about; choices about one are never divided between learning and testing,
            since they share tracks. None: each choice is its own.
        ridge: see ``fitted_weights``.
        scale: see ``fitted_weights``.

    Raises:
        InputError: if there is no choice or a number is not finite.
    """
    if differences.ndim != 2 or differences.shape[1] != len(layout.names) or not len(differences):
        raise InputError(
            f"choices of shape {differences.shape}: expected at least one, {len(layout.names)} numbers each"
        )
    if not np.isfinite(differences).all():
        raise InputError("choices hold NaN or infinity; embed their tracks again")
    weights = fitted_weights(differences, ridge=ridge, scale=scale)

    # [n] number of each choice's query; by it choices are held out, and drawn for the interval.
    names = np.arange(len(differences)) if queries is None else np.array(queries)
    groups = np.unique(names, return_inverse=True)[1].ravel()
    equal = differences.sum(1) > 0
    learnt = _held_out(differences, groups, ridge, scale)
    low, high = _gain_interval(learnt, equal, groups)
    return Profile(
        name=name,
        weights=dict(zip(layout.names, weights.tolist())),
        choices=len(differences),
        agreement=float(learnt.mean()) if len(learnt) else float("nan"),
        equal_agreement=float(equal.mean()),
        gain_low=low,
        gain_high=high,
    )


def _held_out(differences: np.ndarray, groups: np.ndarray, ridge: float, scale: float) -> np.ndarray:
    """Which choices do weights explain that were fitted without their group: [n] bool; [0] below two groups."""
    count = int(groups.max()) + 1
    if count < 2:
        return np.empty(0, bool)
    # A group belongs to one fold as a whole; each fold is predicted by weights that the other nine gave.
    fold = groups % min(_FOLDS, count)
    right = np.empty(len(differences), bool)
    for number in range(int(fold.max()) + 1):
        weights = fitted_weights(differences[fold != number], ridge=ridge, scale=scale)
        right[fold == number] = differences[fold == number] @ weights > 0
    return right


def _gain_interval(learnt: np.ndarray, equal: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the difference of two shares, drawing whole groups; NaN where nothing was held out."""
    if not len(learnt):
        return float("nan"), float("nan")
    # [groups] choices of each, and by how many more of them the learnt weights are right.
    sizes = np.bincount(groups)
    gains = np.bincount(groups, weights=learnt.astype(np.float64) - equal)
    # [resamples, groups] how often a resample draws each group; what is averaged are choices, so their number divides.
    draws = np.random.default_rng(0).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=_RESAMPLES)
    low, high = np.quantile((draws @ gains) / (draws @ sizes), [0.025, 0.975])
    return float(low), float(high)


def save_profile(path: str | Path, profile: Profile) -> None:
    """Writes a profile as JSON, atomically.

    Raises:
        InputError: for what ``load_profile`` would refuse.
    """
    _validate_weights(path, profile.weights)
    figures = {name: getattr(profile, name) for name in _FIGURES}
    finite = {key: value for key, value in figures.items() if np.isfinite(value)}
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "name": profile.name}
    save_checked_json(
        path, {**header, _CHECKED: True, "weights": profile.weights, "choices": profile.choices, **finite}
    )


def load_profile(path: str | Path) -> Profile:
    """Reads what ``save_profile`` wrote.

    Raises:
        InputError: if it is missing or no profile.
    """
    # Profiles written by hand, by the page of a library or by version 0.1 have no checksum, and do not claim one.
    cure = "learn it again with msim learn, or take 'checksum' and 'checked' away if you have edited it"
    value = load_checked_json(
        path, "a profile of weights", cure=cure, header=(FORMAT, FORMAT_VERSION), optional_without=_CHECKED
    )
    weights = value.get("weights")
    _validate_weights(path, weights)
    assert weights is not None
    try:
        choices, figures = int(value.get("choices", 0)), {name: float(value.get(name, "nan")) for name in _FIGURES}
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: choices, {', '.join(_FIGURES)}: expected numbers ({error})") from error
    return Profile(
        name=str(value.get("name", Path(path).stem)),
        weights={name: float(weight) for name, weight in weights.items()},
        choices=choices,
        **figures,
    )


def _validate_weights(path: str | Path, weights: Any) -> None:
    numbers = list(weights.values()) if isinstance(weights, Mapping) else []
    if not numbers or any(isinstance(weight, bool) or not isinstance(weight, (int, float)) for weight in numbers):
        raise InputError(f"{path}: weights are {weights!r}, expected a number for each dimension")
    unknown = [name for name in weights if name not in DIMENSION_NAMES]
    if unknown:
        raise InputError(f"{path}: weight of {unknown[0]!r}, expected some of {', '.join(DIMENSION_NAMES)}")
    # Compared as they are, since a whole number may be too large for a float; NaN fails both comparisons.
    if not all(0 <= number <= sys.float_info.max for number in numbers) or not any(numbers):
        raise InputError(f"{path}: weights {weights}, expected finite numbers >= 0, at least one above")
