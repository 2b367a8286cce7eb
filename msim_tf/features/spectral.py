"""Features of the samples around each frame: mel-spectrogram, mel power in dB, and chroma before CENS.

All come from one STFT. Only ``n_fft / 2`` samples on either side of a frame count (more for ``cens_source="cqt"``), so
hours of audio pass through in blocks. Arrays are ``[..., frames, frequency]``, the order in which frames stream.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from msim_tf.features import cqt
from msim_tf.params import FeatureParams

_DB_FLOOR = 1e-10  # amin of librosa.power_to_db
_MEL_BANDS = 8  # groups of neighbouring mel filters, each multiplied with the bins that it covers only


def halo(params: FeatureParams) -> int:
    """Samples that a frame needs on either side of its centre."""
    return params.n_fft // 2 if params.cens_source == "stft" else cqt.halo(params)


def frame_features(y: tf.Tensor, params: FeatureParams) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Features that depend only on the samples around each frame.

    Args:
        y: [..., (frames - 1) * hop_length + 2 * halo(params)] float32, mono at ``params.sr``.
        params: the feature parameters.

    Returns:
        mel [..., frames, n_mels], mel power in dB without the clip's floor (same shape), chroma [..., frames,
        n_chroma], not normalised.
    """
    # The STFT needs fewer samples around a frame than the constant-Q transform: cut off the rest.
    margin = halo(params) - params.n_fft // 2
    centre = y[..., margin : tf.shape(y)[-1] - margin] if margin else y
    power = _power_spectrogram(centre, params)

    # [..., frames, 1 + n_fft // 2] -> [..., frames, n_mels] of the magnitude and of the power. A group of mel filters
    # at a time is multiplied with the bins that it covers: [..., frames, bins] @ [bins, filters].
    magnitudes, energies = [], []
    for start, basis in _mel_bands(params):
        band = power[..., start : start + len(basis)]
        magnitudes.append(tf.matmul(tf.sqrt(band), basis))
        energies.append(tf.matmul(band, basis))
    magnitude, energy = tf.concat(magnitudes, -1), tf.concat(energies, -1)

    # The network takes log10(1 + gain * S) of the magnitude (paper, section 3.1); onsets are found in 10 log10 of the
    # power, as librosa.power_to_db computes it.
    mel = tf.math.log(1.0 + params.mel_gain * magnitude) / np.float32(np.log(10.0))
    mel_db = tf.math.log(tf.maximum(energy, _DB_FLOOR)) * np.float32(10.0 / np.log(10.0))

    # Chroma [..., frames, n_chroma], from the same STFT or from the constant-Q transform.
    if params.cens_source == "cqt":
        return mel, mel_db, cqt.chroma(y, params)
    return mel, mel_db, tf.matmul(power, _chroma_basis(params))


def hann(length: int) -> np.ndarray:
    """[length] float32: the periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


def _power_spectrogram(y: tf.Tensor, params: FeatureParams) -> tf.Tensor:
    """[..., samples] -> [..., frames, 1 + n_fft // 2]: squared magnitude of the Hann-windowed STFT."""
    # [..., samples] -> [..., tiles, hop].
    hop, overlap = params.hop_length, params.n_fft // params.hop_length
    tiles_count = tf.shape(y)[-1] // hop
    tiles = tf.reshape(y[..., : tiles_count * hop], tf.concat([tf.shape(y)[:-1], [tiles_count, hop]], 0))

    # -> [..., frames, n_fft]: a frame is neighbouring tiles side by side. Copying whole rows is twice as fast as
    # gathering single samples.
    frames = tiles_count - overlap + 1
    framed = tf.concat([tiles[..., i : i + frames, :] for i in range(overlap)], -1)

    # -> [..., frames, 1 + n_fft // 2] complex, then its squared magnitude.
    spectrum = tf.signal.rfft(framed * tf.constant(hann(params.n_fft)))
    # One pass, where a product with its conjugate takes two; always on the processor, since complex numbers have no GPU
    # kernel of it.
    return tf.math.real(tf.math.squared_difference(spectrum, tf.constant(0, spectrum.dtype)))


@functools.cache
def _mel_bands(params: FeatureParams) -> list[tuple[int, np.ndarray]]:
    """The mel filters in ``_MEL_BANDS`` groups, each as (first bin, [bins, filters]).

    A filter is a few bins wide, so seven eighths of the whole [1 + n_fft // 2, n_mels] matrix are zeros; they are left
    out.
    """
    import librosa

    filters = librosa.filters.mel(sr=params.sr, n_fft=params.n_fft, n_mels=params.n_mels)
    bands = []
    for group in np.array_split(filters, _MEL_BANDS):
        # A group whose filters all fall between two bins keeps one bin, of weight 0.
        used = np.flatnonzero(group.any(0))
        start, stop = (used[0], used[-1] + 1) if len(used) else (0, 1)
        bands.append((int(start), np.ascontiguousarray(group[:, start:stop].T)))
    return bands


@functools.cache
def _chroma_basis(params: FeatureParams) -> np.ndarray:
    """[1 + n_fft // 2, n_chroma] float32: how much each bin adds to each pitch class, at a tuning of 440 Hz."""
    import librosa

    basis = librosa.filters.chroma(sr=params.sr, n_fft=params.n_fft, n_chroma=params.n_chroma, tuning=0.0)
    return np.ascontiguousarray(basis.T.astype(np.float32))
