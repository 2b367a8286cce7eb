"""Triplet scores by hand, tables against brute force."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate.tables import (
    PAPER_N,
    PAPER_TABLE1,
    PAPER_TABLE2,
    SystemFacts,
    Table,
    save_table,
    subset_scores,
    subset_weights,
    table1,
    table2,
)
from msim_tf.evaluate.triplet_scores import (
    score_systems,
    triplet_distances,
    triplet_outcomes,
    triplet_rows,
    triplet_score,
    weight_rows,
)
from msim_tf.evaluate.triplets import Triplets


def _triplets(members: list[tuple[str, str, str]]) -> Triplets:
    anchor, positive, negative = zip(*members)
    ids = tuple(f"t{row}" for row in range(len(members)))
    return Triplets("synthetic", ids, anchor, positive, negative, np.full(len(members), np.nan))


LINE = Embeddings("line", ("a", "b", "c", "d"), np.array([[0.0], [1.0], [3.0], [-1.0]], np.float32))


def test_the_score_is_a_share_and_a_tie_is_wrong():
    assert triplet_score(np.array([1.0, 2.0, 3.0, 3.0]), np.array([2.0, 1.0, 3.0, 4.0])) == 0.5
    assert triplet_score(np.array([0.0]), np.array([0.5])) == 1.0
    with pytest.raises(InputError, match="no triplet is left"):
        triplet_score(np.array([]), np.array([]))
    with pytest.raises(InputError, match="shapes"):
        triplet_score(np.zeros(2), np.zeros(3))


def test_points_on_a_line_by_hand():
    # 0: |0-1| < |0-3| right; 1: |0-3| > |0-1| wrong; 2: |0-1| = |0-(-1)| tie, wrong; 3: |1-0| < |1-3| right.
    triplets = _triplets([("a", "b", "c"), ("a", "c", "b"), ("a", "b", "d"), ("b", "a", "c")])
    (result,) = score_systems(triplets, [LINE])
    assert result.correct.tolist() == [True, False, False, True]
    assert result.near.tolist() == [1.0, 3.0, 1.0, 1.0]
    assert result.far.tolist() == [3.0, 1.0, 1.0, 2.0]
    assert result.score == 0.5
    assert "0.5000" in result.lines()[0] and "N = 4" in result.lines()[0]


def test_cosine_ignores_length_and_euclidean_does_not():
    vectors = np.array([[1.0, 0.0], [100.0, 0.0], [1.0, 1.0], [0.0, 0.0]], np.float32)
    system = Embeddings("plane", ("a", "far", "turned", "zero"), vectors)
    triplets = _triplets([("a", "far", "turned"), ("a", "turned", "zero")])
    cosine, euclidean = (score_systems(triplets, [system], metric=metric)[0] for metric in ("cosine", "euclidean"))
    np.testing.assert_allclose(cosine.near, [0.0, 1 - np.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(cosine.far, [1 - np.sqrt(0.5), 1.0], atol=1e-12)
    assert cosine.correct.tolist() == [True, True]
    np.testing.assert_allclose(euclidean.near, [99.0, 1.0])
    assert euclidean.correct.tolist() == [False, False]
    with pytest.raises(InputError, match="metric 'manhattan'"):
        score_systems(triplets, [system], metric="manhattan")


def test_a_collapsed_embedding_scores_nothing():
    system = Embeddings("flat", ("a", "b", "c"), np.full((3, 4), 0.3, np.float32))
    for metric in ("euclidean", "cosine"):
        assert score_systems(_triplets([("a", "b", "c"), ("b", "c", "a")]), [system], metric=metric)[0].score == 0.0


def test_missing_vectors_and_repeated_tracks_are_dropped_and_listed():
    members = [("a", "b", "c"), ("a", "lost", "c"), ("a", "a", "b"), ("gone", "b", "lost")]
    (result,) = score_systems(_triplets(members), [LINE])
    assert len(result.correct) == 1
    assert result.dropped.reasons == {"same track twice": ("t2",), "audio or vector missing": ("t1", "t3")}
    assert result.dropped.missing == ("gone", "lost")
    assert result.lines()[-1] == "2 without a vector: gone lost"
    assert result.dropped.lines(shown=1)[-1] == "2 without a vector: gone ..."
    with pytest.raises(InputError, match="no triplet is left to score; dropped 1: audio"):
        score_systems(_triplets([("x", "b", "c")]), [LINE])


def test_systems_share_the_triplets_that_all_can_score():
    partial = Embeddings("partial", ("a", "b", "c"), np.array([[0.0], [5.0], [1.0]], np.float32))
    triplets = _triplets([("a", "b", "c"), ("a", "b", "d")])
    first, second = score_systems(triplets, [LINE, partial])
    assert first.triplets.triplet_ids == second.triplets.triplet_ids == ("t0",)
    with pytest.raises(InputError, match="each under its own name"):
        score_systems(triplets, [LINE, LINE])


@pytest.fixture
def random_system() -> tuple[Embeddings, Triplets]:
    rng = np.random.default_rng(3)
    names = tuple(f"n{row}" for row in range(40))
    layout = EmbeddingLayout(DIMENSION_NAMES, (3, 1, 4, 2, 5, 2))
    vectors = rng.standard_normal((40, 17)).astype(np.float32)
    members = [tuple(names[row] for row in rng.choice(40, 3, replace=False)) for _ in range(200)]
    return Embeddings("random", names, vectors, layout), _triplets(members)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_all_subsets_against_brute_force(random_system, metric):
    system, triplets = random_system
    scores = subset_scores(triplets, system, metric=metric)
    assert len(scores.subsets) == 63
    expected = []
    for subset in scores.subsets:
        masked = system.embeddings.astype(np.float64) * system.layout.mask(subset)
        if metric == "cosine":
            masked /= np.linalg.norm(masked, axis=1, keepdims=True)
        correct = 0
        for names in zip(triplets.anchor, triplets.positive, triplets.negative):
            anchor, positive, negative = (masked[system.identifiers.index(name)] for name in names)
            correct += np.sqrt(((anchor - positive) ** 2).sum()) < np.sqrt(((anchor - negative) ** 2).sum())
        expected.append(correct)
    assert scores.correct.tolist() == expected
    assert scores.score(DIMENSION_NAMES) == score_systems(triplets, [system], metric=metric)[0].score


def test_blocks_do_not_change_outcomes(random_system, monkeypatch):
    system, triplets = random_system
    rows = triplet_rows(triplets, system)
    _, weights = subset_weights(system.layout)
    whole = triplet_outcomes(system, rows, weights)
    monkeypatch.setattr("msim_tf.evaluate.triplet_scores._BLOCK", 7)
    np.testing.assert_array_equal(triplet_outcomes(system, rows, weights), whole)
    assert len(list(triplet_distances(system, rows, weights))) == 29


def test_weights_scale_squared_distances(random_system):
    system, triplets = random_system
    weights = {"genre": 2.0, "key": 0.5}
    (result,) = score_systems(triplets, [system], weights=weights)
    scale = np.zeros(17)
    scale[0:3], scale[15:17] = 2.0, 0.5
    rows = triplet_rows(triplets, system)
    difference = system.embeddings[rows[:, 0]].astype(float) - system.embeddings[rows[:, 1]]
    np.testing.assert_allclose(result.near, np.sqrt((scale * difference**2).sum(axis=1)))
    for faulty, message in (
        ({"mood": -1}, "expected numbers >= 0"),
        ({"loudness": 1}, "'loudness' is not in"),
        ({}, "above 0"),
    ):
        with pytest.raises(InputError, match=message):
            weight_rows(system.layout, faulty)
    with pytest.raises(InputError, match="line has no subspaces"):
        score_systems(_triplets([("a", "b", "c")]), [LINE], weights={"genre": 1.0})
    with pytest.raises(InputError, match="line has no subspaces"):
        subset_scores(_triplets([("a", "b", "c")]), LINE)


def test_the_published_figures_are_shares_of_426():
    for score in itertools.chain(PAPER_TABLE1.values(), PAPER_TABLE2.values()):
        assert abs(round(score * PAPER_N) / PAPER_N - score) < 5.1e-5
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 6)
    assert set(PAPER_TABLE2) <= set(layout.subsets())


def test_table_1_pairs_every_system_with_the_baseline(random_system, tmp_path):
    system, triplets = random_system
    flat = Embeddings("flat", system.identifiers, np.ones((40, 2), np.float32))
    results = score_systems(triplets, [system, flat])
    table = table1(results, baseline="random", facts={"random": SystemFacts(6, "multi", 17, 1234, 5.5)})
    first, second = (dict(zip(table.columns, row)) for row in table.rows)
    assert (first["difference low"], first["difference"], first["parameters"]) == (None, None, 1234)
    assert (second["score"], second["N"], second["correct"]) == (0.0, 200, 0)
    assert second["difference"] == pytest.approx(-first["score"])
    # Intervals are over whole queries: by hand, the errors of each anchor summed; no p-value that counts triplets.
    correct, anchors = results[0].correct, np.array(results[0].triplets.anchor)
    sums = [float((correct[anchors == name] - correct.mean()).sum()) / 200 for name in sorted(set(anchors))]
    error = math.sqrt(len(sums) / (len(sums) - 1) * sum(value**2 for value in sums))
    half = scipy.stats.t.ppf(0.975, len(sums) - 1) * error
    assert (first["low"], first["high"]) == pytest.approx((correct.mean() - half, correct.mean() + half))
    assert second["difference low"] < second["difference"] < second["difference high"] < 0
    assert not any(column.startswith("p ") for column in table.columns)
    markdown, text, record = save_table(table, tmp_path, "table1")
    assert json.loads(record.read_text())["rows"][1] == second
    rows = list(csv.DictReader(io.StringIO(text.read_text())))
    assert float(rows[0]["score"]) == first["score"] and rows[0]["difference"] == ""
    assert f"| {first['score']:.4f} |" in markdown.read_text()
    with pytest.raises(InputError, match="baseline 'nobody' is not among"):
        table1(results, baseline="nobody")
    other = score_systems(_triplets([("n1", "n2", "n3")]), [flat])
    with pytest.raises(InputError, match="different triplets"):
        table1([results[0], *other], baseline="random")


def test_table_2_lists_the_best_then_each_alone(random_system):
    system, triplets = random_system
    scores = subset_scores(triplets, system)
    table = table2(scores, best=6)
    records = [dict(zip(table.columns, row)) for row in table.rows]
    top = [record["score"] for record in records[:6]]
    assert top == sorted((correct / 200 for correct in scores.correct), reverse=True)[:6]
    singles = [record for record in records if sum(record[name] for name in DIMENSION_NAMES) == 1]
    assert len(singles) == 6
    assert {name: record["score"] for record in singles for name in DIMENSION_NAMES if record[name]} == scores.singles
    assert len(table2(scores).rows) == 63


def test_markdown_cells_cannot_break_the_table():
    text = Table("t", ("name", "n"), (("a|b<script>", 12345), ("c", None))).markdown()
    assert "| a\\|b&lt;script> | 12,345 |" in text
    assert "| c | – |" in text
    with pytest.raises(InputError, match="does not have 2 cells"):
        Table("t", ("name", "n"), (("a",),))
