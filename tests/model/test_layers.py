"""The tempogram layer against librosa, the mask by hand, both through their configuration."""

import keras
import librosa
import numpy as np
import pytest

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.model.layers import SubspaceMask, Tempogram


def again(layer):
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tempogram_of_a_segment_is_cut_from_that_of_the_clip(rng, dtype):
    lags, frames, start = 48, 30, 17
    envelope = rng.uniform(0, 3, 90).astype(np.float32)
    padded = np.pad(envelope, lags // 2, mode="linear_ramp", end_values=0)
    layer = again(Tempogram(lags, name="tempogram"))
    result = layer(padded[None, start : start + frames + lags - 1].astype(dtype))
    expected = librosa.feature.tempogram(onset_envelope=envelope, win_length=lags)[:, start : start + frames]
    assert result.shape == (1, lags, frames) and result.dtype == "float32"
    np.testing.assert_allclose(result[0], expected, atol=1e-5 if dtype == np.float32 else 2e-3)


def test_tempogram_knows_its_shape_before_it_computes():
    onset = keras.Input((512,))
    assert tuple(Tempogram(384)(onset).shape) == (None, 384, 129)


def test_mask_keeps_the_subspace(rng):
    layout = EmbeddingLayout.equal(("genre", "tempo", "key"), 12)
    embedding = rng.normal(size=(5, 12)).astype(np.float32)
    result = again(SubspaceMask(layout.mask(["tempo"]), name="tempo"))(embedding)
    np.testing.assert_array_equal(result, embedding[:, 4:8])
    both = SubspaceMask(layout.mask(["genre", "key"]))(embedding)
    np.testing.assert_array_equal(both, embedding[:, [0, 1, 2, 3, 8, 9, 10, 11]])


def test_mask_is_not_trainable(rng):
    layer = SubspaceMask([0, 1, 1])
    layer(rng.normal(size=(2, 3)).astype(np.float32))
    assert layer.weights == []


def test_wrong_masks_are_refused():
    for mask in ([0, 0], [0, 2]):
        with pytest.raises(InputError, match="expected zeros and ones, at least one 1"):
            SubspaceMask(mask)
    with pytest.raises(ValueError, match="embedding of 5 coordinates, the mask has 3"):
        SubspaceMask([0, 1, 1])(np.zeros((2, 5), np.float32))
