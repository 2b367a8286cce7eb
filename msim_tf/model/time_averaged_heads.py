"""The last stage of a training with time-averaged heads: only they learn, from means of several segments of a clip.

What retrieval compares is a track, the mean of its segments (paper 4.1). A 3 s segment often holds one chord or too few
beats; trained on segments alone, a head learns to be sure of what it cannot know. The heads share no weight with the
backbone and are small, so they can be trained on tracks in minutes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from msim_tf.data.batch_sampler import BatchParams, BatchSampler
from msim_tf.data.pipeline import StorePart
from msim_tf.data.store import FeatureStore
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.model.layers import FoldCrops, MeanOfCrops
from msim_tf.model.losses import loss_weights
from msim_tf.model.multi_worker import Hosts
from msim_tf.model.network import head_model
from msim_tf.model.objectives import dimension_loss
from msim_tf.model.params import TrainParams


def head_part(
    store: FeatureStore, labels: EncodedLabels, clips: np.ndarray, params: TrainParams, hosts: Hosts
) -> StorePart:
    """The training tracks with the labels of the heads' dimensions, several crops of each clip.

    Args:
        store: the features.
        labels: of all tracks of the store.
        clips: [n] int, the training tracks.
        params: how to train.
        hosts: who trains.
    """
    # Batches are built for the heads' dimensions alone, without what a teacher says.
    arrays = {name: labels.arrays[name] for name in params.network.heads}
    alone = dataclasses.replace(labels, arrays=arrays, teacher={}, regression=None)
    batches = BatchParams(
        batch_size=params.batch_size,
        replicas=hosts.strategy.num_replicas_in_sync,
        key_relation=params.key_relation,
        augment=params.augment,
        crops=params.head_crops,
        seed=params.seed + 2,  # after those of training and validation
    )
    sampler = BatchSampler(alone.take(clips), store.frames[clips], store.params.segment_frames, batches)
    return StorePart(store, clips, sampler)


def train_heads(
    model: keras.Model,
    part: StorePart,
    params: TrainParams,
    hosts: Hosts,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[float]:
    """Trains the heads of ``model`` in place; call it in the scope of the strategy that made the model.

    Args:
        model: of ``build_network`` with time-averaged heads.
        part: of ``head_part``.
        params: how; its ``head_*``.
        hosts: who trains.
        callbacks: further Keras callbacks.

    Returns:
        The mean loss of each epoch.
    """
    # A model on [batch, crops, ...] that shares the heads' weights, so that they change in ``model``, too.
    heads = head_model(model)
    names = tuple(heads.output)
    steps = params.head_epochs * params.head_steps
    rate = keras.optimizers.schedules.CosineDecay(params.head_learning_rate, decay_steps=steps)
    on_crops = _on_crops(heads, params.head_crops)
    on_crops.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss={name: dimension_loss(params) for name in names},
        loss_weights=loss_weights(names),
        jit_compile=False,
    )
    hosts.prepare(on_crops)

    # The order of the data is the sampler's: Keras must not shuffle.
    history = on_crops.fit(
        hosts.dataset(part, tuple(heads.input), first=0, last=steps),
        epochs=params.head_epochs,
        steps_per_epoch=params.head_steps,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
    return [float(value) for value in history.history["loss"]]


def _on_crops(heads: keras.Model, crops: int) -> keras.Model:
    """The heads on [batch, crops, ...], giving the mean of each clip's crops."""
    inputs = {
        name: keras.Input((crops, *tensor.shape[1:]), name=name, dtype="float32")
        for name, tensor in heads.input.items()
    }
    # [batch, crops, ...] -> [batch * crops, ...] -> [batch * crops, width] -> [batch, width]
    subspaces = heads({name: FoldCrops(name=f"fold_{name}")(value) for name, value in inputs.items()})
    outputs = {name: MeanOfCrops(crops, name=name)(value) for name, value in subspaces.items()}
    return keras.Model(inputs, outputs, name="msim_heads_on_crops")
