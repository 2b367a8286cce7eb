"""The images and scalars of evaluation that TensorBoard shows while training, on a model of two small layers."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.evaluate import plots
from msim_tf.model.params import NETWORK_PRESETS, TrainParams
from msim_tf.model.tensorboard_images import EvaluationImages, SubspaceScores, input_figure
from msim_tf.model.tensorboard_logs import embed_sample, sample_tracks

PARAMS = TrainParams(network=dataclasses.replace(NETWORK_PRESETS["single384"], subspace_width=2))


def _model(features, names):
    mel = keras.Input(features.input_shapes["mel"], name="mel")
    flat = keras.layers.Flatten()(mel)
    outputs = {name: keras.layers.Dense(2, name=name)(flat) for name in names}
    return keras.Model({"mel": mel}, outputs)


def _events(logdir):
    return EventAccumulator(str(logdir / "validation"), size_guidance={"images": 0, "tensors": 0}).Reload()


@pytest.fixture
def sample(labelled_store):
    return sample_tracks(labelled_store, np.arange(len(labelled_store)), ["mel"])


def _run(callback, model, epochs):
    callback.set_model(model)
    callback.set_params({"epochs": epochs})
    for epoch in range(epochs):
        callback.on_epoch_end(epoch)


def test_images_and_accuracies_every_few_epochs_and_at_the_end(labelled_store, sample, tmp_path):
    model = _model(labelled_store.params, (*DIMENSION_NAMES, "track"))
    _run(EvaluationImages(tmp_path, SubspaceScores(sample, PARAMS, labelled_store), every=3), model, 7)
    events = _events(tmp_path)
    for tag in ("evaluation/kiviat", "evaluation/matrix", *(f"label_triplets/{name}" for name in DIMENSION_NAMES)):
        assert [event.step for event in events.Tensors(tag)] == [2, 5, 6], tag
    width, height, png = tf.make_ndarray(events.Tensors("evaluation/kiviat")[0].tensor_proto)
    picture = tf.io.decode_png(png).numpy()
    assert picture.shape[:2] == (int(height), int(width)) and picture.std() > 10

    # Accuracy by looking at every triplet: another artist's tracks, mean over anchors.
    assert list(embed_sample(model, sample)) == list(DIMENSION_NAMES)  # without "track", which is no subspace
    vectors = embed_sample(model, sample)["mood"].astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distance = np.round(1 - vectors @ vectors.T, 12)
    labels = [labelled_store.labels.values[name].get("mood") for name in sample.identifiers]
    artists = [name.split("/")[0] for name in sample.identifiers]
    shares = []
    for a, own in enumerate(labels):
        others = [b for b, value in enumerate(labels) if own and value and artists[b] != artists[a]]
        near = [distance[a, b] for b in others if labels[b] == own]
        far = [distance[a, b] for b in others if labels[b] != own]
        if near and far:
            shares.append(np.mean([first < second for first in near for second in far]))
    actual = tf.make_ndarray(events.Tensors("label_triplets/mood")[0].tensor_proto)
    assert actual == pytest.approx(np.mean(shares), abs=1e-6)


def test_inputs_are_drawn_in_colour_with_axes_that_say_what_they_are(labelled_store):
    features = labelled_store.params
    sample = sample_tracks(labelled_store, np.arange(len(labelled_store)), ["mel", "onset", "cens"])
    figure = input_figure(sample, features)
    # Four of the twelve tracks in columns, evenly spread; mel, CENS and tempogram in rows.
    assert [axes.get_title() for axes in figure.axes[:4]] == [sample.identifiers[i] for i in (0, 3, 7, 11)]
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    np.testing.assert_array_equal(drawn[1], sample.inputs["mel"][3].astype(np.float32))
    assert drawn[8].shape == (features.tempogram_lags, features.segment_frames)
    pitch_classes = [label.get_text() for label in figure.axes[4].get_yticklabels()]
    assert figure.axes[4].get_ylabel() == "CENS: pitch class" and pitch_classes[0] == "C"
    for label in figure.axes[8].get_yticklabels():
        lag = label.get_position()[1]
        assert 60 * features.sr / (lag * features.hop_length) == pytest.approx(float(label.get_text()))
    picture = plots.rgba(figure)
    assert picture.shape[1] >= 1200 and picture[..., :3].std(axis=-1).max() > 50  # large, and not grey


def test_what_cannot_be_drawn_is_left_out(labelled_store, store, sample, tmp_path):
    model = _model(labelled_store.params, DIMENSION_NAMES)
    unlabelled = FeatureStore(store.path)
    _run(EvaluationImages(tmp_path / "none", SubspaceScores(sample, PARAMS, unlabelled), every=1), model, 1)
    assert _events(tmp_path / "none").Tags()["tensors"] == ["evaluation/matrix"]

    model.get_layer("key").set_weights([np.full(w.shape, np.nan) for w in model.get_layer("key").get_weights()])
    _run(EvaluationImages(tmp_path / "diverged", SubspaceScores(sample, PARAMS, labelled_store), every=1), model, 1)
    assert _events(tmp_path / "diverged").Tags()["tensors"] == []
