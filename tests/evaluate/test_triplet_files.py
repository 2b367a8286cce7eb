"""Readers of triplets, on synthetic files in the exact official column layout."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from msim_tf.errors import InputError
from msim_tf.evaluate.triplet_files import read_triplets
from msim_tf.evaluate.triplets import agreeing, clip_reading, matched

DATA = Path(__file__).parent / "data"
A, B, C, D = (f"TRSYNTH000000000{letter}" for letter in "ABCD")


def _records(name: str) -> list[dict[str, str]]:
    with open(DATA / name, newline="") as file:
        return list(csv.DictReader(file))


def _numbers(record: dict[str, str]) -> dict[str, object]:
    return {column: value if column.endswith("_id") else float(value) for column, value in record.items()}


def _written(path: Path, records: list[dict[str, str]]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
    return path


def test_raw_votes_decide_and_ties_are_dropped():
    triplets, dropped = read_triplets(DATA / "synthetic-raw-dim-sim.csv")
    assert triplets.triplet_ids == ("synthetic-0", "synthetic-1", "synthetic-4")
    assert list(zip(triplets.anchor, triplets.positive, triplets.negative)) == [(A, B, C), (A, D, C), (A, A, D)]
    assert triplets.agreement.tolist() == [0.9, 0.8, 1.0]
    assert [max(votes) / sum(votes) for votes in triplets.votes.tolist()] == triplets.agreement.tolist()
    assert triplets.starts.tolist() == [[0, 12.5, 3.25], [0, 6, 3.25], [0, 9, 6]]
    assert dropped.reasons == {"tied votes": ("synthetic-2",), "no votes": ("synthetic-3",)}


def test_clean_files_tell_outcomes_and_are_not_filtered_again():
    triplets, dropped = read_triplets(DATA / "synthetic-clean-dim-sim.csv")
    assert list(zip(triplets.anchor, triplets.positive, triplets.negative)) == [(A, B, C), (A, D, C)]
    assert all(math.isnan(share) for share in triplets.agreement)
    kept, below = agreeing(triplets, 0.9)
    assert (len(kept), below.count, dropped.count) == (2, 0, 0)
    assert "as published" in kept.filters[0]


def test_agreement_at_the_threshold_passes():
    triplets, _ = read_triplets(DATA / "synthetic-raw-dim-sim.csv")
    kept, below = agreeing(triplets, 0.9)
    assert kept.triplet_ids == ("synthetic-0", "synthetic-4")
    assert kept.filters == ("agreement >= 90%",)
    assert below.reasons == {"agreement below 90%": ("synthetic-1",)}
    with pytest.raises(InputError, match="threshold is 90"):
        agreeing(triplets, 90)


@pytest.mark.parametrize("name", ["synthetic-raw-dim-sim", "synthetic-clean-dim-sim"])
@pytest.mark.parametrize("form", ["records", "columns", "by id"])
def test_json_says_what_csv_says(tmp_path, name, form):
    records = [_numbers(record) for record in _records(f"{name}.csv")]
    if form == "columns":
        value = {column: {str(row): record[column] for row, record in enumerate(records)} for column in records[0]}
    elif form == "by id":
        value = {record.pop("triplet_id"): record for record in records}
    else:
        value = records
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(value))
    expected, expected_dropped = read_triplets(DATA / f"{name}.csv")
    actual, dropped = read_triplets(path)
    assert (actual.triplet_ids, actual.anchor, actual.positive, actual.negative) == (
        expected.triplet_ids,
        expected.anchor,
        expected.positive,
        expected.negative,
    )
    assert actual.starts.tolist() == expected.starts.tolist()
    assert dropped == expected_dropped


def test_columns_are_found_by_name_in_any_order_and_others_ignored(tmp_path):
    records = [dict(reversed([*record.items(), ("genre", "x")])) for record in _records("synthetic-raw-dim-sim.csv")]
    triplets, _ = read_triplets(_written(tmp_path / "shuffled.csv", records))
    assert triplets.positive == (B, D, A)


def test_the_two_readings_name_what_must_be_embedded():
    triplets, _ = read_triplets(DATA / "synthetic-raw-dim-sim.csv")
    assert [(clip.identifier, clip.track, clip.start) for clip in triplets.clips()] == [
        (name, name, None) for name in (A, B, D, C)
    ]
    exact = clip_reading(triplets)
    assert exact.positive == (f"{B}@12.5", f"{D}@6", f"{A}@9")
    assert {(clip.identifier, clip.track, clip.start, clip.seconds) for clip in exact.clips()} == {
        (f"{A}@0", A, 0.0, 3.0),
        (f"{A}@9", A, 9.0, 3.0),
        (f"{B}@12.5", B, 12.5, 3.0),
        (f"{C}@3.25", C, 3.25, 3.0),
        (f"{D}@6", D, 6.0, 3.0),
    }
    assert clip_reading(exact) is exact


def test_magnatagatune_names_the_odd_one():
    triplets, dropped = read_triplets(DATA / "synthetic-comparisons_final.csv")
    # Votes 1, 0, 4: who names the third finds the first two closest; who names the first prefers 2-3 to 1-2.
    assert list(zip(triplets.triplet_ids, triplets.anchor, triplets.positive, triplets.negative)) == [
        ("1.1", "9000001", "9000002", "9000003"),
        ("1.2", "9000002", "9000001", "9000003"),
        ("3.1", "9000008", "9000009", "9000007"),
        ("3.2", "9000009", "9000008", "9000007"),
    ]
    assert triplets.votes.tolist() == [[4, 0], [4, 1], [3, 0], [3, 1]]
    assert triplets.agreement.tolist() == [1.0, 0.8, 1.0, 0.75]
    assert triplets.queries == ("1", "1", "3", "3")
    assert dropped.reasons == {"tied votes": ("2",)}
    with pytest.raises(InputError, match="no start columns"):
        clip_reading(triplets)


def test_a_plain_list(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("anchor,positive,negative\na,b,c\nd, e ,f\n")
    triplets, _ = read_triplets(path)
    assert (triplets.triplet_ids, triplets.positive) == (("1", "2"), ("b", "e"))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("song1_vote", "0.7", "triplet 2: song1_vote is '0.7', neither a count nor 0/1"),
        ("song2_vote", "-1", "song2_vote is '-1', neither a count nor 0/1"),
        ("song2_vote", "many", "song2_vote is 'many', expected a number"),
        ("song2_vote", "nan", "song2_vote is 'nan', expected a number"),
        ("anchor_id", " ", "triplet 2: anchor_id is empty"),
        ("song1_start_seconds", "-3", "a start of -3.0 s"),
        ("triplet_id", "synthetic-0", "triplet ids more than once: synthetic-0"),
    ],
)
def test_a_faulty_value_is_named(tmp_path, column, value, message):
    records = _records("synthetic-raw-dim-sim.csv")
    records[1][column] = value
    with pytest.raises(InputError, match=message):
        read_triplets(_written(tmp_path / "faulty.csv", records))


def test_unknown_columns_and_empty_or_missing_files(tmp_path):
    (tmp_path / "other.csv").write_text("artist,title\nx,y\n")
    with pytest.raises(InputError, match="columns artist, title; expected those of Dim-Sim"):
        read_triplets(tmp_path / "other.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="no triplets in it"):
        read_triplets(tmp_path / "empty.csv")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match="expected a JSON list of triplets"):
        read_triplets(tmp_path / "list.json")
    # Longer than the longest cell that any of our readers has csv take.
    (tmp_path / "long.csv").write_text(f"anchor,positive,negative\n{'a' * (2**24 + 1)},b,c\n")
    with pytest.raises(InputError, match=r"long\.csv, line 1: not a table \(field larger"):
        read_triplets(tmp_path / "long.csv")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="deep.json: not valid JSON .nested too deeply"):
        read_triplets(tmp_path / "deep.json")
    (tmp_path / "large.json").write_text('[{"query": "q", "candidate": "a", "rating": 1' + "0" * 400 + "}]")
    with pytest.raises(InputError, match="row 1: rating is 1000"):
        read_triplets(tmp_path / "large.json")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_triplets(tmp_path / "binary.csv")
    with pytest.raises(InputError, match="not found"):
        read_triplets(tmp_path / "nowhere.csv")


def test_a_row_cut_short_is_named(tmp_path):
    text = (DATA / "synthetic-raw-dim-sim.csv").read_text()
    (tmp_path / "cut.csv").write_text(text[: text.rindex(",")])
    with pytest.raises(InputError, match="triplet 5: song2_vote is None"):
        read_triplets(tmp_path / "cut.csv")


def test_names_find_their_files():
    known = ["TR1.mp3", "deep/TR2.mp3", "TR3.mp3", "TR3.ogg", "TR4", "TR4.mp3", "z/b.mp3"]
    actual = matched(["TR1", "TR2", "TR3", "TR4", "TR5", "9", "TR1.mp3"], known, paths={"9": "z/b.mp3"})
    assert actual == {"TR1": "TR1.mp3", "TR2": "deep/TR2.mp3", "TR4": "TR4", "9": "z/b.mp3", "TR1.mp3": "TR1.mp3"}


def test_magnatagatune_clips_are_found_by_their_path():
    triplets, _ = read_triplets(DATA / "synthetic-comparisons_final.csv")
    assert triplets.paths["9000003"] == "z/c.mp3"
    names = matched(triplets.identifiers, ["z/a.mp3", "z/b.mp3", "9000003"], paths=triplets.paths)
    assert names[triplets.positive[0]] == "z/b.mp3" and names[triplets.negative[0]] == "9000003"
