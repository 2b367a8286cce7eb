"""CENS: chroma energy normalised statistics of a whole clip (Mueller and Ewert, "Chroma Toolbox", ISMIR 2011)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from msim_tf.params import FeatureParams

# The quantiser of CENS: each step that a pitch class exceeds adds the weight, so there are five levels from 0 to 1.
_STEPS = (0.4, 0.2, 0.1, 0.05)
_WEIGHT = 0.25
_TINY = float(np.finfo(np.float32).tiny)  # norms below this are silence, as in librosa.util.normalize


def cens(chroma: tf.Tensor, params: FeatureParams) -> tf.Tensor:
    """Chroma energy normalised statistics: L1 norm, quantise, smooth, L2 norm.

    Args:
        chroma: [..., frames, n_chroma] float32, >= 0.
        params: the feature parameters.

    Returns:
        [..., frames, n_chroma] float32 in [0, 1], L2 norm 1 per frame (0 in silence).
    """
    # Each pitch class as a share of its frame: loudness drops out.
    chroma = normalise(chroma, tf.reduce_sum(chroma, -1, keepdims=True))

    # Each step is twice the next one, as loudness is perceived on a logarithmic scale. Small differences between two
    # recordings of the same notes fall within a level.
    quantised = tf.add_n([tf.cast(chroma > step, tf.float32) * _WEIGHT for step in _STEPS])

    # Average over about a second: ornaments and small differences in tempo drop out.
    smoothed = _smooth(quantised, params.cens_smoothing)
    return normalise(smoothed, tf.norm(smoothed, axis=-1, keepdims=True))


def cens_in_blocks(
    cens_of: Callable[[np.ndarray], np.ndarray], chroma: np.ndarray, *, tiles: int, params: FeatureParams
) -> np.ndarray:
    """CENS of a long clip, block by block: the same numbers as ``cens`` of the whole clip.

    At once, the intermediate arrays take ten times the memory of the chroma: gigabytes for hours of sound.

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
        # [frames of the block + margins, n_chroma]: a whole window before and after it, although half would do. The
        # tiles of the smoothing then begin at the same frames as in the whole clip, and no sum changes its order.
        before = min(start, margin)
        values = cens_of(chroma[start - before : stop + margin])

        # Drop the margins: their outer frames were smoothed with zeros instead of their neighbours.
        smoothed[start:stop] = values[before : before + stop - start]
    return smoothed


def normalise(values: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
    """Divides by the norm where there is one: silence stays zero, as in ``librosa.util.normalize``."""
    return values / tf.where(norm < _TINY, tf.ones_like(norm), norm)


def _smooth(chroma: tf.Tensor, length: int) -> tf.Tensor:
    """Convolution along the frames with a Hann window of ``length`` non-zero values and sum 1; zeros outside the clip.

    Cut into tiles of ``length`` frames, each output tile depends on two neighbouring input tiles only: two small matrix
    products, where a convolution on a CPU unrolls its input ``length``-fold. [..., frames, n_chroma], same shape out.
    """
    # [..., frames, n_chroma] -> [..., n_chroma, (tiles + 1) * length]: half a window of zeros before the clip centres
    # the output, zeros after it fill the last tile and one more.
    shape = tf.shape(chroma)
    frames, tiles = shape[-2], (shape[-2] - 1) // length + 1
    columns = tf.linalg.matrix_transpose(chroma)
    padding = [length // 2, (tiles + 1) * length - length // 2 - frames]
    padded = tf.pad(columns, [[0, 0]] * (chroma.shape.rank - 1) + [padding])

    # [n, tiles + 1, length] -> [n * tiles, length]: weights for each tile itself, plus weights for the one after it.
    rows = tf.reshape(padded, [-1, tiles + 1, length])
    this, following = np.split(_smoother(length), 2)
    smoothed = tf.matmul(tf.reshape(rows[:, :-1], [-1, length]), this)
    smoothed += tf.matmul(tf.reshape(rows[:, 1:], [-1, length]), following)

    # Back to [..., frames, n_chroma], without the frames that filled the last tile.
    turned = tf.reshape(smoothed, tf.concat([shape[:-2], [shape[-1], tiles * length]], 0))
    return tf.linalg.matrix_transpose(turned[..., :frames])


@functools.cache
def _smoother(length: int) -> np.ndarray:
    """[2 * length, length]: column ``t`` is the Hann window from row ``t`` on."""
    window = np.hanning(length + 2)[1:-1]  # without the zeros at its ends
    # offset[r, t] = r - t: which value of the window row r meets in output frame t.
    offset = np.arange(2 * length)[:, None] - np.arange(length)
    inside = (offset >= 0) & (offset < length)
    return np.where(inside, (window / window.sum())[offset % length], 0.0).astype(np.float32)
