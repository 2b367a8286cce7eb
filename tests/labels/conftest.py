"""Sound made by theory: clicks of a known tempo, cadences in a known key."""

import numpy as np
import pytest

SR = 44100


@pytest.fixture(scope="session")
def clicks():
    """clicks(bpm, seconds) -> [samples] at 44.1 kHz: a decaying 1.5 kHz burst on every beat."""

    def make(bpm, seconds):
        y = np.zeros(round(seconds * SR), np.float32)
        t = np.arange(round(0.03 * SR)) / SR
        click = 0.8 * np.exp(-t / 0.005) * np.sin(2 * np.pi * 1500 * t)
        for beat in np.arange(0.2, seconds - 0.1, 60 / bpm):
            start = round(beat * SR)
            y[start : start + len(click)] += click[: len(y) - start].astype(np.float32)
        return y

    return make


@pytest.fixture(scope="session")
def cadence():
    """cadence(tonic, minor, seconds) -> [samples] at 44.1 kHz: I-IV-V-I (i-iv-V-i), tones
    of six harmonics, one chord a second.
    """

    def tone(midi):
        t = np.arange(SR) / SR
        frequency = 440 * 2 ** ((midi - 69) / 12)
        harmonics = sum(np.sin(2 * np.pi * frequency * n * t) / n for n in range(1, 7))
        return harmonics * np.minimum(1, 50 * t) * np.exp(-1.5 * t)

    def make(tonic, minor, seconds):
        third = 3 if minor else 4
        triads = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)]
        chords = [sum(tone(48 + tonic + step) for step in (triad[0] - 12, *triad, triad[0] + 12)) for triad in triads]
        y = np.concatenate([chords[second % 4] for second in range(seconds)])
        return (0.8 * y / np.abs(y).max()).astype(np.float32)

    return make
