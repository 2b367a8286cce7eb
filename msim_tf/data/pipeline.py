"""From the store to batches: sampled on purpose, gathered in one read, deterministic under a seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from msim_tf.data.augmentation import equalise, transposed_chroma
from msim_tf.data.batch_sampler import BatchParams, BatchSampler
from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import TEACHER
from msim_tf.labels.encoding import encode
from msim_tf.performance import ReusedMemory


@dataclass(frozen=True)
class StorePart:
    """One part of a store, ready for batches.

    Attributes:
        store: where the features are.
        clips: [n] int, index in the store of each clip of the part.
        sampler: samples batches of these n clips.
    """

    store: FeatureStore
    clips: np.ndarray
    sampler: BatchSampler


@dataclass(frozen=True)
class Share:
    """Which blocks of every batch one host reads, of a training on several hosts.

    Attributes:
        host: its number.
        hosts: how many there are; each has the same number of replicas.
    """

    host: int = 0
    hosts: int = 1


def make_part(
    store: FeatureStore,
    dimensions: Iterable[str],
    params: BatchParams,
    *,
    clips: np.ndarray | None = None,
) -> StorePart:
    """A part of a store with its labels encoded, for ``make_dataset``.

    Args:
        store: features and labels.
        dimensions: which relations the batches give as targets.
        params: how batches are sampled.
        clips: [n] int, the part; by default the whole store.
    """
    clips = np.arange(len(store)) if clips is None else np.asarray(clips)
    labels = encode(store.labels, store.identifiers, dimensions, teacher=store.teacher if params.teacher else None)
    sampler = BatchSampler(labels.take(clips), store.frames[clips], store.params.segment_frames, params)
    return StorePart(store, clips, sampler)


def make_dataset(
    part: StorePart, inputs: tuple[str, ...], *, first: int, last: int, share: Share | None = None
) -> tf.data.Dataset:
    """Batches ``first`` to ``last - 1`` as (inputs, targets), for ``fit`` of any model with inputs of these names.

    Args:
        part: what to read, and how batches are sampled.
        inputs: names of the model's inputs; only these are read.
        first: number of the first batch.
        last: one past the last.
        share: a host's part of every batch; the elements are then single blocks, one after another, as
            ``tf.distribute.Strategy.distribute_datasets_from_function`` takes them. By default whole batches.

    Returns:
        A dataset of dicts: inputs {name: [batch, *shape] float16} ([batch, crops, *shape] for several crops), targets
        {dimension: [batch, block] int8} and, for the teacher's tags, {dimension + "_teacher": [batch, tags] float32}
        and {"teacher": [batch, coordinates] float32}.
    """
    store, sampler = part.store, part.sampler
    block, replicas, crops = sampler.params.batch_size, sampler.params.replicas, sampler.params.crops
    # Elements per batch: one, the whole batch, or one for each replica of this host.
    elements = 1 if share is None else replicas // share.hosts
    size = block * replicas if share is None else block
    skipped = 0 if share is None else share.host * elements * block

    # Type and shape of every value, without the batch axis.
    several = (crops,) if crops > 1 else ()
    kinds = {name: (tf.float16, (*several, *store.params.input_shapes[name])) for name in inputs}
    kinds |= dict.fromkeys(sampler.targets, (tf.int8, (block,)))
    for target, name in sampler.teacher_targets.items():
        kinds[target] = (tf.float32, sampler.labels.teacher[name].vectors.shape[1:])
    if sampler.regression_size:
        kinds[TEACHER] = (tf.float32, (sampler.regression_size,))
    frame_seconds = store.params.hop_length / store.params.sr
    memory = ReusedMemory()

    def read(element: np.ndarray) -> list[np.ndarray]:
        # The members of this element: all of the batch, or one block of it.
        step, turn = divmod(int(element), elements)
        start = skipped + turn * block
        batch = sampler.batch(step).rows(slice(start, start + size))

        # One gather for all crops of all members: [size * crops, *shape].
        members = np.repeat(np.arange(size), crops)
        segments = store.read_segments(
            part.clips[batch.clips[members]],
            batch.starts.ravel(),
            batch.stretch[members],
            names=inputs,
            memory=memory,
        )

        # Equalising and transposing move no frame, so they follow the gather; each changes one input.
        if "mel" in segments:
            equalise(segments["mel"], batch.equaliser[members])
        if "cens" in segments:
            segments["cens"] = transposed_chroma(segments["cens"], batch.transpose[members])

        # [size * crops, *shape] -> [size, crops, *shape], then the targets, in the order that ``kinds`` declares.
        values = {name: value.reshape(size, *several, *value.shape[1:]) for name, value in segments.items()}
        values |= sampler.relations(batch) | sampler.teacher(batch) | sampler.regression(batch, frame_seconds)
        return [values[name] for name in kinds]

    def load(element: tf.Tensor) -> tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]:
        # A NumPy function comes back without shapes, which the model and the strategy need: set them again.
        values = tf.numpy_function(read, [element], [kind for kind, _ in kinds.values()], stateful=False)
        named = {
            name: tf.ensure_shape(value, [size, *shape]) for (name, (_, shape)), value in zip(kinds.items(), values)
        }
        return {name: named.pop(name) for name in inputs}, named

    options = tf.data.Options()
    # Every replica needs its own block of each batch; sharding by file or element would tear blocks apart.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    # Plain batches are mostly Python, where two calls would wait for each other; what augmentation computes, NumPy does
    # beside.
    calls = 2 if sampler.params.augment else 1
    numbers = tf.data.Dataset.range(first * elements, last * elements)
    # No more in waiting than a step needs: their memory is used again while it is still in the processor's cache.
    return numbers.map(load, num_parallel_calls=calls).prefetch(2).with_options(options)
