"""Sines, and how much of one a signal holds: the oracle of the decoders' tests."""

import numpy as np


def sine(frequency, sr, seconds, amplitude=0.5):
    """[samples] float32."""
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(sr * seconds)) / sr)).astype(np.float32)


def fit_sine(y, sr, frequency):
    """Amplitude of the sine of this frequency, and the rms of all else, away from the edges."""
    middle = y[sr // 4 : -sr // 4].astype(np.float64)
    t = np.arange(len(middle)) / sr
    basis = np.stack([np.sin(2 * np.pi * frequency * t), np.cos(2 * np.pi * frequency * t)], axis=1)
    weights = np.linalg.lstsq(basis, middle, rcond=None)[0]
    return np.hypot(*weights), np.sqrt(np.mean((middle - basis @ weights) ** 2))
