"""TensorFlow Serving's REST API over the models of a server, as an ASGI application.

A request's body is received under a limit and a budget on the event loop; unzipping, parsing and the model run in a
bounded pool of threads, so that one client's gigabyte does not keep the others waiting.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import anyio
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from msim_tf.export import error_texts as texts
from msim_tf.export.signatures import DEFAULT_SIGNATURE, signature_to_json
from msim_tf.export.status import ServingError, http_status
from msim_tf.serving import monitoring
from msim_tf.serving.guard import HttpError, check_request, content_length
from msim_tf.serving.limits import Budget, MemoryReturn, Reservation, has_too_many_values, values_within
from msim_tf.serving.monitoring import Monitoring, measured
from msim_tf.serving.rest_predict import (
    check_examples,
    parse_body,
    request_inputs,
    response_body,
    signature_name,
)
from msim_tf.serving.versions import Models

_LOG = logging.getLogger(__name__)

_WHICH = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(rf"/v1/models/(?P<name>[^/:]+){_WHICH}:(?P<verb>classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?P<metadata>/metadata)?", re.IGNORECASE)
_METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")

_PAGE = "<HTML><HEAD>\n<TITLE>{status} {phrase}</TITLE>\n</HEAD><BODY>\n<H1>{phrase}</H1>\n</BODY></HTML>\n"
_UNZIPPED_PART = 2**20


@dataclass(frozen=True)
class RestGuard:
    """What a REST request must know, and what it may cost.

    Attributes:
        token: what requests must send; "" for none.
        loopback: whether the server listens on loopback only.
        max_bytes: a larger body (also: larger once unzipped) is answered with 413 and
            not kept; the real server has no limit.
        body_seconds: to send a body in, then 408.
        run_seconds: for one run of a model, then 504.
        budget: bytes of all requests under way; 429 beyond.
        memory: hands memory back after large requests.
        threads: requests that are parsed and answered at the same time; others wait.
        monitoring: counts requests; None if nobody asked for it.
    """

    token: str
    loopback: bool
    max_bytes: int
    body_seconds: float
    run_seconds: float
    budget: Budget
    memory: MemoryReturn
    threads: int = 32
    monitoring: Monitoring | None = None


def rest_app(models: Models, guard: RestGuard) -> ASGIApp:
    """The ASGI application."""
    limiters: dict[str, anyio.CapacityLimiter] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # A limiter belongs to an event loop, so the first request makes it. Status and metadata wait for no prediction.
        if not limiters:
            limiters.update(POST=anyio.CapacityLimiter(guard.threads), GET=anyio.CapacityLimiter(4))
        limiter = limiters["POST" if scope["method"] == "POST" else "GET"]
        response = await _response(Request(scope, receive), models, guard, limiter)
        await response(scope, receive, send)

    return app


async def _response(request: Request, models: Models, guard: RestGuard, limiter: anyio.CapacityLimiter) -> Response:
    """Any answer; every error becomes the JSON that the real server sends."""
    try:
        if request.method not in _METHODS:
            return _page(501, "Not Implemented")
        path = _path(request, guard.token)
        # Addresses that are no call of a model.
        if guard.monitoring and path == monitoring.PATH and request.method in ("GET", "HEAD"):
            _check_access(request, guard)
            return Response(guard.monitoring.text(), media_type=monitoring.CONTENT_TYPE)
        if not re.match("/v1/", path, re.IGNORECASE):
            return _page(404, "Not Found")
        if request.method == "OPTIONS":
            # The preflight of another page: without --rest_api_enable_cors_support the
            # real server refuses it without a word.
            return Response(b"", 400, media_type="text/html")
        _check_access(request, guard)
        # The body is received here, on the event loop, and answered in a thread; its bytes count until the answer.
        with guard.budget.reservation() as reservation:
            try:
                parts = await _received(request, guard, reservation)
                zipped = "gzip" in request.headers.get("content-encoding", "")
                call = _Call(request.method, path, parts, zipped)
                # Abandoned only when the server ends: a model that runs does not hold up the end.
                return await run_sync(
                    _answer_or_error, models, call, guard, reservation, abandon_on_cancel=True, limiter=limiter
                )
            finally:
                guard.memory.after(reservation.size)
    except ClientDisconnect:
        return Response(status_code=499)
    except Exception as error:
        return _error_response(error, f"{request.method} {request.scope.get('path')!r:.200}")


@dataclass(frozen=True)
class _Call:
    """One request, received: the parts of its body, and whether they are gzip."""

    method: str
    path: str
    parts: list[bytes]
    zipped: bool


def _answer_or_error(models: Models, call: _Call, guard: RestGuard, reservation: Reservation) -> Response:
    """The answer; an exception stays in this thread, because its way to another one would
    keep the parsed request in memory.
    """
    try:
        return _answer(models, call, guard, reservation)
    except Exception as error:
        return _error_response(error, f"{call.method} {call.path:.200}")


def _error_response(error: Exception, request: str) -> Response:
    if isinstance(error, ServingError):
        return _error(http_status(error.code), error.message)
    if isinstance(error, HttpError):
        return _error(error.status, error.message, error.headers)
    if isinstance(error, MemoryError):
        return _error(http_status("RESOURCE_EXHAUSTED"), texts.OUT_OF_MEMORY.text)
    # A fault of ours must reach the client as an answer and the log as a traceback.
    _LOG.error("%s", request, exc_info=error)
    return _error(500, texts.INTERNAL_ERROR.text)


def _check_access(request: Request, guard: RestGuard) -> None:
    """Without a token, pages of other sites could post and no more: their browsers do not show them the answer."""
    if guard.token or (request.method not in ("GET", "HEAD") and "host" in request.headers):
        query = request.scope["query_string"].decode("latin-1")
        check_request(request.method, request.headers, query, guard.token, loopback=guard.loopback)


def _path(request: Request, token: str) -> str:
    """The path as sent, with the query string; a token in it is for the guard, and no part of the path."""
    path = (request.scope.get("raw_path") or request.scope["path"].encode("utf-8", "replace")).split(b"?")[0]
    query = request.scope["query_string"]
    if token:
        query = b"&".join(part for part in query.split(b"&") if not part.startswith(b"token="))
    return (path + (b"?" + query if query else b"")).decode("latin-1")


async def _received(request: Request, guard: RestGuard, reservation: Reservation) -> list[bytes]:
    """The parts of the body. Only what has arrived is reserved, so that slow clients do not hold the budget.

    Raises:
        HttpError: 413 as soon as the body is known to be too large, 408 if it takes too long.
        ServingError: RESOURCE_EXHAUSTED if the budget is used up.
    """
    too_large = HttpError(413, texts.REQUEST_TOO_LARGE.text.format(limit=guard.max_bytes), {"Connection": "close"})
    if content_length(request.headers) > guard.max_bytes:
        raise too_large
    parts: list[bytes] = []
    try:
        with anyio.fail_after(guard.body_seconds):
            async for part in request.stream():
                parts.append(part)
                reservation.grow(len(part))
                if reservation.size > guard.max_bytes:
                    raise too_large
    except TimeoutError:
        message = texts.BODY_TOO_SLOW.text.format(seconds=guard.body_seconds)
        raise HttpError(408, message, {"Connection": "close"}) from None
    return parts


def _unzipped(parts: list[bytes], limit: int, reservation: Reservation) -> bytes:
    """The content of a gzip body, piece by piece within the limit and the budget; empty if
    it is no gzip, as in the real server.

    Raises:
        HttpError: 413 if it is larger than ``limit`` bytes.
        ServingError: RESOURCE_EXHAUSTED if the budget is used up.
    """
    decoder = zlib.decompressobj(wbits=31)
    body = bytearray()
    for part in parts:
        # Bytes after the end of the stream make it unreadable to the real server, too.
        if part and decoder.eof:
            return b""
        has_more = True
        while has_more:
            most = min(_UNZIPPED_PART, limit + 1 - len(body))
            try:
                piece = decoder.decompress(part, most)
            except zlib.error:
                return b""
            part = decoder.unconsumed_tail
            # A piece of full length may not be the last, even if no input is left.
            has_more = bool(part) or len(piece) == most
            reservation.grow(len(piece))
            body += piece
            if len(body) > limit:
                raise HttpError(413, texts.REQUEST_TOO_LARGE.text.format(limit=limit))
    return bytes(body) if decoder.eof and not decoder.unused_data else b""


def _answer(models: Models, call: _Call, guard: RestGuard, reservation: Reservation) -> Response:
    prediction = _PREDICTION.fullmatch(call.path) if call.method == "POST" else None
    status = _STATUS.fullmatch(call.path) if call.method == "GET" else None
    match = prediction or status
    # The pattern ignores case, the comparison of the verb does not.
    if match is None or (prediction and prediction["verb"] not in ("predict", "classify", "regress")):
        raise texts.MALFORMED_REQUEST.error(method=call.method, path=call.path)
    # Leading zeros are allowed; 19 digits hold any int64, and Python refuses to read thousands.
    digits = (match["version"] or "").lstrip("0")
    version = int(digits[:20] or "0") if match["version"] else None
    if version is not None and version >= 2**63:
        return _json(b"", 400)
    if match["name"] is None:
        raise texts.NO_MODEL_NAME_REST.error()
    name = unquote(match["name"])
    which: dict[str, Any] = {"name": name, "version": version, "label": unquote(match["label"] or "")}
    if prediction is None:
        # As the real server does: the status ignores a label and lists every version.
        return _metadata(models, which) if match["metadata"] else _status(models, name, version)
    with measured(guard.monitoring, models, name, prediction["verb"], "REST"):
        return _prediction(models, which, prediction["verb"], call, guard, reservation)


def _prediction(
    models: Models, which: dict[str, Any], verb: str, call: _Call, guard: RestGuard, reservation: Reservation
) -> Response:
    """Runs a signature; classify and regress are refused, since the signatures here are predict signatures."""
    # The body as one text, without its parts beside it in memory.
    body = _unzipped(call.parts, guard.max_bytes, reservation) if call.zipped else b"".join(call.parts)
    call.parts.clear()
    if has_too_many_values(body, values_within(guard.max_bytes)):
        raise HttpError(413, texts.TOO_MANY_VALUES.text.format(limit=values_within(guard.max_bytes)))
    parsed = parse_body(body)
    name = signature_name(parsed)
    # The real server, too, reads the examples before it refuses them.
    if verb != "predict":
        check_examples(parsed)
        with models.lease(**which) as (_, servable):
            kind = "classification" if verb == "classify" else "regression"
            signature = servable.signature_defs.get(DEFAULT_SIGNATURE, "")
            raise texts.NO_KIND_OF_INPUTS.error(kind=kind, signature=signature)
    with models.lease(**which) as (_, servable):
        if (name or DEFAULT_SIGNATURE) not in servable.signatures:
            raise texts.UNKNOWN_SIGNATURE_REST.error(signature=name or DEFAULT_SIGNATURE)
        signature = servable.signature(name)
        if not signature.inputs:
            raise texts.NO_INPUT_MAP.error(signature=name or "DEFAULT")
        inputs, row_format = request_inputs(parsed, signature)
        # The parsed lists are several times as large as the arrays made of them.
        parsed.clear()
        outputs = servable.run(name, inputs, timeout=guard.run_seconds)
    return _json(response_body(outputs, row_format=row_format))


def _status(models: Models, name: str, version: int | None) -> Response:
    statuses = [
        {
            "version": str(status.version),
            "state": status.state,
            "status": {"error_code": status.code, "error_message": status.message},
        }
        for status in models.statuses(name, version)
    ]
    return _json(json.dumps({"model_version_status": statuses}, indent=1))


def _metadata(models: Models, which: dict[str, Any]) -> Response:
    with models.lease(**which) as (version, servable):
        signatures = {name: signature_to_json(signature) for name, signature in servable.signatures.items()}
    spec = {"name": which["name"], "signature_name": "", "version": str(version)}
    metadata = {"signature_def": {"signature_def": signatures}}
    return _json(json.dumps({"model_spec": spec, "metadata": metadata}, indent=1))


def _json(body: str | bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _page(status: int, phrase: str) -> Response:
    return Response(_PAGE.format(status=status, phrase=phrase), status, media_type="text/html")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    # A message may quote bytes that are not UTF-8.
    body = json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, media_type="application/json", headers=headers)
