"""Onset envelope of a whole clip: how fast the mel bands rise, and the padding that its tempogram needs.

``librosa.onset.onset_strength`` with the clip's own ``n_fft``. The whole clip counts, because dB are clipped at 80
below its maximum.
"""

from __future__ import annotations

import tensorflow as tf

from msim_tf.params import FeatureParams

_DB_RANGE = 80.0  # top_db of librosa.power_to_db


def rise(mel_db: tf.Tensor, peak: tf.Tensor) -> tf.Tensor:
    """Mean rise of the mel bands in dB from frame to frame. [..., frames, n_mels] -> [..., frames - 1]."""
    clipped = tf.maximum(mel_db, peak - _DB_RANGE)
    return tf.reduce_mean(tf.nn.relu(clipped[..., 1:, :] - clipped[..., :-1, :]), -1)


def onset(rise: tf.Tensor, params: FeatureParams) -> tf.Tensor:
    """``librosa.onset.onset_strength`` with this n_fft, padded for the tempogram. [..., frames - 1] -> [..., frames
    + lags].
    """
    delay = 1 + params.n_fft // (2 * params.hop_length)
    delayed = tf.pad(rise, [[0, 0]] * (rise.shape.rank - 1) + [[delay, 0]])[..., : tf.shape(rise)[-1] + 1]
    return _pad_ramps(delayed, params.tempogram_lags // 2)


def _pad_ramps(envelope: tf.Tensor, length: int) -> tf.Tensor:
    """Pads both ends with a straight line down to zero: ``numpy.pad(mode="linear_ramp")``."""
    ramp = tf.range(length, dtype=tf.float32) / length
    return tf.concat([envelope[..., :1] * ramp, envelope, envelope[..., -1:] * ramp[::-1]], -1)
