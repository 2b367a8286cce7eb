"""JSON bodies of the library API, read into queries, weights, filters and diversity. What is wrong is said with the name of its field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from msim_tf.library.api_errors import ApiError
from msim_tf.library.api_state import LibraryState
from msim_tf.search.diversity import Diversity
from msim_tf.search.filters import Filters
from msim_tf.search.query import Query, examples_query, mixed_query, track_query, vector_query

MOST_HITS = 500
_MOST_EXAMPLES = 100

# The vector of an upload's token; raises ApiError if there is none.
Uploaded = Callable[[str], np.ndarray]


def fields(value: Any, where: str, *allowed: str) -> Mapping[str, Any]:
    """``value`` if it is an object that has only the fields ``allowed``.

    Raises:
        ApiError: 400.
    """
    if not isinstance(value, dict):
        raise ApiError(400, f"{where}: expected an object with {', '.join(allowed)}")
    unknown = [name for name in value if name not in allowed]
    if unknown:
        raise ApiError(400, f"{where}: unknown field {unknown[0]!r}, expected {', '.join(allowed)}")
    return value


def whole(value: Any, where: str, *, default: int, lowest: int, highest: int) -> int:
    """A whole number within limits; ``default`` for None.

    Raises:
        ApiError: 400.
    """
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ApiError(400, f"{where} is {value!r}, expected a whole number in {lowest}..{highest}")
    return value


def query_of(value: Any, state: LibraryState, uploaded: Uploaded) -> Query:
    """A query: one of ``{"track": id}``, ``{"tracks": [id, ...]}``, ``{"upload": token}``, ``{"examples": [track or upload, ...]}``,
    ``{"mix": {dimension: one of the others}}``.

    Raises:
        ApiError: 400 for another form, 404 for an unknown track or upload.
    """
    value = fields(value, "query", "track", "tracks", "upload", "examples", "mix")
    if len(value) != 1:
        raise ApiError(400, "query: expected exactly one of track, tracks, upload, examples, mix")
    ((kind, content),) = value.items()
    if kind == "track":
        return track_query(state.index, state.require(content))
    if kind == "upload":
        return vector_query(state.index, uploaded(content))
    if kind == "tracks":
        return examples_query(state.index, [state.require(track) for track in _examples(content, "query.tracks")])
    if kind == "examples":
        examples = [_example(example, state, uploaded) for example in _examples(content, "query.examples")]
        return examples_query(state.index, examples)
    if not isinstance(content, dict):
        raise ApiError(400, "query.mix: expected an object of dimension: query")
    mixed = mixed_query(state.index, {name: _part(part, state, uploaded) for name, part in content.items()})
    return replace(mixed, exclude=mixed.exclude.union(*map(_named, content.values())))


def _named(part: Mapping[str, Any]) -> list[str]:
    """The tracks of a valid part of a mix: what is asked with is not found."""
    return [*part.get("tracks", ()), *(example["track"] for example in part.get("examples", ()) if "track" in example)]


def _examples(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_EXAMPLES:
        raise ApiError(400, f"{where}: expected a list of 1 to {_MOST_EXAMPLES}")
    return value


def _example(value: Any, state: LibraryState, uploaded: Uploaded) -> str | np.ndarray:
    value = fields(value, "query.examples", "track", "upload")
    if set(value) == {"track"}:
        return state.require(value["track"])
    return query_of(value, state, uploaded).vector


def _part(value: Any, state: LibraryState, uploaded: Uploaded) -> str | np.ndarray:
    """One dimension's part of a mix: a track stays a track, so that explanations can name its metadata."""
    value = fields(value, "query.mix", "track", "tracks", "upload", "examples")
    if set(value) == {"track"}:
        return state.require(value["track"])
    return query_of(value, state, uploaded).vector


def weights_of(value: Any) -> dict[str, float] | None:
    """Weights by dimension, or None for equal ones; names and zeros are judged by the search.

    Raises:
        ApiError: 400.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not all(_is_number(weight) for weight in value.values()):
        raise ApiError(400, f"weights are {value!r}, expected an object of dimension: number")
    return {name: float(weight) for name, weight in value.items()}


def filters_of(value: Any) -> Filters:
    """Filters; absent or null fields ask for nothing.

    Raises:
        ApiError: 400.
    """
    value = fields(value or {}, "filters", "bpm", "octaves", "keys", "tags", "artists", "years")
    years = _pair(value.get("years"), "filters.years")
    octaves = value.get("octaves") or False
    if not isinstance(octaves, bool):
        raise ApiError(400, f"filters.octaves is {octaves!r}, expected true or false")
    return Filters(
        bpm=_pair(value.get("bpm"), "filters.bpm"),
        octaves=octaves,
        keys=_texts(value.get("keys"), "filters.keys"),
        tags=_texts(value.get("tags"), "filters.tags"),
        artists=_texts(value.get("artists"), "filters.artists"),
        years=None if years is None else (math.ceil(years[0]), math.floor(years[1])),
    )


def diversity_of(value: Any) -> Diversity:
    """Limits per artist and album, and relevance.

    Raises:
        ApiError: 400.
    """
    value = fields(value or {}, "diversity", "per_artist", "per_album", "relevance")
    limits = {
        name: whole(value[name], f"diversity.{name}", default=1, lowest=1, highest=MOST_HITS)
        for name in ("per_artist", "per_album")
        if value.get(name) is not None
    }
    relevance = value.get("relevance")
    if relevance is not None and not _is_number(relevance):
        raise ApiError(400, f"diversity.relevance is {relevance!r}, expected a number above 0 and at most 1")
    return Diversity(**limits, relevance=1.0 if relevance is None else float(relevance))


def _is_number(value: Any) -> bool:
    # An integer of 400 digits is JSON and no float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _pair(value: Any, where: str) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(limit) for limit in value):
        raise ApiError(400, f"{where} is {value!r}, expected [lowest, highest]")
    return float(value[0]), float(value[1])


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ApiError(400, f"{where} is {value!r}, expected a list of texts")
    return tuple(value)
