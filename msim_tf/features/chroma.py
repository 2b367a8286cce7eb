"""CENS: chroma energy normalised statistics of a whole clip (Mueller and Ewert, "Chroma Toolbox", ISMIR 2011)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from msim_tf.params import FeatureParams

_STEPS = (0.4, 0.2, 0.1, 0.05)
_WEIGHT = 0.25
_TINY = float(np.finfo(np.float32).tiny)


def cens(chroma: tf.Tensor, params: FeatureParams) -> tf.Tensor:
    """Chroma energy normalised statistics: L1 norm, quantise, smooth, L2 norm. [..., frames, n_chroma], same shape
    out.
    """
    chroma = normalise(chroma, tf.reduce_sum(chroma, -1, keepdims=True))
    quantised = tf.add_n([tf.cast(chroma > step, tf.float32) * _WEIGHT for step in _STEPS])
    smoothed = _smooth(quantised, params.cens_smoothing)
    return normalise(smoothed, tf.norm(smoothed, axis=-1, keepdims=True))


def cens_in_blocks(
    cens_of: Callable[[np.ndarray], np.ndarray], chroma: np.ndarray, *, tiles: int, params: FeatureParams
) -> np.ndarray:
    """CENS of a long clip, block by block: the numbers that ``cens`` gives for all of it at once.

    A whole clip needs ten times its chroma for what lies between, which is gigabytes for hours of sound.

    Args:
        cens_of: computes ``cens`` of [n, n_chroma].
        chroma: [frames, n_chroma] float32.
        tiles: frames of a block, in lengths of the smoothing window.
        params: the feature parameters.

    Returns:
        [frames, n_chroma] float32.
    """
    margin = params.cens_smoothing
    smoothed = np.empty_like(chroma)
    for start in range(0, len(chroma), tiles * margin):
        stop = min(start + tiles * margin, len(chroma))
        # A whole window before the block and behind it, although half would do: so the tiles of the smoothing begin at
        # the same frames as in the whole clip, and no sum changes its order.
        before = min(start, margin)
        values = cens_of(chroma[start - before : stop + margin])
        smoothed[start:stop] = values[before : before + stop - start]
    return smoothed


def normalise(values: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
    """Divides by the norm where there is one: silence stays zero, as in ``librosa.util.normalize``."""
    return values / tf.where(norm < _TINY, tf.ones_like(norm), norm)


def _smooth(chroma: tf.Tensor, length: int) -> tf.Tensor:
    """Convolution along the frames with a Hann window of ``length`` non-zero values and sum 1; zeros outside the clip.

    In tiles of ``length`` frames, each of which hears itself and the next one: two small matrix products, where a
    convolution on a CPU unrolls its input ``length``-fold.
    """
    shape = tf.shape(chroma)
    frames, tiles = shape[-2], (shape[-2] - 1) // length + 1
    columns = tf.linalg.matrix_transpose(chroma)
    padding = [length // 2, (tiles + 1) * length - length // 2 - frames]
    padded = tf.pad(columns, [[0, 0]] * (chroma.shape.rank - 1) + [padding])
    rows = tf.reshape(padded, [-1, tiles + 1, length])
    this, following = np.split(_smoother(length), 2)
    smoothed = tf.matmul(tf.reshape(rows[:, :-1], [-1, length]), this)
    smoothed += tf.matmul(tf.reshape(rows[:, 1:], [-1, length]), following)
    turned = tf.reshape(smoothed, tf.concat([shape[:-2], [shape[-1], tiles * length]], 0))
    return tf.linalg.matrix_transpose(turned[..., :frames])


@functools.cache
def _smoother(length: int) -> np.ndarray:
    """[2 * length, length]: column ``t`` is the Hann window from row ``t`` on."""
    window = np.hanning(length + 2)[1:-1]
    offset = np.arange(2 * length)[:, None] - np.arange(length)
    inside = (offset >= 0) & (offset < length)
    return np.where(inside, (window / window.sum())[offset % length], 0.0).astype(np.float32)
