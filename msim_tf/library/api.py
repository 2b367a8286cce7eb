"""The HTTP API of an indexed library below /api/v1, and the web page that uses it.

Around the routes of ``api_routes`` stands what every request passes: who may ask, limits of bodies, security headers,
and one form of error, ``{"error": text}``. What comes from file names and tags is data in JSON and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msim_tf.errors import InputError
from msim_tf.library import api_metrics
from msim_tf.library.api_errors import ApiError, validation_line
from msim_tf.library.api_metrics import LibraryMetrics
from msim_tf.library.api_routes import Service, router
from msim_tf.library.api_state import LiveLibrary
from msim_tf.library.api_upload import UploadLimits, Uploads
from msim_tf.serving.guard import SECURITY_HEADERS, check_content_type, check_request, read_body
from msim_tf.serving.versions import Models

_PREFIX = "/api/v1"
_WEB = Path(__file__).parent / "web"
_MOST_BODY = 2**20
_BODY_SECONDS = 30


@dataclass(frozen=True)
class Access:
    """Who may ask a library's API, and from where.

    Attributes:
        token: what requests below /api/ must send; "" for none.
        origins: other sites whose pages may ask, e.g. "https://music.example".
        metrics: whether /metrics tells Prometheus of requests.
    """

    token: str = ""
    origins: tuple[str, ...] = ()
    metrics: bool = False

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not re.fullmatch(
                r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", origin
            ):
                raise InputError(f"origin {origin!r}: expected scheme and host of a site, e.g. https://music.example")


def library_site(
    path: str | Path, *, access: Access = Access(), root_path: str = "", limits: UploadLimits | None = None
) -> Callable[[Models], ASGIApp]:
    """What ``running_server`` takes as its ``site``: makes the application of a library for the models that are served.

    Args:
        path: directory of the library.
        access: as ``library_app``.
        root_path: the prefix of the addresses in answers, where a proxy serves the library below one.
        limits: what an upload may cost; None takes the defaults of ``UploadLimits``.

    Raises:
        InputError: if there is no library.
    """
    library = LiveLibrary(path, root_path=root_path)
    return lambda models: library_app(library, Uploads(models, limits or UploadLimits()), access)


def library_app(library: LiveLibrary, uploads: Uploads, access: Access = Access()) -> ASGIApp:
    """The ASGI application of a library: its API below /api/, and its web page.

    Args:
        library: the library.
        uploads: what receives sound files.
        access: who may ask.

    Raises:
        InputError: for metrics without prometheus_client.
    """
    # FastAPI's own documentation pages load scripts from elsewhere and stay off.
    api = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    api.state.service = Service(library, uploads)
    api.include_router(router)
    for kind in (InputError, RequestValidationError, HTTPException, ClientDisconnect, MemoryError, Exception):
        api.add_exception_handler(kind, _error_response)
    page = StaticFiles(directory=_WEB, html=True)
    metrics = LibraryMetrics(library) if access.metrics else None

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(api, access, metrics, scope, receive, send)

    # Outside of what checks requests: a browser asks before it sends a token, and reads refusals only with its headers.
    answering: ASGIApp = answer
    if access.origins:
        answering = CORSMiddleware(
            answer,
            allow_origins=access.origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("Authorization", "Content-Type", "Range"),
            expose_headers=("Accept-Ranges", "Content-Disposition", "Content-Range"),
        )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # which the server answers with 403
        elif scope["path"].startswith("/api/") or metrics and scope["path"] == api_metrics.PATH:
            await answering(scope, receive, _with_headers(send))
        else:
            await _page(page, scope, receive, _with_headers(send))

    return app


async def _error_response(request: Request, error: Exception) -> Response:
    """One line of JSON for whatever went wrong."""
    if isinstance(error, ApiError):
        return _error(error.status, error.message, error.headers)
    if isinstance(error, RequestValidationError):
        return _error(400, validation_line(error.errors()))
    if isinstance(error, InputError):
        return _error(400, str(error))
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    if isinstance(error, MemoryError):
        return _error(503, "not enough memory for the request")
    if not isinstance(error, HTTPException):
        return _error(500, "internal error; see the server's log")  # where its traceback is
    if error.status_code == 404:
        return _error(404, "there is no such address; see /api/v1/openapi.json")
    if error.status_code == 405:
        # A route of HEAD stands beside each of GET.
        allowed = (error.headers or {}).get("Allow", "").replace("GET", "GET, HEAD")
        message = f"method {request.method} is not allowed here, only {allowed}"
        return _error(405, message, {"Allow": allowed})
    return _error(error.status_code, "the body is not JSON")


async def _answer(
    api: FastAPI, access: Access, metrics: LibraryMetrics | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answers a request below /api/, or for the metrics."""
    query = scope["query_string"].decode("latin-1")
    try:
        check_request(scope["method"], Headers(scope=scope), query, access.token, origins=access.origins)
        if metrics and scope["path"] == api_metrics.PATH:
            await (await run_in_threadpool(metrics.response))(scope, receive, send)
            return
        # The server has decoded the path, with replacements for what is not UTF-8.
        path = _decoded(scope["raw_path"]) if scope.get("raw_path") else scope["path"]
        inner = {**scope, "path": path.removeprefix(_PREFIX), "raw_path": None}
        if not path.startswith(f"{_PREFIX}/"):
            raise HTTPException(404)
        # A body of JSON is received here, under its limits; an upload has limits of its own.
        if scope["method"] == "POST" and inner["path"] != "/upload":
            request = Request(scope, receive)
            check_content_type(request.headers, ("application/json",), "application/json")
            body = await read_body(request, _MOST_BODY, _BODY_SECONDS)
            if not body:
                raise ApiError(400, "the body is not JSON (it is empty)")
            receive = _whole_body(body, receive)
    # What is refused before a route is chosen has no operation to be counted for.
    except (ApiError, HTTPException, ClientDisconnect) as error:
        with metrics.measured({}, send) if metrics else nullcontext(send) as sending:
            await (await _error_response(Request(scope), error))(scope, receive, sending)
        return
    with metrics.measured(inner, send) if metrics else nullcontext(send) as sending:
        await api(inner, receive, sending)


def _decoded(path: bytes) -> str:
    try:
        return unquote_to_bytes(path.split(b"?")[0]).decode("utf-8")
    except UnicodeDecodeError:
        raise ApiError(400, "the id in the address is not UTF-8, percent-encoded") from None


def _whole_body(body: bytes, receive: Receive) -> Receive:
    """Hands out a body that was received, then whatever follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return messages.pop() if messages else await receive()

    return receiving


def _with_headers(send: Send) -> Send:
    """Sends the security headers with every answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
        await send(message)

    return sending


async def _page(page: StaticFiles, scope: Scope, receive: Receive, send: Send) -> None:
    """A file of the web page; all errors of ``StaticFiles`` are its way to say 404 or 405."""
    try:
        file = "docs.html" if scope["path"] == "/docs" else page.get_path(scope)
        response = await page.get_response(file, scope)
    except HTTPException as error:
        response = _error(error.status_code, error.detail)
    await response(scope, receive, send)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    line = " ".join(message.split())
    return Response(json.dumps({"error": line}), status, headers, media_type="application/json")
