"""The OpenAPI 3.1 document of the library API: what a player's plugin can be written against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msim_tf
from msim_tf.library.api_requests import MOST_HITS
from msim_tf.search.tracks import TAG_KEYS, TEXT_KEYS

_Json = dict[str, Any]


def openapi_document(dimensions: Sequence[str]) -> _Json:
    """The document for a library whose embedding has ``dimensions``, in their order."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "msim library",
            "version": msim_tf.__version__,
            "description": "Similar tracks by weighted musical dimensions, explained. A distance is the sum over dimensions of weight times "
            "distance in that dimension (0 to 4); small is near. A track's id is its path in the music folder; in an address it is "
            "percent-encoded. Only tracks of the library can be had.",
        },
        "servers": [{"url": "/api/v1"}],
        # Both are alternatives, and a server on loopback without a token asks for none.
        "security": [{}, {"bearer": []}, {"query": []}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(list(dimensions)),
            "responses": {"Error": _content("The request cannot be answered.", _ref("Error"))},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token", "description": "For GET only."},
            },
        },
    }


def _paths() -> _Json:
    identifier = _parameter(
        "id", "path", {"type": "string"}, "Percent-encoded; also its slashes may be.", required=True
    )
    page = [
        _parameter("search", "query", {"type": "string"}, "Words that title, artist, album or path must hold."),
        _parameter("limit", "query", _whole(1, 500, 50)),
        _parameter("offset", "query", _whole(0, 2**53, 0)),
    ]
    artists = [_parameter("search", "query", {"type": "string"}, "Words that the name must hold."), *page[1:]]
    map_of = [
        _parameter("dimension", "query", {"type": "string"}, "Whose subspace; without it the whole embedding."),
        _parameter("limit", "query", _whole(2, 20_000, 2000)),
    ]
    return {
        "/library": {
            "get": _get("library", "The library: its size, dimensions, model and what filters can ask for.", "Library")
        },
        "/tracks": {"get": _get("tracks", "Tracks by text, in the order of their paths.", "Tracks", page)},
        "/tracks/{id}": {"get": _get("track", "What is known of a track.", "Track", [identifier])},
        "/artists": {"get": _get("artists", "Artists by text, those of most tracks first.", "Artists", artists)},
        "/similar": {"post": _post("similar", "Tracks near to a query.", "SimilarRequest", "SimilarAnswer")},
        "/explain": {"post": _post("explain", "One track as a hit for a query.", "ExplainRequest", "ExplainAnswer")},
        "/path": {
            "post": _post("path", "A playlist that turns from one track to another.", "PathRequest", "PathAnswer")
        },
        "/profile": {"post": _post("profile", "Weights learnt from choices.", "ProfileRequest", "ProfileAnswer")},
        "/upload": {"post": _upload()},
        "/map": {"get": _get("map", "Tracks in two dimensions, by principal components.", "Map", map_of)},
        "/audio/{id}": {"get": _audio(identifier)},
        "/openapi.json": {"get": _get("openapi", "This document.", None)},
    }


def _get(name: str, summary: str, answer: str | None, parameters: Sequence[_Json] = ()) -> _Json:
    schema = _ref(answer) if answer else {"type": "object"}
    responses = {"200": _content(summary, schema), "default": {"$ref": "#/components/responses/Error"}}
    return {"operationId": name, "summary": summary, "parameters": list(parameters), "responses": responses}


def _post(name: str, summary: str, body: str, answer: str) -> _Json:
    content = {"application/json": {"schema": _ref(body)}}
    return {**_get(name, summary, answer), "requestBody": {"required": True, "content": content}}


def _upload() -> _Json:
    summary = (
        "A sound file to query by: the token it returns is a query for an hour. Limited in size, duration and time."
    )
    binary: _Json = {"application/octet-stream": {}, "audio/*": {}}
    operation = {**_get("upload", summary, None), "requestBody": {"required": True, "content": binary}}
    created = _content("The file was understood.", _ref("Uploaded"))
    return {**operation, "responses": {"201": created, "default": operation["responses"]["default"]}}


def _audio(identifier: _Json) -> _Json:
    summary = "The sound file of a track, or one range of it."
    header = _parameter("Range", "header", {"type": "string"}, "One range of bytes; of several none is heeded.")
    sound: _Json = {"audio/*": {}}
    told = {"200": "The whole file.", "206": "The range."}
    responses: _Json = {status: {"description": text, "content": sound} for status, text in told.items()}
    responses["416"] = _content("There is no such range.", _ref("Error"))
    return {**_get("audio", summary, None, [identifier, header]), "responses": {**responses, "default": _error()}}


def _error() -> _Json:
    return {"$ref": "#/components/responses/Error"}


def _content(description: str, schema: _Json) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(name: str, place: str, schema: _Json, description: str = "", *, required: bool = False) -> _Json:
    told = {"description": description} if description else {}
    return {"name": name, "in": place, "required": required, "schema": schema, **told}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _whole(lowest: int, highest: int, default: int) -> _Json:
    return {"type": "integer", "minimum": lowest, "maximum": highest, "default": default}


def _list(items: _Json) -> _Json:
    return {"type": "array", "items": items}


def _object(required: Sequence[str], **properties: _Json) -> _Json:
    """An object of these properties and no others; all of them must be there, unless ``required`` names those that must."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required or properties),
        "additionalProperties": False,
    }


def _by_dimension(dimensions: list[str], value: _Json) -> _Json:
    return {"type": "object", "properties": dict.fromkeys(dimensions, value), "additionalProperties": False}


def _schemas(dimensions: list[str]) -> _Json:
    text, number = {"type": "string"}, {"type": "number"}
    by_dimension = _by_dimension(dimensions, number)
    hits = _list(_ref("Hit"))
    return {
        "Error": _object(["error"], error=text),
        **_queries(dimensions),
        **_track_schemas(dimensions),
        "Hit": _object(
            [],
            track=_ref("Track"),
            distance=number,
            distances={**by_dimension, "description": "Unweighted, 0 to 4, of the dimensions that the query has."},
            shares={**by_dimension, "description": "What each dimension adds; they sum to the distance."},
            evidence=_by_dimension(dimensions, text),
            notes=_list(text),
            explanation={**text, "description": "All of it in one readable line."},
        ),
        "SimilarRequest": _object(
            ["query"],
            query=_ref("Query"),
            weights=_ref("Weights"),
            filters=_ref("Filters"),
            diversity=_ref("Diversity"),
            k=_whole(1, MOST_HITS, 10),
        ),
        "SimilarAnswer": _object([], weights=_ref("Weights"), hits=hits),
        "ExplainRequest": _object(["query", "track"], query=_ref("Query"), track=text, weights=_ref("Weights")),
        "ExplainAnswer": _object([], weights=_ref("Weights"), hit=_ref("Hit")),
        "PathRequest": _object(
            ["from", "to"],
            **{"from": text, "to": text},
            length=_whole(2, MOST_HITS, 10),
            weights=_ref("Weights"),
            filters=_ref("Filters"),
            diversity=_ref("Diversity"),
        ),
        "PathAnswer": _object([], weights=_ref("Weights"), tracks=hits),
        "ProfileRequest": _object(
            ["choices"], name=text, choices={**_list(_ref("Choice")), "minItems": 1, "maxItems": 1000}
        ),
        "Choice": _object(
            [], query={"anyOf": [{**text, "description": "id of a track"}, _ref("Query")]}, better=text, worse=text
        ),
        "ProfileAnswer": _object(
            [],
            name=text,
            weights=_ref("Weights"),
            choices={"type": "integer"},
            agreement={
                "type": ["number", "null"],
                "description": "Share of choices that weights learnt from the others explain.",
            },
            equal_agreement={"type": ["number", "null"], "description": "Share that equal weights explain."},
        ),
        "Uploaded": _object([], upload=text, seconds=number, expires_in=number),
    }


def _queries(dimensions: list[str]) -> _Json:
    text, number = {"type": "string"}, {"type": "number"}
    one = {
        "track": text,
        "tracks": {**_list(text), "minItems": 1, "maxItems": 100},
        "upload": {**text, "description": "Token of an upload."},
    }
    simple = [_object([], **{name: schema}) for name, schema in one.items()]
    example = {"oneOf": [_object([], track=text), _object([], upload=one["upload"])]}
    simple.append(_object([], examples={**_list(example), "minItems": 1, "maxItems": 100}))
    mix = {**_by_dimension(dimensions, _ref("SimpleQuery")), "minProperties": 1}
    pair = {"type": ["array", "null"], "items": number, "minItems": 2, "maxItems": 2}
    return {
        "SimpleQuery": {"oneOf": simple},
        "Query": {"oneOf": [*simple, _object([], mix=mix)]},
        "Weights": {
            **_by_dimension(dimensions, number),
            "description": "Relative; 0 or absent is off, negative is unlike. Without any, all dimensions weigh the same.",
        },
        "Filters": {
            **_object(
                [],
                bpm=pair,
                octaves={"type": "boolean"},
                keys=_list(text),
                tags=_list(text),
                artists=_list(text),
                years=pair,
            ),
            "required": [],
            "description": "All must hold: any of keys and artists, all of tags. With octaves a tempo passes also doubled or halved.",
        },
        "Diversity": {
            **_object(
                [],
                per_artist={"type": ["integer", "null"], "minimum": 1, "maximum": MOST_HITS},
                per_album={"type": ["integer", "null"], "minimum": 1, "maximum": MOST_HITS},
                relevance={"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
            ),
            "required": [],
            "description": "relevance below 1 moves hits away from each other (maximal marginal relevance).",
        },
    }


def _track_schemas(dimensions: list[str]) -> _Json:
    text, number, whole = {"type": "string"}, {"type": "number"}, {"type": "integer"}
    told = {**dict.fromkeys(TEXT_KEYS, text), "year": whole, "tempo": number, "key": text}
    tags = dict.fromkeys(TAG_KEYS, _list(text))
    point = {
        **{name: told[name] for name in ("title", "artist", "year", "tempo", "key")},
        **dict.fromkeys(TAG_KEYS, text),
    }
    limits = {"type": ["array", "null"], "items": number}
    counted = _list({"type": "array", "prefixItems": [text, whole], "minItems": 2, "maxItems": 2})
    return {
        "Track": _object(
            ["id", "audio"],
            id=text,
            **told,
            **tags,
            seconds=number,
            audio={**text, "description": "Address of its sound."},
        ),
        "Tracks": _object([], total=whole, offset=whole, limit=whole, tracks=_list(_ref("Track"))),
        "Artists": _object(
            [], total=whole, offset=whole, limit=whole, artists=_list(_object([], artist=text, tracks=whole))
        ),
        "Library": _object(
            [],
            name=text,
            tracks=whole,
            artists=whole,
            albums=whole,
            dimensions=_list({**text, "enum": dimensions}),
            model=_object([], name=text, version=text, features=text),
            engine=text,
            tags={"type": "object", "properties": dict.fromkeys(TAG_KEYS, counted)},
            keys=_list(text),
            bpm=limits,
            years=limits,
            uploads={**_object([], bytes=whole, seconds=number), "description": "The most that an upload may have."},
        ),
        "Map": _object(
            [],
            dimension={"type": ["string", "null"]},
            total=whole,
            variance={**_list(number), "description": "Shares of the variance that x and y have."},
            points=_list(_object(["id", "x", "y"], id=text, **point, x=number, y=number)),
        ),
    }
