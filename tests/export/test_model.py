"""The front door for sound: ``msim_tf.load`` and what a model embeds."""

import copy
import os
import pickle
import re
import subprocess
import sys

import librosa
import numpy as np
import pytest
import soundfile
from synthetic import SMALL
from tiny_model import describing_model_path, tiny_model_path

import msim_tf
from msim_tf.errors import AudioWarning, InputError
from msim_tf.export.embedder import Embedder


@pytest.fixture(scope="module")
def model():
    with msim_tf.load(tiny_model_path()) as opened:
        yield opened


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A stereo file at another rate than the features'."""
    path = tmp_path_factory.mktemp("sound") / "clip.wav"
    rng = np.random.default_rng(3)
    soundfile.write(path, rng.normal(0, 0.1, (4 * 44100, 2)), 44100, subtype="FLOAT")
    return path


def test_a_file_is_embedded_as_a_library_would(model, sound):
    embedder = Embedder(tiny_model_path())
    expected = embedder.embed_file(sound)
    embedder.close()
    embedding = model.embed(str(sound))
    np.testing.assert_array_equal(embedding.vector, expected)
    # The subspaces are adjacent parts of it, in the order of the dimensions.
    np.testing.assert_array_equal(np.concatenate([embedding.subspaces[name] for name in model.dimensions]), expected)
    np.testing.assert_array_equal(embedding.mood, embedding.subspaces["mood"])
    assert embedding.tempo.shape == (len(expected) // len(model.dimensions),)


def test_what_is_wrong_with_a_file_that_is_used_is_a_warning(model, sound, tmp_path):
    torn = tmp_path / "torn.flac"
    samples, sr = soundfile.read(sound)
    soundfile.write(torn, samples, sr)
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size * 3 // 4])
    with pytest.warns(AudioWarning, match=r"torn\.flac: damaged: 7\d % of 4\.0 s decodes"):
        model.embed(torn)
    # The command line prints it as a line, without the place in the code.
    arguments = ["describe", str(torn), "--model", str(describing_model_path())]
    done = subprocess.run([sys.executable, "-m", "msim_tf", *arguments], capture_output=True, text=True, check=True)
    assert re.search(r"torn\.flac: damaged: 7\d % of 4\.0 s decodes", done.stderr) and "Warning" not in done.stderr


def test_a_waveform_is_embedded_like_its_file(model, sound):
    y, sr = soundfile.read(sound, dtype="float32")
    expected = model.embed(sound).vector
    np.testing.assert_allclose(model.embed(y, sr=sr).vector, expected, atol=1e-5)
    # librosa is the oracle of mixing down and resampling.
    mono = librosa.resample(librosa.to_mono(y.T), orig_sr=sr, target_sr=SMALL.sr, res_type="soxr_hq")
    np.testing.assert_allclose(model.embed(mono, sr=SMALL.sr).vector, expected, atol=1e-5)


def test_several_are_a_list(model, sound):
    y, sr = soundfile.read(sound, dtype="float32")
    several = model.embed([sound, y], sr=sr)
    assert len(several) == 2
    np.testing.assert_allclose(several[0].vector, several[1].vector, atol=1e-5)
    assert [embedding.vector.shape for embedding in model.embed(iter([sound]))] == [several[0].vector.shape]


def test_what_cannot_be_embedded_is_one_line(model, tmp_path):
    with pytest.raises(InputError, match="nothing.wav: cannot be read"):
        model.embed(tmp_path / "nothing.wav")
    with pytest.raises(InputError, match="needs its sample rate"):
        model.embed(np.zeros(100_000, np.float32))
    with pytest.raises(InputError, match="the waveform: silent"):
        model.embed(np.zeros(100_000, np.float32), sr=22050)
    with pytest.raises(InputError, match="the waveform: .* shorter than one segment"):
        model.embed(np.ones(100, np.float32), sr=22050)
    for wrong in (np.zeros((2, 2, 2), np.float32), np.zeros(10, np.int16), np.zeros(0, np.float32)):
        with pytest.raises(InputError, match=r"expected float \[samples\] or \[samples, channels\]"):
            model.embed(wrong, sr=22050)
    for value in (np.nan, np.inf, 3e38):
        with pytest.raises(InputError, match="not finite"):
            model.embed(np.full(100_000, value, np.float32), sr=22050)
    with pytest.raises(InputError, match="0 Hz"):
        model.embed(np.ones(100_000, np.float32), sr=0)
    with pytest.raises(InputError, match="no exported model"):
        msim_tf.load(tmp_path)


def test_an_embedding_says_what_it_is(model, sound):
    embedding = model.embed(sound)
    assert repr(model).startswith("<Model tiny version 1: genre, mood")
    assert repr(embedding).startswith(f"<TrackEmbedding [{len(embedding.vector)}]: genre [")
    assert {"genre", "vector"} <= set(dir(embedding))
    with pytest.raises(AttributeError, match="'loudness'"):
        embedding.loudness  # noqa: B018
    for other in (copy.deepcopy(embedding), pickle.loads(pickle.dumps(embedding))):
        np.testing.assert_array_equal(other.mood, embedding.mood)


def test_the_package_is_light_and_its_names_are_there():
    program = """
import sys, msim_tf
heavy = {"tensorflow", "keras", "librosa", "numpy", "scipy"} & set(sys.modules)
assert not heavy, heavy
assert set(msim_tf.__all__) <= set(dir(msim_tf))
missing = [name for name in msim_tf.__all__ if getattr(msim_tf, name, None) is None]
assert not missing, missing
try:
    msim_tf.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
