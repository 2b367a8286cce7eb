"""Every similar clip must be found, each as often as theory says; the oracle is the relation of all pairs."""

import numpy as np
import pytest

from msim_tf.data.positive_sampler import PositiveSampler
from msim_tf.labels.encoding import EncodedLabels, Labels, encode
from msim_tf.labels.teacher import TeacherTags

DRAWS = 4000
KEYS = ("C major", "C minor", "A minor", "D minor", "F major", "E major")


@pytest.fixture
def labels(rng):
    values = {}
    for number in range(60):
        tags = tuple(rng.choice(["rock", "pop", "jazz"], size=rng.integers(1, 3), replace=False))
        bpm = f"{rng.uniform(60, 180):.2f}"
        values[f"{number}"] = {"genre": tags, "tempo": (bpm,), "key": (str(rng.choice(KEYS)),)}
    values["7"]["tempo"] = ("21.0",)  # widens the circle that is searched for all others
    for name in ("genre", "tempo", "key"):
        del values["3"][name]  # unknown: neither anchor nor positive
    return encode(Labels(values), list(values), ("genre", "tempo", "key"))


def drawn_shares(labels, name, key_relation, rng):
    """[n, n]: how often each pair was drawn, as a share of the anchor's pairs; and how often each anchor was."""
    sampler, count = PositiveSampler(labels, key_relation), np.zeros((60, 60))
    for _ in range(DRAWS):
        np.add.at(count, tuple(sampler.pairs(name, 10, rng).T), 1)
    return count / np.maximum(count.sum(1, keepdims=True), 1), count.sum(1)


@pytest.mark.parametrize(
    ("name", "key_relation"), [("tempo", "parallel"), ("key", "parallel"), ("key", "relative"), ("key", "both")]
)
def test_every_similar_clip_is_as_likely(labels, name, key_relation, rng):
    shares, anchors = drawn_shares(labels, name, key_relation, rng)
    rows = np.arange(60)
    similar = labels.relation(name, rows, rows, key_relation=key_relation) > 0
    np.fill_diagonal(similar, False)
    expected = similar / np.maximum(similar.sum(1, keepdims=True), 1)
    assert not shares[~similar].any()
    deviation = np.sqrt(expected * (1 - expected) / np.maximum(anchors, 1)[:, None])
    assert (np.abs(shares - expected) <= 5 * deviation + 1e-12).all()
    able = similar.any(1)
    assert anchors[able].min() > 0.7 * anchors[able].mean() and not anchors[~able].any()


def test_every_tag_of_the_anchor_is_as_likely(labels, rng):
    shares, anchors = drawn_shares(labels, "genre", "parallel", rng)
    tags = labels.arrays["genre"]
    # By a loop: a tag of the anchor, then a clip that has it.
    expected = np.zeros((60, 60))
    for anchor in np.flatnonzero(tags.any(1)):
        own = np.flatnonzero(tags[anchor])
        for tag in own:
            pool = np.setdiff1d(np.flatnonzero(tags[:, tag]), [anchor])
            expected[anchor, pool] += 1 / len(own) / len(pool)
    deviation = np.sqrt(expected * (1 - expected) / np.maximum(anchors, 1)[:, None])
    assert (np.abs(shares - expected) <= 5 * deviation + 1e-12).all()


def test_a_pair_across_the_seam_of_the_circle_of_tempi(rng):
    # 64.1 and 127.9 bpm are .002 octaves apart, one on either side of a power of two.
    values = {"a": {"tempo": ("64.1",)}, "b": {"tempo": ("127.9",)}, "c": {"tempo": ("95",)}}
    sampler = PositiveSampler(encode(Labels(values), list(values), ("tempo",)), "parallel")
    assert {tuple(pair) for pair in sampler.pairs("tempo", 50, rng).tolist()} == {(0, 1), (1, 0)}


def test_no_pair_where_nobody_is_similar(rng):
    values = {"a": {"tempo": ("90",), "key": ("C major",)}, "b": {"tempo": ("125",), "key": ("D major",)}}
    sampler = PositiveSampler(encode(Labels(values), list(values), ("tempo", "key")), "parallel")
    assert not len(sampler.pairs("tempo", 8, rng)) and not len(sampler.pairs("key", 8, rng))


def test_without_labels_the_teacher_finds_sampler(rng):
    teacher = TeacherTags(np.repeat(np.eye(3, dtype=np.float32), [20, 1, 9], axis=0), 0.9, 0.1)
    labels = EncodedLabels(tuple(map(str, range(30))), {"genre": np.zeros((30, 1), bool)}, {}, {"genre": teacher}, None)
    sampler, counts = PositiveSampler(labels, "parallel"), np.zeros((30, 30))
    for _ in range(40):
        np.add.at(counts, tuple(sampler.pairs("genre", 100, rng).T), 1)
    alike = teacher.relation(np.arange(30), np.arange(30)) > 0
    np.fill_diagonal(alike, False)
    assert counts.sum() == 4000 and not counts[~alike].any() and not counts[20].any()
    # Of 29 anchors that have any: 4000 / 29 pairs each, evenly over the 19 or 8 others of their kind.
    expected = 4000 / 29 * alike / np.maximum(alike.sum(1, keepdims=True), 1)
    assert abs(counts[:20].sum() - expected[:20].sum()) < 5 * np.sqrt(4000 * 20 / 29 * 9 / 29)
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected.max())
