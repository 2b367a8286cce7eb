"""Chroma folded from a constant-Q transform, for ``cens_source="cqt"``: the transform behind librosa's ``chroma_cens``.

The multi-rate scheme of Schoerkhuber and Klapuri ("Constant-Q transform toolbox for music processing", SMC
2010), as in librosa: one bank of wavelets for the top octave, applied again after each halving of the
sample rate. Differs from librosa in the half-band filter (a windowed sinc here, soxr there), which is why
the tests allow more than for the other features.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from msim_tf.errors import InputError
from msim_tf.params import FeatureParams

_FMIN = 32.703195662574835  # C1, in Hz
_OCTAVES = 7  # C1 to B7, as librosa's chroma_cqt
_BINS_PER_OCTAVE = 36  # three to a semitone
_HALF_TAPS = 64  # of the half-band filter, on either side


def halo(params: FeatureParams) -> int:
    """Samples that a frame of the lowest octave needs on either side of its centre."""
    margin = _wavelets(params).shape[0] // 2
    # Back up to the full rate: each octave takes two samples for one, and half a filter more.
    for _ in range(_OCTAVES - 1):
        margin = 2 * margin + _HALF_TAPS
    return margin


def chroma(y: tf.Tensor, params: FeatureParams) -> tf.Tensor:
    """Constant-Q magnitudes of seven octaves from C1, tuning 0, summed into pitch classes.

    Args:
        y: [..., (frames - 1) * hop_length + 2 * halo(params)] float32, mono at ``params.sr``.
        params: the feature parameters.

    Returns:
        [..., frames, n_chroma] float32, >= 0, not normalised.
    """
    # [..., samples] -> [n, samples, 1], as conv1d takes it.
    hop, margin = params.hop_length, halo(params)
    frames = (tf.shape(y)[-1] - 2 * margin) // hop + 1
    bank = _wavelets(params)
    signal = tf.reshape(y, [-1, tf.shape(y)[-1], 1])

    # [n, frames, bins] of one octave after the other, the top one first.
    magnitudes: list[tf.Tensor] = []
    for octave in range(_OCTAVES):
        if octave:
            # At half the rate the same wavelets respond an octave lower; frames stay centred on samples.
            signal = tf.nn.conv1d(signal, tf.constant(_half_band()), stride=2, padding="VALID")
            margin, hop = (margin - _HALF_TAPS) // 2, hop // 2

        # [n, frames, 2 * bins]: the first wavelet is centred on the first frame, ``margin`` samples from the start.
        start = margin - bank.shape[0] // 2
        response = tf.nn.conv1d(signal[:, start:], tf.constant(bank), stride=hop, padding="VALID")[:, :frames]

        # -> [n, frames, bins], placed before the octaves above it.
        real, imaginary = tf.split(response, 2, -1)
        magnitudes.insert(0, tf.sqrt(tf.square(real) + tf.square(imaginary)))

    # [n, frames, octaves * bins] -> [..., frames, n_chroma]: the sum over all octaves of a pitch class.
    folded = tf.matmul(tf.concat(magnitudes, -1), tf.constant(_folding(params)))
    return tf.reshape(folded, tf.concat([tf.shape(y)[:-1], [frames, params.n_chroma]], 0))


@functools.cache
def _wavelets(params: FeatureParams) -> np.ndarray:
    """[length, 1, 2 * bins] float32: real, then imaginary parts of the top octave's filters, of L1 norm 1."""
    import librosa

    # The hop is halved once per octave below the top one, and each pitch class has the same number of bins.
    if params.hop_length % 2 ** (_OCTAVES - 1) or _BINS_PER_OCTAVE % params.n_chroma:
        raise InputError(
            f"cens_source 'cqt' needs a hop_length divisible by {2 ** (_OCTAVES - 1)} and n_chroma that divides "
            f"{_BINS_PER_OCTAVE}, got {params.hop_length} and {params.n_chroma}"
        )

    # [bins, length] complex -> [length, 1, 2 * bins]: a real kernel for conv1d. Padded to a power of two, the length is
    # even, so that its half is a whole number of samples.
    frequencies = _FMIN * 2.0 ** (_OCTAVES - 1 + np.arange(_BINS_PER_OCTAVE) / _BINS_PER_OCTAVE)
    bank, _ = librosa.filters.wavelet(freqs=frequencies, sr=params.sr, norm=1, pad_fft=True)
    return np.concatenate([bank.real, bank.imag]).T[:, None].astype(np.float32)


@functools.cache
def _half_band() -> np.ndarray:
    """[taps, 1, 1] float32: Kaiser-windowed sinc with its edge a little below a quarter of the sample rate."""
    import scipy.signal

    # 0.47 of the Nyquist frequency: what lies above half of it would alias when every other sample is dropped.
    taps = scipy.signal.firwin(2 * _HALF_TAPS + 1, 0.47, window=("kaiser", 8.0))
    return taps.astype(np.float32)[:, None, None]


@functools.cache
def _folding(params: FeatureParams) -> np.ndarray:
    """[bins, n_chroma] float32: librosa's folding, times the root of each filter's length
    as in ``librosa.cqt(scale=True)``.
    """
    import librosa

    bins = _OCTAVES * _BINS_PER_OCTAVE
    frequencies = _FMIN * 2.0 ** (np.arange(bins) / _BINS_PER_OCTAVE)
    lengths, _ = librosa.filters.wavelet_lengths(freqs=frequencies, sr=params.sr)
    folding = librosa.filters.cq_to_chroma(bins, bins_per_octave=_BINS_PER_OCTAVE, n_chroma=params.n_chroma, fmin=_FMIN)
    return (folding * np.sqrt(lengths)).T.astype(np.float32)
