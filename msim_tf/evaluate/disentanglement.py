"""Does each subspace hold what it says? A matrix of subspaces x kinds of labels, with intervals and leakage flags.

A cell is the exact triplet accuracy of one subspace on one kind of label: for every anchor, over *all* pairs of a
similar and a dissimilar track, the share whose similar track is nearer (a tie is wrong); then the mean over anchors. It
is an AUC per anchor: 0.5 is chance whatever the balance of labels. Unknown relations take no part; with groups, tracks
of the anchor's own artist take none either. Give it held-out tracks: on training tracks it shows memory, not music.

Intervals treat tracks (or artists) as the sample: every track is anchor once and candidate many times, so drawing
anchors alone would give intervals that are much too narrow. They come from the infinitesimal jackknife over groups
(B. Efron, "The jackknife, the bootstrap and other resampling plans", 1982; for a single AUC this is DeLong's variance),
with Student's t.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate.artists import ArtistFilter, Artists
from msim_tf.evaluate.distances import (
    WHOLE,
    candidate_mask,
    distances_from,
    subspace,
    subspace_names,
    validate_relations,
)
from msim_tf.evaluate.statistics import group_error


@dataclass(frozen=True)
class Leak:
    """One subspace that holds another label better than its own.

    Attributes:
        subspace: e.g. "tempo".
        kind: the label it predicts better, e.g. "genre".
        own: its accuracy on its own label.
        other: its accuracy on ``kind``.
        sure: whether the 95 % interval of the difference excludes 0.
    """

    subspace: str
    kind: str
    own: float
    other: float
    sure: bool

    def line(self) -> str:
        """The flag as a sentence."""
        certainty = "beyond" if self.sure else "within"
        return (
            f"The {self.subspace} subspace predicts {self.kind} ({self.other:.2f}) better than {self.subspace} "
            f"({self.own:.2f}), "
            f"{certainty} the uncertainty."
        )


@dataclass(frozen=True, eq=False)
class Disentanglement:
    """The matrix.

    Attributes:
        subspaces: [s] rows; the last is the whole embedding.
        kinds: [k] columns.
        accuracy: [s, k] float, NaN where no anchor has both a similar and a dissimilar track.
        low: [s, k] lower bound of the 95 % interval.
        high: [s, k] upper bound.
        anchors: [k] anchors that could be scored.
        leaks: subspaces that predict another kind better than their own.
        filtered: whether the artist filter was on.
    """

    subspaces: tuple[str, ...]
    kinds: tuple[str, ...]
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    anchors: np.ndarray
    leaks: tuple[Leak, ...]
    filtered: bool

    @property
    def tested(self) -> tuple[str, ...]:
        """Subspaces that could be tested on their own label."""
        return tuple(name for name, row, column in self._own() if not np.isnan(self.accuracy[row, column]))

    @property
    def at_chance(self) -> tuple[str, ...]:
        """Tested subspaces whose accuracy on their own label is not above 0.5 beyond its uncertainty."""
        return tuple(name for name, row, column in self._own() if self.low[row, column] <= 0.5)

    def _own(self) -> list[tuple[str, int, int]]:
        return [(name, row, self.kinds.index(name)) for row, name in enumerate(self.subspaces) if name in self.kinds]

    def to_json(self) -> dict[str, Any]:
        """The matrix as a JSON object; cells without an anchor are null."""
        matrices = {"accuracy": self.accuracy, "low": self.low, "high": self.high}
        cells: list[dict[str, Any]] = []
        for row, name in enumerate(self.subspaces):
            for column, kind in enumerate(self.kinds):
                cell: dict[str, Any] = {"subspace": name, "kind": kind}
                for what, values in matrices.items():
                    value = float(values[row, column])
                    cell[what] = None if np.isnan(value) else value
                cells.append({**cell, "anchors": int(self.anchors[column])})
        return {
            "cells": cells,
            "artist_filter": self.filtered,
            "leaks": [asdict(leak) for leak in self.leaks],
            "at_chance": list(self.at_chance),
        }


def anchor_accuracy(distances: np.ndarray, relation: np.ndarray) -> tuple[float, np.ndarray]:
    """Share of (similar, dissimilar) pairs whose similar track is strictly nearer, and what each track adds to it.

    Args:
        distances: [n] float from the anchor.
        relation: [n] int, +1 similar, -1 dissimilar, 0 takes no part.

    Returns:
        A share in [0, 1], NaN where there is no pair; and its derivative by the weight of each track, [n] float, whose
        sum is 0.
    """
    influence = np.zeros(len(distances))
    similar, dissimilar = relation > 0, relation < 0
    near, far = distances[similar], distances[dissimilar]
    if not near.size or not far.size:
        return float("nan"), influence
    # [similar] how many dissimilar tracks are farther than each, and [dissimilar] how many similar ones are nearer: by
    # sorting, without the [similar, dissimilar] comparisons that both count.
    farther = far.size - np.searchsorted(np.sort(far), near, side="right")
    nearer = np.searchsorted(np.sort(near), far, side="left")
    accuracy = float(farther.sum()) / (near.size * far.size)
    # A track's own share of won pairs, less the mean: DeLong's structural components (Biometrics 44, 1988).
    influence[similar] = (farther / far.size - accuracy) / near.size
    influence[dissimilar] = (nearer / near.size - accuracy) / far.size
    return accuracy, influence


def disentanglement(
    system: Embeddings,
    relations: dict[str, np.ndarray],
    *,
    groups: Artists | None = None,
    metric: str = "cosine",
    max_anchors: int = 2000,
    seed: int = 0,
) -> Disentanglement:
    """Every subspace on every kind of label.

    Args:
        system: vectors of held-out tracks, with subspaces.
        relations: kind -> [n, n] int8 in the order of the vectors: +1 similar, -1 dissimilar, 0 unknown.
        groups: [n] artist of each track, or several (see ``artists``), for the filter and the intervals.
        metric: inside a subspace; "cosine" as in training, or "euclidean".
        max_anchors: above it, so many anchors are drawn.
        seed: of the draw.

    Raises:
        InputError: if there are no subspaces, or shapes do not fit.
    """
    if system.layout is None:
        raise InputError(f"{system.name} has no subspaces to look into")
    size = len(system.identifiers)
    artists = validate_relations(relations, groups, size)
    anchors = np.arange(size)
    if size > max_anchors:
        anchors = np.sort(np.random.default_rng(seed).choice(size, max_anchors, replace=False))

    # Per subspace [k] accuracies and [n, k] influences -> [s, k] and [s, n, k]; then [s, k] half-widths over artists.
    names, kinds = subspace_names(system), tuple(relations)
    results = [_row(subspace(system, name), relations, artists, anchors, metric) for name in names]
    accuracy, influence = np.stack([result[0] for result in results]), np.stack([result[1] for result in results])
    labels = np.arange(size) if artists is None else artists.clusters
    half = np.array(
        [[group_error(influence[row, :, column], labels) for column in range(len(kinds))] for row in range(len(names))]
    )

    # Leaks: subspaces that predict another label better than their own.
    leaks = []
    for row, name in enumerate(names):
        if name == WHOLE or name not in kinds:
            continue
        own = kinds.index(name)
        for column, kind in enumerate(kinds):
            excess = float(accuracy[row, column] - accuracy[row, own])
            if excess > 0:
                # Both cells are of the same tracks: the influence of the difference is the difference, [n].
                error = group_error(influence[row, :, column] - influence[row, :, own], labels)
                leaks.append(Leak(name, kind, float(accuracy[row, own]), float(accuracy[row, column]), excess > error))
    return Disentanglement(
        names,
        kinds,
        accuracy,
        np.clip(accuracy - half.reshape(accuracy.shape), 0, 1),
        np.clip(accuracy + half.reshape(accuracy.shape), 0, 1),
        results[0][2],
        tuple(leaks),
        artists is not None,
    )


def _row(
    vectors: np.ndarray,
    relations: dict[str, np.ndarray],
    artists: ArtistFilter | None,
    anchors: np.ndarray,
    metric: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One subspace on every kind: accuracy [k], influence of every track on it [n, k], anchors counted [k]."""
    size, count = len(vectors), len(relations)
    # [n, k] accuracy of each anchor, NaN where it has no pair, and [n, k] what every track adds to any anchor's.
    each = np.full((size, count), np.nan)
    influence = np.zeros((size, count))
    for block, distances in distances_from(vectors, anchors, metric=metric):
        for anchor, row in zip(block, distances):
            allowed = candidate_mask(anchor, artists, size)
            for column, relation in enumerate(relations.values()):
                each[anchor, column], share = anchor_accuracy(row, np.where(allowed, relation[anchor], 0))
                influence[:, column] += share

    # [n, k] -> [k]: the mean over those anchors that have a pair.
    counted = (~np.isnan(each)).sum(axis=0)
    accuracy = np.divide(np.nansum(each, axis=0), counted, out=np.full(count, np.nan), where=counted > 0)
    # A track moves the mean as an anchor too, by how far its own accuracy is from it.
    influence += np.nan_to_num(each - accuracy)
    return accuracy, influence / np.maximum(counted, 1), counted
