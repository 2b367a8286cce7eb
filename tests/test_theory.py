"""Keys and tempi: hand tables, mir_eval's key relations, and loops over octaves."""

import itertools

import mir_eval.key
import numpy as np
import pytest

from msim_tf.errors import InputError
from msim_tf.theory import (
    TEMPO_RANGE,
    camelot,
    key_name,
    octave_distance,
    parallel_key,
    parse_bpm,
    parse_key,
    relative_key,
    transposed_key,
    within_tempo,
)

KEYS = np.arange(24)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("C", 0), ("C major", 0), ("C:maj", 0), ("CM", 0), ("B#", 0), ("Cb", 11), ("F#", 6), ("Gb major", 6), ("G♭", 6),
        ("A minor", 21), ("a minor", 21), ("Am", 21), ("A:minor", 21), ("A:min", 21), ("A aeolian", 21), ("am", 21),
        ("Bb major", 10), ("B flat", 10), ("bb minor", 22), ("Bbm", 22), ("Bm", 23), ("D# minor", 15), ("Eb minor", 15),
        (" F sharp minor ", 18), ("E-flat major", 3), ("Cb minor", 23), ("Db major", 1),
        ("8A", 21), ("8B", 0), ("08b", 0), ("12A", 13), ("1B", 11), ("1m", 21), ("1d", 0), ("12d", 5), (" 6m ", 20),
    ],
)  # fmt: skip
def test_keys_are_parsed(text, key):
    assert parse_key(text) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "H",
        "N",
        "c",
        "bb",
        "D dorian",
        "C maybe",
        "C##",
        "0A",
        "13B",
        "8C",
        "8",
        "A8",
        "H moll",
        "minor",
        "A minor minor",
    ],
)
def test_what_is_no_key_is_an_error(text):
    with pytest.raises(InputError, match="key "):
        parse_key(text)


def test_key_names_are_read_back():
    assert [parse_key(key_name(key)) for key in range(24)] == list(range(24))
    assert key_name(21) == "A minor" and key_name(10) == "Bb major"
    for key in (-1, 24):
        with pytest.raises(InputError, match=r"expected 0\.\.23"):
            key_name(key)


def test_key_numbers_are_semitones_above_c():
    majors = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
    assert [parse_key(f"{tonic} major") for tonic in majors] == list(range(12))


def test_parallel_and_relative_keys_are_those_of_mir_eval():
    # Its weighted score: .2 for the parallel key, .3 for the relative one.
    for a, b in itertools.product(range(24), repeat=2):
        score = mir_eval.key.weighted_score(key_name(a), key_name(b))
        assert (score == 0.2) == (parallel_key(a) == b)
        assert (score == 0.3) == (relative_key(a) == b)
    assert parallel_key(-1) == relative_key(-1) == transposed_key(-1, 5) == -1


def test_a_transposition_keeps_the_mode_and_moves_the_tonic():
    assert key_name(int(transposed_key(parse_key("A minor"), 3))) == "C minor"
    np.testing.assert_array_equal(transposed_key([0, 11, 12, 23, -1], [-1, 1, -1, 1, 7]), [11, 0, 23, 12, -1])
    np.testing.assert_array_equal(transposed_key(KEYS, 12), KEYS)


def test_camelot_codes_of_the_whole_wheel():
    # Clockwise from one o'clock, as Mixed In Key prints its wheel.
    minor = ["G#", "D#", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#"]
    major = ["B", "F#", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E"]
    for hour in range(1, 13):
        assert camelot(parse_key(f"{minor[hour - 1]} minor")) == f"{hour}A"
        assert camelot(parse_key(f"{major[hour - 1]} major")) == f"{hour}B"
    assert [parse_key(camelot(key)) for key in range(24)] == list(range(24))


@pytest.mark.parametrize(("value", "bpm"), [("120", 120), (" 87.5 ", 87.5), (60, 60), (np.float32(90), 90)])
def test_tempi_are_parsed(value, bpm):
    assert parse_bpm(value) == bpm


@pytest.mark.parametrize("value", ["fast", "", None, 0, -3, "nan", float("inf"), 1e300, 1e-300, 10**400, [1, 2]])
def test_what_is_no_tempo_is_an_error(value):
    with pytest.raises(InputError, match="^tempo .*: expected beats per minute"):
        parse_bpm(value)


def test_tempi_within_limits_against_a_loop_over_octaves(rng):
    bpm = np.concatenate([rng.uniform(20, 400, 200), TEMPO_RANGE, [60, 90, 120, 180, np.nan]])
    for lowest, highest in ((60, 90), (118, 122), (60, 60), (100, 250)):
        plain, folded = (within_tempo(bpm, lowest, highest, octaves=octaves) for octaves in (False, True))
        for tempo, inside, in_octave in zip(bpm, plain, folded):
            assert inside == (lowest <= tempo <= highest)
            assert in_octave == any(lowest <= tempo * 2.0**k <= highest for k in range(-16, 17))


def test_distances_on_the_circle_of_tempi():
    a, b = np.array([100, 100, 100, 100]), np.array([200, 25, 100 * 2**0.5, 100 * 2**0.75])
    np.testing.assert_allclose(octave_distance(a, b), [0, 0, 0.5, 0.25], atol=1e-12)
    np.testing.assert_allclose(octave_distance(b, a), [0, 0, 0.5, 0.25], atol=1e-12)
