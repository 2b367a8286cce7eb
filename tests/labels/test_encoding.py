"""Encoding by hand, and splits against brute force over all choices of groups."""

import itertools

import numpy as np
import pytest

from msim_tf.errors import InputError
from msim_tf.labels.encoding import Labels, encode, split_by_group
from msim_tf.labels.tables import joined_groups

TRACKS = ("a", "b", "c", "d")
LABELS = Labels(
    {
        "a": {"genre": ("zouk", "pop"), "tempo": ("120",), "key": ("C major",)},
        "b": {"genre": ("rock",), "tempo": ("60.5",), "key": ("A minor",)},
        "c": {"genre": ("pop",), "key": ("C minor",)},
        "elsewhere": {"genre": ("jazz",)},
    }
)


def test_encoding_by_hand():
    encoded = encode(LABELS, TRACKS, ["genre", "mood", "tempo", "key"])
    assert encoded.identifiers == TRACKS
    assert encoded.vocabularies == {"genre": ("rock", "pop", "zouk"), "mood": ()}
    np.testing.assert_array_equal(encoded.arrays["genre"], [[0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert encoded.arrays["genre"].dtype == bool and encoded.arrays["mood"].shape == (4, 0)
    np.testing.assert_array_equal(encoded.arrays["tempo"], np.float32([120, 60.5, np.nan, np.nan]))
    assert encoded.arrays["tempo"].dtype == np.float32
    np.testing.assert_array_equal(encoded.arrays["key"], np.int8([0, 21, 12, -1]))
    assert encoded.arrays["key"].dtype == np.int8
    for name, known in {"genre": "1110", "mood": "0000", "tempo": "1100", "key": "1110"}.items():
        assert "".join(str(int(flag)) for flag in encoded.labelled(name)) == known


def test_relations_between_rows_and_columns():
    encoded = encode(LABELS, TRACKS, ["genre", "tempo", "key"])
    everyone = np.arange(4)
    expected = [[1, -1, 1, 0], [-1, 1, -1, 0], [1, -1, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(encoded.relation("genre", everyone, everyone), expected)
    np.testing.assert_array_equal(encoded.relation("tempo", np.array([1]), everyone), [[1, 1, 0, 0]])
    np.testing.assert_array_equal(encoded.relation("key", np.array([0]), everyone), [[1, -1, 1, 0]])
    relative = encoded.relation("key", np.array([0]), everyone, key_relation="relative")
    np.testing.assert_array_equal(relative, [[1, 1, -1, 0]])


def test_taking_rows_keeps_the_vocabulary():
    encoded = encode(LABELS, TRACKS, ["genre", "tempo"])
    taken = encoded.take(np.array([2, 0]))
    assert taken.identifiers == ("c", "a") and taken.vocabularies == encoded.vocabularies
    np.testing.assert_array_equal(taken.arrays["genre"], encoded.arrays["genre"][[2, 0]])
    np.testing.assert_array_equal(taken.labelled("tempo"), [False, True])


def test_a_dimension_that_was_not_encoded_is_named():
    with pytest.raises(InputError, match="'mood' was not encoded, only genre, key"):
        encode(LABELS, TRACKS, ["genre", "key"]).labelled("mood")


def library(sizes):
    tracks = [f"{group}/{number}.ogg" for group, size in enumerate(sizes) for number in range(size)]
    return tracks, {track: f"artist {track.split('/')[0]}" for track in tracks}


def groups_of(indices, tracks):
    return {tracks[index].split("/")[0] for index in indices}


@pytest.mark.parametrize("sizes", [(4,) * 9, (30, 5, 1), (1, 3, 5, 20), (7, 7), (1, 20), (2, 3, 5, 8, 13, 21, 1, 1)])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_a_split_is_as_near_as_whole_groups_allow(sizes, share):
    tracks, groups = library(sizes)
    parts = split_by_group(tracks, groups, validation=share, seed=3)

    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(tracks)))
    assert not groups_of(parts["train"], tracks) & groups_of(parts["validation"], tracks)
    choices = (c for count in range(1, len(sizes)) for c in itertools.combinations(sizes, count))
    nearest = min(abs(sum(choice) - share * len(tracks)) for choice in choices)
    assert abs(len(parts["validation"]) - share * len(tracks)) == pytest.approx(nearest)


def test_three_parts_are_disjoint_and_none_is_empty():
    for sizes in ((1, 1, 1), (50, 1, 1), (4,) * 9):
        tracks, groups = library(sizes)
        parts = split_by_group(tracks, groups, validation=0.2, test=0.2, seed=1)
        assert all(len(indices) for indices in parts.values())
        held = [groups_of(indices, tracks) for indices in parts.values()]
        assert sum(map(len, held)) == len(sizes) == len(set.union(*held))


def test_the_seed_decides():
    tracks, groups = library([3] * 30)
    first, again, other = (split_by_group(tracks, groups, seed=seed) for seed in (1, 1, 2))
    for part in first:
        np.testing.assert_array_equal(first[part], again[part])
    assert groups_of(first["validation"], tracks) != groups_of(other["validation"], tracks)
    chosen = [groups_of(split_by_group(tracks, groups, seed=seed)["validation"], tracks) for seed in range(40)]
    assert len(set.union(*chosen)) > 25  # over seeds every group has its turn


def test_tracks_without_a_group_go_by_their_folder():
    tracks = ["x/1.ogg", "x/2.ogg", "y/1.ogg", "top.ogg", "y/2.ogg", "z/9.ogg"]
    parts = split_by_group(tracks, {"z/9.ogg": "Y"}, validation=0.3, test=0.2, seed=0)
    where = {tracks[index]: part for part, indices in parts.items() for index in indices}
    assert where["x/1.ogg"] == where["x/2.ogg"]
    assert where["y/1.ogg"] == where["y/2.ogg"] == where["z/9.ogg"]  # an artist named as the folder, in any case


def test_no_validation_wanted():
    parts = split_by_group(["a.ogg"], {}, validation=0.0)
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [1, 0, 0]


def test_what_cannot_be_split_is_an_error():
    tracks, groups = library([5])
    with pytest.raises(
        InputError, match="1 group of tracks for train, validation; .* tell artists apart by 'artist' rows"
    ):
        split_by_group(tracks, groups)
    with pytest.raises(InputError, match="2 groups of tracks for train, validation, test"):
        split_by_group(*library([5, 5]), test=0.1)
    for validation, test in ((-0.1, 0), (0.5, 0.5), (1.0, 0)):
        with pytest.raises(InputError, match="must be >= 0 and leave something to train on"):
            split_by_group(*library([5, 5]), validation=validation, test=test)


def test_a_large_catalogue_is_split_quickly(rng):
    tracks, groups = library(rng.integers(1, 30, 4000))
    parts = split_by_group(tracks, groups, validation=0.1, test=0.1)
    assert [len(parts[name]) for name in ("validation", "test")] == [pytest.approx(len(tracks) / 10, abs=1)] * 2


def test_tracks_of_several_artists_are_on_the_side_of_all_of_them_or_on_none():
    solo = [f"{artist}{n}" for artist in "abcdefgh" for n in range(5)]
    groups = {name: name[0].upper() for name in solo}
    joint = {f"{a}+{b}": joined_groups((a.upper(), b.upper())) for a, b in itertools.combinations("abcdefgh", 2)}
    joint |= {"a+guest": joined_groups(("A", "Guest")), "shouting": joined_groups(("a", "A"))}
    identifiers = [*solo, *joint]
    parts = split_by_group(identifiers, groups | joint, validation=0.25, seed=3)
    actual = {name: {identifiers[index] for index in indices} for name, indices in parts.items()}
    sides = {name: {track[0] for track in actual[name] & set(solo)} for name in actual}
    assert len(sides["validation"]) == 2 and not sides["train"] & sides["validation"]
    for name, side in sides.items():
        both = {f"{a}+{b}" for a, b in itertools.combinations("abcdefgh", 2) if {a, b} <= side}
        assert actual[name] - set(solo) - {"a+guest", "shouting"} == both
    assert {"a+guest", "shouting"} <= actual["train" if "a" in sides["train"] else "validation"]


def test_artists_that_are_never_alone_stay_with_those_they_play_with():
    """Twelve duos that nobody crosses: each is whole on one side, and none is lost."""
    groups = {f"{duo}/{n}": joined_groups((f"left {duo}", f"right {duo}")) for duo in range(12) for n in range(4)}
    tracks = sorted(groups)
    parts = split_by_group(tracks, groups, validation=0.25, seed=1)
    sides = {name: {tracks[index].split("/")[0] for index in indices} for name, indices in parts.items()}
    assert (len(sides["train"]), len(sides["validation"])) == (9, 3) and not sides["train"] & sides["validation"]
    assert sum(map(len, parts.values())) == len(tracks)
