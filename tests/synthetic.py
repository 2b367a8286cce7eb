"""Small parameters and synthetic clips for the tests of any room."""

import numpy as np
import soundfile

from msim_tf.labels.tables import Labels
from msim_tf.params import FeatureParams

# The smallest shapes that the network takes: 64 bands, lags and frames.
SMALL = FeatureParams(
    sr=8000, n_fft=512, hop_length=128, n_mels=64, tempogram_lags=64, cens_smoothing=9, segment_frames=64
)


def write_clip(path, seconds, seed, *, sr=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * sr)) / sr
    y = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 1000) * time) * (1 + np.sin(2 * np.pi * 2 * time)) / 2
    soundfile.write(path, y + rng.normal(0, 0.01, len(y)), sr)


def some_labels(identifiers):
    """Every dimension labelled with enough contrast for triplets; some tracks unknown in each."""
    values, groups = {}, {}
    for i, identifier in enumerate(identifiers):
        groups[identifier] = identifier.split("/")[0]
        values[identifier] = {
            "genre": (("rock", "jazz")[i % 2],),
            "mood": (("calm", "sad")[i // 2 % 2],),
            "instrument": (("guitar", "piano")[i // 3 % 2],),
            "era": (("80s", "90s")[i // 4 % 2],),
            "tempo": (("90", "133")[i % 2],),
            "key": (("C major", "D minor")[i // 2 % 2],),
        }
        values[identifier].pop(("genre", "mood", "instrument", "era", "tempo", "key")[i % 6], None) if i > 8 else None
    return Labels(values, groups)
