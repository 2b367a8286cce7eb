"""Judgements in every published form, from simulated raters whose weights are known;
intervals and ceiling against loops.
"""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest
from click.testing import CliRunner

from msim_tf.cli import cli
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings, save_embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate.agreement import clustered_intervals, human_ceiling, rater_agreement
from msim_tf.evaluate.statistics import wilson_interval
from msim_tf.evaluate.triplet_files import read_triplets
from msim_tf.evaluate.triplet_scores import in_words_of, score_systems
from msim_tf.evaluate.triplets import Triplets, agreeing, scorable
from msim_tf.search.weights import load_profile

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 24)
TASTE = dict(zip(DIMENSION_NAMES, (0.45, 0.05, 0.05, 0.05, 0.35, 0.05)))
RATERS = 5


def written(path, header, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def system(rng):
    """Forty tracks with unit vectors in every subspace, which are what the raters hear."""
    vectors = rng.normal(size=(40, 24))
    for part in LAYOUT.slices.values():
        vectors[:, part] /= np.linalg.norm(vectors[:, part], axis=1, keepdims=True)
    return Embeddings("ears", tuple(f"t{number:02d}" for number in range(40)), vectors.astype(np.float32), LAYOUT)


class Raters:
    """They weigh the dimensions by their taste and hear each distance with some noise."""

    def __init__(self, system, rng, *, taste=TASTE, noise=0.15):
        self.system, self.rng, self.taste, self.noise = system, rng, taste, noise

    def distance(self, a, b):
        first, second = (self.system.embeddings[int(track[1:])].astype(float) for track in (a, b))
        parts = LAYOUT.slices.items()
        exact = sum(self.taste[name] * ((first[part] - second[part]) ** 2).sum() for name, part in parts)
        return exact + self.rng.normal(0, self.noise)

    def drawn(self, count):
        return [f"t{number:02d}" for number in self.rng.choice(40, count, replace=False)]


def triplet_votes(raters, path):
    rows = []
    for number in range(250):
        anchor, one, two = raters.drawn(3)
        first = sum(raters.distance(anchor, one) < raters.distance(anchor, two) for _ in range(RATERS))
        rows.append((f"q{number}", anchor, one, two, first, RATERS - first))
    header = ("triplet_id", "anchor_id", "song1_id", "song2_id", "song1_vote", "song2_vote")
    return written(path, header, rows)


def odd_one_out(raters, path):
    rows = []
    for _ in range(200):
        clips = raters.drawn(3)
        for _ in range(RATERS):
            pairs = {odd: raters.distance(*(clip for clip in clips if clip != odd)) for odd in clips}
            rows.append((*raters.rng.permutation(clips), min(pairs, key=pairs.get)))
    return written(path, ("clip1_id", "clip2_id", "clip3_id", "odd"), rows)


def magnatagatune_counts(raters, path):
    rows = []
    for _ in range(200):
        clips = raters.drawn(3)
        votes = dict.fromkeys(clips, 0)
        for _ in range(RATERS):
            pairs = {odd: raters.distance(*(clip for clip in clips if clip != odd)) for odd in clips}
            votes[min(pairs, key=pairs.get)] += 1
        rows.append((*clips, *votes.values()))
    return written(path, [f"clip{clip}_{what}" for what in ("id", "numvotes") for clip in (1, 2, 3)], rows)


def ratings(raters, path):
    """Each rater has an own scale; only the order of the ratings of one rater means something."""
    rows, scales = [], raters.rng.uniform((0, 1), (50, 10), (RATERS, 2))
    for _ in range(40):
        query, *candidates = raters.drawn(6)
        for rater, (zero, unit) in enumerate(scales):
            rows += [(query, c, zero - unit * raters.distance(query, c), f"r{rater}") for c in candidates]
    return written(path, ("query", "candidate", "rating", "rater"), rows)


def pair_comparisons(raters, path):
    rows = []
    for _ in range(250):
        a, b, c, d = raters.drawn(4)
        for _ in range(RATERS):
            nearer = "ab" if raters.distance(a, b) < raters.distance(c, d) else "cd"
            # The same question in another order of words.
            flip = raters.rng.random() < 0.5
            rows.append((c, d, b, a, {"ab": "cd", "cd": "ab"}[nearer]) if flip else (a, b, c, d, nearer))
    return written(path, ("a", "b", "c", "d", "closer"), rows)


def abx(raters, path):
    rows = []
    for _ in range(250):
        x, a, b = raters.drawn(3)
        for _ in range(RATERS):
            rows.append((x, a, b, "A" if raters.distance(x, a) < raters.distance(x, b) else "B"))
    return written(path, ("x", "a", "b", "answer"), rows)


FORMS = (triplet_votes, odd_one_out, magnatagatune_counts, ratings, pair_comparisons, abx)


@pytest.mark.parametrize("form", FORMS)
def test_the_raters_weights_are_found_again_from_every_form(form, system, rng, tmp_path):
    path = form(Raters(system, rng), tmp_path / "judgements.csv")
    triplets, _ = read_triplets(path)
    assert len(triplets) > 150 and triplets.votes.sum(axis=1).max() <= RATERS * len(triplets)
    own = score_systems(triplets, [system], weights=TASTE)[0].score
    alike = score_systems(triplets, [system], weights=dict.fromkeys(DIMENSION_NAMES, 1.0))[0].score
    assert own > 0.85 and own > alike + 0.05
    save_embeddings(
        tmp_path / "ears.npz", identifiers=system.identifiers, embeddings=system.embeddings, layout=LAYOUT, meta={}
    )
    arguments = ["learn", path, tmp_path / "me.json", "--library", tmp_path / "ears.npz"]
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    profile = load_profile(tmp_path / "me.json")
    assert sorted(profile.weights, key=profile.weights.get)[-2:] == ["tempo", "genre"]
    assert sum(abs(profile.weights[name] - TASTE[name]) for name in DIMENSION_NAMES) < 0.25
    assert profile.helps and "  better than equal weights: gain +" in done.output


def test_raters_who_weigh_equally_gain_nothing_and_that_is_said(system, rng, tmp_path):
    raters = Raters(system, rng, taste=dict.fromkeys(DIMENSION_NAMES, 1 / 6))
    path = triplet_votes(raters, tmp_path / "judgements.csv")
    save_embeddings(
        tmp_path / "ears.npz", identifiers=system.identifiers, embeddings=system.embeddings, layout=LAYOUT, meta={}
    )
    arguments = ["learn", path, tmp_path / "me.json", "--library", tmp_path / "ears.npz"]
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert "not shown to be better than equal weights" in done.output, done.output


def test_the_command_tells_agreement_ceiling_and_every_dimension(system, rng, tmp_path):
    path = triplet_votes(Raters(system, rng), tmp_path / "judgements.csv")
    save_embeddings(
        tmp_path / "ears.npz", identifiers=system.identifiers, embeddings=system.embeddings, layout=LAYOUT, meta={}
    )
    arguments = ["evaluate", "triplets", path, tmp_path / "ears.npz", "--agreement", "0.5"]
    output = CliRunner().invoke(cli, list(map(str, arguments))).output
    triplets, _ = read_triplets(path)
    ceiling = human_ceiling(triplets)
    assert f"human ceiling: {ceiling.score:.4f}" in output and f"{ceiling.total} of them" in output
    intervals = clustered_intervals(score_systems(triplets, [system])[0].correct, triplets)
    assert f"{intervals.query.low:.4f} to {intervals.query.high:.4f} over {intervals.queries} queries" in output
    alone = score_systems(triplets, [system], weights={"tempo": 1.0})[0].score
    assert f"  tempo      {alone:.4f}  95 %" in output and "best of 63 subsets, so optimistic: " in output


def test_ratings_of_different_raters_are_not_compared_and_equal_ones_are_no_vote(tmp_path):
    rows = [("q", "a", 5, "r1"), ("q", "b", 3, "r1"), ("q", "a", 1, "r2"), ("q", "b", 2, "r2"), ("q", "b", 4, "r2"),
            ("q", "c", 3, "r1"), ("q", "c", 9, "r3"), ("p", "a", 1, "r1")]  # fmt: skip
    triplets, dropped = read_triplets(written(tmp_path / "r.csv", ("query", "candidate", "rating", "rater"), rows))
    # r1: a > b = c; r2: b (mean 3) > a; r3 rated one candidate of q only.
    assert triplets.members == (("q", "a", "q", "c"),) and triplets.votes.tolist() == [[1, 0]]
    assert dropped.reasons == {"tied votes": ("q",), "no votes": ("q",)}


def test_a_comparison_of_two_pairs_goes_through_filters_renaming_and_missing_vectors(tmp_path):
    rows = [
        ("a", "b", "c", "d", 9, 1),
        ("a", "b", "b", "c", 2, 3),
        ("a", "b", "b", "a", 3, 0),
        ("a", "b", "c", "x", 3, 0),
    ]
    triplets, _ = read_triplets(written(tmp_path / "p.csv", ("a", "b", "c", "d", "votes_ab", "votes_cd"), rows))
    assert triplets.members[:2] == (("a", "b", "c", "d"), ("b", "c", "b", "a"))
    kept, below = agreeing(triplets, 0.9)
    assert kept.members == (("a", "b", "c", "d"), ("a", "b", "c", "x")) and below.count == 1
    points = np.array([[0.0], [1.0], [5.0], [7.0]], np.float32)
    system = in_words_of(kept, Embeddings("line", ("m/a.mp3", "m/b.mp3", "m/c.mp3", "m/d.mp3"), points))
    scored, dropped = scorable(kept, system.identifiers)
    assert scored.members == (("a", "b", "c", "d"),) and dropped.missing == ("x",)
    (result,) = score_systems(kept, [system])
    assert (result.near.tolist(), result.far.tolist(), result.score) == ([1.0], [2.0], 1.0)


@pytest.mark.parametrize(
    "header, row, message",
    [
        (("clip1_id", "clip2_id", "clip3_id", "odd"), ("a", "b", "c", "d"), "row 1: odd is 'd', expected one of three"),
        (("clip1_id", "clip2_id", "clip3_id", "odd"), ("a", "a", "c", "c"), "expected one of three clips"),
        (("query", "candidate", "rating"), ("q", "a", "much"), "rating is 'much', expected a number"),
        (("query", "candidate", "rating"), ("q", "", "1"), "candidate is empty"),
        (("a", "b", "c", "d", "closer"), ("a", "b", "c", "d", "ac"), "closer is 'ac', expected ab or cd"),
        (("x", "a", "b", "votes_a", "votes_b"), ("x", "a", "b", "-1", "2"), "-1.0 votes, expected 0 or more"),
    ],
)
def test_a_faulty_answer_is_named(tmp_path, header, row, message):
    with pytest.raises(InputError, match=message):
        read_triplets(written(tmp_path / "faulty.csv", header, [row]))


def test_a_left_out_rater_by_a_loop_over_raters():
    votes = np.array([[3, 0], [2, 1], [1, 1], [4, 3], [1, 0], [0, 0], [5, 5]])
    for (yes, no), actual in zip(votes, rater_agreement(votes)):
        answers = [1] * yes + [0] * no
        sides = []
        for number, answer in enumerate(answers):
            others = answers[:number] + answers[number + 1 :]
            half = sum(others) * 2 - len(others)
            sides.append(0.5 if half == 0 else float((half > 0) == (answer == 1)))
        expected = np.mean(sides) if len(answers) > 1 else np.nan
        assert actual == pytest.approx(expected, nan_ok=True)


def synthetic(members):
    anchor, positive, negative = zip(*members)
    ids = tuple(map(str, range(len(members))))
    return Triplets("synthetic", ids, anchor, positive, negative, np.full(len(members), np.nan))


def test_the_clip_interval_is_the_double_sum_over_triplets_that_share_a_clip(rng):
    names = [f"t{number}" for number in range(12)]
    members = [tuple(rng.choice(names, 3, replace=False)) for _ in range(60)]
    values = rng.random(60) < 0.7
    intervals = clustered_intervals(values, synthetic(members))
    errors = values - values.mean()
    variance = sum(
        errors[i] * errors[j] for i, j in itertools.product(range(60), repeat=2) if set(members[i]) & set(members[j])
    )
    from scipy.stats import t

    half = t.ppf(0.975, 11) * np.sqrt(max(variance, 0) * 12 / 11) / 60
    assert variance > 0
    assert intervals.clip.high - values.mean() == pytest.approx(min(half, 1 - values.mean()))
    assert (intervals.queries, intervals.clips) == (len({member[0] for member in members}), 12)


def test_intervals_over_queries_cover_where_counting_triplets_does_not(rng):
    """Forty queries of ten triplets each; a query is easy or hard, so triplets of it are right or wrong together."""
    members = [(f"q{query}", f"p{query}-{i}", f"n{query}-{i}") for query in range(40) for i in range(10)]
    triplets, covered = synthetic(members), np.zeros(3)
    for _ in range(200):
        ease = np.repeat(np.where(rng.random(40) < 0.5, 0.95, 0.45), 10)
        values = rng.random(400) < ease
        actual = clustered_intervals(values, triplets)
        counting = wilson_interval(int(values.sum()), 400)
        covered += [low.low <= 0.7 <= low.high for low in (actual.query, actual.clip, counting)]
    assert covered[0] > 0.9 * 200 and covered[1] > 0.9 * 200 and covered[2] < 0.85 * 200
