"""Finds pairs of similar clips without an n x n matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from msim_tf.dimensions import dimension
from msim_tf.labels import relations
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.theory import KEYS, TEMPO_MARGIN, similar_tempo

_TRIES = 16
_NEARBY = 64  # draws among clips near on the circle of tempi, of which a ninth is similar at worst (200 bpm in a library that knows 20)
_HEARD = 1024  # clips that the teacher compares with the anchors; a tenth of all pairs is similar
_NONE = -1

_Positives = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class PartnerIndex:
    """Finds random clips that are similar to given ones in a dimension, without an n x n matrix.

    Training waits for every draw, so what an anchor's candidates are is looked up, and many pairs are drawn at once; none costs more in a larger
    library.

    Args:
        labels: the encoded labels of n clips.
        key_relation: as in ``BatchParams``.
    """

    def __init__(self, labels: EncodedLabels, key_relation: str) -> None:
        self._labels = labels
        self.anchors = {name: np.flatnonzero(labels.known(name)) for name in labels.arrays}
        # For each dimension what draws one positive for each of some anchors, or _NONE.
        self._positives: dict[str, _Positives] = {}
        for name, values in labels.arrays.items():
            kind = dimension(name).kind
            if kind == "tag":
                self._positives[name] = self._of_tags(name, values)
            else:
                self._positives[name] = _of_keys(values, key_relation) if kind == "key" else _of_tempo(values)

    def pairs(self, name: str, count: int, rng: np.random.Generator) -> np.ndarray:
        """Random anchors in dimension ``name``, and a random positive of each.

        Returns:
            [found, 2] int64; fewer than ``count``, or none, if a few tries found no more.
        """
        known, pairs = self.anchors[name], np.full((count, 2), _NONE)
        missing = np.arange(count if len(known) > 1 else 0)
        for _ in range(_TRIES):
            if not len(missing):
                break
            pairs[missing, 0] = known[rng.integers(len(known), size=len(missing))]
            pairs[missing, 1] = self._positives[name](pairs[missing, 0], rng)
            missing = missing[pairs[missing, 1] == _NONE]
        return pairs[pairs[:, 1] != _NONE]

    def _of_tags(self, name: str, values: np.ndarray) -> _Positives:
        """A clip with a tag of the anchor, each tag as likely; where it has none, one that the teacher hears alike."""
        tags, clips = _Pools(values), _Pools(values.T)

        def positives(anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            found, tagged = np.full(len(anchors), _NONE), tags.sizes[anchors] > 0
            found[tagged] = clips.draw(tags.draw(anchors[tagged], rng), rng, but=anchors[tagged])
            if not tagged.all():
                found[~tagged] = self._alike_to_teacher(name, anchors[~tagged], rng)
            return found

        return positives

    def _alike_to_teacher(self, name: str, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        teacher = self._labels.teacher[name]
        others = rng.integers(len(teacher.vectors), size=_HEARD)
        alike = (teacher.relation(anchors, others) > 0) & (others != anchors[:, None])
        any_alike = np.where(alike, rng.random(alike.shape, np.float32), -1).argmax(1)
        return np.where(alike.any(1), others[any_alike], _NONE)


def _of_keys(values: np.ndarray, key_relation: str) -> _Positives:
    """A clip in a related key, each clip as likely."""
    keys = np.arange(KEYS)
    clips = _Pools(relations.key_relation(keys, values, relation=key_relation) > 0)

    def positives(anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return clips.draw(values[anchors], rng, but=anchors)

    return positives


def _of_tempo(bpm: np.ndarray) -> _Positives:
    """A clip within the margin, up to octaves: drawn among those nearby on the circle of tempi, and kept if it is similar."""
    bpm = np.asarray(bpm, np.float64)
    known = np.flatnonzero(np.isfinite(bpm))
    octave = np.log2(bpm[known]) % 1.0  # octaves are equal, so tempo lives on a circle
    order = np.argsort(octave, kind="stable")
    # The circle is laid out three times, so that its seam is nowhere near an anchor.
    clips, circle = np.tile(known[order], 3), np.concatenate([octave[order] + turn for turn in (-1, 0, 1)])
    slowest = bpm[known].min(initial=np.inf)
    # No similar pair is further apart on the circle: that of the slowest tempo and the one that is a margin below it.
    reach = min(-float(np.log2(1.0 - min(TEMPO_MARGIN / slowest, 0.5))), 0.5) if len(known) else 0.0
    centres = np.full(len(bpm), np.nan)
    centres[known] = octave
    first = np.searchsorted(circle, centres - reach, side="left")
    last = np.searchsorted(circle, centres + reach, side="right")

    def positives(anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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
        rows, self._columns = np.nonzero(matrix)
        self.sizes = np.bincount(rows, minlength=len(matrix))
        self._first = np.cumsum(self.sizes) - self.sizes

    def draw(self, rows: np.ndarray, rng: np.random.Generator, *, but: np.ndarray | None = None) -> np.ndarray:
        """[n] int: a random column of each of the ``rows``, another than ``but`` [n] if that is given; _NONE if a few tries found no other."""
        drawn = self._any(rows, rng)
        # Drawn again: leaving one out would copy pools of many thousands for every pair.
        for _ in range(_TRIES if but is not None else 0):
            again = np.flatnonzero(drawn == but)
            if not len(again):
                return drawn
            drawn[again] = self._any(rows[again], rng)
        return drawn if but is None else np.where(drawn == but, _NONE, drawn)

    def _any(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._columns[self._first[rows] + rng.integers(self.sizes[rows])]
