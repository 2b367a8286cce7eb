"""Where a clip is cut into segments, and the only place: for training, embedding and the exported signature.

A segment is ``segment_frames`` frames; the segments of a clip do not overlap, and a rest shorter than one is left out.
They are cut from the features of the whole clip, never computed on their own: a tempogram needs seconds of context on
either side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msim_tf.params import FeatureParams
from msim_tf.performance import release_pages

if TYPE_CHECKING:
    import tensorflow as tf

    from msim_tf.features.extractor import Features

# A segment is silent if it is this far below the loudest one that is averaged with it, and below this level. Level is
# the sum of the mel bands, averaged over the frames, in dB of the magnitude of a full-scale sine: white noise of
# -55 dBFS or a sine of -41 dBFS reach it. In 35 of the 36 excerpts that ship here no segment is over 18 dB below the
# loudest (the other holds digital silence); noise of -60 dBFS is 35 dB or more below all of them.
_SILENT_DROP_DB = 30.0
_SILENT_LEVEL_DB = -63.0
_SEGMENTS_AT_ONCE = 64  # bounds the memory of the levels: the mel-spectrogram of a long clip is a mapped file


def whole_segments(frames: int, params: FeatureParams) -> np.ndarray:
    """First frames of a clip's non-overlapping segments: [n] int."""
    return np.arange(params.segments(frames)) * params.segment_frames


def audible_segments(features: Features, params: FeatureParams) -> np.ndarray:
    """First frames of a clip's non-overlapping segments that are not silent: [n] int, n >= 1 where the clip has a
    segment.

    Silence, dither, hiss before the music and after it say nothing of a track, and would move its mean embedding.
    """
    return without_silence(features, whole_segments(features.frames, params), params)


def without_silence(features: Features, starts: np.ndarray, params: FeatureParams) -> np.ndarray:
    """Those of some segments that are not silent, as ``audible_segments`` judges them.

    Args:
        features: of the whole clip.
        starts: [n] int, first frames of segments of which each begins where the one before ends.
        params: how the features were made.

    Returns:
        [m] int, m >= 1 where n >= 1: the loudest one always counts.
    """
    if len(starts) < 2:
        return starts
    # [n] level of each segment: undo log10(1 + gain * S), then add up the bands and average over the frames.
    levels = np.empty(len(starts))
    for first in range(0, len(starts), _SEGMENTS_AT_ONCE):
        chunk = starts[first : first + _SEGMENTS_AT_ONCE]
        mel = features.mel[:, chunk[0] : chunk[-1] + params.segment_frames].astype(np.float32)
        magnitude = np.expm1(mel * np.float32(np.log(10.0))).sum(0) / params.mel_gain
        levels[first : first + len(chunk)] = magnitude.reshape(len(chunk), -1).mean(1)
        release_pages(features.mel)

    # A full-scale sine has a magnitude of n_fft / 4 under a Hann window: half its amplitude times the window's sum.
    decibel = 20.0 * np.log10(np.maximum(levels / (params.n_fft / 4), 1e-12))
    silent = (decibel < decibel.max() - _SILENT_DROP_DB) & (decibel < _SILENT_LEVEL_DB)
    return starts[~silent]


def segments_of(features: Features, numbers: range, params: FeatureParams) -> dict[str, np.ndarray]:
    """Model inputs of some of a clip's non-overlapping segments, each [n, *shape] float32."""
    return segments_at(features, np.array(numbers) * params.segment_frames, params)


def segments_at(features: Features, starts: np.ndarray, params: FeatureParams) -> dict[str, np.ndarray]:
    """Model inputs of the segments that begin at the frames ``starts`` ([n] int), each [n, *shape] float32."""
    # [n, frames] column numbers. (rows, n, frames) -> [n, rows, frames], contiguous for TensorFlow; the onset envelope
    # is cut with half a window more on either side.
    columns = starts[:, None] + np.arange(params.segment_frames)
    return {
        "mel": np.ascontiguousarray(features.mel[:, columns].swapaxes(0, 1)),
        "onset": features.onset[starts[:, None] + np.arange(params.segment_onsets)],
        "cens": np.ascontiguousarray(features.cens[:, columns].swapaxes(0, 1)),
    }


def segments(features: dict[str, tf.Tensor], params: FeatureParams) -> dict[str, tf.Tensor]:
    """Cuts the features of clips into whole, non-overlapping segments.

    Args:
        features: ``mel`` [batch, frames, n_mels], ``onset`` [batch, frames + tempogram_lags], ``cens`` [batch, frames,
            n_chroma].
        params: the feature parameters.

    Returns:
        The model's inputs, each [batch, segments, *params.input_shapes[name]]; a rest shorter than a segment is left
        out.
    """
    import tensorflow as tf

    length = params.segment_frames
    count = tf.shape(features["mel"])[-2] // length

    # mel and CENS, [batch, frames, rows] -> [batch, count, rows, length]: segments do not overlap, so reshaping cuts.
    cut = {}
    for name in ("mel", "cens"):
        whole = features[name][:, : count * length]
        tiles = tf.reshape(whole, [-1, count, length, whole.shape[-1]])
        cut[name] = tf.linalg.matrix_transpose(tiles)

    # Onset, [batch, frames + lags] -> [batch, count, length + lags - 1]: these overlap, by the tempogram's window.
    starts = tf.range(count)[:, None] * length
    cut["onset"] = tf.gather(features["onset"], starts + tf.range(params.segment_onsets)[None], axis=1)
    return cut
