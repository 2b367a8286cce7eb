"""Stands before a Subsonic or OpenSubsonic server and answers what similar music is, from a library of msim.

Every call goes through to the server untouched, except for these, which every client's "instant mix" makes:

    getSimilarSongs, getSimilarSongs2      songs like a song, an album or an artist
    getSonicSimilarTracks, findSonicPath   the OpenSubsonic extension ``sonicSimilarity``
    getOpenSubsonicExtensions              the server's own, and ``sonicSimilarity``

Songs are matched with tracks by ``matcher``. Where nothing matches, the call goes through as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from msim_tf.subsonic.matcher import SongMatcher, same_file, same_song
from msim_tf.subsonic.responses import failure, subsonic_response
from msim_tf.subsonic.upstream import Refused, Upstream

EXTENSION = {"name": "sonicSimilarity", "versions": [1]}
_MOST = 500  # songs in one answer, as other servers have it
_EXAMPLES = 50  # tracks of an artist or an album that a mix starts from
_AT_ONCE = 8  # questions to the server under way
_FORM_BYTES = 2**16
_NOT_FOUND = 70
_METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]

_log = logging.getLogger(__name__)
Song = dict[str, Any]  # a Child of the Subsonic API


@dataclass(frozen=True)
class SimilarTrack:
    """A track that the library proposes.

    Attributes:
        identifier: the track.
        similarity: 1 is the same song, 0 the most different (OpenSubsonic's scale).
    """

    identifier: str
    similarity: float


class Recommender(Protocol):
    """What the proxy asks of a library. Methods may take long; they run in threads."""

    def matcher(self) -> SongMatcher:
        """The tracks of the library as it is now."""

    def similar(self, tracks: Sequence[str], count: int) -> list[SimilarTrack]:
        """The tracks nearest to all of ``tracks``, which are not among them, nearest first."""

    def path(self, start: str, end: str, count: int) -> list[SimilarTrack]:
        """A path of at most ``count`` tracks from ``start`` to ``end``, both included."""


def subsonic_proxy(upstream: Upstream, library: Recommender) -> Starlette:
    """The proxy as an ASGI application."""
    proxy = _Proxy(upstream, library)
    answered = {
        "getSimilarSongs": proxy.similar_songs,
        "getSimilarSongs2": proxy.similar_songs,
        "getSonicSimilarTracks": proxy.sonic_similar_tracks,
        "findSonicPath": proxy.sonic_path,
        "getOpenSubsonicExtensions": proxy.extensions,
    }
    # Players call methods with the suffix ".view" or without it.
    routes = [
        Route(f"/rest/{method}{suffix}", proxy.endpoint(method, answer), methods=["GET", "POST"])
        for method, answer in answered.items()
        for suffix in ("", ".view")
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await upstream.close()

    return Starlette(
        routes=[*routes, Route("/{path:path}", proxy.through, methods=_METHODS)],
        lifespan=lifespan,
    )


_Answer = Callable[[str, Mapping[str, str]], Awaitable[Response | None]]


class _Proxy:
    def __init__(self, upstream: Upstream, library: Recommender) -> None:
        self._upstream = upstream
        self._library = library

    async def through(self, request: Request) -> Response:
        """Passes a request on."""
        return await self._sent_on(request)

    def endpoint(self, method: str, answer: _Answer) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of a method that the library answers; where it has no answer, the server is asked."""

        async def handle(request: Request) -> Response:
            body = await _form(request)
            if body is None:
                return PlainTextResponse("the form is too large", 413)
            # OpenSubsonic's formPost sends the parameters in the body.
            text = body.decode("utf-8", "replace")
            form = parse_qsl(text, keep_blank_values=True) if request.method == "POST" else []
            parameters = {**dict(request.query_params), **dict(form)}
            try:
                response = await answer(method, parameters)
            except (Refused, httpx.HTTPError):
                response = None  # the server's own words, or its absence, reach the client below
            except Exception:
                # Music must go on when the library fails.
                _log.exception("%s: the library could not answer", method)
                response = None
            return response or await self._sent_on(request, body, parameters)

        return handle

    async def _sent_on(
        self, request: Request, body: bytes | None = None, parameters: Mapping[str, str] | None = None
    ) -> Response:
        try:
            return await self._upstream.pass_through(request, body)
        except ClientDisconnect:
            return Response(status_code=499)
        except httpx.TimeoutException:
            status, message = 504, "the music server takes too long"
        except (httpx.HTTPError, httpx.InvalidURL):
            status, message = 502, "the music server cannot be reached"
        if parameters is None and request.url.path.startswith("/rest/"):
            parameters = dict(request.query_params)
        return PlainTextResponse(message, status) if parameters is None else failure(0, message, parameters)

    async def similar_songs(self, method: str, parameters: Mapping[str, str]) -> Response | None:
        """getSimilarSongs and getSimilarSongs2."""
        if "id" not in parameters:
            return None
        matches = await self._similar(parameters["id"], _count(parameters, 50), parameters)
        name = method.removeprefix("get")
        key = name[0].lower() + name[1:]
        return subsonic_response({key: {"song": [song for song, _ in matches]}}, parameters) if matches else None

    async def sonic_similar_tracks(self, _: str, parameters: Mapping[str, str]) -> Response | None:
        """getSonicSimilarTracks."""
        if "id" not in parameters:
            return failure(10, "Required parameter id is missing", parameters)
        matches = await self._similar(parameters["id"], _count(parameters, 10), parameters)
        return subsonic_response({"sonicMatch": _sonic_matches(matches)}, parameters)

    async def sonic_path(self, _: str, parameters: Mapping[str, str]) -> Response | None:
        """findSonicPath."""
        for name in ("startSongId", "endSongId"):
            if name not in parameters:
                return failure(10, f"Required parameter {name} is missing", parameters)
        # Both ends must be tracks of the library, and different ones.
        matcher = await run_in_threadpool(self._library.matcher)
        ends = []
        for name in ("startSongId", "endSongId"):
            song = (await self._upstream.ask("getSong", parameters, id=parameters[name])).get("song", {})
            track = matcher.track(song)
            if track is None:
                return failure(_NOT_FOUND, f"the library has no track for song {parameters[name]}", parameters)
            ends.append(track)
        count = max(2, _count(parameters, 25))
        if ends[0] == ends[1]:
            return failure(0, "startSongId and endSongId are the same song", parameters)
        steps = await run_in_threadpool(self._library.path, ends[0], ends[1], count)
        return subsonic_response(
            {"sonicMatch": _sonic_matches(await self._songs(steps, matcher, parameters))}, parameters
        )

    async def extensions(self, _: str, parameters: Mapping[str, str]) -> Response | None:
        """getOpenSubsonicExtensions: needs no credentials, as its documentation has it."""
        try:
            envelope = await self._upstream.ask("getOpenSubsonicExtensions", parameters)
            own = envelope.get("openSubsonicExtensions", [])
        except Refused:
            own = []  # a server of the original API
        others = [extension for extension in own if extension.get("name") != EXTENSION["name"]]
        return subsonic_response({"openSubsonicExtensions": [*others, EXTENSION]}, parameters)

    async def _similar(self, seed: str, count: int, credentials: Mapping[str, str]) -> list[tuple[Song, float]]:
        """Songs of the server that are like a song, an album or an artist of it, and how similar they are."""
        matcher = await run_in_threadpool(self._library.matcher)
        examples = await self._examples(seed, matcher, credentials)
        if not examples:
            return []
        # The server may lack some tracks of the library, so twice as many are proposed as are wanted.
        proposals = await run_in_threadpool(self._library.similar, examples[:_EXAMPLES], 2 * count)
        songs: list[tuple[Song, float]] = []
        for first in range(0, len(proposals), count):
            songs += await self._songs(proposals[first : first + count], matcher, credentials)
            if len(songs) >= count:
                break
        return songs[:count]

    async def _examples(self, seed: str, matcher: SongMatcher, credentials: Mapping[str, str]) -> list[str]:
        """Tracks of the library that stand for a song, an album or an artist of the server."""
        # An id does not tell what it is of, so the server is asked: as a song, an album, then an artist.
        try:
            song = (await self._upstream.ask("getSong", credentials, id=seed)).get("song", {})
            track = matcher.track(song)
            return [] if track is None else [track]
        except Refused as refusal:
            if refusal.code not in (0, _NOT_FOUND):
                raise
        try:
            album = (await self._upstream.ask("getAlbum", credentials, id=seed)).get("album", {})
            return matcher.tracks_on(str(album.get("name", "")), str(album.get("artist", "")))
        except Refused as refusal:
            if refusal.code not in (0, _NOT_FOUND):
                raise
        artist = (await self._upstream.ask("getArtist", credentials, id=seed)).get("artist", {})
        return matcher.tracks_by(str(artist.get("name", "")))

    async def _songs(
        self, proposals: Sequence[SimilarTrack], matcher: SongMatcher, credentials: Mapping[str, str]
    ) -> list[tuple[Song, float]]:
        """The server's songs of proposed tracks, in their order; tracks that it does not have are left out."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(proposal: SimilarTrack) -> Song | None:
            async with limit:
                return await self._song(proposal.identifier, matcher, credentials)

        songs = await asyncio.gather(*map(one, proposals))
        return [(song, proposal.similarity) for song, proposal in zip(songs, proposals) if song is not None]

    async def _song(self, track: str, matcher: SongMatcher, credentials: Mapping[str, str]) -> Song | None:
        """The server's song of a track: looked for by its title, or by its file name where it has none."""
        metadata = matcher.metadata(track)
        text = metadata.get("title") or track.rpartition("/")[2].rpartition(".")[0]
        answer = await self._upstream.ask("search3", credentials, query=text, songCount=50, artistCount=0, albumCount=0)
        # The same file is surest, since a song may lie there several times; else the same recording by its tags.
        songs = answer.get("searchResult3", {}).get("song", [])
        for song in songs:
            if same_file(track, song):
                return song
        return next((song for song in songs if same_song(metadata, song)), None)


def _sonic_matches(songs: Sequence[tuple[Song, float]]) -> list[dict[str, Any]]:
    return [{"entry": song, "similarity": round(similarity, 4)} for song, similarity in songs]


def _count(parameters: Mapping[str, str], default: int) -> int:
    text = parameters.get("count", "")
    return min(max(int(text), 1), _MOST) if text.isdecimal() and len(text) < 10 else default


async def _form(request: Request) -> bytes | None:
    """The body of a request; None if it is larger than any form of this API."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            return None
    return body
