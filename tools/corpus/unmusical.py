"""What is no music: ``python -m tools.corpus.unmusical --corpus ROOT [--mirror FOLDER]``.

A model that has only heard music finds a genre, a tempo and a key in anything. These clips teach it otherwise: speech
of the catalogue of ``tools.corpus.recordings``, labelled ``instrument: speech``, and synthesized noise, labelled
``instrument: noise``: coloured noise, hum, clicks, sweeps, single tones, beeps, wind and rain, each as it is or with
its level changing.

    ROOT/PART/unmusical/KIND/NAME.flac     10 s of noise, 5 s of speech

Nobody who speaks in the test part is heard in training, and the test part has two kinds of noise of its own.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.signal

from msim_tf.errors import InputError
from tools.corpus.command import reported, run
from tools.corpus.ledger import SR, CorpusClip, Ledger
from tools.corpus.recordings import Library, Recording, library, load_catalogue

BUILDER = "unmusical"
SECONDS = 10
SPEECH_SECONDS = 5  # most of it is short
_EACH = 12  # clips of each kind of noise
_MOST_SPEECH = 6  # clips of each speaker
_TEST_SPEECH_EVERY = 4
_TEST_KINDS = ("beeps", "wind")


def coloured(rng: np.random.Generator, exponent: float) -> np.ndarray:
    """Noise whose power falls as 1 / f**exponent: 0 white, 1 pink, 2 brown."""
    count = SECONDS * SR
    spectrum = np.fft.rfft(rng.normal(size=count))
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / SR), 20.0)
    return np.fft.irfft(spectrum * frequencies ** (-exponent / 2), count)


def _time() -> np.ndarray:
    return np.arange(SECONDS * SR) / SR


def _hum(rng: np.random.Generator) -> np.ndarray:
    """Mains hum with overtones, in hiss."""
    base = rng.choice([50.0, 60.0])
    tones = [rng.uniform(0, 1) / k * np.sin(2 * np.pi * base * k * _time() + rng.uniform(0, 6)) for k in range(1, 9)]
    return np.sum(tones, axis=0) + 0.02 * rng.normal(size=SECONDS * SR)


def _clicks(rng: np.random.Generator) -> np.ndarray:
    """Irregular clicks, as of a dusty record or a keyboard."""
    y = np.zeros(SECONDS * SR)
    places = rng.integers(0, len(y), int(rng.uniform(2, 40) * SECONDS))
    y[places] = rng.normal(size=len(places))
    decay = np.exp(-np.arange(SR // 50) / (SR * rng.uniform(0.0005, 0.004)))
    return np.convolve(y, decay * rng.normal(size=len(decay)), "same") + 0.005 * rng.normal(size=len(y))


def _sweep(rng: np.random.Generator) -> np.ndarray:
    """A sine that glides, up or down, once or several times."""
    low, high = np.sort(rng.uniform(40, 9000, 2))
    turns = rng.integers(1, 6)
    position = np.abs(np.mod(_time() / SECONDS * turns * 2, 2) - 1)
    frequency = low * (high / low) ** position
    return np.sin(2 * np.pi * np.cumsum(frequency) / SR)


def _tone(rng: np.random.Generator) -> np.ndarray:
    """A single steady tone."""
    return np.sin(2 * np.pi * rng.uniform(60, 6000) * _time()) + 0.003 * rng.normal(size=SECONDS * SR)


def _beeps(rng: np.random.Generator) -> np.ndarray:
    """An alarm: one or two tones, on and off."""
    period, share = rng.uniform(0.2, 1.5), rng.uniform(0.2, 0.8)
    on = np.mod(_time(), period) < share * period
    return on * np.sin(2 * np.pi * rng.choice([440, 880, 1000, 2000, 3000]) * rng.uniform(0.9, 1.1) * _time())


def _wind(rng: np.random.Generator) -> np.ndarray:
    """Brown noise whose band and level drift."""
    level = np.abs(scipy.signal.resample(rng.normal(1, 0.7, 12), SECONDS * SR))
    band = scipy.signal.butter(2, np.sort(rng.uniform(80, 3000, 2)) + [0, 200], "bandpass", fs=SR, output="sos")
    return level * scipy.signal.sosfilt(band, coloured(rng, 1.5))


def _rain(rng: np.random.Generator) -> np.ndarray:
    """Dense drops over hiss."""
    return _clicks(rng) + rng.uniform(0.1, 1) * 0.05 * coloured(rng, rng.uniform(0, 1))


NOISES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "white": lambda rng: coloured(rng, 0.0),
    "pink": lambda rng: coloured(rng, 1.0),
    "brown": lambda rng: coloured(rng, 2.0),
    "hum": _hum,
    "clicks": _clicks,
    "sweep": _sweep,
    "tone": _tone,
    "rain": _rain,
    "beeps": _beeps,
    "wind": _wind,
}


def noise(kind: str, number: int) -> np.ndarray:
    """Clip ``number`` of a kind of noise, [samples] in [-1, 1]; the same whenever it is made."""
    rng = np.random.default_rng([sorted(NOISES).index(kind), number])
    y = NOISES[kind](rng)
    # Half of them change their level slowly.
    if rng.random() < 0.5:
        y = y * (0.1 + np.abs(scipy.signal.resample(rng.normal(1, 0.6, 8), len(y))))
    return y / np.abs(y).max() * 10 ** (rng.uniform(-24, -1) / 20)


def noise_clips() -> Iterator[tuple[CorpusClip, Callable[[], np.ndarray]]]:
    """Every clip of noise, and what makes it."""
    for kind in sorted(NOISES):
        part = "test" if kind in _TEST_KINDS else "train"
        for number in range(_EACH):
            clip = CorpusClip(
                clip=f"{part}/{BUILDER}/{kind}/{number:02d}.flac",
                source="synthesized",
                version="1",
                origin=kind,
                start_seconds=0.0,
                artist="",
                title=f"{kind} {number}",
                licence="CC0 1.0",
                sha256="",
                # Clip by clip, so that validation has every kind.
                group=f"noise {number % 6}" if part == "train" else f"noise {kind}",
                labels={"instrument": ("noise",)},
                labels_from={"instrument": "exact"},
            )
            yield clip, functools.partial(noise, kind, number)


def speech_clips(
    recordings: Iterable[Recording], sounds: Library, missing: list[str]
) -> Iterator[tuple[CorpusClip, Callable[[], np.ndarray]]]:
    """Every clip of speech; what could not be had goes into ``missing``."""
    speakers = [recording for recording in recordings if recording.is_speech]
    for place, recording in enumerate(speakers):
        part = "test" if place % _TEST_SPEECH_EVERY == _TEST_SPEECH_EVERY - 1 else "train"
        try:
            y, checksum = sounds.sound(recording)
        except InputError as error:
            missing.append(str(error))
            continue
        for number in range(min(_MOST_SPEECH, len(y) // (SPEECH_SECONDS * SR))):
            start = number * SPEECH_SECONDS
            name = f"{part}/{BUILDER}/speech/{Path(recording.file).stem}-{start:04d}.flac"
            clip = replace(
                recording.clip(name, start, checksum),
                group=f"speaker {recording.file}",
                labels={"instrument": ("speech",)},
                labels_from={"instrument": "exact"},
            )
            yield clip, functools.partial(np.copy, y[start * SR : (start + SPEECH_SECONDS) * SR])


def build(root: Path, sounds: Library) -> list[str]:
    """Makes the clips that are missing, and the tables.

    Returns:
        A line for each recording that could not be had.
    """
    missing: list[str] = []
    with Ledger(root, BUILDER) as ledger:
        for clips in (noise_clips(), speech_clips(load_catalogue(), sounds, missing)):
            for clip, make in clips:
                if clip.clip not in ledger:
                    ledger.add(clip, make())
        ledger.write_tables()
        print(f"{len(ledger.clips)} clips of what is no music", flush=True)
    return missing


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--mirror", type=Path, help="folder that holds the recordings; nothing is fetched then")
    arguments = parser.parse_args()
    return reported(functools.partial(build, arguments.corpus, library(arguments.corpus, arguments.mirror)))


if __name__ == "__main__":
    run(main)
