"""Ranking against loops and hand arithmetic."""

import numpy as np
import pytest

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.search.ranking import dimension_distances, nearest, normalised, weight_vector

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
    found = dimension_distances(tracks[0], tracks, LAYOUT)
    for row in range(40):
        for column, part in enumerate(LAYOUT.slices.values()):
            cosine = np.dot(tracks[0, part], tracks[row, part])
            np.testing.assert_allclose(found[row, column], 2 * (1 - cosine), atol=1e-5)


@pytest.mark.parametrize("weights", [None, {"tempo": 1}, {"genre": 2, "mood": 0.5, "era": -1}])
def test_ranking_is_that_of_a_loop(tracks, weights):
    vector = weight_vector(weights, LAYOUT)
    assert np.abs(vector).sum() == pytest.approx(1)
    totals = []
    for row in range(1, 40):
        parts = [np.sum((tracks[0, part] - tracks[row, part]) ** 2) for part in LAYOUT.slices.values()]
        totals.append((float(np.dot(parts, vector)), row))
    hits = nearest(tracks[0], tracks, LAYOUT, weights=weights, k=39, exclude=0)
    assert [hit.row for hit in hits] == [row for _, row in sorted(totals)]
    for hit, (total, _) in zip(hits, sorted(totals)):
        assert hit.distance == pytest.approx(total, abs=1e-5)
        assert sum(hit.shares.values()) == pytest.approx(hit.distance)


def test_one_dimension_sees_only_its_subspace(tracks):
    twin = tracks[3].copy()
    twin[LAYOUT.slices["tempo"]] = -twin[LAYOUT.slices["tempo"]]
    hits = nearest(tracks[3], np.stack([twin, tracks[5]]), LAYOUT, weights={"genre": 1.0}, k=1)
    assert hits[0].row == 0 and hits[0].distance == pytest.approx(0)


def test_ties_keep_the_order_of_rows(tracks):
    candidates = np.repeat(tracks[:1], 6, axis=0)
    assert [hit.row for hit in nearest(tracks[1], candidates, LAYOUT, k=6)] == list(range(6))


@pytest.mark.parametrize(
    "weights, message",
    [({"tempi": 1}, "not in this embedding"), ({"genre": 0}, "at least one"), ({"genre": float("nan")}, "finite")],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        weight_vector(weights, LAYOUT)


def test_k_must_be_positive(tracks):
    with pytest.raises(InputError, match="k is 0"):
        nearest(tracks[0], tracks, LAYOUT, k=0)
