"""What the library API answers: pure functions from a state of the library and a parsed request to JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from msim_tf.library.api_errors import ApiError
from msim_tf.library.api_requests import (
    MOST_HITS,
    Uploaded,
    diversity_of,
    fields,
    filters_of,
    query_of,
    weights_of,
    whole,
)
from msim_tf.library.api_state import LibraryState
from msim_tf.search.explanation import Explanation, explain, explanation
from msim_tf.search.path import track_path
from msim_tf.search.query import Match, Query, nearest_matches, query_weights, search, track_query
from msim_tf.search.tracks import TAG_KEYS, TEXT_KEYS
from msim_tf.search.weights import choice_differences, learn_profile

_SHOWN = (*TEXT_KEYS, "year", "tempo", "key", *TAG_KEYS, "seconds")
_MOST_CHOICES = 1000


def track(state: LibraryState, identifier: str) -> dict[str, Any]:
    """What is told of a track; what is unknown is left out."""
    return _described(identifier, state.index.metadata(identifier))


def _described(identifier: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: metadata[key] for key in _SHOWN if key in metadata}
    return {"id": identifier, **told, "audio": f"/api/v1/audio/{quote(identifier, safe='')}"}


def tracks(state: LibraryState, *, text: str, limit: int, offset: int) -> dict[str, Any]:
    """One page of the tracks that ``text`` finds."""
    found = state.found(text)
    page = [track(state, identifier) for identifier in found[offset : offset + limit]]
    return {"total": len(found), "offset": offset, "limit": limit, "tracks": page}


def artists(state: LibraryState, *, text: str, limit: int, offset: int) -> dict[str, Any]:
    """One page of the artists whose name holds every word of ``text``, those of most tracks first."""
    words = text.casefold().split()
    found = [(name, count) for name, count in state.artists if all(word in name.casefold() for word in words)]
    page = [{"artist": name, "tracks": count} for name, count in found[offset : offset + limit]]
    return {"total": len(found), "offset": offset, "limit": limit, "artists": page}


def similar(state: LibraryState, body: Any, uploaded: Uploaded) -> dict[str, Any]:
    """Hits for a query, nearest first."""
    body = fields(body, "body", "query", "weights", "filters", "diversity", "k")
    query = query_of(body.get("query"), state, uploaded)
    weights = weights_of(body.get("weights"))
    matches = search(
        state.index,
        query,
        weights=weights,
        k=whole(body.get("k"), "k", default=10, lowest=1, highest=MOST_HITS),
        filters=filters_of(body.get("filters")),
        diversity=diversity_of(body.get("diversity")),
    )
    hits = [_hit(match, explain(state.index, query, match)) for match in matches]
    return {"weights": _applied(state, query, weights), "hits": hits}


def explained(state: LibraryState, body: Any, uploaded: Uploaded) -> dict[str, Any]:
    """One track as a hit for a query, wherever it would rank."""
    body = fields(body, "body", "query", "track", "weights")
    query = query_of(body.get("query"), state, uploaded)
    only = np.zeros(len(state.index.rows), bool)
    only[state.index.row(state.require(body.get("track")))] = True
    weights = weights_of(body.get("weights"))
    match = nearest_matches(state.index, query, query_weights(state.index, query, weights), only, 1)[0]
    return {"weights": _applied(state, query, weights), "hit": _hit(match, explain(state.index, query, match))}


def path(state: LibraryState, body: Any) -> dict[str, Any]:
    """A playlist from one track to another; distances of each step are to the track before."""
    body = fields(body, "body", "from", "to", "length", "weights", "filters", "diversity")
    start, end = state.require(body.get("from")), state.require(body.get("to"))
    weights = weights_of(body.get("weights"))
    steps = track_path(
        state.index,
        start,
        end,
        length=whole(body.get("length"), "length", default=10, lowest=2, highest=MOST_HITS),
        weights=weights,
        filters=filters_of(body.get("filters")),
        diversity=diversity_of(body.get("diversity")),
    )
    before = [steps[0], *steps]
    names = state.index.source.layout.names
    told = [explanation(step, dict.fromkeys(names, last.metadata)) for step, last in zip(steps, before)]
    applied = _applied(state, track_query(state.index, start), weights)
    return {"weights": applied, "tracks": [_hit(step, why) for step, why in zip(steps, told)]}


def profile(state: LibraryState, body: Any, uploaded: Uploaded) -> dict[str, Any]:
    """Weights learnt from choices."""
    body = fields(body, "body", "choices", "name")
    choices = body.get("choices")
    if not isinstance(choices, list) or not 1 <= len(choices) <= _MOST_CHOICES:
        raise ApiError(400, f"choices: expected a list of 1 to {_MOST_CHOICES} of query, better, worse")
    name = body.get("name", "")
    if not isinstance(name, str):
        raise ApiError(400, f"name is {name!r}, expected text")
    parsed = [fields(choice, "choice", "query", "better", "worse") for choice in choices]
    anchors = np.stack([_anchor(choice.get("query"), state, uploaded) for choice in parsed])
    better, worse = (
        state.index.vectors([state.require(choice.get(side)) for choice in parsed]) for side in ("better", "worse")
    )
    layout = state.index.source.layout
    learnt = learn_profile(name, choice_differences(anchors, better, worse, layout), layout)
    figures = {"agreement": learnt.agreement, "equal_agreement": learnt.equal_agreement}
    known = {key: value if np.isfinite(value) else None for key, value in figures.items()}
    return {"name": learnt.name, "weights": learnt.weights, "choices": learnt.choices, **known}


def _anchor(value: Any, state: LibraryState, uploaded: Uploaded) -> np.ndarray:
    query = query_of({"track": value} if isinstance(value, str) else value, state, uploaded)
    if query.dimensions != state.index.source.layout.names:
        raise ApiError(400, "choice.query: a mix of some dimensions says nothing about the others; give all or none")
    return query.vector


def map_of(state: LibraryState, *, dimension: str, limit: int) -> dict[str, Any]:
    """Positions of tracks in two dimensions."""
    if dimension and dimension not in state.index.source.layout.names:
        known = ", ".join(state.index.source.layout.names)
        raise ApiError(400, f"dimension {dimension!r}: expected one of {known}, or none for the whole embedding")
    names, places, variance = state.positions(dimension, limit)
    points = [
        {**_point(name, state.index.metadata(name)), "x": round(float(x), 5), "y": round(float(y), 5)}
        for name, (x, y) in zip(names, places)
    ]
    return {"dimension": dimension or None, "total": len(state.identifiers), "variance": variance, "points": points}


def _point(identifier: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: metadata[key] for key in ("title", "artist", "year", "tempo", "key") if key in metadata}
    return {"id": identifier, **told, **{key: metadata[key][0] for key in TAG_KEYS if metadata.get(key)}}


def _hit(match: Match, why: Explanation) -> dict[str, Any]:
    return {
        "track": _described(match.identifier, match.metadata),
        "distance": match.distance,
        "distances": match.distances,
        "shares": why.shares,
        "evidence": why.evidence,
        "notes": list(why.notes),
        "explanation": why.line(),
    }


def _applied(state: LibraryState, query: Query, weights: Mapping[str, float] | None) -> dict[str, float]:
    """The weights as they were applied: magnitudes sum to 1."""
    names = state.index.source.layout.names
    return dict(zip(names, query_weights(state.index, query, weights).tolist()))
