"""The HTTP API of an indexed library below /api/v1, and the web page that uses it; described by ``library_openapi``.

An identifier in a path is percent-encoded; a slash in it may be encoded or not. Errors are ``{"error": text}``. What comes from file names
and tags is data in JSON and nowhere else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msim_tf.errors import InputError
from msim_tf.library import api_answers as answers
from msim_tf.library.api_audio import audio_response
from msim_tf.library.api_errors import ApiError
from msim_tf.library.api_openapi import openapi_document
from msim_tf.library.api_state import LibraryState, LiveLibrary
from msim_tf.library.api_upload import UploadLimits, Uploads
from msim_tf.serving.guard import SECURITY_HEADERS, check_content_type, check_request, read_body
from msim_tf.serving.versions import Models

_LOG = logging.getLogger(__name__)
_PREFIX = "/api/v1/"
_WEB = Path(__file__).parent / "web"
_MOST_BODY = 2**20
_BODY_SECONDS = 30
_PAGES = {"limit": (50, 1, 500), "offset": (0, 0, 2**53)}
_MAP = {"limit": (2000, 2, 20_000)}

# (method, name) -> whether the path goes on with an identifier
_ROUTES = {
    ("GET", "library"): False,
    ("GET", "tracks"): False,
    ("GET", "tracks/"): True,
    ("GET", "artists"): False,
    ("GET", "map"): False,
    ("GET", "audio/"): True,
    ("GET", "openapi.json"): False,
    ("POST", "similar"): False,
    ("POST", "path"): False,
    ("POST", "explain"): False,
    ("POST", "profile"): False,
    ("POST", "upload"): False,
}


def library_app(library: LiveLibrary, uploads: Uploads, *, token: str = "") -> ASGIApp:
    """The ASGI application of a library: its API below /api/, and its web page.

    Args:
        library: the library.
        uploads: what receives sound files.
        token: what requests below /api/ must know; "" for none.
    """
    page = StaticFiles(directory=_WEB, html=True) if (_WEB / "index.html").exists() else None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path.startswith("/api/"):
            response: ASGIApp = await _response(Request(scope, receive), library, uploads, token)
            await response(scope, receive, _with_headers(send))
        elif page is not None:
            await _page(page, scope, receive, _with_headers(send))
        else:
            await _error(404, "the web page is not part of this installation")(scope, receive, send)

    return app


def library_site(
    path: str | Path, *, token: str = "", limits: UploadLimits = UploadLimits()
) -> Callable[[Models], ASGIApp]:
    """What ``running_server`` takes as its ``site``: makes the application of the library at ``path`` for the models that are served.

    Args:
        path: directory of the library.
        token: as ``library_app``.
        limits: what an upload may cost.

    Raises:
        InputError: if there is no library.
    """
    library = LiveLibrary(path)
    return lambda models: library_app(library, Uploads(models, limits), token=token)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
        await send(message)

    return sending


async def _page(page: StaticFiles, scope: Scope, receive: Receive, send: Send) -> None:
    """A file of the web page; all errors of ``StaticFiles`` are its way to say 404 or 405."""
    from starlette.exceptions import HTTPException

    try:
        response = await page.get_response(page.get_path(scope), scope)
    except HTTPException as error:
        response = _error(error.status_code, error.detail)
    await response(scope, receive, send)


async def _response(request: Request, library: LiveLibrary, uploads: Uploads, token: str) -> Response:
    """Any answer; every error becomes JSON."""
    try:
        check_request(request.method, request.headers, request.scope["query_string"].decode("latin-1"), token)
        name, identifier = _route(request)
        if name == "upload":
            state = await run_in_threadpool(library.state)
            return _json(await uploads.receive(request, state.index.source), 201)
        body = await _json_body(request) if request.method == "POST" else None
        return await run_in_threadpool(_answer, request, name, identifier, body, library, uploads)
    except ApiError as error:
        return _error(error.status, error.message, error.headers)
    except InputError as error:
        return _error(400, str(error))
    except ClientDisconnect:
        return Response(status_code=499)
    except MemoryError:
        return _error(503, "not enough memory for the request")
    except Exception:  # a fault of ours must reach the client as an answer and the log as a traceback
        _LOG.exception("%s %r", request.method, request.scope.get("path"))
        return _error(500, "internal error; see the server's log")


def _route(request: Request) -> tuple[str, str]:
    """The name of the route and the identifier after it.

    Raises:
        ApiError: 400, 404 or 405.
    """
    sent = request.scope.get("raw_path") or request.scope["path"].encode()
    rest = sent.split(b"?")[0].decode("latin-1")[len(_PREFIX) :] if sent.startswith(_PREFIX.encode()) else ""
    head, slash, tail = rest.partition("/")
    name = head + slash if tail else rest
    method = "GET" if request.method == "HEAD" else request.method
    allowed = [known for known, route in _ROUTES if route == name and _ROUTES[known, route] == bool(tail)]
    if not allowed:
        raise ApiError(404, "there is no such address; see /api/v1/openapi.json")
    if method not in allowed:
        told = ", ".join(["GET", "HEAD"] if allowed == ["GET"] else allowed)
        raise ApiError(405, f"method {request.method} is not allowed here, only {told}", {"Allow": told})
    try:
        return name, unquote(tail, errors="strict")
    except UnicodeDecodeError:
        raise ApiError(400, "the id in the address is not UTF-8, percent-encoded") from None


async def _json_body(request: Request) -> Any:
    check_content_type(request.headers, ("application/json",), "application/json")
    body = await read_body(request, _MOST_BODY, _BODY_SECONDS)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON ({error})") from None


def _answer(
    request: Request, name: str, identifier: str, body: Any, library: LiveLibrary, uploads: Uploads
) -> Response:
    state = library.state()
    asked = parse_qs(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if name == "audio/":
        track = state.require(identifier)
        return audio_response(state.catalog.music, track, request.method, Headers(scope=request.scope))
    if request.method == "POST":
        return _json(_posted(name, body, state, lambda token: uploads.vector(token, state.index.source)))
    if name == "library":
        return _json({**state.overview, "uploads": {"bytes": uploads.limits.bytes, "seconds": uploads.limits.seconds}})
    return _json(_got(name, identifier, asked, state))


def _got(name: str, identifier: str, asked: dict[str, list[str]], state: LibraryState) -> Any:
    if name in ("tracks", "artists"):
        numbers = {key: _number(asked, key, *limits) for key, limits in _PAGES.items()}
        listed = answers.tracks if name == "tracks" else answers.artists
        return listed(state, text=asked.get("search", [""])[0], **numbers)
    if name == "tracks/":
        return answers.track(state, state.require(identifier))
    if name == "map":
        dimension = asked.get("dimension", [""])[0]
        return answers.map_of(state, dimension=dimension, limit=_number(asked, "limit", *_MAP["limit"]))
    return openapi_document(state.index.source.layout.names)


def _posted(name: str, body: Any, state: LibraryState, uploaded: Callable[[str], np.ndarray]) -> Any:
    if name == "path":
        return answers.path(state, body)
    chosen = {"similar": answers.similar, "explain": answers.explained, "profile": answers.profile}[name]
    return chosen(state, body, uploaded)


def _number(asked: dict[str, list[str]], name: str, default: int, lowest: int, highest: int) -> int:
    text = asked.get(name, [str(default)])[0]
    if not (text.isascii() and text.isdigit() and len(text) < 18 and lowest <= int(text) <= highest):
        raise ApiError(400, f"{name} is {text!r}, expected a whole number in {lowest}..{highest}")
    return int(text)


def _json(value: Any, status: int = 200) -> Response:
    # As ASCII: half a surrogate pair in a name has no bytes, and \u2028 no meaning to scripts.
    return Response(json.dumps(value), status, media_type="application/json", headers={"Cache-Control": "no-store"})


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps({"error": message}), status, media_type="application/json", headers=headers)
