"""The routes of the library API. Each parses nothing and searches nothing: models validate, ``api_answers`` answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from msim_tf.library import api_answers as answers
from msim_tf.library import api_playlists as playlists
from msim_tf.library import api_requests as requests
from msim_tf.library import api_responses as responses
from msim_tf.library.api_audio import audio_response
from msim_tf.library.api_errors import ApiError
from msim_tf.library.api_openapi import openapi_document
from msim_tf.library.api_state import LibraryState, LiveLibrary
from msim_tf.library.api_upload import Uploads
from msim_tf.library.file_table import FileTable


class _Identifier(Convertor[str]):
    """The rest of a path, whatever it holds: names of files may hold slashes and line breaks."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("identifier", _Identifier())


@dataclass(frozen=True)
class Service:
    """What the routes answer from."""

    library: LiveLibrary
    uploads: Uploads

    def uploaded(self, state: LibraryState) -> Callable[[str], np.ndarray]:
        """Vectors of uploads by their token, if they are of the library's model."""
        return lambda token: self.uploads.vector(token, state.index.source)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


From = Annotated[Service, Depends(_service)]
Offset = Annotated[int, Query(ge=0, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=500)]

router = APIRouter(responses={"default": {"model": responses.Error, "description": "The request cannot be answered."}})


def get(path: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Routes GET, and HEAD likewise without describing it apart."""

    def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        router.add_api_route(path, endpoint, methods=["GET"], **options)
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        return endpoint

    return add


def json_response(value: Any, status: int = 200) -> Response:
    """``value`` as JSON that no cache keeps."""
    try:
        text = orjson.dumps(value)
    except TypeError:  # half a surrogate pair in a name has no bytes: as ASCII
        text = json.dumps(value).encode()
    return Response(text, status, {"Cache-Control": "no-store"}, "application/json")


@get("/library", operation_id="library", response_model=responses.Library)
def library(service: From) -> Response:
    """The library: its size, dimensions and model, and what filters can ask for."""
    limits = service.uploads.limits
    overview = service.library.state().overview
    return json_response({**overview, "uploads": {"bytes": limits.bytes, "seconds": limits.seconds}})


@get("/tracks", operation_id="tracks", response_model=responses.Tracks)
def tracks(service: From, search: str = "", limit: Limit = 50, offset: Offset = 0) -> Response:
    """Tracks whose title, artist, album or path has every word of a text, then those that are as it describes them."""
    return json_response(answers.tracks(service.library.state(), text=search, limit=limit, offset=offset))


@get("/tracks/{id:identifier}", operation_id="track", response_model=responses.Track)
def track(service: From, id: str) -> Response:
    """What the library knows of a track."""
    state = service.library.state()
    return json_response(answers.track(state, state.require(id)))


@get("/artists", operation_id="artists", response_model=responses.Artists)
def artists(service: From, search: str = "", limit: Limit = 50, offset: Offset = 0) -> Response:
    """Artists whose name has every word of a text, those of most tracks first."""
    return json_response(answers.artists(service.library.state(), text=search, limit=limit, offset=offset))


@get("/map", operation_id="map", response_model=responses.Map)
def library_map(
    service: From,
    dimension: Annotated[str, Query(description="Whose subspace; without it the whole embedding.")] = "",
    limit: Annotated[int, Query(ge=2, le=20_000)] = 2000,
    track: Annotated[
        list[str] | None, Query(max_length=requests.MOST_HITS, description="To be shown whatever the limit.")
    ] = None,
) -> Response:
    """Tracks in two dimensions, by principal components."""
    state = service.library.state()
    return json_response(answers.library_map(state, dimension=dimension, limit=limit, further=track or ()))


@get(
    "/audio/{id:identifier}",
    operation_id="audio",
    response_class=Response,
    responses={
        200: {"description": "The whole file.", "content": {"audio/*": {}}},
        206: {"description": "The range that was asked for.", "content": {"audio/*": {}}},
        416: {"model": responses.Error, "description": "There is no such range."},
    },
)
def audio(service: From, id: str) -> Response:
    """The sound file of a track, or a range of it (Range: bytes=...)."""
    state = service.library.state()
    if state.catalog.music is None:
        raise ApiError(404, "the library was made of vectors; it has no folder of music")
    record = FileTable(state.index.table.database).record(state.require(id))
    return audio_response(state.catalog.music, id, record.state)


@router.post("/similar", operation_id="similar", response_model=responses.Similar)
def similar(service: From, body: requests.SimilarRequest) -> Response:
    """Tracks near to a query."""
    state = service.library.state()
    return json_response(answers.similar(state, body, service.uploaded(state)))


@router.post("/explain", operation_id="explain", response_model=responses.Explained)
def explain(service: From, body: requests.ExplainRequest) -> Response:
    """One track as a hit for a query, wherever it would rank."""
    state = service.library.state()
    return json_response(answers.explained(state, body, service.uploaded(state)))


@router.post("/path", operation_id="path", response_model=responses.Path)
def path(service: From, body: requests.PathRequest) -> Response:
    """A playlist that turns from one track to another."""
    return json_response(answers.path(service.library.state(), body))


@router.post("/profile", operation_id="profile", response_model=responses.Profile)
def profile(service: From, body: requests.ProfileRequest) -> Response:
    """Weights learnt from choices."""
    state = service.library.state()
    return json_response(answers.profile(state, body, service.uploaded(state)))


_M3U = {200: {"description": "Extended M3U in UTF-8.", "content": {playlists.MEDIA_TYPE: {}}}}
Json = Annotated[str, Query(description="As in the body of the request of that name, in JSON.")]
Profile = Annotated[str, Query(description="Name of weights, in the place of weights.")]


async def _naming(
    prefix: Annotated[str, Query(description="The player's name of the music folder, e.g. /music.")] = "",
    links: Annotated[bool, Query(description="Name addresses of this server in the place of files.")] = False,
) -> playlists.Naming:
    return playlists.Naming(prefix, links)


Naming = Annotated[playlists.Naming, Depends(_naming)]


@get("/playlist.m3u8", operation_id="similar_playlist", response_class=Response, responses=_M3U)
def similar_playlist(
    service: From,
    request: Request,
    naming: Naming,
    track: Annotated[list[str], Query(default_factory=list, description="Ids of tracks in the place of a query.")],
    query: Json = "",
    profile: Profile = "",
    weights: Json = "",
    filters: Json = "",
    diversity: Json = "",
    k: Json = "10",
) -> Response:
    """Tracks near to a query as a playlist, with titles and lengths; two of an artist unless diversity says more."""
    state = service.library.state()
    fields = {"query": query, "weights": weights, "filters": filters, "diversity": diversity, "k": k}
    body = playlists.request_of(requests.SimilarRequest, fields, track, profile=profile)
    if body.diversity is None:
        body = body.model_copy(
            update={"diversity": requests.Diversity.model_validate({"per_artist": playlists.PER_ARTIST})}
        )
    hits = answers.similar(state, body, service.uploaded(state))["hits"]
    return _m3u(state, request, naming, hits, "Similar tracks")


@get("/path.m3u8", operation_id="path_playlist", response_class=Response, responses=_M3U)
def path_playlist(
    service: From,
    request: Request,
    naming: Naming,
    start: Annotated[str, Query(alias="from", description="Id of the first track.")],
    end: Annotated[str, Query(alias="to", description="Id of the last track.")],
    length: Json = "10",
    profile: Profile = "",
    weights: Json = "",
    filters: Json = "",
    diversity: Json = "",
) -> Response:
    """A playlist that turns from one track to another, with titles and lengths."""
    state = service.library.state()
    fields = {"length": length, "weights": weights, "filters": filters, "diversity": diversity}
    body = playlists.request_of(requests.PathRequest, fields, ends=(start, end), profile=profile)
    return _m3u(state, request, naming, answers.path(state, body)["tracks"], "From track to track")


def _m3u(
    state: LibraryState, request: Request, naming: playlists.Naming, hits: list[responses.Hit], title: str
) -> Response:
    audio = f"{request.url.scheme}://{request.url.netloc}{state.root_path}/api/v1/audio"
    text = playlists.playlist([hit["track"] for hit in hits], f"{state.catalog.name}: {title}", naming, audio)
    headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="playlist.m3u8"'}
    return Response(text.encode("utf-8", "surrogateescape"), 200, headers, playlists.MEDIA_TYPE)


_SOUND = {"required": True, "content": {"audio/*": {}, "application/octet-stream": {}}}


@router.post(
    "/upload",
    operation_id="upload",
    status_code=201,
    response_model=responses.Uploaded,
    openapi_extra={"requestBody": _SOUND},
)
async def upload(service: From, request: Request) -> Response:
    """A sound file to query by: the token it returns is a query for an hour. Limited in size, duration and time."""
    state = await run_in_threadpool(service.library.state)
    return json_response(await service.uploads.receive(request, state.index.source), 201)


@get("/openapi.json", operation_id="openapi", response_model=dict[str, Any])
def openapi(service: From) -> Response:
    """This document."""
    state = service.library.state()
    return json_response(openapi_document(router.routes, state.index.source.layout.names, state.root_path))
