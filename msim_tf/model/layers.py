"""The tempogram at the front of the model, the dimensional masks at its end, layers for keys and for crops of a clip.

They are plain TensorFlow operations without weights, so one source runs on Keras 2.15 and Keras 3 and the export needs
only stock operations. They are registered, so a ``.keras`` file loads without ``custom_objects`` wherever this module
has been imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msim_tf.errors import InputError
from msim_tf.features.tempogram import tempogram


@keras.saving.register_keras_serializable(package="msim")
class Tempogram(keras.layers.Layer):
    """Onset envelope -> tempogram; stores keep the envelope, which is hundreds of times smaller.

    Always in float32, whatever the mixed precision policy: there is no half-precision Fourier transform.

    Args:
        lags: length of the autocorrelation window in frames, the number of rows.
        stride: only every so many-th frame is computed.

    Call:
        onset: [batch, frames + lags - 1], cut from the padded envelope of the whole clip.
        Returns [batch, lags, ceil(frames / stride)] float32 in [-1, 1].
    """

    def __init__(self, lags: int, stride: int = 1, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.lags = int(lags)
        self.stride = int(stride)

    def call(self, onset: tf.Tensor) -> tf.Tensor:
        """Computes the tempogram."""
        # [batch, frames + lags - 1] -> [batch, lags, ceil(frames / stride)]. The operations lose the static shape; the
        # layers that follow need it when the model is built.
        rows = tempogram(tf.cast(onset, tf.float32), lags=self.lags, stride=self.stride)
        frames = None if onset.shape[-1] is None else (onset.shape[-1] - self.lags) // self.stride + 1
        return tf.ensure_shape(rows, [onset.shape[0], self.lags, frames])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "lags": self.lags, "stride": self.stride}


@keras.saving.register_keras_serializable(package="msim")
class SubspaceMask(keras.layers.Layer):
    """A fixed 0/1 mask over the embedding.

    Paper, section 2.2; Veit et al., "Conditional similarity networks", CVPR 2017.

    Only the active coordinates are kept: the zeros would add nothing to any norm, inner product or distance.

    Args:
        mask: [size] of 0 and 1, a row of ``EmbeddingLayout.mask``; at least one is 1.

    Call:
        embedding: [batch, size].
        Returns [batch, width] float32, ``width`` the number of ones.
    """

    def __init__(self, mask: Iterable[float], **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        # Plain integers, because the configuration of a saved model is JSON.
        self.mask = [int(value) for value in mask]
        if set(self.mask) - {0, 1} or 1 not in self.mask:
            raise InputError(f"mask {self.mask}: expected zeros and ones, at least one 1")

    def call(self, embedding: tf.Tensor) -> tf.Tensor:
        """Keeps the active coordinates."""
        if embedding.shape[-1] != len(self.mask):
            raise InputError(f"embedding of {embedding.shape[-1]} coordinates, the mask has {len(self.mask)}")
        # [batch, size] -> [batch, width], in float32 under a 16-bit policy, too: losses compare small differences.
        return tf.gather(tf.cast(embedding, tf.float32), np.flatnonzero(self.mask), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "mask": self.mask}


@keras.saving.register_keras_serializable(package="msim")
class Transpositions(keras.layers.Layer):
    """Chroma relative to each of the twelve tonics.

    The layers that follow then learn one question, "is the first row the tonic?", once instead of twelve times.

    Call:
        chroma: [batch, 12, frames].
        Returns [batch * 12, 12, frames]: of every chroma twelve, the k-th transposed down by k semitones.
    """

    def call(self, chroma: tf.Tensor) -> tf.Tensor:
        """Transposes."""
        # rows[k, i] = i + k: row i of the k-th transposition is the pitch class i semitones above tonic k.
        # [batch, 12, frames] -> [batch, 12, 12, frames] -> [batch * 12, 12, frames].
        rows = (np.arange(12)[:, None] + np.arange(12)) % 12
        return tf.reshape(tf.gather(chroma, rows, axis=1), [-1, 12, chroma.shape[-1]])


@keras.saving.register_keras_serializable(package="msim")
class KeyLogits(keras.layers.Layer):
    """[batch * 12, 2], major and minor on each tonic -> [batch, 24] in the order of ``theory.key_name``."""

    def call(self, modes: tf.Tensor) -> tf.Tensor:
        """Sorts by mode, then tonic."""
        # [batch * 12, 2] -> [batch, 12 tonics, 2 modes] -> [batch, 2 modes, 12 tonics] -> [batch, 24].
        return tf.reshape(tf.transpose(tf.reshape(modes, [-1, 12, 2]), [0, 2, 1]), [-1, 24])


class FoldCrops(keras.layers.Layer):
    """[batch, crops, ...] -> [batch * crops, ...]: crops of one clip as members of their own. Never saved."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Folds."""
        return tf.reshape(x, [-1, *x.shape[2:]])


class MeanOfCrops(keras.layers.Layer):
    """[batch * crops, width] -> [batch, width]: the mean of a clip's crops, as retrieval compares it (paper 4.1).

    Args:
        crops: of each clip.
    """

    def __init__(self, crops: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.crops = crops

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Averages."""
        # [batch * crops, width] -> [batch, crops, width] -> [batch, width]; ``FoldCrops`` left a clip's crops adjacent.
        return tf.reduce_mean(tf.reshape(x, [-1, self.crops, x.shape[-1]]), axis=1)
