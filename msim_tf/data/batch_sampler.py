"""Which segments make up a batch, and how its members are related.

A random batch holds hardly a mood, tempo or key positive, so batches are *sampled*: anchor-positive pairs are drawn for
each dimension in turn, and all other members of the batch serve as negatives. The relation of every two members is
looked up from the labels in all dimensions.

Mining happens inside a replica, so a global batch consists of one block per replica. The targets of a dimension are
``[batch, block]`` int8: row i holds the relations of member i to the members of its own block (+1 similar, -1
dissimilar, 0 unknown; 0 with itself). They split along the batch axis exactly as the inputs do.

With ``augment`` members are also stretched to other tempi and transposed to other keys (see ``augmentation``), and
their tempo and key change with that. It makes positives of tracks that have little else in common, and gives tracks
without labels an exact *relative* tempo and key: crops of one clip come in fours, two tempi times two keys.

Batch ``step`` depends only on the seed and ``step``: a resumed training gets the batches of an uninterrupted one, and
every host of a distributed training can make its own blocks. Sixteen batches are sampled together, because to draw many
pairs costs hardly more than to draw one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msim_tf.data import augmentation
from msim_tf.data.augmentation import Member
from msim_tf.data.positive_sampler import PositiveSampler
from msim_tf.dimensions import TEACHER, TEACHER_SUFFIX, TRACK
from msim_tf.errors import InputError
from msim_tf.labels.encoding import EncodedLabels

_TOGETHER = 16  # batches sampled at once
_ANY = ""  # the name of pairs of any two clips


@dataclass(frozen=True)
class BatchParams:
    """How batches are sampled.

    Attributes:
        batch_size: members of one replica's block; at least 4.
        replicas: blocks in a batch.
        key_relation: "parallel", "relative" or "both".
        track_pairs: also draw pairs of two crops of one clip, and give targets for the relation "same clip".
        teacher: also give the teacher's tags as targets.
        augment: also stretch and transpose members and, where crops are random, change their level and equalisation.
        crops: segments of each member's clip, all at one tempo and in one key.
        random_crops: segments start anywhere (training) instead of at multiples of a segment (validation).
        seed: decides every draw.
    """

    batch_size: int = 64
    replicas: int = 1
    key_relation: str = "parallel"
    track_pairs: bool = False
    teacher: bool = False
    augment: bool = False
    crops: int = 1
    random_crops: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 4:
            raise InputError(f"batch size {self.batch_size}: expected at least 4, a batch needs pairs and negatives")


@dataclass(frozen=True, eq=False)
class Batch:
    """Members of one batch, or of some of its blocks.

    Attributes:
        clips: [batch] int64, indices into the split.
        starts: [batch, crops] int64, first frame of each segment.
        stretch: [batch] float64, how many times faster than recorded each is played; 1 is as it is.
        transpose: [batch] int64, semitones up, modulo 12.
        equaliser: [batch, knots] float64 dB, level and equalisation; 0 is as it is.
    """

    clips: np.ndarray
    starts: np.ndarray
    stretch: np.ndarray
    transpose: np.ndarray
    equaliser: np.ndarray

    def rows(self, chosen: slice) -> Batch:
        """The members of the rows ``chosen``."""
        return Batch(*(value[chosen] for value in vars(self).values()))


class BatchSampler:
    """Decides which segments make up batch number ``step``.

    Args:
        labels: encoded labels of the n clips of this split.
        frames: [n] frames of each.
        segment_frames: frames of a segment.
        params: how to sample.

    Raises:
        InputError: if there are fewer than two clips.
    """

    def __init__(self, labels: EncodedLabels, frames: np.ndarray, segment_frames: int, params: BatchParams) -> None:
        if len(frames) < 2:
            raise InputError(f"{len(frames)} tracks in this split: expected at least 2")
        self.params = params
        self.labels = labels
        self._frames = frames
        self._segment_frames = segment_frames
        self._positives = PositiveSampler(labels, params.key_relation)
        # Two, because two calls at a time may be on either side of a boundary.
        self._sampled = functools.lru_cache(maxsize=2)(self._sample)
        # Played faster, a segment takes more of its clip: short clips are left as they are.
        long = np.flatnonzero(frames >= augmentation.frames_needed(segment_frames))
        self._augmented: dict[str, augmentation.MemberDraw] = {}
        if params.augment and len(long):
            self._augmented = augmentation.member_draws(labels, long, params.key_relation)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the relations: the dimensions, and "track" if asked for."""
        return (*self.labels.arrays, *((TRACK,) if self.params.track_pairs else ()))

    @property
    def teacher_targets(self) -> dict[str, str]:
        """Target -> dimension, for the teacher's tags; empty unless asked for."""
        return {name + TEACHER_SUFFIX: name for name in self.labels.teacher} if self.params.teacher else {}

    @property
    def regression_size(self) -> int:
        """Coordinates of the target "teacher"; 0 if the labels have none."""
        return self.labels.regression.size if self.labels.regression else 0

    def batch(self, step: int) -> Batch:
        """Members of batch ``step``."""
        return self._sampled(step // _TOGETHER)[step % _TOGETHER]

    def _sample(self, number: int) -> list[Batch]:
        """The batches from ``number * _TOGETHER`` on."""
        rng = np.random.default_rng((self.params.seed, number))

        # All members of all blocks, as columns of [_TOGETHER * batch].
        pairs = _PairBuffer(lambda name: self._draw(name, rng))
        members = [member for _ in range(_TOGETHER * self.params.replicas) for member in self._block(pairs, rng)]
        clips, octaves, transpose = (np.array(column) for column in zip(*members))
        stretch = np.exp2(octaves)

        # [members] last frame at which a crop may start: the rest of the clip still holds a segment at this tempo.
        room = self._frames[clips] - augmentation.frames_spanned(self._segment_frames, stretch)

        # [members, crops] first frames: any, or only multiples of a segment, where embedding would cut the clip.
        shape = (len(clips), self.params.crops)
        if self.params.random_crops:
            starts = rng.integers(0, room[:, None] + 1, size=shape)
        else:
            starts = self._segment_frames * rng.integers(0, room[:, None] // self._segment_frames + 1, size=shape)

        # [members, knots] dB; one knot of 0 stands for "as it is".
        equalised = self.params.augment and self.params.random_crops
        equaliser = augmentation.random_equalisers(len(clips), rng) if equalised else np.zeros((len(clips), 1))

        # [_TOGETHER * batch] columns, cut into batches.
        columns = (clips, starts, stretch, transpose, equaliser)
        return [Batch(*parts) for parts in zip(*(np.split(column, _TOGETHER) for column in columns))]

    def _block(self, pairs: _PairBuffer, rng: np.random.Generator) -> list[Member]:
        """Members of one replica's block: pairs of each dimension in turn, until the block is full."""
        members: list[Member] = []
        names = self.targets
        turn = int(rng.integers(len(names)))  # so that no dimension always gets the odd pair
        while len(members) + 1 < self.params.batch_size:
            name = names[turn % len(names)]
            if name in self._augmented:
                members += self._augmented[name](rng) or pairs.take(_ANY)
            else:
                members += pairs.take(name)
            turn += 1
        # A block of odd size has one place left, and four crops may overrun it.
        return (members + pairs.take(_ANY))[: self.params.batch_size]

    def _draw(self, name: str, rng: np.random.Generator) -> np.ndarray:
        """[n, 2]: pairs of clips that are similar in ``name``, about as many as _TOGETHER batches use, or fewer."""
        # batch_size / 2 pairs for each block, shared evenly by the targets; at least one.
        count = _TOGETHER * self.params.replicas * self.params.batch_size // (2 * len(self.targets)) + 1
        if name == TRACK:
            # [n, 1] -> [n, 2]: the same clip twice; where its two crops start is drawn later.
            return np.repeat(rng.integers(len(self._frames), size=(count, 1)), 2, axis=1)
        if name == _ANY:
            return rng.integers(len(self._frames), size=(count, 2))
        return self._positives.pairs(name, count, rng)

    def relations(self, batch: Batch) -> dict[str, np.ndarray]:
        """Targets of some whole blocks.

        Args:
            batch: [blocks * block] members.

        Returns:
            For each name [blocks * block, block] int8, +1 similar, -1 dissimilar, 0 unknown.
        """
        key_relation, size = self.params.key_relation, self.params.batch_size
        relations: dict[str, list[np.ndarray]] = {name: [] for name in self.targets}
        for start in range(0, len(batch.clips), size):
            # Members are compared inside their own block only.
            block = batch.rows(slice(start, start + size))
            clips = block.clips
            for name, of_blocks in relations.items():
                # [block, block]: by identity of the clips, by labels changed with the sound, or by labels as they are.
                if name == TRACK:
                    relation = np.where(clips[:, None] == clips, 1, -1).astype(np.int8)
                elif name in self._augmented:
                    augmented = augmentation.AugmentedClips(clips, block.stretch, block.transpose)
                    relation = augmentation.relation(name, self.labels, augmented, key_relation)
                else:
                    relation = self.labels.relation(name, clips, clips, key_relation=key_relation)
                # A member is similar to itself, but no positive of itself.
                np.fill_diagonal(relation, 0)
                of_blocks.append(relation)

        # The blocks stacked along the batch axis.
        return {name: np.concatenate(of_blocks) for name, of_blocks in relations.items()}

    def teacher(self, batch: Batch) -> dict[str, np.ndarray]:
        """The teacher's tags: for each target [batch, tags] float32 of length 1, or 0 where it has no score."""
        return {target: self.labels.teacher[name].vectors[batch.clips] for target, name in self.teacher_targets.items()}

    def regression(self, batch: Batch, frame_seconds: float) -> dict[str, np.ndarray]:
        """All that a teacher says of the members' segments.

        Args:
            batch: of one crop per member.
            frame_seconds: from one frame to the next.

        Returns:
            Target "teacher" [batch, coordinates] float32, NaN where it says nothing; empty if the labels have none.
        """
        if not self.labels.regression:
            return {}
        # [batch] seconds of the recording; a segment that is played faster takes more of it.
        starts = batch.starts[:, 0] * frame_seconds
        ends = starts + self._segment_frames * batch.stretch * frame_seconds
        return {TEACHER: self.labels.regression.of(batch.clips, starts, ends)}


class _PairBuffer:
    """Buffers positive pairs, which are cheaper to draw in bulk.

    Args:
        draw: a function from a name to [n, 2] clips.
    """

    def __init__(self, draw: Callable[[str], np.ndarray]) -> None:
        self._draw = draw
        self._pairs: dict[str, list[list[int]]] = {}

    def take(self, name: str) -> list[Member]:
        """Two members as recorded that are similar in ``name``; any two if none are."""
        if not self._pairs.get(name):
            # Where no pair is similar, a supply of any two stands in: another search for positives would find none
            # either.
            self._pairs[name] = self._draw(name).tolist() or self._draw(_ANY).tolist()
        return [(clip, 0.0, 0) for clip in self._pairs[name].pop()]
