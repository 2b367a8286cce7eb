"""A training that starts from an exported model's weights."""

import dataclasses

import numpy as np
import pytest
from devices import one_device
from synthetic import SMALL
from thin_network import thin_blocks
from tiny_model import tiny_model_path

from msim_tf.errors import InputError
from msim_tf.model.initial_weights import assign_exported_weights, exported_weights, weight_path
from msim_tf.model.network import build_network
from msim_tf.model.params import NETWORK_PRESETS, TrainParams
from msim_tf.model.run import load_model
from msim_tf.model.training import train

NETWORK = dataclasses.replace(NETWORK_PRESETS["single384"], width=0.03, subspace_width=4)


@pytest.fixture(scope="module")
def version():
    """A version of the tiny model."""
    return tiny_model_path() / "1"


def test_a_training_without_steps_to_speak_of_stays_at_the_exported_weights(version, labelled_store, tmp_path):
    params = TrainParams(
        network=NETWORK, epochs=1, steps_per_epoch=1, validation_steps=1, batch_size=8, validation=0.25,
        learning_rate=1e-9, start_from=str(version),
    )  # fmt: skip
    with thin_blocks():
        run = train(labelled_store, tmp_path / "run", params, strategy=one_device())
    stored = exported_weights(version)
    for weight in load_model(run).weights:
        path = weight_path(weight)
        np.testing.assert_allclose(weight.numpy(), stored[path], atol=1e-7, err_msg=path)
    assert run.params.start_from == str(version)


def test_layers_that_an_export_lacks_stay_fresh(version):
    with thin_blocks():
        model = build_network(dataclasses.replace(NETWORK, regression_size=3), SMALL)
    before = model.get_layer("teacher").get_weights()
    with pytest.raises(InputError, match="no weight teacher/kernel"):
        assign_exported_weights(model, version)
    assign_exported_weights(model, version, fresh=("teacher",))
    for old, new in zip(before, model.get_layer("teacher").get_weights()):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("change", [{"width": 0.06}, {"subspace_width": 5}])
def test_another_network_is_one_line(version, change):
    with thin_blocks():
        model = build_network(dataclasses.replace(NETWORK, **change), SMALL)
    with pytest.raises(InputError, match=r"is \[.*this network's is \["):
        assign_exported_weights(model, version)


def test_what_is_no_export_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no exported model, or a damaged one"):
        exported_weights(tmp_path)
