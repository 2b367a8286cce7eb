"""Finds pairs of similar clips without an n x n matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from msim_tf.corpus import relations
from msim_tf.corpus.datasets import EncodedLabels
from msim_tf.dimensions import dimension

_TEMPO_MARGIN = 5.0
_TRIES = 16
_NEARBY = 64  # draws among clips near on the circle of tempi, of which a ninth is similar at worst (200 bpm in a library that knows 20)
_HEARD = 256  # clips that the teacher compares with an anchor; a tenth of all pairs is similar


class PartnerIndex:
    """Finds a random clip that is similar to a given one in a dimension, without an n x n matrix.

    Training waits for every draw, so what an anchor's candidates are is looked up, and none costs more in a larger library.

    Args:
        labels: the encoded labels of n clips.
        key_relation: as in ``BatchParams``.
    """

    def __init__(self, labels: EncodedLabels, key_relation: str) -> None:
        self._labels = labels
        self.anchors = {name: np.flatnonzero(labels.known(name)) for name in labels.arrays}
        self._positives: dict[str, Callable[[int, np.random.Generator], int | None]] = {}
        for name, values in labels.arrays.items():
            kind = dimension(name).kind
            if kind == "tag":
                self._positives[name] = self._of_tags(name, values)
            elif kind == "key":
                self._positives[name] = _of_keys(values, key_relation)
            else:
                self._positives[name] = self._of_tempo(name, values)

    def pair(self, name: str, rng: np.random.Generator) -> tuple[int, int] | None:
        """A random anchor and a random positive of it in dimension ``name``; None if none was found in a few tries."""
        anchors = self.anchors[name]
        for _ in range(_TRIES if len(anchors) > 1 else 0):
            anchor = int(anchors[rng.integers(len(anchors))])
            positive = self._positives[name](anchor, rng)
            if positive is not None:
                return anchor, positive
        return None

    def _of_tags(self, name: str, values: np.ndarray) -> Callable[[int, np.random.Generator], int | None]:
        """A clip with a tag of the anchor, each tag as likely; where it has none, one that the teacher hears alike."""
        pools = [np.flatnonzero(column) for column in values.T]
        clips, tags = np.nonzero(values)
        first = np.searchsorted(clips, np.arange(len(values) + 1)).tolist()

        def positive(anchor: int, rng: np.random.Generator) -> int | None:
            own = tags[first[anchor] : first[anchor + 1]]
            pool = pools[own[rng.integers(len(own))]] if len(own) else self._alike_to_teacher(name, anchor, rng)
            return _other(anchor, pool, rng)

        return positive

    def _alike_to_teacher(self, name: str, anchor: int, rng: np.random.Generator) -> np.ndarray:
        teacher = self._labels.teacher[name]
        others = rng.integers(len(teacher.vectors), size=_HEARD)
        return others[teacher.relation(np.array([anchor]), others)[0] > 0]

    def _of_tempo(self, name: str, bpm: np.ndarray) -> Callable[[int, np.random.Generator], int | None]:
        """A clip within the margin, up to octaves: drawn among those nearby on the circle of tempi, and kept if it is similar."""
        known = np.flatnonzero(np.isfinite(bpm))
        octave = np.log2(bpm[known]) % 1.0  # octaves are equal, so tempo lives on a circle
        order = np.argsort(octave, kind="stable")
        # The circle is laid out three times, so that its seam is nowhere near an anchor.
        clips, circle = np.tile(known[order], 3), np.concatenate([octave[order] + turn for turn in (-1, 0, 1)])
        slowest = bpm[known].min(initial=np.inf)
        # No similar pair is further apart on the circle: that of the slowest tempo and the one that is a margin below it.
        reach = min(-float(np.log2(1.0 - min(_TEMPO_MARGIN / slowest, 0.5))), 0.5) if len(known) else 0.0
        centres = np.full(len(bpm), np.nan)
        centres[known] = octave
        first = np.searchsorted(circle, centres - reach, side="left")
        last = np.searchsorted(circle, centres + reach, side="right")

        def positive(anchor: int, rng: np.random.Generator) -> int | None:
            drawn = clips[rng.integers(first[anchor], last[anchor], size=_NEARBY)]
            related = self._labels.relation(name, np.array([anchor]), drawn)[0] > 0
            fitting = np.flatnonzero(related & (drawn != anchor))
            return int(drawn[fitting[0]]) if len(fitting) else None

        return positive


def _of_keys(values: np.ndarray, key_relation: str) -> Callable[[int, np.random.Generator], int | None]:
    """A clip in a related key, each clip as likely."""
    keys = np.arange(24)
    related = relations.key_relation(keys, keys, relation=key_relation) > 0
    pools = [[np.flatnonzero(values == other) for other in np.flatnonzero(row)] for row in related]
    upto = [np.cumsum([len(pool) for pool in row]) / max(1, sum(map(len, row))) for row in pools]

    def positive(anchor: int, rng: np.random.Generator) -> int | None:
        key = values[anchor]
        return _other(anchor, pools[key][int(upto[key].searchsorted(rng.random(), side="right"))], rng)

    return positive


def _other(anchor: int, candidates: np.ndarray, rng: np.random.Generator) -> int | None:
    """One of the candidates, but not the anchor."""
    # Drawn again if it is the anchor: leaving that out would copy pools of many thousands for every pair.
    for _ in range(_TRIES if len(candidates) else 0):
        positive = int(candidates[rng.integers(len(candidates))])
        if positive != anchor:
            return positive
    return None
