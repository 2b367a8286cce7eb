"""Label triplets against a list of all that can be formed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from msim_tf.errors import InputError
from msim_tf.evaluate.label_triplets import label_triplets

NAMES = tuple(f"t{row}" for row in range(9))
GENRE = np.array([0, 0, 0, 1, 1, 2, -1, -1, 2])
TEMPO = np.array([90.0, 92.0, 140.0, 141.0, 200.0, 93.0, 91.0, 139.0, 60.0])
ARTISTS = np.array(["a", "a", "b", "b", "c", "c", "", "", "d"])


def _relations() -> dict[str, np.ndarray]:
    genre = np.where(GENRE[:, None] == GENRE, 1, -1) * ((GENRE[:, None] >= 0) & (GENRE >= 0))
    tempo = np.where(np.abs(TEMPO[:, None] - TEMPO) <= 5, 1, -1)
    return {"genre": genre.astype(np.int8), "era": np.zeros((9, 9), np.int8), "tempo": tempo.astype(np.int8)}


def _possible(relation: np.ndarray, artists: np.ndarray | None) -> set[tuple[str, str, str]]:
    """Every triplet, by looking at all of them."""

    def alike(a: int, b: int) -> bool:
        return artists is not None and artists[a] != "" and artists[a] == artists[b]

    return {
        (NAMES[a], NAMES[p], NAMES[n])
        for a, p, n in itertools.permutations(range(9), 3)
        if relation[a, p] > 0 and relation[a, n] < 0 and not alike(a, p) and not alike(a, n)
    }


@pytest.mark.parametrize("artists", [None, ARTISTS])
def test_all_that_can_be_formed_are_formed_once_and_equally_many_of_each(artists):
    relations = _relations()
    before = {kind: relation.copy() for kind, relation in relations.items()}
    possible = {kind: _possible(relation, artists) for kind, relation in relations.items()}
    count = min(len(possible["genre"]), len(possible["tempo"]))
    made = label_triplets(NAMES, relations, groups=artists, per_kind=10_000)
    actual = {
        kind: [
            member
            for triplet_id, *member in zip(made.triplet_ids, made.anchor, made.positive, made.negative)
            if triplet_id.startswith(kind)
        ]
        for kind in relations
    }
    assert {kind: len(members) for kind, members in actual.items()} == {"genre": count, "era": 0, "tempo": count}
    for kind, members in actual.items():
        assert len(set(map(tuple, members))) == len(members) and set(map(tuple, members)) <= possible[kind]
    rare = min(("genre", "tempo"), key=lambda kind: len(possible[kind]))
    assert set(map(tuple, actual[rare])) == possible[rare]
    assert all((relations[kind] == before[kind]).all() for kind in relations)


def test_they_say_what_they_are_and_follow_the_seed():
    first, again, other = (label_triplets(NAMES, _relations(), per_kind=5, seed=seed) for seed in (1, 1, 2))
    assert (first.name, first.judges) == ("label triplets", "labels")
    total = len(_possible(_relations()["genre"], None))
    assert f"genre 5 of {total}" in first.filters[0] and "not human similarity" in first.filters[0]
    assert first.anchor + first.positive + first.negative == again.anchor + again.positive + again.negative
    assert first.anchor + first.positive != other.anchor + other.positive
    assert np.isnan(first.agreement).all() and len(set(first.triplet_ids)) == 10


def test_nothing_to_form_is_an_error():
    relations = {"genre": _relations()["genre"]}
    with pytest.raises(InputError, match="no triplet can be formed from the labels of these 9 tracks by different"):
        label_triplets(NAMES, relations, groups=np.full(9, "same"))
    with pytest.raises(InputError, match="0 label triplets"):
        label_triplets(NAMES, relations, per_kind=0)
    with pytest.raises(InputError, match=r"shape \(9, 9\), expected \(8, 8\)"):
        label_triplets(NAMES[:8], relations)
