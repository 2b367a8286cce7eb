"""A path from one track to another: a playlist that turns gradually, without repeats.

Algorithm: in every subspace the unit vector of the start turns to that of the end along the great circle, at constant
speed (spherical linear interpolation; Shoemake, SIGGRAPH 1985). The points at equal steps between them are targets;
from the start to the end, each target takes the nearest track that is not yet in the path and that filters and limits
per artist and album allow (the two ends count).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msim_tf.errors import InputError
from msim_tf.search.diversity import Diversity, Limits
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.query import Match, Query, allowed_rows, nearest_matches, query_weights, track_query
from msim_tf.search.ranking import dimension_distances, normalised
from msim_tf.search.tracks import album_of, artist_of

PER_ARTIST = 2
"""Most tracks of one artist where the caller does not say, as long as others are left."""
_ANTIPODAL = 1e-6  # radians short of opposite at which no great circle is preferred; both halves then stay at their end


def track_path(
    index: Index,
    start: str,
    end: str,
    *,
    length: int = 10,
    weights: Mapping[str, float] | None = None,
    filters: Filters | None = None,
    diversity: Diversity | None = None,
) -> list[Match]:
    """A path from ``start`` to ``end``.

    Args:
        index: the index.
        start: its first track.
        end: its last track.
        length: tracks in the path, both ends included, >= 2.
        weights: by dimension, >= 0; None weighs all equally.
        filters: what may be found between the ends.
        diversity: limits per artist and album; ``relevance`` has no meaning here. None is ``PER_ARTIST`` tracks of an
            artist, and more only where no other track is left.

    Returns:
        The path; distances and shares of each track are to the one before it (0 for the first).

    Raises:
        InputError: if the ends are equal or not there, a weight is negative, or too few tracks are left for the length.
    """
    query = track_query(index, start)
    turn = query_weights(index, query, weights)
    if start == end or length < 2:
        raise InputError(
            f"path from {start!r} to {end!r} of length {length}: expected two tracks and a length of at least 2"
        )
    if (turn < 0).any():
        raise InputError(f"path weights {dict(weights or {})}: expected none below 0")

    # The two ends count for the limits, and do not come again between themselves.
    limits = Limits(diversity or Diversity(per_artist=PER_ARTIST))
    for name in (start, end):
        limits.accept(*_groups(index.metadata(name)))
    allowed = allowed_rows(index, filters, (start, end))

    # Targets lie at equal steps between the ends, [size] each; each takes the nearest track that is left.
    vectors = index.vectors([start, end])
    names: list[str] = []
    for step in range(1, length - 1):
        target = Query(turned(vectors[0], vectors[1], step / (length - 1), index), index.source.layout.names)
        nearest = _nearest_within(index, target, turn, allowed, limits)
        # The limit that nobody asked for gives way before the path does.
        if nearest is None and diversity is None:
            nearest = _nearest_within(index, target, turn, allowed, Limits(Diversity()))
        if nearest is None:
            raise InputError(
                f"path of length {length}: only {len(names) + 2} tracks are left by the filters and limits; shorten "
                "or relax it"
            )
        allowed[index.row(nearest)] = False
        names.append(nearest)
    return _steps(index, [start, *names, end], turn)


def _nearest_within(index: Index, target: Query, turn: np.ndarray, allowed: np.ndarray, limits: Limits) -> str | None:
    """The nearest allowed track within the limits, which then count it; None if there is none."""
    # One of the nearest few is nearly always within the limits; where none is, look eight times as far.
    count = 8
    while True:
        matches = nearest_matches(index, target, turn, allowed, count)
        for match in matches:
            if limits.accept(*_groups(match.metadata)):
                return match.identifier
        if len(matches) < count:
            return None
        count *= 8


def _groups(metadata: Mapping[str, object]) -> tuple[str, str]:
    return artist_of(metadata), album_of(metadata)


def turned(start: np.ndarray, end: np.ndarray, fraction: float, index: Index) -> np.ndarray:
    """The point at ``fraction`` of the way, in every subspace along its great circle.

    Args:
        start: [size] float32, normalised.
        end: [size] float32, normalised.
        fraction: in [0, 1].
        index: gives the subspaces.

    Returns:
        [size] float32, normalised.
    """
    layout = index.source.layout
    vector = np.empty(layout.size)
    for part in layout.slices.values():
        # Slerp (Shoemake): (sin((1 - fraction) * angle) * start + sin(fraction * angle) * end) / sin(angle). The
        # normalisation below does the division: it scales every subspace to length 1.
        angle = np.arccos(np.clip(np.dot(start[part].astype(np.float64), end[part]), -1, 1))
        if angle > np.pi - _ANTIPODAL:
            vector[part] = start[part] if fraction < 0.5 else end[part]
        elif angle < 1e-6:
            vector[part] = start[part]
        else:
            vector[part] = np.sin((1 - fraction) * angle) * start[part] + np.sin(fraction * angle) * end[part]
    return normalised(vector, layout)


def _steps(index: Index, names: list[str], turn: np.ndarray) -> list[Match]:
    """The tracks of a path, each with its distance to the one before it; the first with that to itself."""
    layout, vectors = index.source.layout, index.vectors(names)
    matches = []
    for place in range(len(names)):
        # [dimensions] squared distances, and what each adds to the weighted sum.
        before = max(place - 1, 0)
        distances = dimension_distances(vectors[before], vectors[place : place + 1], layout)[0]
        shares = distances * turn
        matches.append(
            Match(
                names[place],
                float(shares.sum()),
                dict(zip(layout.names, shares.tolist())),
                dict(zip(layout.names, distances.tolist())),
                index.metadata(names[place]),
            )
        )
    return matches
