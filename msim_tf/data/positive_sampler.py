"""Draws pairs of similar clips, tags, tempi and keys alike, without an n x n matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from msim_tf.dimensions import dimension
from msim_tf.labels import relations
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.theory import KEYS, TEMPO_MARGIN, similar_tempo

_TRIES = 16
# Draws among clips near on the circle of tempi, of which a ninth is similar at worst (200 bpm in a library that knows
# 20).
_NEARBY = 64
_COMPARED = 1024  # clips whose teacher's scores are compared with an anchor's; a tenth of all pairs is similar
_NONE = -1

# From [n] anchors to [n] clips, one positive for each, or _NONE.
_Draw = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class PositiveSampler:
    """Draws random clips that are similar to given ones in a dimension, without an n x n matrix.

    Training waits for every draw, so the candidates of an anchor are looked up, not searched, and many pairs are drawn
    at once; no draw costs more in a larger library.

    Args:
        labels: the encoded labels of n clips.
        key_relation: as in ``BatchParams``.
    """

    def __init__(self, labels: EncodedLabels, key_relation: str) -> None:
        self._labels = labels
        # Labelled clips of each dimension, and a draw whose tables are made once, here.
        self.anchors = {name: np.flatnonzero(labels.labelled(name)) for name in labels.arrays}
        self._draws: dict[str, _Draw] = {}
        for name, values in labels.arrays.items():
            kind = dimension(name).kind
            if kind == "tag":
                self._draws[name] = self._tag_draw(name, values)
            else:
                self._draws[name] = _key_draw(values, key_relation) if kind == "key" else _tempo_draw(values)

    def pairs(self, name: str, count: int, rng: np.random.Generator) -> np.ndarray:
        """Random anchors in dimension ``name``, and a random positive of each.

        Returns:
            [pairs, 2] int64; fewer than ``count``, or none, if a few tries found no more.
        """
        anchors, pairs = self.anchors[name], np.full((count, 2), _NONE)
        missing = np.arange(count if len(anchors) > 1 else 0)
        # Anchors without a positive are replaced by others.
        for _ in range(_TRIES):
            if not len(missing):
                break
            pairs[missing, 0] = anchors[rng.integers(len(anchors), size=len(missing))]
            pairs[missing, 1] = self._draws[name](pairs[missing, 0], rng)
            missing = missing[pairs[missing, 1] == _NONE]
        return pairs[pairs[:, 1] != _NONE]

    def _tag_draw(self, name: str, values: np.ndarray) -> _Draw:
        """A clip with a tag of the anchor, each tag as likely; for an untagged anchor, a similar one by the teacher."""
        # [clips, tags] bool both ways: the tags of a clip, the clips of a tag.
        tags, clips = _Pools(values), _Pools(values.T)

        def positives(anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            # [n]: one tag of each tagged anchor, then another clip with that tag.
            drawn, tagged = np.full(len(anchors), _NONE), tags.sizes[anchors] > 0
            drawn[tagged] = clips.draw(tags.draw(anchors[tagged], rng), rng, but=anchors[tagged])
            if tagged.all():
                return drawn

            # Anchors without a tag are here because a teacher has scored them. They share one random sample of clips:
            # [untagged, _COMPARED] relations are one matrix product.
            teacher, untagged = self._labels.teacher[name], anchors[~tagged]
            others = rng.integers(len(teacher.vectors), size=_COMPARED)
            similar = (teacher.relation(untagged, others) > 0) & (others != untagged[:, None])
            # The largest of random numbers picks one of the similar clips at random.
            choice = np.where(similar, rng.random(similar.shape, np.float32), -1).argmax(1)
            drawn[~tagged] = np.where(similar.any(1), others[choice], _NONE)
            return drawn

        return positives


def _key_draw(values: np.ndarray, key_relation: str) -> _Draw:
    """A clip in a related key, each clip as likely."""
    # [24, clips] bool: for each key the clips whose key is related to it.
    keys = np.arange(KEYS)
    clips = _Pools(relations.key_relation(keys, values, relation=key_relation) > 0)

    def positives(anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return clips.draw(values[anchors], rng, but=anchors)

    return positives


def _tempo_draw(bpm: np.ndarray) -> _Draw:
    """A clip within the margin, octaves folded: drawn among those nearby on the circle of tempi, kept if similar."""
    # [m] place of each labelled clip on the circle of tempi, in ascending order.
    bpm = np.asarray(bpm, np.float64)
    labelled = np.flatnonzero(np.isfinite(bpm))
    octave = np.log2(bpm[labelled]) % 1.0  # octaves are equal, so tempo lives on a circle
    order = np.argsort(octave, kind="stable")

    # The circle is laid out three times, so that its seam is nowhere near an anchor.
    clips, circle = np.tile(labelled[order], 3), np.concatenate([octave[order] + turn for turn in (-1, 0, 1)])

    # No similar pair is further apart on the circle than the slowest tempo and the one that is a margin below it.
    slowest = bpm[labelled].min(initial=np.inf)
    reach = min(-float(np.log2(1.0 - min(TEMPO_MARGIN / slowest, 0.5))), 0.5) if len(labelled) else 0.0

    # For every clip the range of its neighbours in ``clips``.
    centres = np.full(len(bpm), np.nan)
    centres[labelled] = octave
    first = np.searchsorted(circle, centres - reach, side="left")
    last = np.searchsorted(circle, centres + reach, side="right")

    def positives(anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # [_NEARBY, n] neighbours; of each column the first that is similar.
        drawn = clips[rng.integers(first[anchors], last[anchors], size=(_NEARBY, len(anchors)))]
        fitting = similar_tempo(bpm[anchors], bpm[drawn]) & (drawn != anchors)
        return np.where(fitting.any(0), drawn[fitting.argmax(0), np.arange(len(anchors))], _NONE)

    return positives


class _Pools:
    """The columns that are set in each row of a matrix, to draw from.

    Args:
        matrix: [rows, columns] bool.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        # As in a sparse matrix by rows: row r owns _columns[_first[r] : _first[r] + sizes[r]].
        rows, self._columns = np.nonzero(matrix)
        self.sizes = np.bincount(rows, minlength=len(matrix))
        self._first = np.cumsum(self.sizes) - self.sizes

    def draw(self, rows: np.ndarray, rng: np.random.Generator, *, but: np.ndarray | None = None) -> np.ndarray:
        """A random set column of each row.

        Args:
            rows: [n] int.
            rng: the source of chance.
            but: [n] int, a column not to be drawn for each row.

        Returns:
            [n] int; _NONE where a few tries found no other column than ``but``.
        """
        drawn = self._any(rows, rng)
        # Drawn again: leaving one out would copy pools of many thousands for every pair.
        for _ in range(_TRIES if but is not None else 0):
            again = np.flatnonzero(drawn == but)
            if not len(again):
                return drawn
            drawn[again] = self._any(rows[again], rng)
        return drawn if but is None else np.where(drawn == but, _NONE, drawn)

    def _any(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[n]: a random set column of each row, any of them."""
        return self._columns[self._first[rows] + rng.integers(self.sizes[rows])]
