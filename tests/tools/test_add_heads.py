"""Heads for an exported model: its network is read back exactly, and its embeddings stay."""

import dataclasses

import keras
import numpy as np
import pytest

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.export.export import export_model
from msim_tf.export.metadata import load_metadata
from msim_tf.export.servable import Servable
from msim_tf.model.description_heads import (
    WORDS,
    DescriptionHeads,
    build_key_head,
    build_tempo_head,
    build_word_head,
    tag_columns,
)
from msim_tf.model.network import build_network, embedding_function
from msim_tf.model.params import NETWORK_PRESETS, TrainParams
from msim_tf.params import FeatureParams
from tools.add_heads import add_heads, network_of_export

pytestmark = pytest.mark.usefixtures("thin_blocks")

NETWORK = dataclasses.replace(
    NETWORK_PRESETS["multi384"],
    width=0.03,
    subspace_width=4,
    time_averaged_heads=True,
    slow_stride=4,
    mel_mean=0.31,
    mel_variance=0.07,
)


@pytest.fixture(scope="module")
def exported(labelled_store, tmp_path_factory):
    keras.utils.set_random_seed(3)
    base = tmp_path_factory.mktemp("headless") / "model"
    model = build_network(NETWORK, labelled_store.params)
    return export_model(model, NETWORK, labelled_store.params, base, training={"by": "a test"})


def test_the_network_is_read_back_with_its_statistics(exported, labelled_store):
    model, network = network_of_export(exported)
    assert network.mel_mean == pytest.approx(0.31) and network.mel_variance == pytest.approx(0.07)
    segments = labelled_store.read_segments(np.arange(3), np.zeros(3, int))
    inputs = {name: value.astype(np.float32) for name, value in segments.items()}
    with Servable.load(exported) as servable:
        expected = servable.run("serving_default", inputs)["embedding"]
    np.testing.assert_allclose(embedding_function(model)(inputs), expected, atol=1e-5)


def test_heads_are_added_and_embeddings_stay(exported, labelled_store, tmp_path):
    params = TrainParams(describe_steps=5, validation=0.25)
    made = add_heads(exported, labelled_store, tmp_path / "model", params)
    before, after = load_metadata(exported), load_metadata(made)
    assert not before.classes and {"tempo", "key"} <= set(after.classes)
    assert isinstance(after.layout, EmbeddingLayout) and after.layout == before.layout
    assert after.training["by"] == "a test" and after.training["description"]["network of version"] == "1"


def test_words_stay_and_tempo_and_key_learn_again(exported, labelled_store, tmp_path):
    """The word head's logits are those of the version before, bit for bit; the other heads' are new."""
    model, network = network_of_export(exported)
    words = {"genre": ("rock", "jazz"), "mood": ("calm",)}
    models = {
        WORDS: build_word_head(len(tag_columns(network)), words),
        "tempo": build_tempo_head(labelled_store.params, network.slow_stride),
        "key": build_key_head(labelled_store.params, network.slow_stride),
    }
    heads = DescriptionHeads(words, models, {WORDS: {"genre/rock": 0.9}})
    features, base = labelled_store.params, tmp_path / "model"
    first = export_model(model, network, features, base, training={"by": "a test"}, heads=heads)
    params = TrainParams(describe_steps=5, validation=0.25)
    second = add_heads(first, labelled_store, base, params, keep_words=True)
    assert load_metadata(second).classes == load_metadata(first).classes

    segments = labelled_store.read_segments(np.arange(3), np.zeros(3, int))
    inputs = {name: value.astype(np.float32) for name, value in segments.items()}
    outputs = []
    for version in (first, second):
        with Servable.load(version) as servable:
            outputs.append(servable.run("describe", inputs))
    for name in words:
        np.testing.assert_array_equal(outputs[1][f"{name}_probabilities"], outputs[0][f"{name}_probabilities"])
    for name in ("tempo", "key"):
        assert np.abs(outputs[1][f"{name}_probabilities"] - outputs[0][f"{name}_probabilities"]).max() > 1e-4


def test_words_that_a_version_does_not_say_cannot_stay(exported, labelled_store, tmp_path):
    params = TrainParams(describe_steps=5, validation=0.25)
    with pytest.raises(InputError, match="says no words that could be kept"):
        add_heads(exported, labelled_store, tmp_path / "model", params, keep_words=True)


def test_a_store_of_other_features_is_one_line(exported, labelled_store, tmp_path, monkeypatch):
    monkeypatch.setattr(labelled_store, "params", FeatureParams())
    with pytest.raises(InputError, match="features"):
        add_heads(exported, labelled_store, tmp_path / "model", TrainParams(describe_steps=5))
