"""What a model must beat: MFCC statistics and a random projection, from stored features, without training.

Takes arrays, opens no sound. The mel is the store's own log10(1 + 10 * S), so the "MFCC" here are the orthonormal
DCT-II of *that* log mel (librosa's default takes decibels instead). Distances between statistics of unlike scale mean
little, hence ``standardised``.
"""

from __future__ import annotations

import numpy as np

from msim_tf.errors import InputError


def _validate_mel(mel: np.ndarray) -> np.ndarray:
    mel = np.asarray(mel, np.float64)
    if mel.ndim != 2 or mel.shape[1] < 2 or not np.isfinite(mel).all():
        raise InputError(f"mel has shape {mel.shape}, expected finite [n_mels, frames] with at least 2 frames")
    return mel


def mfcc_statistics(mel: np.ndarray, *, n_mfcc: int = 20) -> np.ndarray:
    """Mean and standard deviation over time of the MFCC and of their frame-to-frame differences.

    Args:
        mel: [n_mels, frames] float, log-compressed mel of a whole clip.
        n_mfcc: coefficients kept, the first included.

    Returns:
        [4 * n_mfcc] float32: means, deviations, means of differences, deviations of differences.

    Raises:
        InputError: if the mel has fewer bands than coefficients, or fewer than 2 frames.
    """
    from scipy.fft import dct

    mel = _validate_mel(mel)
    if not 1 <= n_mfcc <= mel.shape[0]:
        raise InputError(f"n_mfcc is {n_mfcc}, expected 1 to {mel.shape[0]}")
    # [n_mels, frames] -> [n_mfcc, frames], then four statistics over the frames: [4 * n_mfcc].
    mfcc = dct(mel, type=2, norm="ortho", axis=0)[:n_mfcc]
    parts = (mfcc, np.diff(mfcc, axis=1))
    statistics = [statistic for part in parts for statistic in (part.mean(axis=1), part.std(axis=1))]
    return np.concatenate(statistics).astype(np.float32)


def mel_statistics(mel: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over time of each band: [2 * n_mels] float32, for the random projection."""
    mel = _validate_mel(mel)
    return np.concatenate([mel.mean(axis=1), mel.std(axis=1)]).astype(np.float32)


def standardised(vectors: np.ndarray, *, reference: np.ndarray | None = None) -> np.ndarray:
    """Every coordinate with mean 0 and deviation 1 over ``reference``.

    Args:
        vectors: [n, size].
        reference: [m, size], e.g. the training tracks; None takes ``vectors`` themselves (no label is used, but say
            so).

    Returns:
        [n, size] float32; a coordinate that is constant in the reference becomes 0.
    """
    reference = np.asarray(vectors if reference is None else reference, np.float64)
    deviation = reference.std(axis=0)
    centred = np.asarray(vectors, np.float64) - reference.mean(axis=0)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-12).astype(np.float32)


def random_projection(vectors: np.ndarray, size: int, *, seed: int = 0) -> np.ndarray:
    """Gaussian random projection: an embedding that learnt nothing and keeps distances approximately.

    Args:
        vectors: [n, inputs], e.g. standardised ``mel_statistics``.
        size: coordinates of the result.
        seed: of the matrix; the same for all tracks that are to be compared.

    Returns:
        [n, size] float32, whose expected squared distances equal those of ``vectors``.
    """
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or size < 1:
        raise InputError(f"vectors of shape {vectors.shape} to {size} coordinates, expected [n, inputs] and at least 1")
    # [inputs, size] of variance 1 / size: E|xR|^2 = |x|^2 (Johnson and Lindenstrauss, 1984).
    matrix = np.random.default_rng(seed).standard_normal((vectors.shape[1], size)) / np.sqrt(size)
    return (vectors @ matrix).astype(np.float32)
