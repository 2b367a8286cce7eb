"""Waveform -> mel-spectrogram, onset envelope -> tempogram, CENS chroma: the one
implementation, in TensorFlow operations.

Extraction, the front of the model and the exported ``audio`` signature all run this code; librosa at the same settings
is the oracle of its tests (paper, section 3.1; McFee et al., "librosa", SciPy 2015).

The work has two halves. *Frame features* (mel, mel in dB, chroma) need only the samples around a frame, so hours of
audio pass through in blocks. *Clip features* (onset envelope, CENS) look at the whole clip: ``power_to_db`` clips at 80
dB below the clip's maximum, CENS smooths over 41 frames, and a tempogram computed on a lone 3 s segment is another
feature than one cut from the clip. Both are cut into segments last.

Inside this module arrays are ``[..., frames, frequency]``, the order in which frames stream; what it hands out is
``(frequency, frames)``. It does not open sound (``audio.decode``) and knows nothing of files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from msim_tf.features import cqt
from msim_tf.features.spill_buffer import Spool
from msim_tf.features.streaming import in_turns, joined, whole_frames
from msim_tf.params import FeatureParams

_DB_FLOOR = 1e-10  # amin of librosa.power_to_db
_DB_RANGE = 80.0  # its top_db
_CENS_STEPS = (0.4, 0.2, 0.1, 0.05)  # Mueller and Ewert, "Chroma Toolbox", ISMIR 2011
_CENS_WEIGHT = 0.25
_TINY = float(np.finfo(np.float32).tiny)
_MEL_BANDS = 8
# Ten seconds: less costs calls, more leaves the processor's own cache and fetches memory anew for each block.
_BLOCK_FRAMES = 432
_RISE_FRAMES = 6 * _BLOCK_FRAMES  # here the call counts more
_TURN_SECONDS = 30.0


@dataclass(frozen=True)
class Features:
    """The three stored features of one clip.

    Attributes:
        mel: [n_mels, frames] float32, log10(1 + gain * S), >= 0.
        onset: [frames + tempogram_lags] float32, >= 0: the onset envelope with half a
            window's ramp to zero at both ends.
        cens: [n_chroma, frames] float32 in [0, 1], L2 norm 1 per frame (0 in silence).
        notes: what the user should know of the file though it is used, e.g. "damaged:
            93 % of 215 s decodes"; not stored.
    """

    mel: np.ndarray
    onset: np.ndarray
    cens: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.mel.shape[1]


def halo(params: FeatureParams) -> int:
    """Samples that a frame needs on either side of its centre."""
    return params.n_fft // 2 if params.cens_source == "stft" else cqt.halo(params)


def frame_features(y: tf.Tensor, params: FeatureParams) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Features that depend only on the samples around each frame.

    Args:
        y: [..., (frames - 1) * hop_length + 2 * halo(params)] float32, mono at ``params.sr``.
        params: the feature parameters.

    Returns:
        mel [..., frames, n_mels], mel power in dB without the clip's floor (same shape), chroma
        [..., frames, n_chroma], not normalised.
    """
    margin = halo(params) - params.n_fft // 2
    centre = y[..., margin : tf.shape(y)[-1] - margin] if margin else y
    power = _power_spectrogram(centre, params)
    magnitude, energy = _mel_sums(power, params)
    mel = tf.math.log(1.0 + params.mel_gain * magnitude) / np.float32(np.log(10.0))
    mel_db = _decibel(energy)
    if params.cens_source == "cqt":
        return mel, mel_db, cqt.chroma(y, params)
    return mel, mel_db, tf.matmul(power, _chroma_basis(params))


def clip_features(mel_db: tf.Tensor, chroma: tf.Tensor, params: FeatureParams) -> tuple[tf.Tensor, tf.Tensor]:
    """Features that depend on the whole clip.

    Args:
        mel_db: [..., frames, n_mels] from ``frame_features``.
        chroma: [..., frames, n_chroma] from ``frame_features``.
        params: the feature parameters.

    Returns:
        The padded onset envelope [..., frames + tempogram_lags], and CENS [..., frames, n_chroma].
    """
    rise = _rise(mel_db, tf.reduce_max(mel_db, [-2, -1], keepdims=True))
    return _onset(rise, params), _cens(chroma, params)


def tempogram(onset: tf.Tensor, *, lags: int, stride: int = 1) -> tf.Tensor:
    """Local autocorrelation of the onset envelope, as ``librosa.feature.tempogram``
    (Hann window, maximum norm per frame).

    Args:
        onset: [..., frames + lags - 1] float32, already padded with the ramps.
        lags: length of the window, and number of rows.
        stride: only every so many-th frame is computed.

    Returns:
        [..., lags, ceil(frames / stride)] float32 in [-1, 1]; row ``k`` is the correlation
        at a lag of ``k`` frames; 0 in silence.
    """
    windowed = _sliding_windows(onset, lags, stride) * tf.constant(_hann(lags))
    fft_length = _fast_length(2 * lags - 1)
    spectrum = tf.signal.rfft(windowed, [fft_length])
    correlation = tf.signal.irfft(spectrum * tf.math.conj(spectrum), [fft_length])[..., :lags]
    return tf.linalg.matrix_transpose(_normalise(correlation, tf.reduce_max(tf.abs(correlation), -1, keepdims=True)))


def segments(features: dict[str, tf.Tensor], params: FeatureParams) -> dict[str, tf.Tensor]:
    """Cuts the features of clips into whole, non-overlapping segments.

    Args:
        features: ``mel`` [batch, frames, n_mels], ``onset`` [batch, frames +
            tempogram_lags], ``cens`` [batch, frames, n_chroma].
        params: the feature parameters.

    Returns:
        The model's inputs, each [batch, segments, *params.input_shapes[name]]; a rest
        shorter than a segment is left out.
    """
    length = params.segment_frames
    count = tf.shape(features["mel"])[-2] // length
    cut = {
        name: tf.linalg.matrix_transpose(tf.reshape(value[:, : count * length], [-1, count, length, value.shape[-1]]))
        for name, value in features.items()
        if name != "onset"
    }
    starts = tf.range(count)[:, None] * length
    cut["onset"] = tf.gather(features["onset"], starts + tf.range(params.segment_onsets)[None], axis=1)
    return cut


class Extractor:
    """Extracts clips of any length in bounded memory; build one and share it between threads.

    Args:
        params: the feature parameters.
    """

    def __init__(self, params: FeatureParams) -> None:
        self.params = params
        samples, matrix = tf.TensorSpec([None], tf.float32), tf.TensorSpec([None, None], tf.float32)
        peak = tf.TensorSpec([], tf.float32)
        chroma = tf.TensorSpec([None, params.n_chroma], tf.float32)
        self._frame_features = _on_arrays(lambda y: frame_features(y, params), samples)
        self._short_clip_features = _on_arrays(
            lambda mel_db, chroma: clip_features(mel_db, chroma, params), matrix, chroma
        )
        self._rise = _on_arrays(_rise, matrix, peak)
        self._long_clip_features = _on_arrays(
            lambda rise, chroma: (_onset(rise, params), _cens(chroma, params)), samples, chroma
        )

    def __call__(self, blocks: Iterable[np.ndarray]) -> Features:
        """Features of one clip.

        Args:
            blocks: consecutive [samples] float32 pieces of the clip, mono at ``params.sr``, of any lengths.

        Returns:
            The features; a clip of n samples has 1 + n // hop_length frames.
        """
        with Spool(self.params.n_mels) as mels, Spool(self.params.n_mels) as dbs:
            chromas = []
            turns = in_turns(blocks, round(_TURN_SECONDS * self.params.sr))
            for block in whole_frames(turns, _BLOCK_FRAMES, hop=self.params.hop_length, margin=halo(self.params)):
                mel, mel_db, chroma = self._frame_features(block)
                mels.append(mel)
                dbs.append(mel_db)
                chromas.append(chroma)
            onset, cens = self._whole_clip(dbs, joined(chromas))
            return Features(mel=mels.whole().T, onset=onset, cens=cens.T)

    def _whole_clip(self, dbs: Spool, chroma: np.ndarray) -> list[np.ndarray]:
        """What ``clip_features`` gives, for a long clip block by block."""
        if dbs.rows <= _RISE_FRAMES:
            return self._short_clip_features(dbs.whole(), chroma)
        return self._long_clip_features(self._rises(dbs), chroma)

    def _rises(self, dbs: Spool) -> np.ndarray:
        """[frames - 1]: a block at a time, each with the last row of the one before."""
        rises, last = [], np.empty((0, self.params.n_mels), np.float32)
        for db in dbs.blocks(_RISE_FRAMES):
            rows = np.concatenate([last, db]) if len(last) else db
            rises += self._rise(rows, dbs.peak)
            last = db[-1:]
        return np.concatenate(rises)


def _on_arrays(function: Callable[..., Any], *specs: tf.TensorSpec) -> Callable[..., list[np.ndarray]]:
    """The function as a graph that takes and gives arrays, of just these specs.

    Calling a ``tf.function`` binds and checks its arguments first, which costs a sixth of the
    features' time; running its graph as one operation does not. The arrays are views of the tensors'
    own memory, where ``numpy()`` would copy it.
    """
    graph = tf.function(function, autograph=False).get_concrete_function(*specs)
    types = [tensor.dtype for tensor in graph.outputs]

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        tensors = tf.raw_ops.PartitionedCall(args=arrays, Tout=types, f=graph)
        return [np.asarray(memoryview(tensor)) for tensor in tensors]

    return run


def _power_spectrogram(y: tf.Tensor, params: FeatureParams) -> tf.Tensor:
    """[..., samples] -> [..., frames, 1 + n_fft // 2]: squared magnitude of the Hann-windowed STFT."""
    hop, overlap = params.hop_length, params.n_fft // params.hop_length
    tiles_count = tf.shape(y)[-1] // hop
    tiles = tf.reshape(y[..., : tiles_count * hop], tf.concat([tf.shape(y)[:-1], [tiles_count, hop]], 0))
    frames = tiles_count - overlap + 1
    # Frames are neighbouring tiles side by side: a copy of whole rows, twice as fast as a gather of single samples.
    framed = tf.concat([tiles[..., i : i + frames, :] for i in range(overlap)], -1)
    spectrum = tf.signal.rfft(framed * tf.constant(_hann(params.n_fft)))
    # One pass, where a product with its conjugate takes two; always on the processor, since
    # complex numbers have no GPU kernel of it.
    return tf.math.real(tf.math.squared_difference(spectrum, tf.constant(0, spectrum.dtype)))


def _mel_sums(power: tf.Tensor, params: FeatureParams) -> tuple[tf.Tensor, tf.Tensor]:
    """[..., frames, 1 + n_fft // 2] -> mel of the magnitude, mel of the power, both [..., frames, n_mels]."""
    magnitude, energy = [], []
    for start, basis in _mel_bands(params):
        band = power[..., start : start + len(basis)]
        magnitude.append(tf.matmul(tf.sqrt(band), basis))
        energy.append(tf.matmul(band, basis))
    return tf.concat(magnitude, -1), tf.concat(energy, -1)


def _decibel(power: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.maximum(power, _DB_FLOOR)) * np.float32(10.0 / np.log(10.0))


def _rise(mel_db: tf.Tensor, peak: tf.Tensor) -> tf.Tensor:
    """Mean rise of the mel bands in dB from frame to frame. [..., frames, n_mels] -> [..., frames - 1]."""
    clipped = tf.maximum(mel_db, peak - _DB_RANGE)
    return tf.reduce_mean(tf.nn.relu(clipped[..., 1:, :] - clipped[..., :-1, :]), -1)


def _onset(rise: tf.Tensor, params: FeatureParams) -> tf.Tensor:
    """``librosa.onset.onset_strength`` with this n_fft, padded for the tempogram. [...,
    frames - 1] -> [..., frames + lags].
    """
    delay = 1 + params.n_fft // (2 * params.hop_length)
    delayed = tf.pad(rise, [[0, 0]] * (rise.shape.rank - 1) + [[delay, 0]])[..., : tf.shape(rise)[-1] + 1]
    return _pad_ramps(delayed, params.tempogram_lags // 2)


def _pad_ramps(envelope: tf.Tensor, length: int) -> tf.Tensor:
    """Pads both ends with a straight line down to zero: ``numpy.pad(mode="linear_ramp")``."""
    ramp = tf.range(length, dtype=tf.float32) / length
    return tf.concat([envelope[..., :1] * ramp, envelope, envelope[..., -1:] * ramp[::-1]], -1)


def _cens(chroma: tf.Tensor, params: FeatureParams) -> tf.Tensor:
    """Chroma energy normalised statistics: L1 norm, quantise, smooth, L2 norm. [...,
    frames, n_chroma], same shape out.
    """
    chroma = _normalise(chroma, tf.reduce_sum(chroma, -1, keepdims=True))
    quantised = tf.add_n([tf.cast(chroma > step, tf.float32) * _CENS_WEIGHT for step in _CENS_STEPS])
    smoothed = _smooth(quantised, params.cens_smoothing)
    return _normalise(smoothed, tf.norm(smoothed, axis=-1, keepdims=True))


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


def _normalise(values: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
    """Divides by the norm where there is one: silence stays zero, as in ``librosa.util.normalize``."""
    return values / tf.where(norm < _TINY, tf.ones_like(norm), norm)


def _sliding_windows(values: tf.Tensor, length: int, stride: int) -> tf.Tensor:
    """[..., n] -> [..., ceil((n - length + 1) / stride), length]: every ``stride``-th window.

    Repeating the row and cutting the repetition into rows that are ``stride`` values longer shifts each
    row by as many: no gather, no matrix product.
    """
    n = tf.shape(values)[-1]
    count = (n - length) // stride + 1
    lead = tf.shape(values)[:-1]
    repeated = tf.tile(values, tf.concat([tf.ones_like(lead), [count * (n + stride) // n + 1]], 0))
    rows = tf.reshape(repeated[..., : count * (n + stride)], tf.concat([lead, [count, n + stride]], 0))
    return tf.ensure_shape(rows[..., :length], [*values.shape[:-1], None, length])


@functools.cache
def _hann(length: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


@functools.cache
def _smoother(length: int) -> np.ndarray:
    """[2 * length, length]: column ``t`` is the Hann window from row ``t`` on."""
    window = np.hanning(length + 2)[1:-1]
    offset = np.arange(2 * length)[:, None] - np.arange(length)
    inside = (offset >= 0) & (offset < length)
    return np.where(inside, (window / window.sum())[offset % length], 0.0).astype(np.float32)


@functools.cache
def _mel_bands(params: FeatureParams) -> list[tuple[int, np.ndarray]]:
    """The mel filters in ``_MEL_BANDS`` groups, each as (first bin, [bins, filters]).

    A filter is a few bins wide: what is left out is seven eighths of the whole matrix, and nothing but zeros.
    """
    import librosa

    filters = librosa.filters.mel(sr=params.sr, n_fft=params.n_fft, n_mels=params.n_mels)
    bands = []
    for group in np.array_split(filters, _MEL_BANDS):
        used = np.flatnonzero(group.any(0))
        start, stop = (used[0], used[-1] + 1) if len(used) else (0, 1)
        bands.append((int(start), np.ascontiguousarray(group[:, start:stop].T)))
    return bands


@functools.cache
def _chroma_basis(params: FeatureParams) -> np.ndarray:
    import librosa

    basis = librosa.filters.chroma(sr=params.sr, n_fft=params.n_fft, n_chroma=params.n_chroma, tuning=0.0)
    return np.ascontiguousarray(basis.T.astype(np.float32))


def _fast_length(target: int) -> int:
    """Smallest 2^a 3^b 5^c >= target: lengths for which every FFT implementation is fast."""
    import scipy.fft

    return int(scipy.fft.next_fast_len(target, real=True))
