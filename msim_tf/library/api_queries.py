"""From what a request asks to what ``search`` understands: queries, filters and diversity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from msim_tf.library import api_requests as requests
from msim_tf.library.api_state import LibraryState
from msim_tf.search.diversity import Diversity
from msim_tf.search.filters import Filters
from msim_tf.search.query import Query, examples_query, mixed_query, track_query, vector_query

# The vector of an upload's token; raises ApiError if there is none.
UploadedVector = Callable[[str], np.ndarray]


def search_query(query: requests.AnyQuery, state: LibraryState, uploaded: UploadedVector) -> Query:
    """The query of a request.

    Raises:
        ApiError: 404 for an unknown track or upload.
        InputError: for an unknown dimension.
    """
    index = state.index
    if isinstance(query, requests.TrackQuery):
        return track_query(index, state.require(query.track))
    if isinstance(query, requests.UploadQuery):
        return vector_query(index, uploaded(query.upload))
    if isinstance(query, requests.TracksQuery):
        return examples_query(index, [state.require(track) for track in query.tracks])
    if isinstance(query, requests.ExamplesQuery):
        return examples_query(index, [_track_or_vector(example, state, uploaded) for example in query.examples])
    parts = {name: _track_or_vector(part, state, uploaded) for name, part in query.mix.items()}
    # A part of several examples is a vector, which names no track; its tracks are not to be found either.
    examples: set[str] = set()
    for part in query.mix.values():
        if isinstance(part, requests.TracksQuery):
            examples.update(part.tracks)
        elif isinstance(part, requests.ExamplesQuery):
            examples.update(example.track for example in part.examples if isinstance(example, requests.TrackQuery))
    mixed = mixed_query(index, parts)
    return replace(mixed, exclude=mixed.exclude | examples)


def _track_or_vector(query: requests.AnyQuery, state: LibraryState, uploaded: UploadedVector) -> str | np.ndarray:
    """A single track stays a track, so that explanations can name its metadata; anything else is a vector."""
    if isinstance(query, requests.TrackQuery):
        return state.require(query.track)
    return search_query(query, state, uploaded).vector


def search_filters(filters: requests.Filters | None) -> Filters:
    """The filters of a request; absent fields ask for nothing.

    Raises:
        InputError: for limits in the wrong order, or an unknown key.
    """
    if filters is None:
        return Filters()
    return Filters(
        bpm=None if filters.bpm is None else (filters.bpm[0], filters.bpm[1]),
        octaves=bool(filters.octaves),
        keys=tuple(filters.keys or ()),
        tags=tuple(filters.tags or ()),
        artists=tuple(filters.artists or ()),
        # Years are whole numbers: those within the limits.
        years=None if filters.years is None else (math.ceil(filters.years[0]), math.floor(filters.years[1])),
    )


def search_diversity(diversity: requests.Diversity | None) -> Diversity:
    """The limits of a request; absent ones do not limit, and versions are one hit unless they are to be apart."""
    if diversity is None:
        return Diversity(versions=True)
    relevance = 1.0 if diversity.relevance is None else diversity.relevance
    return Diversity(diversity.per_artist, diversity.per_album, relevance, diversity.versions is not False)
