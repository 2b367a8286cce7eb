"""From the store to batches: composed on purpose, gathered in one read, deterministic under a seed.

A random batch holds hardly a mood, tempo or key positive, so batches are *composed*: anchor-positive pairs are drawn for each dimension in
turn, and all other members of the batch serve as negatives. The relation of every two members is looked up from the labels in all dimensions.

Mining happens inside a replica, so a global batch is made of one composed block per replica. The targets of a dimension are
``[batch, block]`` int8: row i holds the relations of member i to the members of its own block (+1 similar, -1 dissimilar, 0 unknown; 0 with
itself). They split along the batch axis exactly as the inputs do.

Batch ``step`` depends only on the seed and ``step``: a resumed training sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from msim_tf.corpus import relations
from msim_tf.corpus.datasets import EncodedLabels
from msim_tf.dimensions import TRACK, dimension
from msim_tf.errors import InputError
from msim_tf.features.store import FeatureStore

_TEMPO_MARGIN = 5.0
_TRIES = 16


@dataclass(frozen=True)
class BatchParams:
    """How batches are composed.

    Attributes:
        batch_size: members of one replica's block; at least 4.
        replicas: blocks in a batch.
        key_relation: "parallel", "relative" or "both".
        track_pairs: also draw pairs of two crops of one clip, and give targets for the relation "same clip".
        random_crops: segments start anywhere (training) instead of at multiples of a segment (validation).
        seed: decides every draw.
    """

    batch_size: int = 64
    replicas: int = 1
    key_relation: str = "parallel"
    track_pairs: bool = False
    random_crops: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 4:
            raise InputError(f"batch size {self.batch_size}: expected at least 4, a batch needs pairs and negatives")


class PartnerIndex:
    """Finds a random clip that is similar to a given one in a dimension, without an n x n matrix.

    Args:
        labels: the encoded labels of n clips.
        key_relation: as in ``BatchParams``.
    """

    def __init__(self, labels: EncodedLabels, key_relation: str) -> None:
        self._labels = labels
        self._key_relation = key_relation
        keys = np.arange(24)
        self._related_keys = relations.key_relation(keys, keys, relation=key_relation) > 0
        self.anchors = {name: np.flatnonzero(labels.known(name)) for name in labels.arrays}
        self._pools: dict[str, list[np.ndarray]] = {}
        for name, values in labels.arrays.items():
            kind = dimension(name).kind
            if kind == "tag":
                self._pools[name] = [np.flatnonzero(column) for column in values.T]
            elif kind == "key":
                self._pools[name] = [np.flatnonzero(values == key) for key in range(24)]
            else:
                self._index_tempo(values)

    def _index_tempo(self, bpm: np.ndarray) -> None:
        known = np.flatnonzero(np.isfinite(bpm))
        octave = np.log2(bpm[known]) % 1.0  # octaves are equal, so tempo lives on a circle
        order = np.argsort(octave, kind="stable")
        self._tempo_clips, self._tempo_octave = known[order], octave[order]
        slowest = bpm[known].min(initial=np.inf)
        # No similar pair is further apart on the circle: the margin weighs most at the slowest tempo.
        self._tempo_reach = float(np.log2(1.0 + _TEMPO_MARGIN / slowest)) if len(known) else 0.0

    def _tempo_candidates(self, anchor: int) -> np.ndarray:
        centre = float(np.log2(self._labels.arrays["tempo"][anchor]) % 1.0)
        centres = centre + np.array([-1.0, 0.0, 1.0])  # the circle's seam
        first = np.searchsorted(self._tempo_octave, centres - self._tempo_reach, side="left")
        last = np.searchsorted(self._tempo_octave, centres + self._tempo_reach, side="right")
        return np.concatenate([self._tempo_clips[start:stop] for start, stop in zip(first, last)])

    def _candidates(self, name: str, anchor: int, rng: np.random.Generator) -> np.ndarray:
        kind = dimension(name).kind
        if kind == "tempo":
            return self._tempo_candidates(anchor)
        values = self._labels.arrays[name][anchor]
        if kind == "tag":
            return self._pools[name][rng.choice(np.flatnonzero(values))]
        return np.concatenate([self._pools[name][key] for key in np.flatnonzero(self._related_keys[values])])

    def pair(self, name: str, rng: np.random.Generator) -> tuple[int, int] | None:
        """A random anchor and a random positive of it in dimension ``name``; None if none was found in a few tries."""
        anchors = self.anchors[name]
        for _ in range(_TRIES if len(anchors) > 1 else 0):
            anchor = int(rng.choice(anchors))
            candidates = self._candidates(name, anchor, rng)
            candidates = candidates[candidates != anchor]
            if dimension(name).kind == "tempo" and len(candidates):
                relation = self._labels.relation(name, np.array([anchor]), candidates, key_relation=self._key_relation)[
                    0
                ]
                candidates = candidates[relation > 0]
            if len(candidates):
                return anchor, int(rng.choice(candidates))
        return None


class BatchComposer:
    """Decides which segments make up batch number ``step``.

    Args:
        labels: encoded labels of the n clips of this split.
        frames: [n] frames of each.
        segment_frames: frames of a segment.
        params: how to compose.

    Raises:
        InputError: if there are fewer clips than a block has members.
    """

    def __init__(self, labels: EncodedLabels, frames: np.ndarray, segment_frames: int, params: BatchParams) -> None:
        if len(frames) < 2:
            raise InputError(f"{len(frames)} tracks in this split: expected at least 2")
        self.params = params
        self.labels = labels
        self._frames = frames
        self._segment_frames = segment_frames
        self._partners = PartnerIndex(labels, params.key_relation)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets: the dimensions, and "track" if asked for."""
        return (*self.labels.arrays, *((TRACK,) if self.params.track_pairs else ()))

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Members of batch ``step``.

        Returns:
            clips [batch] int64, indices into the split; starts [batch] int64, first frame of each segment.
        """
        rng = np.random.default_rng((self.params.seed, step))
        clips = np.concatenate([self._block(rng) for _ in range(self.params.replicas)])
        room = self._frames[clips] - self._segment_frames
        if self.params.random_crops:
            return clips, rng.integers(0, room + 1)
        return clips, self._segment_frames * rng.integers(0, room // self._segment_frames + 1)

    def _block(self, rng: np.random.Generator) -> np.ndarray:
        members: list[int] = []
        names = self.targets
        turn = int(rng.integers(len(names)))  # so that no dimension always gets the odd pair
        while len(members) + 1 < self.params.batch_size:
            name = names[turn % len(names)]
            turn += 1
            members += self._same_clip(rng) if name == TRACK else self._partners.pair(name, rng) or self._any_two(rng)
        return np.array(members + self._any_two(rng)[: self.params.batch_size - len(members)])

    def _same_clip(self, rng: np.random.Generator) -> list[int]:
        return [int(rng.integers(len(self._frames)))] * 2

    def _any_two(self, rng: np.random.Generator) -> list[int]:
        return rng.integers(len(self._frames), size=2).tolist()

    def relations(self, clips: np.ndarray) -> dict[str, np.ndarray]:
        """Targets of a batch: for each name [batch, block] int8, +1 similar, -1 dissimilar, 0 unknown."""
        blocks = clips.reshape(self.params.replicas, -1)
        return {name: np.concatenate([self._relation(name, block) for block in blocks]) for name in self.targets}

    def _relation(self, name: str, block: np.ndarray) -> np.ndarray:
        if name == TRACK:
            relation = np.where(block[:, None] == block, 1, -1).astype(np.int8)
        else:
            relation = self.labels.relation(name, block, block, key_relation=self.params.key_relation).copy()
        np.fill_diagonal(relation, 0)
        return relation


def make_dataset(
    store: FeatureStore, clips: np.ndarray, composer: BatchComposer, inputs: tuple[str, ...], *, first: int, last: int
) -> tf.data.Dataset:
    """Batches ``first`` to ``last - 1`` as (inputs, targets).

    Args:
        store: where the features are.
        clips: [n] index in the store of each clip of the split.
        composer: composes the batches of the split.
        inputs: names of the model's inputs.
        first: number of the first batch.
        last: one past the last.

    Returns:
        A dataset of dicts: inputs {name: [batch, *shape] float16}, targets {dimension: [batch, block] int8}.
    """
    size, block = composer.params.batch_size * composer.params.replicas, composer.params.batch_size
    names = composer.targets

    def read(step: np.ndarray) -> list[np.ndarray]:
        members, starts = composer.batch(int(step))
        segments = store.read_segments(clips[members], starts)
        relations = composer.relations(members)
        return [*(segments[name] for name in inputs), *(relations[name] for name in names)]

    def load(step: tf.Tensor) -> tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]:
        values = tf.numpy_function(read, [step], [tf.float16] * len(inputs) + [tf.int8] * len(names), stateful=False)
        features = dict(zip(inputs, values[: len(inputs)]))
        targets = dict(zip(names, values[len(inputs) :]))
        for name, value in features.items():
            value.set_shape([size, *store.params.input_shapes[name]])
        for value in targets.values():
            value.set_shape([size, block])
        return features, targets

    options = tf.data.Options()
    # Every replica needs its own block of each batch; sharding by file or element would tear blocks apart.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    # Composing is Python and reading is memory-bound, so two calls in flight keep one core busy; the model needs the rest.
    steps = tf.data.Dataset.range(first, last)
    return steps.map(load, num_parallel_calls=2).prefetch(4).with_options(options)
