"""Music that is a score rather than sound, tracker modules and MIDI files, made into
sound that ``msim_tf.audio.decode`` reads.

Modules are played by ``openmpt123`` (libopenmpt), once through and for ten minutes at most: many loop for ever. MIDI
files are played by ``fluidsynth``, dry, with one of the two General MIDI sound fonts that the training part of the
renders uses; which one follows from the file's checksum, so it never changes and no package hears only one.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from msim_tf.audio.decode import load_clip
from msim_tf.errors import InputError
from tools.corpus.ledger import SR, write_flac
from tools.corpus.renders_mix import SOUND_FONTS, SoundFont, rendered

APT_LINE = "apt-get install openmpt123 fluidsynth fluid-soundfont-gm timgm6mb-soundfont"
MODULES = (".mod", ".xm", ".it", ".s3m")
MIDI = (".mid", ".midi")
FONTS = ("FluidR3_GM", "TimGM6mb")  # the third of the renders is heard in their test part only
MAX_SECONDS = 600
_TIMEOUT = 900  # of a program, in seconds
_PEAK = 0.9
_TITLES = {".mod": slice(0, 20), ".xm": slice(17, 37), ".it": slice(4, 30), ".s3m": slice(0, 28)}  # bytes of the header


def is_score(name: str | Path) -> bool:
    """Whether a file of this name must be played before it can be heard."""
    return str(name).lower().endswith(MODULES + MIDI)


def missing_programs(music: Iterable[str]) -> list[str]:
    """What must be installed to play what ``music``, names of files or patterns of them, asks for, and is not."""
    names = [name.lower() for name in music]
    missing: list[str] = []
    if any(name.endswith(MODULES) for name in names) and shutil.which("openmpt123") is None:
        missing.append("openmpt123")
    if any(name.endswith(MIDI) for name in names):
        missing += ["fluidsynth"] if shutil.which("fluidsynth") is None else []
        missing += [str(SOUND_FONTS[font].path) for font in FONTS if not SOUND_FONTS[font].path.is_file()]
    return missing


def playable(path: Path, checksum: str, cache: Path) -> Path:
    """A sound file of what ``path`` holds: itself, or a rendering kept in ``cache`` under the checksum of the file.

    Raises:
        InputError: if the program that plays it is missing or fails, or nothing is heard.
    """
    if not is_score(path):
        return path
    target = cache / "played" / f"{checksum}.flac"
    if not target.is_file():
        font = sound_font(path, checksum)
        y = _module(path) if font is None else _midi(path, font)
        peak = float(np.abs(y).max(initial=0.0))
        if not peak:
            raise InputError(f"{path}: silent when played")
        write_flac(target, y * (_PEAK / peak))
    return target


def sound_font(path: Path, checksum: str) -> SoundFont | None:
    """What plays the MIDI file of this SHA-256; none for other files."""
    return SOUND_FONTS[FONTS[int(checksum, 16) % len(FONTS)]] if path.suffix.lower() in MIDI else None


def module_title(path: Path) -> str:
    """What a tracker module calls itself; empty for other files."""
    where = _TITLES.get(path.suffix.lower())
    if where is None:
        return ""
    with path.open("rb") as file:
        text = file.read(where.stop)[where].partition(b"\0")[0].decode("ascii", "replace")
    return " ".join("".join(letter for letter in text if letter.isprintable()).split())


def _module(path: Path) -> np.ndarray:
    """[samples] mono at ``SR``."""
    with tempfile.TemporaryDirectory(prefix="msim-module-") as folder:
        target = Path(folder) / "module.wav"
        command = ["openmpt123", "--batch", "--quiet", "--no-float", "--samplerate", "44100", "--repeat", "0"]
        command += ["--end-time", str(MAX_SECONDS), "-o", str(target), "--", str(path)]
        _run(command, path)
        try:
            return load_clip(target, sr=SR, seconds=MAX_SECONDS)
        except InputError as error:  # its status is 0 for what is no module, too
            raise InputError(f"{path}: openmpt123 cannot play it") from error


def _midi(path: Path, font: SoundFont) -> np.ndarray:
    """[samples] mono at ``SR``."""
    with tempfile.TemporaryDirectory(prefix="msim-midi-") as folder:
        midi = Path(folder) / "file.mid"
        shutil.copyfile(path, midi)
        try:
            return rendered(midi, font)[: MAX_SECONDS * SR]
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{path}: fluidsynth cannot play it ({error})") from error


def _run(command: list[str], path: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT)
    except FileNotFoundError as error:
        raise InputError(f"{command[0]} not found: {APT_LINE}") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path}: {command[0]} needs more than {_TIMEOUT} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise InputError(f"{path}: {command[0]} cannot play it ({lines[-1]})")
