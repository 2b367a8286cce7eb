"""Our decoder against tensorflow-io's: by golden numbers everywhere, directly where tensorflow-io
loads (see tools/make_golden_decoder.py).

Vorbis and MP3 are decoded by two libraries in float arithmetic, so they agree to rounding; FLAC is exact.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from msim_tf.audio import decode

GOLDEN = Path(__file__).parents[1] / "golden" / "decoder.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def test_vorbis_equals_the_golden_samples(golden, music):
    names = [key.split("/")[1] for key in golden if key.startswith("vorbis/") and key.endswith("/samples")]
    assert len(names) == 6
    for name in names:
        clip = decode.load_clip(music / f"{name}.ogg", sr=44100)
        assert len(clip) == golden[f"vorbis/{name}/length"]
        np.testing.assert_allclose(clip[:: int(golden["step"])], golden[f"vorbis/{name}/samples"], atol=2e-6)


@pytest.mark.parametrize(("suffix", "scale", "tolerance"), [("flac", 2**-15, 0.0), ("mp3", 1.0, 1e-5)])
def test_stereo_equals_the_golden_samples_mixed_down(golden, tmp_path, suffix, scale, tolerance):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(golden[f"{suffix}/bytes"].tobytes())
    expected = golden[f"{suffix}/samples"].astype(np.float32) * np.float32(scale)
    assert expected.shape == (22050, 2) and np.abs(expected).max() > 0.05
    mixed = (expected[:, 0] + expected[:, 1]) * np.float32(0.5)
    np.testing.assert_allclose(decode.load_clip(path, sr=44100), mixed, atol=tolerance)


def test_the_decoder_equals_tensorflow_io(music, tmp_path):
    tfio = pytest.importorskip("tensorflow_io")
    path = music / "warzone2100__track17.ogg"
    clip = decode.load_clip(path, sr=44100)
    np.testing.assert_allclose(clip, tfio.audio.decode_vorbis(path.read_bytes()).numpy()[:, 0], atol=2e-6)

    import tensorflow as tf

    soundfile.write(tmp_path / "a.flac", clip, 44100, subtype="PCM_16")
    decoded = tfio.audio.decode_flac((tmp_path / "a.flac").read_bytes(), dtype=tf.int16).numpy()[:, 0]
    np.testing.assert_array_equal(decode.load_clip(tmp_path / "a.flac", sr=44100), decoded * np.float32(2**-15))
