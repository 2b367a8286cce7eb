"""From a MIDI file to the sound of a clip: a sound font, then room, tone, noise and level."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy import signal

from msim_tf.errors import InputError
from tools.corpus.ledger import SR

_RENDER_SR = 32000  # a quarter quicker than 44100, and what it folds back lies above what is kept
_SHARE = Path("/usr/share/sounds")


@dataclass(frozen=True)
class SoundFont:
    """A General MIDI sound font: its Debian package, file and licence (as its copyright file states)."""

    package: str
    path: Path
    licence: str


SOUND_FONTS = {
    "FluidR3_GM": SoundFont("fluid-soundfont-gm", _SHARE / "sf2/FluidR3_GM.sf2", "MIT"),
    "TimGM6mb": SoundFont("timgm6mb-soundfont", _SHARE / "sf2/TimGM6mb.sf2", "GPL-2"),
    "MuseScore_General": SoundFont(
        "musescore-general-soundfont", _SHARE / "sf3/MuseScore_General_Full.sf3", "MIT, parts CC0 or public domain"
    ),
}


def rendered(midi: Path, font: SoundFont, *, gain: float = 0.4) -> np.ndarray:
    """The dry sound of a MIDI file, mono at ``SR``.

    Raises:
        InputError: if fluidsynth fails.
    """
    target = midi.with_suffix(".wav")
    # Samples are loaded as presets ask for them: the large font would take 5 s to load whole.
    options = [
        "-ni",
        "-q",
        "-R",
        "0",
        "-C",
        "0",
        "-g",
        str(gain),
        "-r",
        str(_RENDER_SR),
        "-o",
        "synth.dynamic-sample-loading=1",
    ]
    command = ["fluidsynth", *options, "-O", "float", "-T", "wav", "-F", str(target), str(font.path), str(midi)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode or not target.is_file():
        raise InputError(f"fluidsynth failed on {midi}: {done.stderr.strip()[-200:]}")
    y, sr = soundfile.read(target, dtype="float32", always_2d=True)
    return soxr.resample(y.mean(axis=1), sr, SR)


def mixed(y: np.ndarray, rng: random.Random) -> np.ndarray:
    """``y`` as recordings are: in a room, brighter or duller, compressed, not free of noise, louder or softer.

    Args:
        y: [samples] float, not silent.
        rng: what is drawn.

    Returns:
        Sound of the same length with its peak in 0.1..0.95.
    """
    numpy_rng = np.random.default_rng(rng.getrandbits(63))
    y = y / np.abs(y).max()
    if rng.random() < 0.75:
        y = reverberated(y, seconds=rng.uniform(0.2, 1.8), wet=rng.uniform(0.03, 0.4), rng=numpy_rng)
    y = _filtered(y, tilt=rng.gauss(0, 1.2), highest=rng.choice((None, None, rng.uniform(4000, 10000))))
    if rng.random() < 0.4:
        drive = rng.uniform(0.5, 3.0)
        y = np.tanh(drive * y / np.abs(y).max())
    level = float(np.sqrt(np.mean(y**2)))
    noise = numpy_rng.standard_normal(len(y))
    if rng.random() < 0.5:  # the hum and rumble of old recordings rather than hiss
        noise = signal.lfilter([1.0], [1.0, -0.95], noise)
    noise *= level * 10 ** (rng.uniform(-70, -30) / 20) / np.sqrt(np.mean(noise**2))
    y = y + noise
    return y * (10 ** (rng.uniform(-20, -0.5) / 20) / np.abs(y).max())


def reverberated(y: np.ndarray, *, seconds: float, wet: float, rng: np.random.Generator) -> np.ndarray:
    """With a room: exponentially decaying noise, 60 dB down after ``seconds``, its high notes dying sooner."""
    time = np.arange(int(seconds * SR)) / SR
    room = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    room = signal.lfilter([0.4], [1.0, -0.6], room)
    reverb = signal.fftconvolve(y, room / np.sqrt(np.sum(room**2)))[: len(y)]
    return (1 - wet) * y + wet * reverb


def _filtered(y: np.ndarray, *, tilt: float, highest: float | None) -> np.ndarray:
    """Tilted by ``tilt`` dB per octave around 1 kHz, and without what is above ``highest`` Hz."""
    spectrum = np.fft.rfft(y)
    frequency = np.maximum(np.fft.rfftfreq(len(y), 1 / SR), 30.0)
    gain = 10 ** (tilt * np.log2(frequency / 1000) / 20)
    if highest is not None:
        gain /= np.sqrt(1 + (frequency / highest) ** 8)
    return np.fft.irfft(spectrum * gain, len(y))
