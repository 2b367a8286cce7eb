"""Tempogram: local autocorrelation of the onset envelope. Runs inside the model, so that stores and requests carry
only the envelope.
"""

from __future__ import annotations

import tensorflow as tf

from msim_tf.features.chroma import normalise
from msim_tf.features.spectral import hann


def tempogram(onset: tf.Tensor, *, lags: int, stride: int = 1) -> tf.Tensor:
    """Local autocorrelation of the onset envelope, as ``librosa.feature.tempogram`` (Hann window, maximum norm per
    frame).

    Args:
        onset: [..., frames + lags - 1] float32, already padded with the ramps.
        lags: length of the window, and number of rows.
        stride: only every so many-th frame is computed.

    Returns:
        [..., lags, ceil(frames / stride)] float32 in [-1, 1]; row ``k`` is the correlation at a lag of ``k`` frames; 0
        in silence.
    """
    import scipy.fft

    # [..., n] -> [..., count, n + stride], with n = frames + lags - 1: the envelope is repeated, and the repetition cut
    # into rows. Row i begins at i * (n + stride) = i * stride modulo n: every ``stride``-th window, without a gather.
    n = tf.shape(onset)[-1]
    count = (n - lags) // stride + 1
    lead = tf.shape(onset)[:-1]
    repeated = tf.tile(onset, tf.concat([tf.ones_like(lead), [count * (n + stride) // n + 1]], 0))
    rows = tf.reshape(repeated[..., : count * (n + stride)], tf.concat([lead, [count, n + stride]], 0))

    # -> [..., count, lags]: the envelope around each frame, faded out by the window.
    windows = tf.ensure_shape(rows[..., :lags], [*onset.shape[:-1], None, lags])
    windowed = windows * tf.constant(hann(lags))

    # Same shape: the autocorrelation is the inverse transform of the power spectrum (Wiener and Khinchin). Zeros up to
    # twice the length keep it from wrapping around; a length 2^a 3^b 5^c suits every FFT implementation.
    fft_length = int(scipy.fft.next_fast_len(2 * lags - 1, real=True))
    spectrum = tf.signal.rfft(windowed, [fft_length])
    correlation = tf.signal.irfft(spectrum * tf.math.conj(spectrum), [fft_length])[..., :lags]

    # -> [..., lags, frames / stride]: the maximum of each frame, which is at lag 0, becomes 1.
    return tf.linalg.matrix_transpose(normalise(correlation, tf.reduce_max(tf.abs(correlation), -1, keepdims=True)))
