"""How the heads of ``description_heads`` are fitted: to several segments of a track, by the mean of their logits.

One time in four all segments are the same one, so that a head also learns what a single segment cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msim_tf.data.store import FeatureStore
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.model.layers import FoldCrops, MeanOfCrops

BATCH = 64
CROPS = 4
_SAME_SEGMENT = 0.25  # share of the tracks of a batch of which all crops are one segment
_LEARNING_RATE = 1e-3


@dataclass(frozen=True, eq=False)
class TrackPart:
    """The tracks of one part of the split.

    Attributes:
        store: their features.
        labels: of all tracks of the store.
        rows: [n] int, which of them.
    """

    store: FeatureStore
    labels: EncodedLabels
    rows: np.ndarray


def repeated_crops(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[batch, crops], some rows of which are changed to hold their first crop only."""
    # [batch, 1]: the rows of which every crop becomes the first one.
    same = rng.random((len(crops), 1)) < _SAME_SEGMENT
    return np.where(same, crops[:, :1], crops)


def fit_on_crops(head: keras.Model, batches: Callable[[], Iterator[Any]], loss: Any, steps: int) -> None:
    """Trains a head in place on batches of [batch, crops, ...], by the mean of its logits over the crops."""
    # One batch, drawn and dropped, gives the shapes and types of all.
    first = next(iter(batches()))
    specification = tf.nest.map_structure(lambda value: tf.TensorSpec(value.shape, value.dtype), first)
    data = tf.data.Dataset.from_generator(batches, output_signature=specification).prefetch(2)

    # [batch, crops, ...] -> [batch * crops, ...] -> [batch * crops, classes] -> [batch, classes]
    crops = keras.Input(first[0].shape[1:], name="crops", dtype="float32")
    logits = head(FoldCrops(name="fold")(crops))
    named = logits if isinstance(logits, dict) else {"classes": logits}
    means = {name: MeanOfCrops(CROPS, name=name)(value) for name, value in named.items()}
    model = keras.Model(crops, means if isinstance(logits, dict) else means["classes"])

    # One epoch of ``steps`` batches, since the generator never ends.
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, decay_steps=max(1, steps))
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, jit_compile=False)
    model.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
