"""Baselines against librosa and against their own theory."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from msim_tf.errors import InputError
from msim_tf.evaluate.baselines import mel_statistics, mfcc_statistics, random_projection, standardised


def test_mfcc_statistics_are_those_of_librosa_on_the_same_log_mel():
    mel = np.random.default_rng(0).random((128, 50)) * 3
    actual = mfcc_statistics(mel, n_mfcc=20)
    mfcc = librosa.feature.mfcc(S=mel, n_mfcc=20, dct_type=2, norm="ortho")
    assert actual.shape == (80,) and actual.dtype == np.float32
    np.testing.assert_allclose(actual[:20], mfcc.mean(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(actual[20:40], mfcc.std(axis=1), rtol=1e-5, atol=1e-5)
    steps = mfcc[:, 1:] - mfcc[:, :-1]
    np.testing.assert_allclose(actual[40:60], steps.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(actual[60:], steps.std(axis=1), rtol=1e-5, atol=1e-5)


def test_a_steady_flat_spectrum_has_one_coefficient():
    actual = mfcc_statistics(np.full((64, 10), 2.0), n_mfcc=13)
    # Orthonormal DCT of a constant: sqrt(n) * constant, then nothing.
    np.testing.assert_allclose(actual, [16.0] + [0.0] * 51, atol=1e-6)


@pytest.mark.parametrize(
    ("mel", "n_mfcc", "message"),
    [
        (np.zeros((8, 5)), 9, "n_mfcc is 9, expected 1 to 8"),
        (np.zeros((8, 1)), 4, r"shape \(8, 1\)"),
        (np.full((8, 5), np.nan), 4, "finite"),
        (np.zeros(5), 4, r"shape \(5,\)"),
    ],
)
def test_faulty_mels_are_refused(mel, n_mfcc, message):
    with pytest.raises(InputError, match=message):
        mfcc_statistics(mel, n_mfcc=n_mfcc)


def test_mel_statistics():
    assert mel_statistics(np.array([[1.0, 3.0], [2.0, 2.0]])).tolist() == [2.0, 2.0, 1.0, 0.0]


def test_standardised_by_itself_and_by_a_reference():
    vectors = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert standardised(vectors).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    actual = standardised(vectors, reference=np.array([[0.0, 0.0], [4.0, 2.0]]))
    assert actual.tolist() == [[-0.5, 4.0], [0.5, 4.0]]


def test_a_random_projection_keeps_distances_on_average():
    vectors = np.random.default_rng(0).standard_normal((30, 100))
    projected = random_projection(vectors, 2000, seed=1)
    assert projected.shape == (30, 2000)
    before = ((vectors[:, None] - vectors) ** 2).sum(axis=2)[np.triu_indices(30, 1)]
    after = ((projected[:, None] - projected) ** 2).sum(axis=2)[np.triu_indices(30, 1)]
    # Johnson and Lindenstrauss: relative error about sqrt(2 / size) = 3 %.
    np.testing.assert_allclose(after, before, rtol=0.15)
    np.testing.assert_array_equal(projected, random_projection(vectors, 2000, seed=1))
    with pytest.raises(InputError, match="to 0 coordinates"):
        random_projection(vectors, 0)
