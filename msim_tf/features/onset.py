"""Onset envelope of a whole clip: how fast the mel bands rise, and the padding that its tempogram needs.

``librosa.onset.onset_strength`` with the clip's own ``n_fft``. The whole clip counts, because dB are clipped at 80
below its maximum.
"""

from __future__ import annotations

import tensorflow as tf

from msim_tf.params import FeatureParams

_DB_RANGE = 80.0  # top_db of librosa.power_to_db


def rise(mel_db: tf.Tensor, peak: tf.Tensor) -> tf.Tensor:
    """Mean rise of the mel bands in dB from frame to frame: spectral flux, [..., frames, n_mels] -> [..., frames - 1].

    A band that falls counts as 0 (Boeck and Widmer, "Maximum filter vibrato suppression for onset detection", DAFx
    2013, without the filter).

    Args:
        mel_db: mel power in dB.
        peak: the clip's maximum, of a shape that broadcasts.
    """
    # What is far below the peak is noise; unclipped, its rises in dB would be as large as those of notes.
    clipped = tf.maximum(mel_db, peak - _DB_RANGE)
    return tf.reduce_mean(tf.nn.relu(clipped[..., 1:, :] - clipped[..., :-1, :]), -1)


def onset(rise: tf.Tensor, params: FeatureParams) -> tf.Tensor:
    """``librosa.onset.onset_strength`` with this n_fft, padded for the tempogram.

    Args:
        rise: [..., frames - 1] float32, of ``rise``.
        params: the feature parameters.

    Returns:
        [..., frames + lags] float32, >= 0.
    """
    # [..., frames - 1] -> [..., frames]: a rise belongs to the later of its two frames, and a centred frame shows an
    # onset half a window early. librosa delays by both; what moves past the end is dropped.
    delay = 1 + params.n_fft // (2 * params.hop_length)
    delayed = tf.pad(rise, [[0, 0]] * (rise.shape.rank - 1) + [[delay, 0]])[..., : tf.shape(rise)[-1] + 1]

    # [..., frames] -> [..., frames + lags]: half an autocorrelation window at both ends, a straight line down to zero
    # as librosa.feature.tempogram pads (numpy.pad, mode "linear_ramp").
    length = params.tempogram_lags // 2
    ramp = tf.range(length, dtype=tf.float32) / length
    return tf.concat([delayed[..., :1] * ramp, delayed, delayed[..., -1:] * ramp[::-1]], -1)
