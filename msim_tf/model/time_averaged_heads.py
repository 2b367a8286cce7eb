"""The last stage of a training with time-averaged heads: they alone learn, from the mean of several segments of each clip.

What retrieval compares is a track, the mean of its segments (paper 4.1). A 3 s segment often holds one chord or too few beats; trained on
segments alone a path learns to be sure of what it cannot know. The time-averaged heads share no weight with the backbone and are small, so they can be
trained on tracks in minutes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from msim_tf.data.batch_sampler import BatchComposer, BatchParams
from msim_tf.data.pipeline import make_dataset
from msim_tf.data.store import FeatureStore
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.model.layers import FoldCrops, MeanOfCrops
from msim_tf.model.losses import loss_weights
from msim_tf.model.network import head_model
from msim_tf.model.params import TrainParams


def train_heads(
    model: keras.Model,
    store: FeatureStore,
    labels: EncodedLabels,
    clips: np.ndarray,
    params: TrainParams,
    *,
    replicas: int,
    loss: keras.losses.Loss,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[float]:
    """Trains the time-averaged heads of ``model`` in place; call it in the scope of the strategy that made the model.

    Args:
        model: of ``build_network`` with time-averaged heads.
        store: the features.
        labels: of all tracks of the store.
        clips: indices of the training tracks.
        params: how; its ``head_*``.
        replicas: of the strategy.
        loss: of one dimension.
        callbacks: further Keras callbacks.

    Returns:
        The mean loss of each epoch.
    """
    paths = head_model(model)
    names = tuple(paths.output)
    arrays = {name: labels.arrays[name] for name in names}
    batches = BatchParams(
        batch_size=params.batch_size,
        replicas=replicas,
        key_relation=params.key_relation,
        augment=params.augment,
        crops=params.head_crops,
        seed=params.seed + 2,  # after those of training and validation
    )
    composer = BatchComposer(
        dataclasses.replace(labels, arrays=arrays, teacher={}, regression=None).take(clips),
        store.frames[clips],
        store.params.segment_frames,
        batches,
    )
    steps = params.head_epochs * params.head_steps
    data = make_dataset(store, clips, composer, tuple(paths.input), first=0, last=steps)
    rate = keras.optimizers.schedules.CosineDecay(params.head_learning_rate, decay_steps=steps)
    several = _on_crops(paths, params.head_crops)
    several.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=dict.fromkeys(names, loss),
        loss_weights=loss_weights(names),
        jit_compile=False,
    )
    history = several.fit(
        data,
        epochs=params.head_epochs,
        steps_per_epoch=params.head_steps,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
    return [float(value) for value in history.history["loss"]]


def _on_crops(paths: keras.Model, crops: int) -> keras.Model:
    """The same on [batch, crops, ...], giving the mean of each clip's crops."""
    inputs = {
        name: keras.Input((crops, *tensor.shape[1:]), name=name, dtype="float32")
        for name, tensor in paths.input.items()
    }
    subspaces = paths({name: FoldCrops(name=f"fold_{name}")(value) for name, value in inputs.items()})
    outputs = {name: MeanOfCrops(crops, name=name)(value) for name, value in subspaces.items()}
    return keras.Model(inputs, outputs, name="msim_heads_on_crops")
