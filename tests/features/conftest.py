"""A small folder of synthetic clips and its store, made once."""

import numpy as np
import pytest
import soundfile

from msim_tf.features.store import FeatureStore
from msim_tf.features.writer import extract_folder
from msim_tf.params import FeatureParams

SMALL = FeatureParams(
    sr=8000, n_fft=512, hop_length=256, n_mels=16, tempogram_lags=32, cens_smoothing=9, segment_frames=20
)


def write_clip(path, seconds, seed, *, sr=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * sr)) / sr
    y = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 1000) * time) * (1 + np.sin(2 * np.pi * 2 * time)) / 2
    soundfile.write(path, y + rng.normal(0, 0.01, len(y)), sr)


@pytest.fixture(scope="session")
def small_params():
    return SMALL


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for i in range(12):
        write_clip(folder / f"artist{i % 4}" / f"{i:02d}.wav", 2 + i % 3, i)
    return folder


@pytest.fixture(scope="session")
def store(clips_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "features"
    extract_folder(clips_folder, path, SMALL)
    return FeatureStore(path)
