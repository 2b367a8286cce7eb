"""The last stage of a training: the time-averaged heads alone learn, from several crops of each clip."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import one_device
from thin_network import MASK_AND_HEADS

from msim_tf.data.batch_sampler import BatchParams, BatchSampler
from msim_tf.data.pipeline import StorePart, make_dataset
from msim_tf.errors import InputError
from msim_tf.labels.encoding import encode
from msim_tf.model.network import build_network, head_model
from msim_tf.model.params import TrainParams
from msim_tf.model.run import load_model
from msim_tf.model.time_averaged_heads import _on_crops
from msim_tf.model.training import train

pytestmark = pytest.mark.usefixtures("thin_blocks")

PARAMS = TrainParams(
    network=MASK_AND_HEADS,
    epochs=1,
    steps_per_epoch=1,
    validation_steps=1,
    batch_size=8,
    objective="contrastive",
    validation=0.25,
    augment=True,
    head_epochs=3,
    head_steps=5,
)


@pytest.fixture(scope="module")
def model(labelled_store):
    keras.utils.set_random_seed(7)
    return build_network(MASK_AND_HEADS, labelled_store.params)


def test_the_head_model_is_the_subspace_of_the_whole(model, labelled_store):
    starts = np.zeros(4, int)
    segments = labelled_store.read_segments(np.arange(4), starts)
    inputs = {name: tf.cast(value, tf.float32) for name, value in segments.items()}
    whole, alone = model(inputs), head_model(model)({name: inputs[name] for name in ("onset", "cens")})
    assert list(alone) == ["tempo", "key"]
    for name, value in alone.items():
        # All parts of the embedding have mean 0 already, so normalising the whole only scales it: directions stay.
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (whole[name].numpy(), value.numpy())]
        np.testing.assert_allclose(*unit, atol=1e-5)


def test_a_clip_is_the_mean_of_its_crops(model, labelled_store, rng):
    shapes = labelled_store.params.input_shapes
    crops = {name: rng.random((2, 3, *shapes[name])).astype(np.float32) for name in ("onset", "cens")}
    paths = head_model(model)
    actual = _on_crops(paths, 3)(crops)
    for row in range(2):
        alone = paths({name: value[row] for name, value in crops.items()})
        for name in ("tempo", "key"):
            np.testing.assert_allclose(actual[name][row], np.mean(alone[name], axis=0), atol=1e-5)


def test_crops_are_of_one_clip_at_one_tempo_in_one_key(labelled_store):
    labels = encode(labelled_store.labels, labelled_store.identifiers, ("tempo", "key"))
    params = BatchParams(batch_size=8, augment=True, crops=3)
    length = labelled_store.params.segment_frames
    sampler = BatchSampler(labels, labelled_store.frames, length, params)
    batch = sampler.batch(0)
    assert batch.starts.shape == (8, 3) and (np.ptp(batch.starts, axis=1) > 0).any()
    every = np.arange(len(labelled_store))
    ((inputs, targets),) = make_dataset(StorePart(labelled_store, every, sampler), ("onset",), first=0, last=1)
    assert list(inputs) == ["onset"] and inputs["onset"].shape[:2] == (8, 3) and targets["key"].shape == (8, 8)
    for crop in range(3):
        alone = labelled_store.read_segments(batch.clips, batch.starts[:, crop], batch.stretch)
        np.testing.assert_array_equal(inputs["onset"][:, crop], alone["onset"])


def test_the_stage_changes_the_time_averaged_heads_and_nothing_else(labelled_store, tmp_path):
    strategy = one_device()
    without = train(labelled_store, tmp_path / "a", dataclasses.replace(PARAMS, head_epochs=0), strategy=strategy)
    run = train(labelled_store, tmp_path / "b", PARAMS, strategy=strategy)
    assert run.summary["head_loss"] < run.summary["head_first_loss"] and "head_loss" not in without.summary
    before, after = load_model(without), load_model(run)
    changed = {
        layer.name
        for layer in after.layers
        for old, new in zip(before.get_layer(layer.name).get_weights(), layer.get_weights())
        if (old != new).any()
    }
    assert changed == {"tempo_hidden", "tempo_projection", "key_frame_hidden", "key_hidden", "key_projection"}


def test_a_network_without_time_averaged_heads_has_no_such_stage():
    with pytest.raises(InputError, match="no time-averaged heads"):
        dataclasses.replace(PARAMS, network=dataclasses.replace(MASK_AND_HEADS, time_averaged_heads=False))
