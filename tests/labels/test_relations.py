"""Relations: hand tables, symmetry, octaves, and a loop in plain Python that states each rule once more."""

import itertools
import math

import numpy as np
import pytest

from msim_tf.errors import InputError
from msim_tf.labels import relations
from msim_tf.labels.relations import key_relation, tag_relation, tempo_relation
from msim_tf.theory import parse_key


def sign(known, similar):
    return 0 if not known else (1 if similar else -1)


def test_tags_by_hand():
    tags = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    expected = [[1, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(tag_relation(tags, tags), expected)
    assert tag_relation(tags, tags[:2]).dtype == np.int8


def test_tags_against_sets(rng):
    a, b = rng.random((30, 7)) < 0.2, rng.random((20, 7)) < 0.2
    actual = tag_relation(a, b)
    for i, j in itertools.product(range(30), range(20)):
        mine, yours = set(np.flatnonzero(a[i])), set(np.flatnonzero(b[j]))
        assert actual[i, j] == sign(mine and yours, mine & yours)
    np.testing.assert_array_equal(actual, tag_relation(b, a).T)


def test_no_tag_at_all_is_unknown():
    np.testing.assert_array_equal(tag_relation(np.zeros((2, 0), bool), np.zeros((3, 0), bool)), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (120, 120, 1),
        (120, 125, 1),
        (120, 125.01, -1),
        (120, 60, 1),
        (120, 240, 1),
        (120, 30, 1),
        (120, 65, 1),  # 60 against 65
        (120, 70, -1),
        (120, 67, -1),  # 60 against 67, 120 against 134
        (62, 126, 1),  # 126 / 2 = 63
        (100, 150, -1),
        (240, 63, 1),  # 240 / 4 = 60; the other way, 252 against 240, is wider
        (math.nan, 120, 0),
        (math.nan, math.nan, 0),
        (0, 120, 0),
    ],
)
def test_tempi_by_hand(a, b, expected):
    assert tempo_relation(np.array([a]), np.array([b])) == [[expected]]
    assert tempo_relation(np.array([b]), np.array([a])) == [[expected]]


def test_tempi_against_a_loop_over_octaves(rng):
    a = rng.uniform(30, 260, 60)
    b = np.concatenate([rng.uniform(30, 260, 40), [np.nan]])
    actual = tempo_relation(a, b, margin=3.0)
    for i, j in itertools.product(range(60), range(41)):
        known = not math.isnan(b[j])
        octaves = range(-6, 7)
        similar = any(abs(a[i] * 2.0**k - b[j]) <= 3 or abs(a[i] - b[j] * 2.0**k) <= 3 for k in octaves)
        assert actual[i, j] == sign(known, similar)
    np.testing.assert_array_equal(actual, tempo_relation(b, a, margin=3.0).T)


def test_tempo_does_not_mind_octaves(rng):
    tempi = rng.uniform(60, 120, 50)
    assert (np.diag(tempo_relation(tempi, tempi * 2.0 ** rng.integers(-3, 4, 50))) == 1).all()
    assert (tempo_relation(tempi.astype(np.float32), tempi) == tempo_relation(tempi, tempi)).mean() > 0.999


C, G, A, Cm, Am, Em = (parse_key(name) for name in ("C", "G", "A", "Cm", "Am", "Em"))


@pytest.mark.parametrize(
    ("relation", "related"),
    [
        ("parallel", {(C, Cm), (A, Am)}),
        ("relative", {(C, Am), (G, Em)}),
        ("both", {(C, Cm), (A, Am), (C, Am), (G, Em)}),
    ],
)
def test_keys_by_hand(relation, related):
    keys = [C, G, A, Cm, Am, Em, -1]
    actual = key_relation(np.array(keys, np.int8), np.array(keys, np.int8), relation=relation)
    for (i, a), (j, b) in itertools.product(enumerate(keys), repeat=2):
        assert actual[i, j] == sign(a >= 0 and b >= 0, a == b or (a, b) in related or (b, a) in related)
    assert actual.dtype == np.int8


@pytest.mark.parametrize(("relation", "similar"), [("parallel", 2), ("relative", 2), ("both", 3)])
def test_every_key_has_as_many_relatives(relation, similar):
    keys = np.arange(24)
    actual = key_relation(keys, keys, relation=relation)
    np.testing.assert_array_equal(actual, actual.T)
    assert ((actual == 1).sum(axis=1) == similar).all()


def test_an_unknown_key_relation_is_an_error():
    with pytest.raises(InputError, match="'german': expected one of parallel, relative, both"):
        key_relation(np.array([0]), np.array([0]), relation="german")


def test_relation_dispatches_by_dimension():
    tags = np.eye(2, dtype=bool)
    np.testing.assert_array_equal(relations.relation("mood", tags, tags), tag_relation(tags, tags))
    assert relations.relation("tempo", np.array([60.0]), np.array([120.0])) == [[1]]
    assert relations.relation("key", np.array([C]), np.array([Am])) == [[-1]]
    assert relations.relation("key", np.array([C]), np.array([Am]), key_relation="relative") == [[1]]
    with pytest.raises(InputError, match="unknown dimension 'colour'"):
        relations.relation("colour", tags, tags)
