"""Singing made from speech: WORLD takes a voice apart, and puts it together again on the notes of a melody.

WORLD (Morise et al., "WORLD: a vocoder-based high-quality speech synthesis system", IEICE 2016; the package pyworld)
describes a voice by its pitch, its spectral envelope and its noise, frame by frame. Sung, the vowels last longer, the
pitch is that of notes, reached by a glide and kept with vibrato, and the envelope may be stretched along frequency: a
larger or smaller head. What is sung is then produced as songs are, and put over music at a level.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msim_tf.errors import InputError
from tools.corpus.ledger import SR
from tools.corpus.renders_mix import reverberated

FRAME_SECONDS = 0.01
_SILENT_DB = -45.0  # below the loudest frame; pauses of speech are left out
_GLIDE_SECONDS = 0.06
_FADE_SECONDS = 0.04
_VIBRATO_AFTER_SECONDS = 0.2
_BEATS = (0.5, 0.5, 1.0, 1.0, 1.0, 2.0, 3.0)  # lengths of notes
_STEPS = (-3, -2, -1, -1, -1, 0, 1, 1, 1, 2, 4)  # of a melody, in degrees of its scale
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


@dataclass(frozen=True, eq=False)
class Voice:
    """A voice taken apart, without its pauses.

    Attributes:
        name: of the recording.
        pitch: [frames] float, Hz; 0 where it is unvoiced.
        envelope: [frames, bins] float, power.
        aperiodicity: [frames, bins] float in [0, 1].
    """

    name: str
    pitch: np.ndarray
    envelope: np.ndarray
    aperiodicity: np.ndarray

    @property
    def register(self) -> float:
        """Median pitch of what is voiced, as a MIDI number."""
        return float(69 + 12 * np.log2(np.median(self.pitch[self.pitch > 0]) / 440))


@dataclass(frozen=True)
class Note:
    """A note of a melody: seconds, and a MIDI number."""

    start: float
    end: float
    pitch: float


@dataclass(frozen=True)
class Manner:
    """How a voice sings.

    Attributes:
        stretch: how much longer than spoken its vowels last.
        formants: factor of its resonances' frequencies.
        vibrato_hz: rate.
        vibrato_cents: depth.
        cents: how much it is out of tune.
        late: by how many seconds it lags behind.
    """

    stretch: float
    formants: float
    vibrato_hz: float
    vibrato_cents: float
    cents: float = 0.0
    late: float = 0.0

    @classmethod
    def drawn(cls, rng: random.Random, *, raised: float, in_choir: bool) -> Manner:
        """A random manner: of a smaller head if the pitch is ``raised`` by many semitones, and in a choir nobody is
        quite in tune or in time.
        """
        return cls(
            stretch=rng.uniform(1.5, 3.0),
            formants=rng.uniform(0.9, 1.1) * 2 ** (raised / 48),
            vibrato_hz=rng.uniform(4.8, 6.5),
            vibrato_cents=rng.uniform(0, 60),
            cents=rng.gauss(0, 12) if in_choir else 0.0,
            late=abs(rng.gauss(0, 0.03)) if in_choir else 0.0,
        )


def world() -> Any:
    """The module pyworld.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import pyworld
    except ImportError:
        raise InputError("pyworld is not installed; pip install pyworld") from None
    return pyworld


def analysed(name: str, y: np.ndarray) -> Voice:
    """A voice taken apart.

    Args:
        name: of the recording.
        y: [samples] float at ``SR``, a single voice.

    Raises:
        InputError: if less than a second of it is voiced.
    """
    pyworld = world()
    x = np.ascontiguousarray(y, np.float64)
    rough, times = pyworld.dio(x, SR, frame_period=1000 * FRAME_SECONDS)
    pitch = pyworld.stonemask(x, rough, times, SR)
    envelope = pyworld.cheaptrick(x, pitch, times, SR)
    aperiodicity = pyworld.d4c(x, pitch, times, SR)
    # Pauses go, so that a phrase of the melody never falls into one.
    level = 10 * np.log10(envelope.sum(axis=1) + 1e-20)
    loud = level > level.max() + _SILENT_DB
    if (pitch[loud] > 0).sum() * FRAME_SECONDS < 1:
        raise InputError(f"{name}: less than a second of it is voiced")
    return Voice(name, pitch[loud], envelope[loud].astype(np.float32), aperiodicity[loud].astype(np.float32))


def melody(
    rng: random.Random, *, seconds: float, tonic: int, scale: Sequence[int], bpm: float, middle: float
) -> list[Note]:
    """A random tune: phrases of some notes with rests between them, in small steps, around a middle pitch.

    Args:
        rng: what is drawn.
        seconds: how long it may be.
        tonic: pitch class, 0 is C.
        scale: its degrees, in semitones above the tonic.
        bpm: beats per minute; notes last half a beat to three, not quicker than a quarter of a second.
        middle: MIDI number in whose neighbourhood, an octave and a half wide, it stays.
    """
    pitches = [pitch for pitch in range(128) if (pitch - tonic) % 12 in scale and abs(pitch - middle) <= 9]
    place = min(range(len(pitches)), key=lambda index: abs(pitches[index] - middle))
    beat = 60 / bpm
    notes, now = [], rng.uniform(0, 2) * beat
    while now < seconds:
        for _ in range(rng.randint(3, 9)):
            place = min(max(place + rng.choice(_STEPS), 0), len(pitches) - 1)
            length = max(0.25, rng.choice(_BEATS) * beat)
            notes.append(Note(now, min(now + length, seconds), float(pitches[place])))
            now += length
            if now >= seconds:
                break
        now += rng.choice((1, 1, 2, 4)) * beat
    return notes


def harmony(notes: Sequence[Note], *, tonic: int, scale: Sequence[int], degrees: int) -> list[Note]:
    """The same tune ``degrees`` of its scale higher (a third is 2, an octave 7, down if negative)."""
    pitches = [pitch for pitch in range(-24, 152) if (pitch - tonic) % 12 in scale]
    return [Note(note.start, note.end, float(pitches[pitches.index(int(note.pitch)) + degrees])) for note in notes]


def sung(voice: Voice, notes: Sequence[Note], manner: Manner, *, seconds: float, first: float = 0.0) -> np.ndarray:
    """A voice singing notes.

    Args:
        voice: who sings.
        notes: what, in order and not overlapping; silence between them.
        manner: how.
        seconds: length of the result.
        first: where in the speech it begins, a share of it in [0, 1).

    Returns:
        [samples] float32 at ``SR``.
    """
    count = round(seconds / FRAME_SECONDS)
    midi, gain = _lines(notes, manner, count)
    places = _places(voice, gain > 0, manner.stretch, first)
    # Frames of the speech in the order in which they are sung, their envelope stretched along frequency.
    envelope = _stretched(voice.envelope[places], manner.formants) * np.square(gain)[:, None]
    hertz = np.where(gain > 0, 440 * 2 ** ((midi - 69) / 12), 0.0)
    pitch = np.where(voice.pitch[places] > 0, hertz, 0.0)
    aperiodicity = voice.aperiodicity[places].astype(np.float64)
    arrays = (np.ascontiguousarray(array) for array in (pitch, np.maximum(envelope, 1e-16), aperiodicity))
    y = world().synthesize(*arrays, SR, 1000 * FRAME_SECONDS)
    return np.pad(y, (0, max(0, round(seconds * SR) - len(y))))[: round(seconds * SR)].astype(np.float32)


def _lines(notes: Sequence[Note], manner: Manner, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pitch as a MIDI number and amplitude in [0, 1] of each of ``count`` frames."""
    midi, gain, age = np.zeros(count), np.zeros(count), np.zeros(count)
    for note in notes:
        start, end = (round((time + manner.late) / FRAME_SECONDS) for time in (note.start, note.end))
        # A note lasts to the next one, so that the glide has somewhere to come from.
        midi[start:] = note.pitch
        gain[start:end] = 1
        age[start:end] = np.arange(len(age[start:end])) * FRAME_SECONDS
    if notes:
        midi[: round((notes[0].start + manner.late) / FRAME_SECONDS)] = notes[0].pitch
    midi, gain = _smoothed(midi, _GLIDE_SECONDS), _smoothed(gain, _FADE_SECONDS) * gain
    wave = np.sin(2 * np.pi * manner.vibrato_hz * np.arange(count) * FRAME_SECONDS)
    depth = manner.vibrato_cents / 100 * np.clip((age - _VIBRATO_AFTER_SECONDS) / 0.3, 0, 1)
    return midi + depth * wave + manner.cents / 100, gain


def _smoothed(values: np.ndarray, seconds: float) -> np.ndarray:
    width = 2 * round(seconds / FRAME_SECONDS / 2) + 1
    return np.convolve(np.pad(values, width // 2, mode="edge"), np.full(width, 1 / width), "valid")


def _places(voice: Voice, sounds: np.ndarray, stretch: float, first: float) -> np.ndarray:
    """Which frame of the speech each frame sings: vowels slower than spoken, consonants as fast, none during rests."""
    places = np.zeros(len(sounds), int)
    place = first * len(voice.pitch)
    for frame, sound in enumerate(sounds):
        places[frame] = int(place) % len(voice.pitch)
        if sound:
            place += 1 / stretch if voice.pitch[places[frame]] > 0 else 1.0
    return places


def _stretched(envelope: np.ndarray, factor: float) -> np.ndarray:
    """[frames, bins] with what was at frequency f at f * factor."""
    bins = envelope.shape[1]
    source = np.minimum(np.arange(bins) / factor, bins - 1)
    low = source.astype(int)
    weight = source - low
    high = np.minimum(low + 1, bins - 1)
    return envelope[:, low].astype(np.float64) * (1 - weight) + envelope[:, high] * weight


def with_effects(y: np.ndarray, rng: random.Random) -> np.ndarray:
    """A voice as it is produced: compressed, echoing, in a room; each or none of it. [samples] float32."""
    peak = float(np.abs(y).max())
    if peak == 0:
        return y
    y = y / peak
    if rng.random() < 0.6:
        drive = rng.uniform(1, 6)
        y = np.tanh(drive * y) / np.tanh(drive)
    if rng.random() < 0.4:
        delay, share = round(rng.uniform(0.12, 0.45) * SR), rng.uniform(0.1, 0.4)
        echo = y.copy()
        for repeat in range(1, 4):
            echo[repeat * delay :] += share**repeat * y[: len(y) - repeat * delay]
        y = echo
    if rng.random() < 0.7:
        noise = np.random.default_rng(rng.getrandbits(63))
        y = reverberated(y, seconds=rng.uniform(0.3, 2.5), wet=rng.uniform(0.05, 0.35), rng=noise)
    return y.astype(np.float32)


def at_level(voice: np.ndarray, below: np.ndarray, decibels: float) -> np.ndarray:
    """The voice ``decibels`` above what it is sung over, by mean power of the frames in which it sounds."""
    frame = round(0.05 * SR)
    count = len(voice) // frame
    if not count:
        return voice
    power = np.square(voice[: count * frame], dtype=np.float64).reshape(count, frame).mean(axis=1)
    sounding = power > 1e-3 * power.max()
    reference = np.mean(np.square(below, dtype=np.float64))
    if not sounding.any() or reference == 0:
        return voice
    return voice * np.float32(np.sqrt(reference / power[sounding].mean()) * 10 ** (decibels / 20))
