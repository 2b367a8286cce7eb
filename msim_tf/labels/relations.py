"""When are two tracks similar in one dimension? Pure functions from labels to relation matrices, and the names of keys.

Every relation is an int8 matrix: +1 similar, -1 dissimilar, 0 unknown. A track without a label is unknown to all others: neither positive
nor negative. Tempo similarity is not transitive, so relations are matrices and never class ids. A track is similar to itself; a caller
whose rows and columns are the same clips clears the diagonal.

Keys are integers: 0..11 C major to B major, 12..23 C minor to B minor, -1 unknown.
"""

from __future__ import annotations

import re

import numpy as np

from msim_tf import dimensions
from msim_tf.errors import InputError

KEY_RELATIONS: tuple[str, ...] = ("parallel", "relative", "both")
TEMPO_MARGIN = 5.0  # bpm (paper, section 3.3)

# The spelling of madmom and of most scores: the one with fewer accidentals.
_MAJOR_TONICS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_MINOR_TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
_PITCH_CLASSES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}
_MODES = {"major": 0, "maj": 0, "ionian": 0, "minor": 12, "min": 12, "aeolian": 12}
_KEY = re.compile(r"([A-Ga-g])[ -]?(#|♯|b|♭|sharp|flat)?[ :_-]*([A-Za-z]*)")


def tag_relation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Similar if they share a tag, dissimilar if both are tagged and share none.

    Args:
        a: [n, tags] bool.
        b: [m, tags] bool, same tags.

    Returns:
        [n, m] int8.
    """
    shared = a.astype(np.float32) @ b.astype(np.float32).T > 0
    return _relation(shared, np.asarray(a.any(axis=1)), np.asarray(b.any(axis=1)))


def tempo_relation(a: np.ndarray, b: np.ndarray, *, margin: float = TEMPO_MARGIN) -> np.ndarray:
    """Similar if ``similar_tempo``.

    Args:
        a: [n] bpm; what is not a positive number is unknown.
        b: [m] bpm.
        margin: in bpm, >= 0.

    Returns:
        [n, m] int8.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    known_a, known_b = np.isfinite(a) & (a > 0), np.isfinite(b) & (b > 0)
    similar = similar_tempo(np.where(known_a, a, 1.0)[:, None], np.where(known_b, b, 1.0), margin=margin)
    return _relation(similar, known_a, known_b)


def similar_tempo(a: np.ndarray, b: np.ndarray, *, margin: float = TEMPO_MARGIN) -> np.ndarray:
    """Whether tempi are at most ``margin`` bpm apart once one of the two is shifted by whole octaves (doubled or halved).

    |a * 2**k - b| <= margin or |a - b * 2**k| <= margin for some integer k: one side is shifted, the other keeps its own tempo, so the
    rule is symmetric and as wide as its wider reading (design decision on section 3.3 of the paper).

    Args:
        a: bpm, > 0, of any shape.
        b: bpm, > 0, of a shape that fits.
        margin: in bpm, >= 0.

    Returns:
        bool, of their common shape.
    """
    # With a and b between 1/2 and 1 times an octave of their own, only three shifts can bring them together: |a * 2**k - b| falls and then
    # rises with k. |a - b / 2**k| is that divided by 2**k, so one comparison decides both readings.
    (a, octave_a), (b, octave_b) = np.frexp(a), np.frexp(b)
    margin_a, margin_b = np.ldexp(margin, -octave_a), np.ldexp(margin, -octave_b)
    similar = np.abs(a - b) <= np.maximum(margin_a, margin_b)
    for shift in (0.5, 2.0):
        similar |= np.abs(a * shift - b) <= np.maximum(margin_a * shift, margin_b)
    return similar


def key_relation(a: np.ndarray, b: np.ndarray, *, relation: str = "parallel") -> np.ndarray:
    """Similar if the keys are equal or related.

    Args:
        a: [n] int, 0..23 or -1.
        b: [m] int.
        relation: "parallel" (C major and C minor), "relative" (C major and A minor) or "both".

    Returns:
        [n, m] int8.

    Raises:
        InputError: if ``relation`` is none of these.
    """
    if relation not in KEY_RELATIONS:
        raise InputError(f"key relation {relation!r}: expected one of {', '.join(KEY_RELATIONS)}")
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    similar = a[:, None] == b[None, :]
    if relation in ("parallel", "both"):
        similar |= ((a + 12) % 24)[:, None] == b[None, :]
    if relation in ("relative", "both"):
        # The relative minor starts nine semitones above its major, the relative major three above its minor.
        relative = np.where(a < 12, 12 + (a + 9) % 12, (a + 3) % 12)
        similar |= relative[:, None] == b[None, :]
    return _relation(similar, a >= 0, b >= 0)


_by_key = key_relation  # ``relation`` has an option of the same name


def relation(name: str, a: np.ndarray, b: np.ndarray, *, key_relation: str = "parallel") -> np.ndarray:
    """The relation of the dimension called ``name``, by its kind.

    Args:
        name: one of ``dimensions.DIMENSION_NAMES``.
        a: labels of the rows, as the function of this kind takes them.
        b: labels of the columns.
        key_relation: which keys count as related, see ``key_relation``.

    Returns:
        [n, m] int8.
    """
    kind = dimensions.dimension(name).kind
    if kind == "tag":
        return tag_relation(a, b)
    if kind == "tempo":
        return tempo_relation(a, b)
    return _by_key(a, b, relation=key_relation)


def _relation(similar: np.ndarray, known_a: np.ndarray, known_b: np.ndarray) -> np.ndarray:
    signs = np.where(similar, np.int8(1), np.int8(-1))
    return np.where(known_a[:, None] & known_b[None, :], signs, np.int8(0))


def parse_key(text: str) -> int:
    """The number of a key: "A minor", "Am", "A:minor", "a minor", "Bb major", "B flat", "F#" (major where no mode is given).

    Raises:
        InputError: if ``text`` names no key. A lone small letter is refused: some mean the minor key by it.
    """
    found = _KEY.fullmatch(text.strip())
    if not found:
        raise InputError(f"key {text!r}: expected a tonic and a mode, e.g. 'A minor', 'Bb major' or 'F#m'")
    tonic, accidental, mode = found[1], found[2] or "", found[3]
    offset = {"": 0, "M": 0, "m": 12}.get(mode, _MODES.get(mode.lower()))
    if offset is None or (not mode and tonic.islower()):
        raise InputError(f"key {text!r}: its mode is unclear; write 'major' or 'minor' after the tonic")
    return (_PITCH_CLASSES[tonic.upper()] + _ACCIDENTALS[accidental]) % 12 + offset


def key_name(key: int) -> str:
    """The name of key 0..23, e.g. "A minor"; ``parse_key`` reads it back.

    Raises:
        InputError: if ``key`` is outside 0..23.
    """
    if not 0 <= key < 24:
        raise InputError(f"key {key}: expected 0..23")
    return f"{_MAJOR_TONICS[key]} major" if key < 12 else f"{_MINOR_TONICS[key - 12]} minor"
