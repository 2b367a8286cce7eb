"""TensorFlow Serving's REST API over the models of a server, as an ASGI application."""

from __future__ import annotations

import json
import logging
import re
import zlib
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from msim_tf.export.signatures import DEFAULT_SIGNATURE, signature_to_json
from msim_tf.export.status import ServingError, http_status
from msim_tf.serving.json_tensors import invalid
from msim_tf.serving.rest_predict import parse_body, request_inputs, response_body, signature_name
from msim_tf.serving.versions import Models

_LOG = logging.getLogger(__name__)

_WHICH = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(rf"/v1/models/(?P<name>[^/:]+){_WHICH}:(?P<verb>classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?P<metadata>/metadata)?", re.IGNORECASE)

_NO_PAGE = "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"


class _BodyTooLarge(Exception):
    """The request's body is over the limit."""


def rest_app(models: Models, *, max_request_bytes: int, timeout: float) -> ASGIApp:
    """The ASGI application.

    Args:
        models: what is served.
        max_request_bytes: a larger body (also: larger once unzipped) is answered with 413 and not kept; the real server has no limit.
        timeout: seconds for one run of a model, then 504.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the REST API does not speak {scope['type']}")
        response = await _response(Request(scope, receive), models, max_request_bytes, timeout)
        await response(scope, receive, send)

    return app


async def _response(request: Request, models: Models, max_request_bytes: int, timeout: float) -> Response:
    """Any answer; every error becomes the JSON that the real server sends."""
    try:
        body = await _body(request, max_request_bytes)
        return await run_in_threadpool(_answer, models, request.method, _path(request), body, timeout)
    except ServingError as error:
        return _error(http_status(error.code), error.message)
    except _BodyTooLarge:
        return _error(413, f"The request body is larger than {max_request_bytes} bytes")
    except ClientDisconnect:
        return Response(status_code=499)
    except MemoryError:
        return _error(http_status("RESOURCE_EXHAUSTED"), "Not enough memory for the request")
    except Exception:  # a fault of ours must reach the client as an answer and the log as a traceback
        _LOG.exception("%s %s", request.method, _path(request))
        return _error(500, "Internal error; see the server's log")


def _path(request: Request) -> str:
    """The path as sent, with the query string."""
    path = request.scope.get("raw_path") or request.scope["path"].encode()
    query = request.scope["query_string"]
    return (path + (b"?" + query if query else b"")).decode("latin-1")


async def _body(request: Request, limit: int) -> bytes:
    """The whole body, unzipped if it is gzip.

    Raises:
        _BodyTooLarge: as soon as that is known.
        ServingError: INVALID_ARGUMENT if it claims to be gzip and is not.
    """
    if int(request.headers.get("content-length") or 0) > limit:
        raise _BodyTooLarge
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise _BodyTooLarge
    body = b"".join(parts)
    return _unzipped(body, limit) if request.headers.get("content-encoding", "").lower() == "gzip" else body


def _unzipped(body: bytes, limit: int) -> bytes:
    decoder = zlib.decompressobj(wbits=31)
    try:
        data = decoder.decompress(body, limit + 1)
    except zlib.error:
        raise invalid("Failed to uncompress gzip request body") from None
    if len(data) > limit:
        raise _BodyTooLarge
    if not decoder.eof:
        raise invalid("Failed to uncompress gzip request body")
    return data


def _answer(models: Models, method: str, path: str, body: bytes, timeout: float) -> Response:
    if not re.match("/v1/", path, re.IGNORECASE):
        return Response(_NO_PAGE, 404, media_type="text/html")
    prediction = _PREDICTION.fullmatch(path) if method == "POST" else None
    status = _STATUS.fullmatch(path) if method == "GET" else None
    match = prediction or status
    # The pattern ignores case, the comparison of the verb does not.
    if match is None or (prediction and prediction["verb"] not in ("predict", "classify", "regress")):
        raise invalid(f"Malformed request: {method} {path}")
    version = int(match["version"]) if match["version"] else None
    if version is not None and version >= 2**63:
        return Response(b"", 400, media_type="application/json")
    if match["name"] is None:
        raise invalid("Missing model name in request.")
    name = unquote(match["name"])
    which: dict[str, Any] = {"name": name, "version": version, "label": unquote(match["label"] or "")}
    if prediction:
        return (
            _predict(models, which, body, timeout)
            if prediction["verb"] == "predict"
            else _classify(models, which, prediction["verb"])
        )
    # As the real server does: the status ignores a label and lists every version.
    return _metadata(models, which) if match["metadata"] else _status(models, name, version)


def _predict(models: Models, which: dict[str, Any], body: bytes, timeout: float) -> Response:
    parsed = parse_body(body)
    name = signature_name(parsed)
    with models.lease(**which) as (_, servable):
        if (name or DEFAULT_SIGNATURE) not in servable.signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        signature = servable.signature(name)
        if not signature.inputs:
            raise invalid(f"Failed to get input map for signature: {name or 'DEFAULT'}")
        inputs, row_format = request_inputs(parsed, signature)
        outputs = servable.run(name, inputs, timeout=timeout)
    return _json(response_body(outputs, row_format=row_format))


def _classify(models: Models, which: dict[str, Any], verb: str) -> Response:
    with models.lease(**which) as (_, servable):
        kind = "classification" if verb == "classify" else "regression"
        raise invalid(f"No {kind} inputs found in SignatureDef: {servable.signature_defs.get(DEFAULT_SIGNATURE, '')}")


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


def _json(body: str | bytes) -> Response:
    return Response(body, media_type="application/json")


def _error(status: int, message: str) -> Response:
    # A message may quote half a surrogate pair, which has no bytes.
    body = json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, media_type="application/json")
