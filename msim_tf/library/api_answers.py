"""What the library API answers: pure functions from a state of the library and a validated request to JSON objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

import numpy as np

from msim_tf.library import api_requests as requests
from msim_tf.library import api_responses as responses
from msim_tf.library.api_errors import ApiError
from msim_tf.library.api_queries import UploadedVector, search_diversity, search_filters, search_query
from msim_tf.library.api_state import LibraryState
from msim_tf.library.descriptions import DESCRIBED
from msim_tf.library.search_words import wording
from msim_tf.search.explanation import Explanation, explain, explanation
from msim_tf.search.filters import Filters
from msim_tf.search.path import track_path
from msim_tf.search.profiles import requested_weights
from msim_tf.search.query import Match, Query, allowed_rows, nearest_matches, query_weights, search, track_query
from msim_tf.search.reasons import why_nothing
from msim_tf.search.tracks import TAG_KEYS, TEXT_KEYS
from msim_tf.search.weights import choice_differences, learn_profile

_TRACK_FIELDS = (*TEXT_KEYS, "year", "tempo", "key", *TAG_KEYS, "seconds")
_POINT_FIELDS = ("title", "artist", "year", "tempo", "key")


def track(state: LibraryState, identifier: str) -> responses.Track:
    """What the library knows of a track; unknown fields are absent."""
    return _track(state, identifier, state.index.metadata(identifier))


def _track(state: LibraryState, identifier: str, metadata: Mapping[str, Any]) -> responses.Track:
    fields = {name: metadata[name] for name in _TRACK_FIELDS if name in metadata}
    audio = f"{state.root_path}/api/v1/audio/{quote(identifier, safe='')}"
    described = metadata.get(DESCRIBED, {}).get("fields", [])
    return cast(responses.Track, {"id": identifier, **fields, "described": described, "audio": audio})


def tracks(state: LibraryState, *, text: str, limit: int, offset: int) -> responses.Tracks:
    """One page of the tracks whose title, artist, album or path has every word of ``text``, then of those that are as
    it describes them: "calm piano under 100 bpm".
    """
    matches = state.search(text)
    words = wording(text, state.tags) if text.split() else None
    understood: responses.Understood | None = None
    if words and words.filters != Filters():
        # Tracks that pass the filters, in the order of their paths.
        rows = np.flatnonzero(allowed_rows(state.index, words.filters))
        passing = sorted(identifier for identifier, _ in state.index.described(rows.tolist()).values())
        # Behind those that are named so: those that pass and have the words which are no filters in their names.
        named, containing = set(matches), set(state.search(words.rest))
        matches = matches + [name for name in passing if name not in named and name in containing]
        filters: responses.UnderstoodFilters = {}
        if words.filters.bpm:
            filters["bpm"] = list(words.filters.bpm)
        if words.filters.keys:
            filters["keys"] = list(words.filters.keys)
        if words.filters.tags:
            filters["tags"] = list(words.filters.tags)
        understood = {"filters": filters, "tracks": len(passing), "rest": words.rest}
    page = [track(state, identifier) for identifier in matches[offset : offset + limit]]
    return {"total": len(matches), "offset": offset, "limit": limit, "understood": understood, "tracks": page}


def artists(state: LibraryState, *, text: str, limit: int, offset: int) -> responses.Artists:
    """One page of the artists whose name has every word of ``text``, those of most tracks first."""
    words = text.casefold().split()
    matches = [(name, count) for name, count in state.artists if all(word in name.casefold() for word in words)]
    page: list[responses.Artist] = [
        {"artist": name, "tracks": count} for name, count in matches[offset : offset + limit]
    ]
    return {"total": len(matches), "offset": offset, "limit": limit, "artists": page}


def similar(state: LibraryState, body: requests.SimilarRequest, uploaded: UploadedVector) -> responses.Similar:
    """Hits for a query, nearest first."""
    chosen = requested_weights(body.profile, body.weights)
    query = search_query(body.query, state, uploaded)
    filters = search_filters(body.filters)
    matches = search(
        state.index,
        query,
        weights=chosen,
        k=body.k,
        filters=filters,
        diversity=search_diversity(body.diversity),
    )
    hits = [_hit(state, match, explain(state.index, query, match)) for match in matches]
    reason = None if hits else why_nothing(state.index, filters, query.exclude)
    return {"weights": _applied_weights(state, query, chosen), "hits": hits, "reason": reason}


def explained(state: LibraryState, body: requests.ExplainRequest, uploaded: UploadedVector) -> responses.Explained:
    """One track as a hit for a query, wherever it would rank."""
    query = search_query(body.query, state, uploaded)
    # The search has no choice but this track.
    only = np.zeros(len(state.index.rows), bool)
    only[state.index.row(state.require(body.track))] = True
    chosen = requested_weights(body.profile, body.weights)
    weights = query_weights(state.index, query, chosen)
    match = nearest_matches(state.index, query, weights, only, 1)[0]
    hit = _hit(state, match, explain(state.index, query, match))
    return {"weights": _applied_weights(state, query, chosen), "hit": hit}


def path(state: LibraryState, body: requests.PathRequest) -> responses.Path:
    """A playlist from one track to another; distances of each step are to the track before."""
    chosen = requested_weights(body.profile, body.weights)
    start, end = state.require(body.start), state.require(body.end)
    steps = track_path(
        state.index,
        start,
        end,
        length=body.length,
        weights=chosen,
        filters=search_filters(body.filters),
        diversity=None if body.diversity is None else search_diversity(body.diversity),
    )
    # Each step is explained by the metadata of the one before; the first has only itself.
    names = state.index.source.layout.names
    before = [steps[0], *steps]
    reasons = [explanation(step, dict.fromkeys(names, last.metadata)) for step, last in zip(steps, before)]
    hits = [_hit(state, step, reason) for step, reason in zip(steps, reasons)]
    return {"weights": _applied_weights(state, track_query(state.index, start), chosen), "tracks": hits}


def profile(state: LibraryState, body: requests.ProfileRequest, uploaded: UploadedVector) -> responses.Profile:
    """Weights learnt from choices."""
    index, layout = state.index, state.index.source.layout
    # What both sides of each choice are compared with: [choices, size], as the two sides themselves.
    anchors = []
    for choice in body.choices:
        query = requests.TrackQuery(track=choice.query) if isinstance(choice.query, str) else choice.query
        anchor = search_query(query, state, uploaded)
        if anchor.dimensions != layout.names:
            raise ApiError(
                400, "choices.query: a mix of some dimensions says nothing about the others; give all or none"
            )
        anchors.append(anchor.vector)
    better = index.vectors([state.require(choice.better) for choice in body.choices])
    worse = index.vectors([state.require(choice.worse) for choice in body.choices])
    learnt = learn_profile(body.name, choice_differences(np.stack(anchors), better, worse, layout), layout)
    return {
        "name": learnt.name,
        "weights": learnt.weights,
        "choices": learnt.choices,
        # Not a number where there are too few choices; JSON has no such number.
        "agreement": learnt.agreement if np.isfinite(learnt.agreement) else None,
        "equal_agreement": learnt.equal_agreement if np.isfinite(learnt.equal_agreement) else None,
    }


def library_map(state: LibraryState, *, dimension: str, limit: int, further: Sequence[str]) -> responses.Map:
    """Positions of tracks in two dimensions, ``further`` ones among them whatever the limit."""
    names = state.index.source.layout.names
    if dimension and dimension not in names:
        expected = ", ".join(names)
        raise ApiError(400, f"dimension: {dimension!r}, expected one of {expected}, or none for the whole embedding")
    further = [state.require(track) for track in further]
    identifiers, positions, variance = state.positions(dimension, limit, further)
    # What the page shows of a point, and colours it by: the first tag of each kind.
    points = []
    for identifier, (x, y) in zip(identifiers, positions.tolist()):
        metadata = state.index.metadata(identifier)
        fields = {name: metadata[name] for name in _POINT_FIELDS if name in metadata}
        first_tags = {name: metadata[name][0] for name in TAG_KEYS if metadata.get(name)}
        point = {"id": identifier, **fields, **first_tags, "x": round(x, 5), "y": round(y, 5)}
        points.append(cast(responses.Point, point))
    return {"dimension": dimension or None, "total": len(state.identifiers), "variance": variance, "points": points}


def _hit(state: LibraryState, match: Match, reason: Explanation) -> responses.Hit:
    return {
        "track": _track(state, match.identifier, match.metadata),
        "distance": match.distance,
        "distances": match.distances,
        "shares": reason.shares,
        "evidence": reason.evidence,
        "notes": list(reason.notes),
        "explanation": reason.line(),
        "summary": reason.summary,
        "versions": list(match.versions),
    }


def _applied_weights(state: LibraryState, query: Query, weights: Mapping[str, float] | None) -> dict[str, float]:
    """The weights as they were applied: magnitudes sum to 1."""
    names = state.index.source.layout.names
    return dict(zip(names, query_weights(state.index, query, weights).tolist()))
