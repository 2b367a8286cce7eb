"""Asking an index: by track, by vector, by several examples, by a different track for every dimension.

An engine proposes rows, and the ranking here is exact and stable: float64 distances from the stored vectors, equal ones
(to nine decimals) in the order of their identifiers, whatever the engine and whatever happened to the index before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from msim_tf.errors import InputError
from msim_tf.search.diversity import Diversity, Limits, marginal_order
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.ranking import dimension_distances, normalised, weight_vector
from msim_tf.search.source import Source
from msim_tf.search.tracks import album_of, artist_of
from msim_tf.search.versions import Versions

_TIE = 9  # decimals of a distance that decide; what differs only after them is equal
_POOL = 100  # fewest candidates that maximal marginal relevance chooses from
_POOL_FACTOR = 5


class Tracks(Protocol):
    """What a query needs of tracks, wherever they are: an ``Index``, or a collection of Milvus."""

    source: Source

    def vectors(self, identifiers: Iterable[str]) -> np.ndarray:
        """Unit vectors [n, size] float32; refuses unknown tracks."""
        ...


@dataclass(frozen=True, eq=False)
class Query:
    """What to be near to.

    Attributes:
        vector: [size] float32, subspaces of length 1, or 0 where the query says nothing.
        dimensions: those it says something about; only these can weigh.
        references: dimension -> the track it was taken from, where it is one track of the index: evidence for
            explanations.
        exclude: tracks that are not to be found.
    """

    vector: np.ndarray
    dimensions: tuple[str, ...]
    references: Mapping[str, str] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Match:
    """A track that was found.

    Attributes:
        identifier: the track.
        distance: weighted distance to the query, see ``ranking``; small is near.
        shares: what each dimension adds to ``distance``; they sum to it.
        distances: distance in each dimension that the query has, unweighted, in [0, 4].
        metadata: what is known of the track.
        versions: tracks that are versions of it and were found with it, nearest first, if they were to be one hit.
    """

    identifier: str
    distance: float
    shares: dict[str, float]
    distances: dict[str, float]
    metadata: dict[str, Any]
    versions: tuple[str, ...] = ()


def track_query(index: Tracks, identifier: str) -> Query:
    """Near to a track of the index, which is not found itself.

    Raises:
        InputError: if there is no such track.
    """
    names = index.source.layout.names
    return Query(index.vectors([identifier])[0], names, dict.fromkeys(names, identifier), frozenset([identifier]))


def vector_query(index: Tracks, vector: np.ndarray) -> Query:
    """Near to a vector of the same source, e.g. that of an audio file; ``Source.validate`` tells whether it is.

    Args:
        index: the index.
        vector: [size] float, of any length.

    Raises:
        InputError: if the shape is wrong or a number is not finite.
    """
    layout = index.source.layout
    vector = np.asarray(vector, np.float32)
    if vector.shape != (layout.size,) or not np.isfinite(vector).all():
        raise InputError(f"query vector of shape {vector.shape}: expected {layout.size} finite numbers")
    return Query(normalised(vector, layout), layout.names)


def examples_query(index: Tracks, examples: Sequence[str | np.ndarray]) -> Query:
    """Near to the middle of several examples: the mean of their unit subspaces, made unit again.

    Args:
        index: the index.
        examples: tracks of the index, and vectors.

    Raises:
        InputError: if there is none, or one is not usable.
    """
    if isinstance(examples, str) or not len(examples):
        raise InputError(f"examples {examples!r}: expected at least one track or vector, in a list")
    queries = [_query(index, example) for example in examples]
    layout = index.source.layout
    # [examples, size] -> [size]: the mean of unit vectors points to their middle, but is shorter where they disagree.
    mean = np.stack([query.vector for query in queries]).mean(0, dtype=np.float64)
    exclude = frozenset().union(*(query.exclude for query in queries))
    references = queries[0].references if len(queries) == 1 else {}
    return Query(normalised(mean, layout), layout.names, references, exclude)


def mixed_query(index: Tracks, parts: Mapping[str, str | np.ndarray]) -> Query:
    """Mix and match: "genre of A, tempo of B". Dimensions that are not named have no say.

    Args:
        index: the index.
        parts: dimension -> track of the index, or vector.

    Raises:
        InputError: if there is none, a dimension is unknown, or a track or vector is not usable.
    """
    layout = index.source.layout
    if not parts:
        raise InputError("a mixed query needs at least one dimension, e.g. {'genre': A, 'tempo': B}")
    layout.validate(parts)
    queries = {name: _query(index, part) for name, part in parts.items()}
    # [size]: each subspace from its own query; those that are not named stay 0, and ``query_weights`` keeps them off.
    vector = np.zeros(layout.size, np.float32)
    for name, query in queries.items():
        vector[layout.slices[name]] = query.vector[layout.slices[name]]
    references = {name: query.references[name] for name, query in queries.items() if query.references}
    exclude = frozenset().union(*(query.exclude for query in queries.values()))
    return Query(vector, tuple(name for name in layout.names if name in parts), references, exclude)


def _query(index: Tracks, part: str | np.ndarray) -> Query:
    return track_query(index, part) if isinstance(part, str) else vector_query(index, part)


def search(
    index: Index,
    query: Query,
    *,
    weights: Mapping[str, float] | None = None,
    k: int = 10,
    filters: Filters | None = None,
    diversity: Diversity | None = None,
) -> list[Match]:
    """The ``k`` nearest tracks.

    Args:
        index: the index.
        query: what to be near to.
        weights: by dimension, relative; 0 or unnamed is off, negative means "unlike". None weighs all of the query's
            equally.
        k: how many; fewer are returned when there are no more.
        filters: what may be found.
        diversity: how different hits should be from each other; with ``relevance`` < 1 the order is that of marginal
            relevance.

    Returns:
        Matches, nearest first; ties by identifier.

    Raises:
        InputError: for k < 1, bad weights, or weights of dimensions that the query says nothing about.
    """
    if k < 1:
        raise InputError(f"k is {k}, expected at least 1")
    vector = query_weights(index, query, weights)
    allowed = allowed_rows(index, filters, query.exclude)
    return chosen_matches(
        index, lambda count: nearest_matches(index, query, vector, allowed, count), vector, k=k, diversity=diversity
    )


def chosen_matches(
    index: Tracks,
    near: Callable[[int], list[Match]],
    weights: np.ndarray,
    *,
    k: int,
    diversity: Diversity | None = None,
) -> list[Match]:
    """The ``k`` that diversity leaves of what ``near`` finds, which is asked for as many as that takes.

    Args:
        index: where the tracks are.
        near: the so many nearest, nearest first; fewer when there are no more.
        weights: [dimensions].
        k: how many.
        diversity: see ``search``.
    """
    if diversity is None or diversity == Diversity():
        return near(k)
    # Limits and versions can refuse any number of tracks: the pool grows until ``k`` pass or there are no more.
    pool = max(_POOL, _POOL_FACTOR * k)
    while True:
        matches = near(pool)
        chosen = _diverse(index, matches, weights, diversity, k)
        if len(chosen) == k or len(matches) < pool:
            return chosen
        pool *= 4


def query_weights(index: Tracks, query: Query, weights: Mapping[str, float] | None) -> np.ndarray:
    """Weights [dimensions] in the order of the layout, their magnitudes summing to 1.

    Raises:
        InputError: for bad weights, or weights of dimensions that the query says nothing about.
    """
    vector = weight_vector(weights or dict.fromkeys(query.dimensions, 1.0), index.source.layout)
    silent = [
        name for name, weight in zip(index.source.layout.names, vector) if weight and name not in query.dimensions
    ]
    if silent:
        raise InputError(f"weights of {', '.join(silent)}: the query has only {', '.join(query.dimensions)}")
    return vector


def allowed_rows(index: Index, filters: Filters | None, exclude: Iterable[str] = ()) -> np.ndarray:
    """Which rows may be found: [rows] bool."""
    # The database answers with rows that pass; they are marked in a mask that the engine reads.
    allowed: np.ndarray = index.alive.copy()
    if filters is not None and filters != Filters():
        passing = index.table.passing(filters)
        # Rows that another process has added since the index was opened are not in its maps.
        passing = passing[passing < len(allowed)]
        allowed = np.zeros(len(allowed), bool)
        allowed[passing] = index.alive[passing]
        if filters.tracks is not None:
            listed = np.zeros(len(allowed), bool)
            listed[index.rows_of(filters.tracks)] = True
            allowed &= listed
    allowed[index.rows_of(exclude)] = False
    return allowed


def nearest_matches(index: Index, query: Query, weights: np.ndarray, allowed: np.ndarray, count: int) -> list[Match]:
    """The ``count`` nearest of the allowed rows, nearest first.

    Raises:
        InputError: if another process has given the rows other numbers meanwhile.
    """
    if not allowed.any():
        return []
    # [>= count] rows by the engine, then their vectors as stored, made unit again: [rows, size] float32.
    rows = index.engine.top(index.rows, query.vector, weights, count, allowed=allowed)
    vectors = normalised(index.rows.take(rows), index.source.layout)

    def describe(places: list[int]) -> dict[int, tuple[str, dict[str, Any]]]:
        described = index.described(rows[places].tolist())
        return {place: described[row] for place, row in zip(places, rows[places].tolist()) if row in described}

    return ranked_matches(query, weights, vectors, describe, index.source, count)


def ranked_matches(
    query: Query,
    weights: np.ndarray,
    vectors: np.ndarray,
    describe: Callable[[list[int]], Mapping[int, tuple[str, dict[str, Any]]]],
    source: Source,
    count: int,
) -> list[Match]:
    """Proposed tracks in their exact order.

    Args:
        query: what to be near to.
        weights: [dimensions].
        vectors: [n, size] float32 of the proposed tracks, normalised.
        describe: gives identifier and metadata of the tracks in some of the n places; a track that is gone is left out.
        source: of the vectors.
        count: how many to keep.
    """
    # [n, dimensions] squared distances, what each adds under the weights, and [n] their sums.
    names = source.layout.names
    distances = dimension_distances(query.vector, vectors, source.layout)
    shares = distances * weights
    totals = shares.sum(1)
    rounded = np.round(totals, _TIE)

    # Only tracks that can be among the first are looked up; ties with the last of these are, too.
    places = np.arange(len(rounded))
    if count < len(rounded):
        places = np.flatnonzero(rounded <= np.partition(rounded, count - 1)[count - 1])
    described = describe(places.tolist())
    order = sorted(described, key=lambda place: (rounded[place], described[place][0]))[:count]

    # The distance of a dimension is shown where the query says something about it.
    shown = [(number, name) for number, name in enumerate(names) if name in query.dimensions]
    matches = []
    for place in order:
        identifier, metadata = described[place]
        apart = distances[place].tolist()
        matches.append(
            Match(
                identifier,
                float(totals[place]),
                dict(zip(names, shares[place].tolist())),
                {name: apart[number] for number, name in shown},
                metadata,
            )
        )
    return matches


def _diverse(index: Tracks, matches: list[Match], weights: np.ndarray, diversity: Diversity, k: int) -> list[Match]:
    """The ``k`` of ``matches`` that are left, each with its versions."""
    layout = index.source.layout
    limits = Limits(diversity)
    vectors = index.vectors(match.identifier for match in matches)
    versions = Versions(vectors, [match.metadata for match in matches], layout) if diversity.versions else None
    chosen: list[int] = []

    def accept(place: int) -> bool:
        metadata = matches[place].metadata
        # A version of what is there already neither takes a place nor counts for its artist.
        accepted = versions is None or versions.original(place, chosen) is None
        accepted = accepted and limits.accept(artist_of(metadata), album_of(metadata))
        if accepted:
            chosen.append(place)
        return accepted

    # ``accept`` keeps the places in the order in which they were chosen.
    distances = np.array([match.distance for match in matches])
    marginal_order(distances, vectors, weights, layout, relevance=diversity.relevance, k=k, accept=accept)
    if versions is None:
        return [matches[place] for place in chosen]

    # What was passed over as a version is listed with the hit that it is a version of, nearest first.
    others: dict[int, list[str]] = {place: [] for place in chosen}
    for place in sorted(set(range(len(matches))) - set(chosen)):
        original = versions.original(place, chosen)
        if original is not None:
            others[original].append(matches[place].identifier)
    return [replace(matches[place], versions=tuple(others[place])) for place in chosen]
