"""Retrieval inside subspaces: precision@k and mean average precision, and tempo and key read off the nearest neighbour.

Conventions: candidates of a query are all other tracks with a *known* relation to it; with groups, none of its own
artist (the artist filter: a system must not win by recognising an album's sound). Chance stands beside every figure:
what a random order of the same candidates would get. Intervals are 95 %, over artists where they are known, else over
tracks. Accuracy1 and Accuracy2 as in Gouyon et al., IEEE TASLP 14(5), 2006; the key score is mir_eval's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate.artists import ArtistFilter, Artists
from msim_tf.evaluate.distances import candidate_mask, distances_from, subspace, subspace_names, validate_relations
from msim_tf.evaluate.statistics import Interval, group_interval

TEMPO_TOLERANCE = 0.04
# The score of one query with each of its candidates as the estimate.
_Scores = Callable[[int, np.ndarray], np.ndarray]
_TEMPO_FACTORS = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)


@dataclass(frozen=True)
class Retrieval:
    """One subspace asked for one kind of label.

    Attributes:
        subspace: where distances were taken.
        kind: the label.
        k: depth of the precision.
        precision: mean share of relevant tracks among the first k.
        average_precision: mean average precision over all candidates.
        precision_interval: of the precision, over artists.
        average_interval: of the average precision.
        chance: expected precision of a random order.
        queries: tracks with a relevant and at least k candidates.
    """

    subspace: str
    kind: str
    k: int
    precision: float
    average_precision: float
    precision_interval: Interval
    average_interval: Interval
    chance: float
    queries: int

    def to_json(self) -> dict[str, Any]:
        """The figures as a JSON object."""
        return asdict(self)


def precision_and_average(distances: np.ndarray, relevant: np.ndarray, k: int) -> tuple[float, float]:
    """Precision at ``k`` and average precision of one ranking; among ties the irrelevant come first.

    Args:
        distances: [c] float of the candidates.
        relevant: [c] bool, at least one True.
        k: 1 to c.
    """
    # [c] relevance in the order of distance; lexsort takes its last key first, so relevance decides among ties only.
    ranked = relevant[np.lexsort((relevant, distances))]
    # Average precision: the precision at each hit's rank, i / rank for the i-th, averaged over the hits.
    hits = np.flatnonzero(ranked)
    return float(ranked[:k].mean()), float(np.mean(np.arange(1, hits.size + 1) / (hits + 1)))


def retrieval(
    system: Embeddings,
    relations: dict[str, np.ndarray],
    *,
    groups: Artists | None = None,
    k: int = 10,
    metric: str = "cosine",
    subspaces: Sequence[str] | None = None,
) -> list[Retrieval]:
    """Precision@k and mean average precision of each subspace on each kind of label.

    Args:
        system: vectors of n tracks.
        relations: kind -> [n, n] int8: +1 relevant, -1 not, 0 unknown.
        groups: [n] artists for the filter, or None.
        k: depth.
        metric: "cosine" or "euclidean".
        subspaces: which; None takes every dimension and the whole.

    Returns:
        One result per subspace and kind that has a query.

    Raises:
        InputError: if shapes do not fit or ``k`` is below 1.
    """
    if k < 1:
        raise InputError(f"k is {k}, expected at least 1")
    size = len(system.identifiers)
    artists = validate_relations(relations, groups, size)
    results: list[Retrieval] = []
    for name in subspaces or subspace_names(system):
        # Per kind one row for each query: precision, average precision, and the share of relevant candidates.
        figures: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in relations}
        queries: dict[str, list[int]] = {kind: [] for kind in relations}
        for block, distances in distances_from(subspace(system, name), np.arange(size), metric=metric):
            for anchor, row in zip(block, distances):
                allowed = candidate_mask(anchor, artists, size)
                for kind, relation in relations.items():
                    # [n] -> [c]: tracks of unknown relation are no candidates, neither hits nor misses.
                    candidates = allowed & (relation[anchor] != 0)
                    relevant = relation[anchor, candidates] > 0
                    if relevant.any() and relevant.size >= k:
                        figures[kind].append(
                            (*precision_and_average(row[candidates], relevant, k), float(relevant.mean()))
                        )
                        queries[kind].append(int(anchor))

        # [queries, 3] -> the means; a kind without a query is left out.
        for kind, rows in figures.items():
            if rows:
                precisions, averages, chances = np.array(rows).T
                results.append(
                    Retrieval(
                        name,
                        kind,
                        k,
                        float(precisions.mean()),
                        float(averages.mean()),
                        _interval(precisions, queries[kind], artists),
                        _interval(averages, queries[kind], artists),
                        float(chances.mean()),
                        len(rows),
                    )
                )
    return results


def _interval(values: np.ndarray, queries: Sequence[int], artists: ArtistFilter | None) -> Interval:
    """The 95 % interval of the mean of a measure in [0, 1] over the artists of its queries, or over the queries."""
    tracks = np.asarray(queries)
    return group_interval(values, artists.clusters[tracks] if artists else tracks)


def tempo_accuracy(reference: float, estimated: np.ndarray, *, octaves: bool) -> np.ndarray:
    """Which tempi are right: within 4 % of the reference or, with ``octaves``, of 2, 3, 1/2 or 1/3 times the reference.

    These are Accuracy1 and Accuracy2.

    Args:
        reference: bpm > 0.
        estimated: [n] bpm.

    Returns:
        [n] bool.
    """
    # [factors, 1] against [n] -> [n]: does any of the goals fit?
    goals = reference * np.array(_TEMPO_FACTORS if octaves else (1.0,))[:, None]
    return np.any(np.abs(np.asarray(estimated) - goals) <= TEMPO_TOLERANCE * goals, axis=0)


def key_score(reference: str, estimated: str) -> float:
    """mir_eval's weighted score: same key 1, fifth .5, relative .3, parallel .2, else 0.

    Raises:
        InputError: if a key is not written like "C# minor".
    """
    import mir_eval.key

    try:
        return float(mir_eval.key.weighted_score(reference, estimated))
    except (ValueError, KeyError) as error:
        raise InputError(f"key {reference!r} or {estimated!r}: {error}; expected the form 'C# minor'") from None


@dataclass(frozen=True)
class NeighbourScore:
    """A label read off the nearest neighbour.

    Attributes:
        subspace: where the neighbour was sought.
        measure: "Accuracy1", "Accuracy2" or "key, weighted".
        score: mean over queries.
        interval: of the score, over artists.
        chance: mean over every allowed neighbour: what a random one would give.
        queries: tracks with a label and a labelled candidate.
    """

    subspace: str
    measure: str
    score: float
    interval: Interval
    chance: float
    queries: int

    def to_json(self) -> dict[str, Any]:
        """The figures as a JSON object."""
        return asdict(self)


def neighbour_scores(
    system: Embeddings,
    *,
    tempo: Sequence[float | None] | None = None,
    key: Sequence[str | None] | None = None,
    groups: Artists | None = None,
    metric: str = "cosine",
) -> list[NeighbourScore]:
    """Tempo Accuracy1/2 and weighted key score when each track takes the label of its nearest labelled neighbour.

    Args:
        system: vectors of n tracks.
        tempo: [n] bpm, None or NaN where unknown.
        key: [n] such as "C# minor", None where unknown.
        groups: [n] artists for the filter, or None.
        metric: "cosine" or "euclidean".

    Returns:
        One score per subspace and measure that has a query.
    """
    size = len(system.identifiers)
    artists = validate_relations({}, groups, size)
    results = []
    for measure, table, labelled in _pair_tables(tempo, key, size):
        for name in subspace_names(system):
            score = _neighbour_score(subspace(system, name), table, labelled, artists, metric)
            if score is not None:
                results.append(NeighbourScore(name, measure, *score))
    return results


def _pair_tables(
    tempo: Sequence[float | None] | None, key: Sequence[str | None] | None, size: int
) -> list[tuple[str, _Scores, np.ndarray]]:
    """Per measure: its name, the score of a query with candidates as estimates, and which tracks have the label."""
    tables: list[tuple[str, _Scores, np.ndarray]] = []
    if tempo is not None:
        bpm = np.array([np.nan if value is None else float(value) for value in tempo])
        labelled = np.isfinite(bpm) & (bpm > 0)
        _validate_length("tempo", bpm.size, size)

        def scores(query: int, candidates: np.ndarray, *, octaves: bool) -> np.ndarray:
            return tempo_accuracy(bpm[query], bpm[candidates], octaves=octaves).astype(float)

        for measure, octaves in (("Accuracy1", False), ("Accuracy2", True)):
            tables.append((measure, partial(scores, octaves=octaves), labelled))
    if key is not None:
        _validate_length("key", len(key), size)
        labelled = np.array([bool(name) for name in key])
        # [names, names] scores of any two keys: 24 names give at most 576 pairs; the tracks give many more.
        names = sorted({name for name in key if name})
        weighted = np.array([[key_score(first, second) for second in names] for first in names])
        # [n] row of each track's key in it; -1 is never asked for.
        codes = np.array([names.index(name) if name else -1 for name in key])
        tables.append(("key, weighted", lambda query, candidates: weighted[codes[query], codes[candidates]], labelled))
    return tables


def _validate_length(label: str, length: int, size: int) -> None:
    if length != size:
        raise InputError(f"{length} values of {label} for {size} tracks")


def _neighbour_score(
    vectors: np.ndarray,
    scores: _Scores,
    labelled: np.ndarray,
    artists: ArtistFilter | None,
    metric: str,
) -> tuple[float, Interval, float, int] | None:
    """Score, interval, chance and number of queries of one subspace; None without a query."""
    # Per query: the score of the nearest labelled candidate, and the mean over all, which a random one would get.
    figures: list[tuple[float, float]] = []
    queries = []
    for block, distances in distances_from(vectors, np.flatnonzero(labelled), metric=metric):
        for anchor, row in zip(block, distances):
            candidates = np.flatnonzero(candidate_mask(anchor, artists, len(vectors)) & labelled)
            if candidates.size:
                each = scores(int(anchor), candidates)
                figures.append((each[np.argmin(row[candidates])], each.mean()))
                queries.append(int(anchor))
    if not figures:
        return None
    own, chance = np.array(figures).T
    return float(own.mean()), _interval(own, queries, artists), float(chance.mean()), len(figures)
