"""Chord progressions to be rendered: phrases of four bars, and the forms that are made of them.

Chords are Roman numerals relative to the tonic and to its *major* scale whatever the mode ("bVI" in C minor is A flat),
small letters for minor and diminished ("ii0") triads, a trailing 7 for a dominant seventh. Every phrase begins or ends
on the tonic, or both, so that the key is heard within any window of some seconds, and turns that suit the relative key
as well are left out. Phrases that test clips are made of occur in no other clip.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

MODES = ("major", "minor")
_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_DEGREES = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}
_NUMERAL = re.compile(r"(b|#)?([ivIV]+)(0|7)?")
_HELD_OUT = 5  # every fifth phrase is for testing

# Bars are divided by spaces, the two chords of a divided bar by a comma.
_PHRASES = {
    "major": """
        I IV V7 I | I vi IV V | I vi ii V7 | I V IV I | I I IV V
        I IV I V | I V vi IV | I iii IV V | I ii V7 I | I IV ii V7
        I,IV I,V I,IV V,I | ii V7 I I | IV V I I | I I7 IV iv | IV iv I I
        I II7 V7 I | I VI7 II7 V7 | I III7 vi IV | IV I V I | I ii IV I
        I bVII IV I | I bVII bVI V | I I IV,V I | I IV bVII I | I V ii IV
        I bVI bVII I | I bIII IV I | I V7 I I | I II IV I | I II7 IV I
        I,vi ii,V7 I,vi ii,V7 | I vii0 vi V | I I V V7 | V7 IV I I | V7 V7 I I
        I IV iv I | I,V vi,iii IV,I IV,V | ii7 V7 I vi | I I IV I | V7 I V7 I
        I,I7 IV,iv I,V7 I | I iii vi,V IV | I V I V7 | IV IV I I | I iv I V7
        I vi iii V | I #iv0 ii V7 | I V IV V | I,iii IV,V I I | bVI bVII I I
        """,
    "minor": """
        i iv V7 i | i bVI bVII i | i bVII bVI V7 | i i iv V | i iv i V7
        ii0 V7 i i | i ii0 V7 i | i bVI iv V7 | i V7 i V7 | i iv bVII i
        i,iv i,V7 i,iv V7,i | i bVII i V7 | iv V7 i i | i bVI V7 i | i i iv i
        V7 iv i i | i iv V7 V7 | i V i iv | i IV i IV | i IV i V
        i bVII IV i | i iv,V7 i i | i iv,V7 i V7 | i bII i V7 | i bII V7 i
        i bVI ii0 V7 | iv i V7 i | i i V7 i | i,bVII bVI,V7 i,bVII bVI,V7 | i bIII iv V7
        i iv v i | i bVI i V | iv iv i i | V7 V7 i i | i,V7 i,V7 iv V7
        i i bVI V7 | i bIII IV V7 | i ii0,V7 i ii0,V7 | i iv ii0 V7 | i v bVI V7
        """,
}
_WHOLES = {
    "major": "I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7 | I7 IV7 I7 I7 IV7 IV7 I7 I7 ii V7 I7 V7 | "
    "I I IV I V V7 I I | I IV I I I I V V7 I IV I I I V7 I I",
    "minor": "i i i i iv iv i i bVI V7 i i | i iv i i iv iv i i V7 iv i V7 | "
    "i i iv i V7 V7 i i | i iv i i i i V V7 i iv i i i V7 i i",
}
_FORMS = ("A", "AB", "AAB", "ABAB", "AABA", "AABB", "ABAC", "ABCB", "AABBAACA", "AABAAABA")

# What a numeral becomes, for major, minor, diminished and dominant chords; the names are mma's.
_COLOURS: dict[str, tuple[str, str, str, str]] = {
    "triads": ("", "m", "dim", "7"),
    "plain": ("", "m", "dim", ""),
    "sevenths": ("M7", "m7", "m7b5", "7"),
    "sixths": ("6", "m7", "dim7", "9"),
    "ninths": ("add9", "m7", "m7b5", "9"),
    "suspended": ("", "m", "dim", "7sus4"),
}
_TONES = {"major": (0, 4, 7), "minor": (0, 3, 7), "diminished": (0, 3, 6), "dominant": (0, 4, 7, 10)}
_QUALITIES = tuple(_TONES)


@dataclass(frozen=True)
class Chord:
    """One chord relative to the tonic: ``root`` in semitones above it, ``quality`` one of
    major, minor, diminished, dominant.
    """

    root: int
    quality: str

    @property
    def tones(self) -> tuple[int, ...]:
        """Pitch classes relative to the tonic, the root first."""
        return tuple((self.root + tone) % 12 for tone in _TONES[self.quality])


@dataclass(frozen=True)
class Progression:
    """A whole form.

    Attributes:
        name: its mode, form, phrases and colour; equal names mean equal chords.
        mode: "major" or "minor".
        colour: how numerals become chords.
        bars: one or two chords per bar.
    """

    name: str
    mode: str
    colour: str
    bars: tuple[tuple[Chord, ...], ...]

    def symbol(self, chord: Chord, tonic: int) -> str:
        """``chord`` as mma spells it, e.g. "Ebm7", in the key of pitch class ``tonic``."""
        return _NAMES[(tonic + chord.root) % 12] + _COLOURS[self.colour][_QUALITIES.index(chord.quality)]


def parse_chord(numeral: str) -> Chord:
    """The chord of a Roman numeral, e.g. "bVII", "ii0", "V7"."""
    match = _NUMERAL.fullmatch(numeral)
    if not match:
        raise ValueError(f"{numeral!r} is no Roman numeral")
    accidental = {"b": -1, "#": 1}.get(match[1] or "", 0)
    small = match[2].islower()
    quality = "diminished" if match[3] == "0" else "minor" if small else "dominant" if match[3] else "major"
    return Chord((_DEGREES[match[2].lower()] + accidental) % 12, quality)


def phrases(mode: str, part: str) -> tuple[str, ...]:
    """The phrases of ``mode`` that the clips of ``part`` may use, each as its four bars of numerals."""
    text = [phrase.strip() for line in _PHRASES[mode].strip().split("\n") for phrase in line.split("|")]
    return tuple(phrase for number, phrase in enumerate(text) if (number % _HELD_OUT == 2) == (part == "test"))


def progressions(part: str, count: int, *, seed: int) -> tuple[Progression, ...]:
    """``count`` different progressions, major and minor in turn; the first are the same whatever ``count`` is."""
    rng = random.Random(f"{seed}/progressions/{part}")
    by_name: dict[str, Progression] = {}
    while len(by_name) < count:
        progression = _progression(rng, part, MODES[len(by_name) % 2])
        by_name.setdefault(progression.name, progression)
    return tuple(by_name.values())


def _progression(rng: random.Random, part: str, mode: str) -> Progression:
    colour = rng.choice(tuple(_COLOURS))
    wholes = [whole.strip() for whole in _WHOLES[mode].split("|")]
    wholes = [whole for number, whole in enumerate(wholes) if (number == 1) == (part == "test")]
    if rng.random() < 0.15:
        text = rng.choice(wholes)
        name = f"{mode}, {text}"
    else:
        form = rng.choice(_FORMS)
        chosen = dict(zip("ABC", rng.sample(phrases(mode, part), 3)))
        text = " ".join(chosen[letter] for letter in form)
        name = f"{mode} {form}, " + " | ".join(chosen[letter] for letter in sorted(set(form)))
    bars = tuple(tuple(parse_chord(numeral) for numeral in bar.split(",")) for bar in text.split())
    return Progression(f"{name}, {colour}", mode, colour, bars)
