"""Published splits: saved and loaded, by artist, and broken files."""

import json

import numpy as np
import pytest

from msim_tf.errors import InputError
from msim_tf.labels.splits import (
    Split,
    load_split,
    make_split,
    save_split,
    training_rows,
    without_shared_artists,
)


def test_a_split_is_saved_loaded_and_found_in_a_store(tmp_path):
    split = make_split("somebody", {"train": ["b", "a", "b"], "test": ["c"]})
    save_split(tmp_path / "split.json", split)
    assert load_split(tmp_path / "split.json") == split
    assert split.parts == {"train": ("a", "b"), "validation": (), "test": ("c",)}
    rows = split.rows(["x", "b", "c"])
    assert {part: array.tolist() for part, array in rows.items()} == {"train": [1], "validation": [], "test": [2]}
    assert rows["validation"].dtype == np.int64


def test_training_loses_the_artists_of_later_parts_and_validation_those_of_the_test():
    groups = {"a": "X", "b": "y", "c": "Y\x1fZ", "d": "z", "e": "W", "f": "w"}
    split = make_split("s", {"train": ["a", "b", "e", "u/unknown"], "validation": ["c", "f"], "test": ["d", "u/other"]})
    kept, lost = without_shared_artists(split, groups)
    # c shares Z with d and leaves validation, so Y no longer bars b; e shares W with f in any case of letters.
    assert kept.parts == {"train": ("a", "b", "u/unknown"), "validation": ("f",), "test": ("d", "u/other")}
    assert lost == {"validation": ("c",), "train": ("e",)}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"format": "msim-run"}, "not of format 'msim-split'"),
        ({"format_version": 9}, "format version 9"),
        ({"test": "a"}, "part 'test' is not a list of tracks"),
        ({"test": ["a"]}, "a is in train and in test"),
    ],
)
def test_other_files_are_refused(tmp_path, changes, message):
    save_split(tmp_path / "split.json", make_split("s", {"train": ["a"], "test": ["b"]}))
    value = json.loads((tmp_path / "split.json").read_text())
    del value["checksum"], value["checked"]  # as one that was written by hand
    (tmp_path / "split.json").write_text(json.dumps({**value, **changes}))
    with pytest.raises(InputError, match=message):
        load_split(tmp_path / "split.json")


def test_a_part_has_a_known_name():
    with pytest.raises(InputError, match="part 'dev', expected one of train, validation, test"):
        Split("s", {"dev": ()})


def test_training_obeys_a_published_split_and_holds_artists_out_where_it_has_no_validation():
    tracks = [f"artist{number % 5}/{number}.ogg" for number in range(20)]
    test = make_split("s", {"train": tracks[:15], "test": tracks[15:19]})
    rows = training_rows(tracks, {}, validation=0.2, seed=3, split=test)
    assert sorted([*rows["train"], *rows["validation"]]) == list(range(15)) and len(rows["validation"]) == 3
    assert rows["test"].tolist() == [15, 16, 17, 18]
    assert len({tracks[row].split("/")[0] for row in rows["validation"]}) == 1
    whole = make_split("s", {"train": tracks[:10], "validation": tracks[10:12], "test": tracks[12:]})
    rows = training_rows(tracks, {}, validation=0.2, seed=3, split=whole)
    assert rows["train"].tolist() == list(range(10)) and rows["validation"].tolist() == [10, 11]
    assert not len(training_rows(tracks, {}, validation=0.2, seed=3, split=make_split("s", {"test": tracks}))["train"])
