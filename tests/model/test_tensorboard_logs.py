"""The names and the order under which TensorBoard shows losses, by hand, and what is written to disk."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from msim_tf.model.tensorboard_logs import LossScalars, loss_scalars

LOGS = {
    "loss": 0.5,
    "genre_loss": 0.4,
    "genre_active_triplets": 0.9,
    "genre_valid_pairs": 7.0,
    "era_loss": 0.0,
    "era_active_triplets": 0.0,
    "era_valid_pairs": 0.0,
    "track_loss": 0.3,
    "genre_teacher_loss": 0.2,
    "val_loss": 0.6,
    "val_genre_loss": 0.0,
    "val_genre_active_triplets": 0.0,
    "val_genre_valid_pairs": 3.0,
}


def test_losses_are_grouped_and_a_dimension_without_triplets_is_absent():
    assert loss_scalars(LOGS, "", ("genre", "era")) == {
        "loss/total": 0.5,
        "loss/genre": 0.4,
        "loss/track": 0.3,
        "loss/genre_teacher": 0.2,
        "active_triplets/genre": 0.9,
        "valid_pairs/genre": 7.0,
    }
    # A loss of 0 with triplets is a dimension that is learned.
    assert loss_scalars(LOGS, "val_", ("genre", "era")) == {
        "loss/total": 0.6,
        "loss/genre": 0.0,
        "active_triplets/genre": 0.0,
        "valid_pairs/genre": 3.0,
    }


def test_a_total_without_any_triplet_is_absent_too():
    logs = {"loss": 0.0, "genre_loss": 0.0, "genre_active_triplets": 0.0, "genre_valid_pairs": 0.0}
    assert loss_scalars(logs, "", ("genre", "era")) == {}


def test_a_single_dimension_has_a_name_too():
    logs = {"loss": 0.5, "active_triplets": 0.2, "valid_pairs": 4.0}
    assert loss_scalars(logs, "", ("mood",)) == {
        "loss/total": 0.5,
        "loss/mood": 0.5,
        "active_triplets/mood": 0.2,
        "valid_pairs/mood": 4.0,
    }


@pytest.mark.parametrize("rate", [0.25, keras.optimizers.schedules.CosineDecay(0.25, 10)], ids=["number", "schedule"])
def test_both_splits_are_written_with_the_learning_rate(rate, tmp_path, two_replicas):
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(optimizer=keras.optimizers.Adam(rate), loss="mse")
    scalars = LossScalars(tmp_path, ("genre", "era"))
    scalars.set_model(model)
    scalars.on_train_begin()
    scalars.on_epoch_end(3, LOGS)
    train, validation = (EventAccumulator(str(tmp_path / part)).Reload() for part in ("train", "validation"))
    written = {*loss_scalars(LOGS, "", ("genre", "era")), "learning_rate"}
    assert set(train.Tags()["tensors"]) == {*written, "custom_scalars__config__"}
    assert set(validation.Tags()["tensors"]) == set(loss_scalars(LOGS, "val_", ("genre", "era")))
    (event,) = train.Tensors("learning_rate")
    assert event.step == 3
    np.testing.assert_allclose(tf.make_ndarray(event.tensor_proto), 0.25)

    # The dashboard opens on the total loss, then on that of each dimension, and shows every scalar once.
    layout = layout_pb2.Layout.FromString(train.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = [chart for category in layout.category for chart in category.chart]
    assert [chart.title for chart in charts[:3]] == ["loss/total", "loss/genre", "loss/era"]
    for tag in written - {"valid_pairs/genre", "loss/track", "loss/genre_teacher"}:
        matching = [chart.title for chart in charts if any(re.match(own, tag) for own in chart.multiline.tag)]
        assert matching == [tag]
