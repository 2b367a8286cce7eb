"""From the store to batches: composed on purpose, gathered in one read, deterministic under a seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from msim_tf.data.augmentation import colour, rolled_chroma
from msim_tf.data.batch_sampler import BatchComposer
from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import TEACHER
from msim_tf.performance import ReusedMemory


def make_dataset(
    store: FeatureStore, clips: np.ndarray, composer: BatchComposer, inputs: tuple[str, ...], *, first: int, last: int
) -> tf.data.Dataset:
    """Batches ``first`` to ``last - 1`` as (inputs, targets).

    Args:
        store: where the features are.
        clips: [n] index in the store of each clip of the split.
        composer: composes the batches of the split.
        inputs: names of the model's inputs; only these are read.
        first: number of the first batch.
        last: one past the last.

    Returns:
        A dataset of dicts: inputs {name: [batch, *shape] float16} ([batch, crops, *shape] where the composer takes several crops), targets {dimension: [batch, block] int8} and, for the teacher's tags,
        {dimension + "_teacher": [batch, tags] float32} and {"teacher": [batch, coordinates] float32}.
    """
    size, block = composer.params.batch_size * composer.params.replicas, composer.params.batch_size
    crops = composer.params.crops
    several = (crops,) if crops > 1 else ()
    kinds = {name: (tf.float16, (*several, *store.params.input_shapes[name])) for name in inputs}
    kinds |= dict.fromkeys(composer.targets, (tf.int8, (block,)))
    kinds |= {
        target: (tf.float32, composer.labels.teacher[name].vectors.shape[1:])
        for target, name in composer.teacher_targets.items()
    }
    frame_seconds = store.params.hop_length / store.params.sr
    memory = ReusedMemory()
    if composer.regression_size:
        kinds[TEACHER] = (tf.float32, (composer.regression_size,))

    def read(step: np.ndarray) -> list[np.ndarray]:
        batch = composer.batch(int(step))
        members = np.repeat(np.arange(size), crops)
        segments = store.read_segments(
            clips[batch.clips[members]], batch.starts.ravel(), batch.stretch[members], names=inputs, memory=memory
        )
        if "mel" in segments:
            colour(segments["mel"], batch.colours[members])
        if "cens" in segments:
            segments["cens"] = rolled_chroma(segments["cens"], batch.roll[members])
        values = {name: value.reshape(size, *several, *value.shape[1:]) for name, value in segments.items()}
        values |= composer.relations(batch) | composer.teacher(batch) | composer.regression(batch, frame_seconds)
        return [values[name] for name in kinds]

    def load(step: tf.Tensor) -> tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]:
        values = tf.numpy_function(read, [step], [kind for kind, _ in kinds.values()], stateful=False)
        named = {
            name: tf.ensure_shape(value, [size, *shape]) for (name, (_, shape)), value in zip(kinds.items(), values)
        }
        return {name: named.pop(name) for name in inputs}, named

    options = tf.data.Options()
    # Every replica needs its own block of each batch; sharding by file or element would tear blocks apart.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    # Plain batches are mostly Python, where two calls would wait for each other; what augmentation computes, NumPy does beside that.
    calls = 2 if composer.params.augment else 1
    steps = tf.data.Dataset.range(first, last)
    # No more in waiting than a step needs: their memory is used again while it is still in the processor's cache.
    return steps.map(load, num_parallel_calls=calls).prefetch(2).with_options(options)
