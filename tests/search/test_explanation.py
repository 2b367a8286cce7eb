"""Explanations against hand-written sentences and sums."""

import json

import pytest

from msim_tf.errors import InputError
from msim_tf.search.explanation import compared, explain, explanation, rounded_shares
from msim_tf.search.query import Match, examples_query, mixed_query, search, track_query
from msim_tf.search.tracks import track_metadata


@pytest.mark.parametrize(
    "name, query, match, text",
    [
        ("tempo", {"tempo": 120.0}, {"tempo": 121.0}, "121 vs 120 bpm"),
        ("tempo", {"tempo": 61.0}, {"tempo": 121.0}, "121 vs 61 bpm, double time"),
        ("tempo", {"tempo": 121.0}, {"tempo": 61.0}, "61 vs 121 bpm, half time"),
        ("tempo", {"tempo": 120.0}, {"tempo": 80.0}, "80 vs 120 bpm"),
        ("tempo", {"tempo": 120.0}, {}, ""),
        ("key", {"key": "C major"}, {"key": "A minor"}, "A minor, relative key of C major"),
        ("key", {"key": "A minor"}, {"key": "C major"}, "C major, relative key of A minor"),
        ("key", {"key": "Eb major"}, {"key": "C minor"}, "C minor, relative key of Eb major"),
        ("key", {"key": "C major"}, {"key": "C minor"}, "C minor, parallel key of C major"),
        ("key", {"key": "A# major"}, {"key": "Bb major"}, "both: Bb major"),
        ("key", {"key": "C major"}, {"key": "E minor"}, "E minor vs C major"),
        ("mood", {"mood": ["Acoustic", "calm", "sad"]}, {"mood": ["calm", "acoustic"]}, "both: calm, acoustic"),
        ("genre", {"genre": ["rock"]}, {"genre": ["jazz", "funk"]}, "jazz, funk vs rock"),
        ("genre", {"genre": ["rock"]}, {"tags": ["rock"]}, ""),
        ("era", {"year": 1971}, {"year": 1994}, "1994 vs 1971"),
        ("era", {"year": 1971}, {"year": 1971}, "both: 1971"),
        ("era", {"year": 1971, "era": ["70s"]}, {"year": 1979, "era": ["70s"]}, "both: 70s"),
        ("instrument", {}, {}, ""),
    ],
)
def test_evidence(name, query, match, text):
    assert compared(name, query, match) == text


def test_relative_keys_are_those_of_the_circle_of_fifths():
    pairs = "C A, G E, D B, A F#, E C#, B G#, F# D#, Db Bb, Ab F, Eb C, Bb G, F D"
    for pair in pairs.split(", "):
        major, minor = pair.split()
        assert compared("key", {"key": f"{major} major"}, {"key": f"{minor} minor"}).startswith(
            f"{minor} minor, relative key"
        )


def test_shares_sum_to_the_distance_and_stand_in_json(index):
    query = track_query(index, "t0001.ogg")
    for match in search(index, query, weights={"genre": 2, "mood": 1, "tempo": 0.5, "key": -0.7}, k=50):
        answer = json.loads(json.dumps(explain(index, query, match).to_json()))
        assert sum(answer["shares"].values()) == pytest.approx(answer["distance"], abs=1e-12)
        shown = answer["line"].split("; ")[0]
        total, terms = shown.split(" = ")
        signed = terms.split(" (")[0] and [part.split(" (")[0] for part in terms.replace("- ", "+ -").split(" + ")]
        numbers = [float(part.replace("-", "").split()[1]) * (-1 if part.startswith("-") else 1) for part in signed]
        assert sum(numbers) == pytest.approx(float(total), abs=1e-9)


def test_a_line_as_a_reader_sees_it(index):
    index.update_metadata(
        {
            "t0000.ogg": {"artist": "Ana", "tempo": 120, "key": "C major", "mood": ["calm", "acoustic"], "year": 1990},
            "t0001.ogg": {"artist": "ana", "tempo": 121, "key": "A minor", "mood": ["calm", "acoustic"]},
        }
    )
    query = track_query(index, "t0000.ogg")
    matches = search(index, query, weights={"mood": 1, "tempo": 1, "key": 1}, k=300)
    match = next(match for match in matches if match.identifier == "t0001.ogg")
    explanation = explain(index, query, match)
    thirds = {name: match.distances[name] / 3 for name in ("mood", "tempo", "key")}
    total, rounded = rounded_shares(list(thirds.values()))
    assert explanation.evidence == {
        "mood": "both: calm, acoustic",
        "tempo": "121 vs 120 bpm",
        "key": "A minor, relative key of C major",
    }
    assert explanation.line() == (
        f"{total:.3f} = mood {rounded[0]:.3f} (both: calm, acoustic) + tempo {rounded[1]:.3f} (121 vs 120 bpm) + "
        f"key {rounded[2]:.3f} (A minor, relative key of C major); same artist"
    )


def test_a_dimension_of_weight_0_is_left_out_and_one_of_distance_0_is_not(index):
    index.update_metadata(
        {name: {"tempo": 120, "key": "C major", "genre": ["folk"]} for name in ("t0000.ogg", "t0001.ogg")}
    )
    query = track_query(index, "t0000.ogg")
    match = next(m for m in search(index, query, weights={"tempo": 1}, k=300) if m.identifier == "t0001.ogg")
    assert set(explain(index, query, match).evidence) == {"tempo"}
    itself = Match("t0000.ogg", 0.0, {"tempo": 0.0, "key": 0.0}, {"tempo": 0.0}, index.metadata("t0000.ogg"))
    assert explanation(itself, {"tempo": index.metadata("t0000.ogg")}).line() == "0.000 = tempo 0.000 (120 vs 120 bpm)"


def test_evidence_of_a_mixed_query_is_from_each_dimensions_track(index):
    index.update_metadata(
        {"t0000.ogg": {"tempo": 90, "genre": ["folk"]}, "t0001.ogg": {"tempo": 150, "genre": ["soul"]}}
    )
    index.update_metadata({"t0002.ogg": {"tempo": 151, "genre": ["folk"], "mood": ["sad"]}})
    query = mixed_query(index, {"genre": "t0000.ogg", "tempo": "t0001.ogg"})
    match = next(match for match in search(index, query, k=300) if match.identifier == "t0002.ogg")
    explanation = explain(index, query, match)
    assert explanation.evidence == {"genre": "both: folk", "tempo": "151 vs 150 bpm"}
    assert set(explanation.shares) == {"genre", "tempo"}


def test_a_mean_of_examples_has_shares_but_no_evidence(index):
    query = examples_query(index, ["t0000.ogg", "t0001.ogg"])
    explanation = explain(index, query, search(index, query, k=1)[0])
    assert explanation.evidence == {} and explanation.notes == () and len(explanation.shares) == 6


@pytest.mark.parametrize(
    "shares", [[0.0004, 0.0004, 0.0004], [1.0], [0.3333, 0.3333, 0.3334], [0.5, -0.2504, -0.1004], []]
)
def test_rounded_shares_sum_and_stay_near(shares):
    total, rounded = rounded_shares(shares)
    assert total == pytest.approx(sum(shares), abs=0.0005 + 1e-9)
    assert sum(rounded) == pytest.approx(total, abs=1e-12)
    assert all(abs(a - b) < 0.001 for a, b in zip(shares, rounded))


def test_metadata_is_brought_to_one_spelling():
    tags = {
        "tempo": ("121",),
        "key": ("A minor",),
        "genre": "rock",
        "mood": ("calm", "sad"),
        "year": "1994",
        "title": None,
    }
    assert track_metadata({**tags, "album": "", "era": [], "file": {"size": 3}}, "x") == {
        "tempo": 121.0,
        "key": "A minor",
        "genre": ["rock"],
        "mood": ["calm", "sad"],
        "year": 1994,
        "file": {"size": 3},
    }


@pytest.mark.parametrize(
    "metadata, message",
    [
        ({"tempo": 0}, "metadata of x: tempo 0"),
        ({"tempo": ("1", "2")}, "tempo"),
        ({"key": "H moll"}, "key 'H moll'"),
        ({"year": "94"}, "year '94'"),
        ({"artist": 7}, "7 is not text"),
        ({"genre": ["rock", 3]}, "list of tags"),
        ({"file": object()}, "not JSON serializable"),
        ({"gain": float("nan")}, "not JSON compliant"),
    ],
)
def test_bad_metadata_is_refused(metadata, message):
    with pytest.raises(InputError, match=message):
        track_metadata(metadata, "x")


def hit(distances, metadata):
    return Match("t", sum(distances.values()), dict(distances), dict(distances), metadata)


def test_a_summary_says_what_is_shared_what_differs_and_what_it_is():
    query = {"tempo": 92.0, "key": "C major", "mood": ["calm"]}
    metadata = {"tempo": 183.0, "key": "A minor", "mood": ["calm", "sad"], "instrument": ["piano"]}
    distances = {"genre": 1.0, "mood": 0.2, "era": 2.0, "tempo": 0.9, "key": 0.1}
    answer = explanation(hit(distances, metadata), dict.fromkeys(distances, query))
    # Known tempi and keys decide for theirs, whatever the distance: 183 is twice 92, A minor is not C major.
    assert answer.summary == "same mood and tempo, another era and key; calm, piano; 183 bpm, A minor"
    assert answer.to_json()["summary"] == answer.summary


def test_a_summary_without_metadata_goes_by_distance():
    assert (
        explanation(hit({"genre": 0.1, "mood": 0.3, "key": 2.5}, {}), {}).summary == "same genre and mood, another key"
    )
    assert explanation(hit({"genre": 2.0, "mood": 1.0}, {}), {}).summary == ""
    assert explanation(hit({"genre": 2.0}, {"genre": ["jazz"]}), {}).summary == "jazz"
