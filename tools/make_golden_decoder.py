"""Writes tests/golden/decoder.npz: what tensorflow-io's decoders give for real music.

Runs only where tensorflow-io loads (the environment "oldest"): ``python tools/make_golden_decoder.py``. The current
stack compares its own decoding with these numbers. Vorbis samples are every 997th of the excerpts that ship here; FLAC
and MP3 are encoded from them, and their bytes are kept beside the decoded samples, because encoders may change.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import tensorflow as tf
import tensorflow_io as tfio

from msim_tf.files import atomic_file

ROOT = Path(__file__).parents[1] / "tests"
CLIPS = ("colobot__hv2", "hedgewars__art", "supertux__forest", "wesnoth__heroes_rite", "zaz__mus1", "zaz__mus3")
STEP = 997  # a prime, so that no period of the music is met


def encoded(y: np.ndarray, sr: int, **encoding: str) -> bytes:
    """[frames, channels] int16 as the bytes of a sound file."""
    file = io.BytesIO()
    soundfile.write(file, y, sr, **encoding)
    return file.getvalue()


def main() -> None:
    golden: dict[str, np.ndarray] = {"step": np.array(STEP)}
    for name in CLIPS:
        decoded = tfio.audio.decode_vorbis((ROOT / "data" / "music" / f"{name}.ogg").read_bytes()).numpy()
        assert decoded.shape[0] > 29 * 44100 and decoded.shape[1] == 1, (name, decoded.shape)
        golden[f"vorbis/{name}/samples"] = decoded[::STEP, 0]
        golden[f"vorbis/{name}/length"] = np.array(len(decoded))
    left, right = (
        soundfile.read(ROOT / "data" / "music" / f"{name}.ogg", start=441000, frames=22050, dtype="int16")[0]
        for name in CLIPS[-2:]
    )
    stereo = np.stack([left, right], axis=1)
    flac = encoded(stereo, 44100, format="FLAC", subtype="PCM_16")
    mp3 = encoded(stereo, 44100, format="MP3")
    golden["flac/bytes"] = np.frombuffer(flac, np.uint8)
    golden["flac/samples"] = tfio.audio.decode_flac(flac, dtype=tf.int16).numpy()
    golden["mp3/bytes"] = np.frombuffer(mp3, np.uint8)
    golden["mp3/samples"] = tfio.audio.decode_mp3(mp3).numpy()
    with atomic_file(ROOT / "golden" / "decoder.npz") as file:
        np.savez_compressed(file, **golden)
    print(
        f"{len(CLIPS)} Vorbis excerpts, FLAC {len(flac)} bytes, MP3 {len(mp3)} bytes, tensorflow-io {tfio.__version__}"
    )


if __name__ == "__main__":
    main()
