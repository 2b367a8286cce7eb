"""The matrix of subspaces and labels, retrieval and nearest neighbours: by hand, by brute
force, and on vectors built to leak.
"""

from __future__ import annotations

import itertools
import json
import math

import mir_eval
import numpy as np
import pytest
import scipy.stats

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate.artists import ArtistFilter
from msim_tf.evaluate.disentanglement import anchor_accuracy, disentanglement
from msim_tf.evaluate.distances import candidate_mask, distances_from, validate_relations
from msim_tf.evaluate.retrieval import (
    key_score,
    neighbour_scores,
    precision_and_average,
    retrieval,
    tempo_accuracy,
)
from msim_tf.evaluate.statistics import Interval

LAYOUT = EmbeddingLayout(("genre", "tempo"), (4, 4))


def _same(labels: np.ndarray) -> np.ndarray:
    relation = np.where(labels[:, None] == labels, 1, -1).astype(np.int8)
    relation[labels < 0] = relation[:, labels < 0] = 0
    return relation


def _one_hot(labels: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    return np.eye(4)[np.maximum(labels, 0)] + noise * rng.standard_normal((labels.size, 4))


def _system(genre_part: np.ndarray, tempo_part: np.ndarray) -> Embeddings:
    vectors = np.concatenate([genre_part, tempo_part], axis=1).astype(np.float32)
    return Embeddings("made", tuple(f"t{row}" for row in range(len(vectors))), vectors, LAYOUT)


@pytest.fixture
def labels() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {"genre": rng.integers(-1, 4, 60), "tempo": rng.integers(0, 4, 60)}


def test_pairs_by_hand():
    # Similar at 1 and 3, dissimilar at 2, 3 and 4: 1 beats three, 3 beats one (a tie is wrong).
    distances = np.array([1.0, 3.0, 2.0, 3.0, 4.0, 0.0])
    assert anchor_accuracy(distances, np.array([1, 1, -1, -1, -1, 0]))[0] == pytest.approx(4 / 6)
    assert np.isnan(anchor_accuracy(distances, np.array([1, 1, 0, 0, 0, 0]))[0])
    assert anchor_accuracy(np.zeros(4), np.array([1, 1, -1, -1]))[0] == 0.0


def test_influences_are_derivatives_by_weights():
    rng = np.random.default_rng(0)
    distances, relation = rng.random(12), np.repeat([1, -1, 0], 4)
    _, influence = anchor_accuracy(distances, relation)

    def weighted(weights: np.ndarray) -> float:
        pairs = [(p, n) for p in range(4) for n in range(4, 8)]
        wins = sum(weights[p] * weights[n] * (distances[p] < distances[n]) for p, n in pairs)
        return wins / sum(weights[p] * weights[n] for p, n in pairs)

    step = 1e-6 * np.eye(12)
    numeric = [(weighted(1 + row) - weighted(1 - row)) / 2e-6 for row in step]
    np.testing.assert_allclose(influence, numeric, atol=1e-8)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("with_groups", [False, True])
def test_the_matrix_against_a_loop(labels, metric, with_groups):
    rng = np.random.default_rng(5)
    system = _system(_one_hot(labels["genre"], rng, 0.5), _one_hot(labels["tempo"], rng, 0.5))
    relations = {kind: _same(values) for kind, values in labels.items()}
    groups = np.array([f"artist {row // 3}" for row in range(60)]) if with_groups else None
    actual = disentanglement(system, relations, groups=groups, metric=metric)
    assert actual.subspaces == ("genre", "tempo", "all") and actual.kinds == ("genre", "tempo")
    for row, part in enumerate((slice(0, 4), slice(4, 8), slice(0, 8))):
        x = system.embeddings[:, part].astype(np.float64)
        if metric == "cosine":
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        distances = ((x[:, None] - x) ** 2).sum(axis=2)
        for column, kind in enumerate(actual.kinds):
            shares = []
            for a in range(60):
                others = [o for o in range(60) if o != a and (groups is None or groups[o] != groups[a])]
                pairs = [
                    distances[a, p] < distances[a, n]
                    for p in others
                    for n in others
                    if relations[kind][a, p] == 1 and relations[kind][a, n] == -1
                ]
                shares += [np.mean(pairs)] if pairs else []
            assert actual.accuracy[row, column] == pytest.approx(np.mean(shares))
            assert actual.anchors[column] == len(shares)
            assert actual.low[row, column] <= actual.accuracy[row, column] <= actual.high[row, column]


def test_honest_subspaces_raise_no_flag_and_swapped_ones_do(labels):
    rng = np.random.default_rng(6)
    genre, tempo = (_one_hot(labels[kind], rng, 0.1) for kind in ("genre", "tempo"))
    relations = {kind: _same(values) for kind, values in labels.items()}
    honest = disentanglement(_system(genre, tempo), relations)
    assert honest.leaks == ()
    assert honest.accuracy[0, 0] > 0.95 and honest.accuracy[1, 1] > 0.95
    assert honest.accuracy[0, 1] == pytest.approx(0.5, abs=0.1)
    leaky = disentanglement(_system(genre, genre), relations)
    (leak,) = leaky.leaks
    assert (leak.subspace, leak.kind, leak.sure) == ("tempo", "genre", True)
    assert "The tempo subspace predicts genre" in leak.line() and "beyond the uncertainty" in leak.line()
    assert leaky.to_json()["leaks"][0]["kind"] == "genre"
    assert (honest.at_chance, leaky.at_chance) == ((), ("tempo",))


def test_intervals_cover_chance_and_calls_are_rarely_wrong(labels):
    relations = {kind: _same(values) for kind, values in labels.items()}
    covered, clear = [], 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        actual = disentanglement(_system(rng.standard_normal((60, 4)), rng.standard_normal((60, 4))), relations)
        covered.append((actual.low < 0.5) & (actual.high > 0.5))
        clear += sum(leak.sure for leak in actual.leaks)
    # 95 % intervals: the binomial error of 100 draws is 2 points. Of 200 one-sided calls under no effect, 2.5 % are 5.
    assert np.mean(covered) == pytest.approx(0.95, abs=0.045)
    assert clear <= 12


def test_intervals_take_artists_for_the_sample(labels):
    rng = np.random.default_rng(3)
    tempo = np.repeat(rng.integers(0, 4, 12), 5)
    part = np.repeat(rng.standard_normal((12, 4)), 5, axis=0) + 0.05 * rng.standard_normal((60, 4))
    relations = {"tempo": _same(tempo)}
    artists = disentanglement(_system(part, part), relations, groups=np.repeat(np.arange(12), 5).astype(str))
    unknown = disentanglement(_system(part, part), relations, groups=np.full(60, ""))
    width = (artists.high - artists.low)[0, 0]
    assert width > 1.5 * (unknown.high - unknown.low)[0, 0]


def test_collapsed_subspaces_score_nothing_whatever_the_rounding(labels):
    flat = np.full((60, 4), 0.1)
    actual = disentanglement(_system(flat, flat), {"genre": _same(labels["genre"])})
    assert actual.accuracy.max() == 0.0


def test_kinds_without_pairs_are_empty_and_json_stays_valid():
    system = _system(np.eye(4), np.eye(4))
    actual = disentanglement(system, {"genre": np.zeros((4, 4), np.int8)})
    assert np.isnan(actual.accuracy).all() and actual.anchors.tolist() == [0]
    assert actual.tested == actual.at_chance == actual.leaks == ()
    assert json.loads(json.dumps(actual.to_json(), allow_nan=False))["cells"][0]["accuracy"] is None


def test_anchors_are_drawn_when_there_are_many(labels):
    rng = np.random.default_rng(8)
    system = _system(rng.standard_normal((60, 4)), rng.standard_normal((60, 4)))
    relations = {"tempo": _same(labels["tempo"])}
    first, again, other = (disentanglement(system, relations, max_anchors=20, seed=seed) for seed in (1, 1, 2))
    assert first.anchors.tolist() == [20]
    np.testing.assert_array_equal(first.accuracy, again.accuracy)
    assert not np.array_equal(first.accuracy, other.accuracy)


def test_wrong_shapes_are_named():
    system = _system(np.eye(4), np.eye(4))
    with pytest.raises(InputError, match=r"relations of genre have shape \(3, 3\)"):
        disentanglement(system, {"genre": np.zeros((3, 3), np.int8)})
    with pytest.raises(InputError, match="expected only"):
        retrieval(system, {"genre": np.full((4, 4), 2)}, k=1)
    with pytest.raises(InputError, match="3 group labels for 4 tracks"):
        disentanglement(system, {}, groups=np.array(["a", "b", "c"]))
    plain = Embeddings("plain", ("a",), np.ones((1, 2), np.float32))
    with pytest.raises(InputError, match="plain has no subspaces"):
        disentanglement(plain, {})
    with pytest.raises(InputError, match="metric 'dot'"):
        next(distances_from(np.eye(2), np.arange(2), metric="dot"))


def test_artist_filter_leaves_out_the_artist_but_not_the_unknown():
    groups = validate_relations({}, np.array(["x", "x", "", None, "y"], object), 5)
    assert candidate_mask(0, groups, 5).tolist() == [False, False, True, True, True]
    assert candidate_mask(2, groups, 5).tolist() == [True, True, False, True, True]
    assert candidate_mask(1, None, 3).tolist() == [True, False, True]


def test_who_plays_together_is_filtered_pair_by_pair_and_one_sample(rng):
    """Against sets: tracks that share an artist are no candidates; chains of shared artists are one cluster."""
    groups = [tuple(rng.choice(list("abcdefghijklmnop"), rng.integers(1, 3), replace=False)) for _ in range(14)]
    groups += ["", None, "a", ()]
    actual = ArtistFilter.of(groups, len(groups))
    names = [
        {group} if group and isinstance(group, str) else set(group or ()) or {row} for row, group in enumerate(groups)
    ]
    for anchor, own in enumerate(names):
        assert candidate_mask(anchor, actual, len(groups)).tolist() == [not own & other for other in names]
    clusters = {row: {row} for row in range(len(names))}
    for one, other in itertools.combinations(range(len(names)), 2):
        if names[one] & names[other]:
            joined = clusters[one] | clusters[other]
            clusters |= dict.fromkeys(joined, joined)
    for row, members in clusters.items():
        assert set(np.flatnonzero(actual.clusters == actual.clusters[row])) == members
    assert len(set(actual.clusters.tolist())) > 3
    with pytest.raises(InputError, match="17 group labels for 18 tracks"):
        ArtistFilter.of(groups[1:], len(groups))


def test_precision_and_average_precision_by_hand():
    # Order: relevant, not, relevant, not: AP = (1 + 2/3) / 2.
    actual = precision_and_average(np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, False, True, False]), 2)
    assert actual == pytest.approx((0.5, 5 / 6))
    # All tied: the irrelevant come first.
    assert precision_and_average(np.zeros(3), np.array([True, False, False]), 1) == pytest.approx((0.0, 1 / 3))


def test_retrieval_on_a_line_with_and_without_the_filter():
    layout = EmbeddingLayout(("genre",), (1,))
    system = Embeddings("line", ("a", "b", "c", "d"), np.array([[0.0], [1.0], [3.0], [7.0]], np.float32), layout)
    relation = _same(np.array([0, 0, 1, 0]))
    (whole,) = retrieval(system, {"genre": relation}, k=1, metric="euclidean", subspaces=["genre"])
    # a: b c d -> 1 0 1; b: a c d -> 1 0 1; d: c b a -> 0 1 1; c has no relevant track.
    assert whole.queries == 3
    assert whole.precision == pytest.approx(2 / 3)
    assert whole.average_precision == pytest.approx((5 / 6 + 5 / 6 + (1 / 2 + 2 / 3) / 2) / 3)
    assert whole.chance == pytest.approx(2 / 3)
    # Precisions 1, 1, 0 of three tracks: Student's t with two degrees of freedom, cut to [0, 1].
    half = scipy.stats.t.ppf(0.975, 2) * np.std([1, 1, 0], ddof=1) / math.sqrt(3)
    assert whole.precision_interval == Interval(max(0, 2 / 3 - half), min(1, 2 / 3 + half))
    # Average precisions of the queries a, b and d.
    averages = [5 / 6, 5 / 6, (1 / 2 + 2 / 3) / 2]
    half = scipy.stats.t.ppf(0.975, 2) * np.std(averages, ddof=1) / math.sqrt(3)
    assert whole.average_interval.low == pytest.approx(np.mean(averages) - half)
    groups = np.array(["p", "p", "q", "r"])
    (filtered,) = retrieval(system, {"genre": relation}, groups=groups, k=1, metric="euclidean", subspaces=["genre"])
    # a: c d -> 0 1; b: c d -> 0 1; d: c b a -> 0 1 1.
    assert filtered.precision == 0.0
    # a and b are one artist, so two samples: its errors add up.
    errors = np.array([1 / 2 + 1 / 2, (1 / 2 + 2 / 3) / 2]) - np.array([2, 1]) * filtered.average_precision
    half = scipy.stats.t.ppf(0.975, 1) * math.sqrt(2 * np.square(errors / 3).sum())
    assert filtered.average_interval.low == pytest.approx(max(0, filtered.average_precision - half))
    assert filtered.average_precision == pytest.approx((1 / 2 + 1 / 2 + (1 / 2 + 2 / 3) / 2) / 3)
    with pytest.raises(InputError, match="k is 0"):
        retrieval(system, {"genre": relation}, k=0)


@pytest.mark.parametrize(
    ("estimated", "strict", "loose"),
    [
        (120, True, True),
        (124.8, True, True),
        (125, False, False),
        (60, False, True),
        (361, False, True),
        (40, False, True),
        (90, False, False),
    ],
)
def test_tempo_accuracies(estimated, strict, loose):
    assert tempo_accuracy(120.0, np.array([estimated]), octaves=False).tolist() == [strict]
    assert tempo_accuracy(120.0, np.array([estimated]), octaves=True).tolist() == [loose]


def test_key_score_is_mir_evals():
    for estimated, score in (("C major", 1.0), ("G major", 0.5), ("A minor", 0.3), ("C minor", 0.2), ("F# major", 0.0)):
        assert key_score("C major", estimated) == score == mir_eval.key.weighted_score("C major", estimated)
    with pytest.raises(InputError, match="expected the form"):
        key_score("H dur", "C major")


def test_neighbours_on_a_line_by_hand():
    system = Embeddings("line", ("a", "b", "c", "d"), np.array([[0.0], [1.0], [3.0], [7.0]], np.float32))
    tempo = [100.0, 200.0, 101.0, None]
    key = ["C major", "G major", None, "C major"]
    actual = {score.measure: score for score in neighbour_scores(system, tempo=tempo, key=key, metric="euclidean")}
    # Neighbours with a tempo: a->b, b->a, c->b.
    assert (actual["Accuracy1"].score, actual["Accuracy1"].queries) == (0.0, 3)
    assert actual["Accuracy1"].chance == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)
    assert actual["Accuracy2"].score == 1.0
    # Neighbours with a key: a->b fifth, b->a fifth, d->b fifth. mir_eval scores the fifth above the reference only.
    expected = [
        mir_eval.key.weighted_score(*pair)
        for pair in (("C major", "G major"), ("G major", "C major"), ("C major", "G major"))
    ]
    assert actual["key, weighted"].score == pytest.approx(np.mean(expected))
    filtered = neighbour_scores(system, tempo=tempo, groups=np.array(["p", "p", "q", "q"]), metric="euclidean")
    # a->c, b->c, c->b: 101 is within 4 % of 100, and of 200 / 2.
    assert [score.score for score in filtered] == pytest.approx([1 / 3, 1.0])
    with pytest.raises(InputError, match="3 values of tempo for 4 tracks"):
        neighbour_scores(system, tempo=[1.0, 2.0, 3.0])
    assert neighbour_scores(system, tempo=[100.0, None, None, None]) == []
