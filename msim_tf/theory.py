"""Musical keys and tempi as numbers: the one place that knows their names, relations and octaves.

Keys are integers: 0..11 are C major to B major, 12..23 are C minor to B minor, -1 is unknown. Enharmonic names are one
key. Tempi are in beats per minute (bpm). Octaves of a tempo are its doubles and halves.

This module needs NumPy only, so that search, labels and training can all use it.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from msim_tf.errors import InputError

KEYS = 24
UNKNOWN_KEY = -1
KEY_RELATIONS: tuple[str, ...] = ("parallel", "relative", "both")

TEMPO_MARGIN = 5.0  # bpm; two tempi this close are similar (Ribecky et al., section 3.3)
TEMPO_RANGE = (0.125, 8192.0)  # bpm; far beyond what music has, so anything outside is a mistake

# The tempi between which an estimate chooses: 40 to an octave, 1.7 % apart, from 30 to 295 bpm. What lies up to two
# steps from a tempo, 3.5 %, counts for it: tempo estimates are usually judged with a tolerance of 4 %.
STEPS_PER_OCTAVE = 40
TEMPO_STEPS: np.ndarray = 30.0 * np.exp2(np.arange(133) / STEPS_PER_OCTAVE)
TEMPO_REACH = 2

# The spelling of madmom and of most scores: the one with fewer accidentals.
_MAJOR_TONICS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_MINOR_TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
_PITCH_CLASSES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}
_MODES = {"": 0, "major": 0, "maj": 0, "ionian": 0, "minor": 12, "min": 12, "aeolian": 12}
_KEY = re.compile(r"([A-Ga-g])[ -]?(#|♯|b|♭|sharp|flat)?[ :_-]*([A-Za-z]*)")
# Wheel codes of DJ software: Camelot "8A" (A minor) and "8B" (C major), Open Key "1m" and "1d" for the same two.
_WHEEL_CODE = re.compile(r"0?([1-9]|1[0-2])([ABabDMdm])")
_ROUNDING = 1e-12  # relative; what doubling a limit and taking its logarithm can lose
_CAMELOT_START = 8  # the Camelot hour of C major and A minor; Open Key calls it 1


def parse_key(text: str) -> int:
    """The number of a key.

    Reads a tonic and a mode ("A minor", "Am", "A:min", "a minor", "Bb major", "B flat", "F#"; a capital without a mode
    is major) and the wheel codes of DJ software (Camelot "8A", Open Key "1m").

    Args:
        text: the name; surrounding spaces do not matter.

    Returns:
        0..23.

    Raises:
        InputError: if ``text`` names no key. A lone small letter is refused: some people mean the minor key by it.
    """
    text = text.strip()
    wheel = _WHEEL_CODE.fullmatch(text)
    if wheel:
        hour, letter = int(wheel[1]), wheel[2].upper()
        # An hour on the wheel is a fifth, 7 semitones; minor keys stand with their relative major.
        fifths = hour - (_CAMELOT_START if letter in "AB" else 1)
        major = 7 * fifths % 12
        return int(relative_key(major)) if letter in "AM" else major
    match = _KEY.fullmatch(text)
    if not match:
        raise InputError(f"key {text!r}: expected a tonic and a mode, e.g. 'A minor', 'Bb major', 'F#m' or '8A'")
    tonic, accidental, mode = match[1], match[2] or "", match[3]
    # "M" and "m" differ in case only, every other mode is read in any case.
    offset = {"M": 0, "m": 12}.get(mode, _MODES.get(mode.lower()))
    if offset is None or (not mode and tonic.islower()):
        raise InputError(f"key {text!r}: its mode is unclear; write 'major' or 'minor' after the tonic")
    return (_PITCH_CLASSES[tonic.upper()] + _ACCIDENTALS[accidental]) % 12 + offset


def key_name(key: int) -> str:
    """The name of key 0..23, e.g. "A minor"; ``parse_key`` reads it back.

    Raises:
        InputError: if ``key`` is outside 0..23.
    """
    _validate_key(key)
    return f"{_MAJOR_TONICS[key]} major" if key < 12 else f"{_MINOR_TONICS[key - 12]} minor"


def camelot(key: int) -> str:
    """The Camelot code of key 0..23: "8B" is C major, "8A" A minor; neighbours on the wheel are a fifth apart.

    Raises:
        InputError: if ``key`` is outside 0..23.
    """
    _validate_key(key)
    # A minor key stands at the hour of its relative major. Seven semitones are one fifth, and 7 * 7 = 49 = 1 modulo 12.
    major = key if key < 12 else int(relative_key(key))
    hour = (_CAMELOT_START - 1 + 7 * major) % 12 + 1
    return f"{hour}{'B' if key < 12 else 'A'}"


def parallel_key(key: Any) -> np.ndarray:
    """The key of the same tonic in the other mode (C major, C minor); int64 of the shape of ``key``, -1 stays -1."""
    key = np.asarray(key, np.int64)
    return np.where(key < 0, UNKNOWN_KEY, (key + 12) % KEYS)


def relative_key(key: Any) -> np.ndarray:
    """The key of the same notes in the other mode (C major, A minor); int64 of the shape of ``key``, -1 stays -1."""
    key = np.asarray(key, np.int64)
    # The relative minor starts nine semitones above its major, the relative major three above its minor.
    other = np.where(key < 12, 12 + (key + 9) % 12, (key + 3) % 12)
    return np.where(key < 0, UNKNOWN_KEY, other)


def transposed_key(key: Any, semitones: Any) -> np.ndarray:
    """The key after a transposition by whole semitones; int64 of the common shape, -1 stays -1."""
    key = np.asarray(key, np.int64)
    return np.where(key < 0, UNKNOWN_KEY, key // 12 * 12 + (key + semitones) % 12)


def parse_bpm(value: Any) -> float:
    """A tempo as a number.

    Args:
        value: a number or its text.

    Returns:
        bpm, inside ``TEMPO_RANGE``.

    Raises:
        InputError: if it is no number, or outside.
    """
    try:
        bpm = float(value)
    except (TypeError, ValueError, OverflowError):
        bpm = math.nan
    if not TEMPO_RANGE[0] <= bpm <= TEMPO_RANGE[1]:
        raise InputError(f"tempo {value!r}: expected beats per minute as a number > 0, e.g. 120")
    return bpm


def similar_tempo(a: np.ndarray, b: np.ndarray, *, margin: float = TEMPO_MARGIN) -> np.ndarray:
    """Whether tempi are at most ``margin`` bpm apart once one of the two is shifted by whole octaves.

    |a * 2**k - b| <= margin or |a - b * 2**k| <= margin for some integer k: one side is shifted, the other keeps its
    own tempo, so the rule is symmetric and as wide as its wider reading (ours of Ribecky et al., section 3.3).

    Args:
        a: bpm, > 0, of any shape.
        b: bpm, > 0, of a shape that fits.
        margin: in bpm, >= 0.

    Returns:
        bool, of their common shape.
    """
    # With a and b between 1/2 and 1 times an octave of their own, only three shifts can bring them together:
    # |a * 2**k - b| falls and then rises with k. |a - b / 2**k| is that divided by 2**k, so one comparison decides
    # both readings.
    (a, octave_a), (b, octave_b) = np.frexp(a), np.frexp(b)
    margin_a, margin_b = np.ldexp(margin, -octave_a), np.ldexp(margin, -octave_b)
    similar = np.abs(a - b) <= np.maximum(margin_a, margin_b)
    for shift in (0.5, 2.0):
        similar |= np.abs(a * shift - b) <= np.maximum(margin_a * shift, margin_b)
    return similar


def octave_distance(a: Any, b: Any) -> np.ndarray:
    """How far apart two tempi are on the circle of tempi, where octaves are one point.

    Args:
        a: bpm, or any factor of a tempo, > 0.
        b: the same, of a shape that fits.

    Returns:
        |log2(a / b)| less the nearest whole number, in [0, 0.5] octaves.
    """
    octaves = np.log2(np.asarray(a) / np.asarray(b))
    return np.abs(np.remainder(octaves + 0.5, 1.0) - 0.5)


def within_tempo(bpm: np.ndarray, lowest: float, highest: float, *, octaves: bool = False) -> np.ndarray:
    """Whether tempi lie between two limits, both included.

    Args:
        bpm: tempi of any shape; NaN (unknown) is outside.
        lowest: bpm, > 0.
        highest: bpm, >= ``lowest``.
        octaves: whether a tempo also passes when it is doubled or halved any number of times.

    Returns:
        bool, of the shape of ``bpm``.
    """
    bpm = np.asarray(bpm, np.float64)
    if octaves:
        # The least doubling that reaches the lower limit: if that is too fast, so are all others.
        bpm = bpm * np.exp2(np.ceil(np.log2(lowest / bpm) - _ROUNDING))
    return (bpm >= lowest * (1 - _ROUNDING)) & (bpm <= highest)


def tempo_estimate(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest tempo, with its half and its double.

    Args:
        probabilities: [..., steps] of ``TEMPO_STEPS``.

    Returns:
        bpm [..., 3] of the likeliest tempo, half and double of it, and their probabilities [..., 3]: the sum over
        ``TEMPO_REACH`` steps around each, 0 for one outside ``TEMPO_STEPS``.
    """
    near = near_tempo_steps()
    # [..., steps]: how likely each tempo is with its neighbours, and their mean, on the logarithmic axis of tempo.
    mass = probabilities @ near
    best = mass.argmax(axis=-1)[..., None]
    centre = (probabilities * np.log2(TEMPO_STEPS)) @ near / np.maximum(mass, 1e-12)
    bpm = np.exp2(np.take_along_axis(centre, best, -1) + np.array([0.0, -1.0, 1.0]))
    # The steps one octave below and above.
    places = best + STEPS_PER_OCTAVE * np.array([0, -1, 1])
    inside = (places >= 0) & (places < len(TEMPO_STEPS))
    confidence = np.take_along_axis(mass, np.clip(places, 0, len(TEMPO_STEPS) - 1), -1) * inside
    return bpm, np.minimum(confidence, 1.0)


def near_tempo_steps() -> np.ndarray:
    """Which of ``TEMPO_STEPS`` count as one tempo: [steps, steps] float32 of 0 and 1, symmetric."""
    steps = np.arange(len(TEMPO_STEPS))
    return (np.abs(steps[:, None] - steps) <= TEMPO_REACH).astype(np.float32)


def _validate_key(key: int) -> None:
    if not 0 <= key < KEYS:
        raise InputError(f"key {key}: expected 0..{KEYS - 1}")
