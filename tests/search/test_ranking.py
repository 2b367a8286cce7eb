"""Ranking against loops and hand arithmetic."""

import numpy as np
import pytest

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.search.ranking import dimension_distances, normalised, weight_vector

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 24)


@pytest.fixture
def tracks(rng):
    return normalised(rng.normal(size=(40, 24)), LAYOUT)


def test_subspaces_have_length_one_and_zeros_stay(rng):
    vectors = rng.normal(size=(5, 24))
    vectors[2, LAYOUT.slices["mood"]] = 0
    unit = normalised(vectors, LAYOUT)
    for name, part in LAYOUT.slices.items():
        expected = np.ones(5)
        expected[2] = name != "mood"
        np.testing.assert_allclose(np.linalg.norm(unit[:, part], axis=1), expected, atol=1e-6)


def test_distances_are_twice_the_cosine_distance(tracks):
    actual = dimension_distances(tracks[0], tracks, LAYOUT)
    for row in range(40):
        for column, part in enumerate(LAYOUT.slices.values()):
            cosine = np.dot(tracks[0, part], tracks[row, part])
            np.testing.assert_allclose(actual[row, column], 2 * (1 - cosine), atol=1e-5)


@pytest.mark.parametrize(
    "weights, message",
    [
        ({"tempi": 1}, "not in this embedding"),
        ({"genre": 0}, "at least one"),
        ({"genre": float("nan")}, "finite"),
        ({"genre": 10**400}, "finite"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        weight_vector(weights, LAYOUT)


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e300, 4e307])
def test_only_ratios_of_weights_count(scale):
    """Even where their sum is more than a float can hold, or they are the least that one holds."""
    scaled = weight_vector({"genre": scale, "mood": -2 * scale, "era": 4 * scale}, LAYOUT)
    np.testing.assert_allclose(scaled, weight_vector({"genre": 1, "mood": -2, "era": 4}, LAYOUT), rtol=1e-14)
    assert np.abs(weight_vector({"genre": 1.7e308, "mood": 1.7e308}, LAYOUT)).sum() == 1
