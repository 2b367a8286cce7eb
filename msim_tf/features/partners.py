"""Finds pairs of similar clips without an n x n matrix."""

from __future__ import annotations

import numpy as np

from msim_tf.corpus import relations
from msim_tf.corpus.datasets import EncodedLabels
from msim_tf.dimensions import dimension

_TEMPO_MARGIN = 5.0
_TRIES = 16
_HEARD = 256  # clips that the teacher compares with an anchor; a tenth of all pairs is similar


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
        if kind == "tag" and not values.any():
            return self._alike_to_teacher(name, anchor, rng)
        if kind == "tag":
            return self._pools[name][rng.choice(np.flatnonzero(values))]
        pools = [self._pools[name][key] for key in np.flatnonzero(self._related_keys[values])]
        return pools[rng.choice(len(pools), p=_shares(pools))]

    def _alike_to_teacher(self, name: str, anchor: int, rng: np.random.Generator) -> np.ndarray:
        teacher = self._labels.teacher[name]
        others = rng.integers(len(teacher.vectors), size=_HEARD)
        return others[teacher.relation(np.array([anchor]), others)[0] > 0]

    def pair(self, name: str, rng: np.random.Generator) -> tuple[int, int] | None:
        """A random anchor and a random positive of it in dimension ``name``; None if none was found in a few tries."""
        anchors = self.anchors[name]
        for _ in range(_TRIES if len(anchors) > 1 else 0):
            anchor = int(rng.choice(anchors))
            positive = self._positive(name, anchor, rng)
            if positive is not None:
                return anchor, positive
        return None

    def _positive(self, name: str, anchor: int, rng: np.random.Generator) -> int | None:
        candidates = self._candidates(name, anchor, rng)
        if dimension(name).kind == "tempo":
            rows = np.array([anchor])
            candidates = candidates[
                self._labels.relation(name, rows, candidates, key_relation=self._key_relation)[0] > 0
            ]
        # Drawn again if it is the anchor: leaving that out would copy pools of many thousands for every pair.
        for _ in range(_TRIES if len(candidates) else 0):
            positive = int(candidates[rng.integers(len(candidates))])
            if positive != anchor:
                return positive
        return None


def _shares(pools: list[np.ndarray]) -> np.ndarray:
    """Each pool's share of all members, so that a member of any is as likely as another."""
    sizes = np.array([len(pool) for pool in pools], np.float64)
    return sizes / sizes.sum()
