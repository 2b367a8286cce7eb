"""Learnt weights against another optimiser, the optimality conditions, and simulated listeners."""

import json
import math

import numpy as np
import pytest

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.search.ranking import dimension_distances, normalised
from msim_tf.search.weights import (
    RIDGE,
    SCALE,
    Profile,
    choice_differences,
    fitted_weights,
    learn_profile,
    load_profile,
    save_profile,
)

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 48)


@pytest.fixture
def tracks(rng):
    """Clustered subspaces, as a trained model makes them."""
    vectors = np.empty((500, 48))
    for part in LAYOUT.slices.values():
        vectors[:, part] = rng.normal(size=(8, 8))[rng.integers(0, 8, 500)] + 0.7 * rng.normal(size=(500, 8))
    return normalised(vectors, LAYOUT)


def questions(rng, tracks, count):
    """ "Which of two is nearer?": differences of random triplets."""
    a, b, c = np.array([rng.choice(len(tracks), 3, replace=False) for _ in range(count)]).T
    return choice_differences(tracks[a], tracks[b], tracks[c], LAYOUT)


def answered(rng, differences, weights, *, steepness=15.0):
    """A listener's choices: logistic noise on the weighted difference."""
    chosen = rng.random(len(differences)) < 1 / (1 + np.exp(np.clip(-steepness * differences @ weights, -50, 50)))
    return np.where(chosen[:, None], differences, -differences)


def agreement(weights, truth, differences):
    return float(((differences @ weights > 0) == (differences @ truth > 0)).mean())


def test_differences_are_those_of_the_distances(rng, tracks):
    actual = choice_differences(tracks[:5], tracks[5:10], tracks[10:15], LAYOUT)
    for row in range(5):
        near, far = dimension_distances(tracks[row], tracks[[row + 5, row + 10]], LAYOUT)
        np.testing.assert_allclose(actual[row], far - near, atol=1e-5)


def test_the_fit_is_the_minimum(rng, tracks):
    """Against SciPy's general constrained optimiser without gradients of ours, and a
    grid of steepnesses for the blend.
    """
    from scipy.optimize import minimize

    for truth in rng.dirichlet(np.full(6, 0.4), 4):
        differences = answered(rng, questions(rng, tracks, 25), truth)
        scaled = differences / math.sqrt(sum(x * x for row in differences for x in row) / differences.size)

        def loss(weights, scaled=scaled):
            return sum(math.log1p(math.exp(-x @ weights)) for x in scaled)

        def penalised(weights, loss=loss):
            return loss(weights) + RIDGE / 2 * sum((weights - SCALE) ** 2)

        expected = minimize(penalised, np.ones(6), method="SLSQP", bounds=[(0, None)] * 6, options={"ftol": 1e-12}).x
        expected /= sum(expected)
        grid = np.geomspace(0.01, 300, 2000)
        gain = min(loss(c * np.full(6, 1 / 6)) for c in grid) - min(loss(c * expected) for c in grid)
        part = math.exp(-gain / 2)
        assert 0 < part < 0.5
        np.testing.assert_allclose(fitted_weights(differences), part / 6 + (1 - part) * expected, atol=5e-4)


def test_weights_are_never_negative_and_sum_to_one(rng, tracks):
    listener = np.array([1.0, -1.0, 0, 0, 0, 0])  # wants the mood to be different
    weights = fitted_weights(answered(rng, questions(rng, tracks, 300), listener))
    assert 0 <= weights.min() == weights[1] < 0.001 and weights.sum() == pytest.approx(1) and weights.argmax() == 0


def test_no_choice_and_contradictions_leave_equal_weights(rng, tracks):
    equal = np.full(6, 1 / 6)
    np.testing.assert_allclose(fitted_weights(np.empty((0, 6))), equal, atol=1e-6)
    np.testing.assert_allclose(fitted_weights(np.zeros((4, 6))), equal, atol=1e-6)
    differences = questions(rng, tracks, 10)
    both = fitted_weights(np.concatenate([differences, -differences]))
    assert np.abs(both - equal).max() < 0.08


def test_the_size_of_distances_does_not_matter(rng, tracks):
    differences = questions(rng, tracks, 12)
    np.testing.assert_allclose(fitted_weights(differences), fitted_weights(differences / 50), atol=1e-4)


def test_a_dozen_choices_already_help(rng, tracks):
    """Sixty simulated listeners with noisy choices: learnt weights predict new choices better than equal weights do."""
    unseen = questions(rng, tracks, 1500)
    equal, learnt, many = [], [], []
    for truth in rng.dirichlet(np.full(6, 0.5), 60):
        asked = answered(rng, questions(rng, tracks, 100), truth)
        equal.append(agreement(np.ones(6), truth, unseen))
        learnt.append(agreement(fitted_weights(asked[:12]), truth, unseen))
        many.append(agreement(fitted_weights(asked), truth, unseen))
    assert np.mean(learnt) > np.mean(equal) + 0.05
    assert np.mean(np.array(learnt) > equal) > 0.8
    assert np.mean(many) > np.mean(learnt) + 0.05 and np.mean(many) > 0.92


def test_listeners_who_weigh_equally_lose_little(rng, tracks):
    unseen, equal = questions(rng, tracks, 1500), np.full(6, 1 / 6)
    fits = [fitted_weights(answered(rng, questions(rng, tracks, 12), equal)) for _ in range(30)]
    assert np.mean([agreement(weights, equal, unseen) for weights in fits]) > 0.85


def test_a_profile_tells_whether_it_helps(rng, tracks):
    """Held-out agreement: high for a listener who hears only the tempo, chance for one who flips coins."""
    differences = questions(rng, tracks, 200)
    tempo = learn_profile("tempo", answered(rng, differences, np.eye(6)[4], steepness=1e6), LAYOUT)
    assert tempo.weights["tempo"] > 0.6 and tempo.agreement > 0.93 > 0.85 > tempo.equal_agreement
    coin = learn_profile("coin", differences * rng.choice([-1, 1], (200, 1)), LAYOUT)
    assert abs(coin.agreement - 0.5) < 0.11  # three standard errors


def test_profiles_are_saved_and_loaded(rng, tracks, tmp_path):
    profile = learn_profile("Jo's ears", answered(rng, questions(rng, tracks, 12), np.eye(6)[1]), LAYOUT)
    save_profile(tmp_path / "jo.json", profile)
    assert load_profile(tmp_path / "jo.json") == profile
    assert [file.name for file in tmp_path.iterdir()] == ["jo.json"]
    by_hand = Profile("mine", {"mood": 1.0, "era": 0.0})
    save_profile(tmp_path / "jo.json", by_hand)
    loaded = load_profile(tmp_path / "jo.json")
    assert loaded.weights == by_hand.weights and math.isnan(loaded.agreement) and loaded.choices == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"format": "msim-index"}, "not of format 'msim-weights'"),
        ({"format_version": 2}, "format version 2"),
        ({"weights": {"tune": 1}}, "weight of 'tune'"),
        ({"weights": {"mood": -1}}, ">= 0"),
        ({"weights": {"mood": 0}}, "at least one above"),
        ({"weights": {"mood": "1"}}, "expected a number"),
        ({"weights": [1, 2]}, "expected a number"),
        ({"weights": {"mood": 10**400}}, "expected finite numbers"),
        ({"weights": {"mood": 10**30, "key": math.nan}}, "expected finite numbers"),
        ({"choices": "many"}, "choices, .*: expected numbers"),
        ({"choices": math.inf}, "expected numbers"),
        ({"agreement": None}, "expected numbers"),
    ],
)
def test_foreign_profiles_are_refused(tmp_path, changes, message):
    save_profile(tmp_path / "a.json", Profile("a", {"mood": 1.0}))
    value = json.loads((tmp_path / "a.json").read_text())
    del value["checksum"], value["checked"]  # as one that was written by hand
    (tmp_path / "a.json").write_text(json.dumps({**value, **changes}))
    with pytest.raises(InputError, match=message):
        load_profile(tmp_path / "a.json")


def test_bad_choices_are_refused(tmp_path):
    with pytest.raises(InputError, match="at least one"):
        learn_profile("x", np.empty((0, 6)), LAYOUT)
    with pytest.raises(InputError, match="NaN"):
        learn_profile("x", np.full((1, 6), np.nan), LAYOUT)
    with pytest.raises(InputError, match=">= 0"):
        save_profile(tmp_path / "x.json", Profile("x", {"mood": -1.0}))
    assert math.isnan(learn_profile("x", np.ones((1, 6)), LAYOUT).agreement)
