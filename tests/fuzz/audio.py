"""Damaged sound files of every format, beside whole ones, through ``msim index``.

Fails if a run ends by anything but its own exit status, a file is neither indexed nor counted as failed, a whole file
is lost or gets another vector, or a run takes minutes.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import soundfile
from commands import msim
from tiny_model import tiny_model_path

from fuzz.cases import Case, Target
from fuzz.mutation import damaged

_FILES = 60  # damaged files in one case
_SR = 16_000
# Suffix -> container and subtype of libsndfile.
_SNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "w64": ("W64", "PCM_24"),
    "rf64": ("RF64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_24"),
    "au": ("AU", "ULAW"),
    "caf": ("CAF", "PCM_16"),
}
# Suffix -> codec of FFmpeg, as PyAV carries it.
_FFMPEG = {
    "m4a": "aac",
    "alac.m4a": "alac",
    "aac": "aac",
    "wma": "wmav2",
    "wv": "wavpack",
    "tta": "tta",
    "mka": "aac",
    "webm": "libopus",
    "mp2": "mp2",
    "ac3": "ac3",
}
WHOLE = ("whole/a.wav", "whole/b.flac", "whole/c.ogg")


def tone(seed: int, seconds: float = 2.5) -> np.ndarray:
    """[samples, 2] a chord with noise and a beat."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * _SR)) / _SR
    y = sum(np.sin(2 * np.pi * rng.uniform(80, 1200) * t) for _ in range(4)) * (1 + np.sin(4 * np.pi * t)) / 16
    return np.stack([y, 0.8 * y], axis=1) + rng.normal(0, 0.01, (len(t), 2))


def write_every_format(folder: Path) -> list[Path]:
    """One whole file of each format that can be written here."""
    files = []
    for suffix, (container, subtype) in _SNDFILE.items():
        path = folder / f"sound.{suffix}"
        soundfile.write(path, tone(1), _SR, format=container, subtype=subtype)
        files.append(path)
    try:
        import av
    except ImportError:
        return files
    for suffix, codec in _FFMPEG.items():
        path = folder / f"sound.{suffix}"
        if _encode(av, path, codec):
            files.append(path)
    return files


def _encode(av, path: Path, codec: str) -> bool:
    """Writes ``path`` with FFmpeg's ``codec``; False if this build of FFmpeg has it not."""
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        return False
    rate = 48_000 if codec == "libopus" else 44_100
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone(1).T, np.float32), format="fltp", layout="stereo")
    frame.sample_rate = _SR
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo", bit_rate=128_000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return True


def _prepare(shared: Path, stack: ExitStack) -> Callable[[Case], Counter]:
    sounds = {path: path.read_bytes() for path in write_every_format(shared)}
    model = tiny_model_path()
    whole = shared / "whole"
    whole.mkdir()
    for number, name in enumerate(WHOLE):
        soundfile.write(shared / name, tone(10 + number), _SR)
    msim("index", whole, shared / "reference", "--model", model)
    reference = {name: _distances(shared / "reference", Path(name).name) for name in WHOLE}

    def run(case: Case) -> Counter:
        music = case.folder / "music"
        shutil.copytree(whole, music / "whole")
        for number in range(_FILES):
            source = case.random.choice(list(sounds))
            suffix = source.name.split(".", 1)[1]
            if case.random.random() < 0.1:  # called something else than it is
                suffix = case.random.choice(list(sounds)).name.split(".", 1)[1]
            (music / f"{number:03d}.{suffix}").write_bytes(damaged(sounds[source], case.random))
        return _index(music, case.folder / "library", model, reference)

    return run


def _index(music: Path, library: Path, model: Path, reference: dict[str, dict[str, float]]) -> Counter:
    """Indexes twice; the second run must find nothing new."""
    status, out, err = msim("index", music, library, "--model", model)
    tracks, failed = _summary(out)
    assert tracks + failed == _FILES + len(WHOLE), (
        f"{tracks} tracks and {failed} failed of {_FILES + len(WHOLE)}:\n{out}\n{err}"
    )
    assert status == (1 if failed else 0), f"exit status {status} with {failed} failed"
    for name, expected in reference.items():
        distances = _distances(library, name)
        for other, distance in expected.items():
            got = distances[f"whole/{other}"]
            assert abs(got - distance) < 1e-3, f"{name} to {other}: {got} instead of {distance}"
    again = msim("index", music, library, "--model", model)[1]
    assert re.search(r"\b0 new, 0 changed, 0 moved, 0 removed\b", again), again
    return Counter(files=_FILES, indexed=tracks - len(WHOLE), refused=failed)


def _summary(out: str) -> tuple[int, int]:
    """Tracks and failures, as the command's last word gives them."""
    match = re.search(r"(\d+) tracks; .*?(\d+) failed", out)
    assert match, out
    return int(match[1]), int(match[2])


def _distances(library: Path, name: str) -> dict[str, float]:
    """Distances from ``name`` to the other tracks of a library."""
    out = msim("query", library, name, "-k", 1000, "--json")[1]
    return {hit["identifier"]: hit["distance"] for hit in json.loads(out)["overall"]}


TARGET = Target(_prepare, share=0.4, longest=90.0)
