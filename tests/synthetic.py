"""Small parameters and synthetic clips for the tests of any room."""

import numpy as np
import soundfile

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
