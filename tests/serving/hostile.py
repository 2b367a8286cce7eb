"""Requests that no honest client sends, by REST and gRPC: drawn from a seed, so that each can be sent again."""

import base64
import gzip
import json
import random
import socket
from urllib.parse import urlsplit

import grpc
from tensorflow_serving.apis import predict_pb2

_SIGNATURES = ("", "serving_default", "mixed", "two", "wav", "same", "doubles", "longs", "halves", "uneven", "total")
_NAMES = ("x", "a", "b", "n", "s", "contents", "", "\0", "é" * 300)
_VERBS = ("predict", "classify", "regress", "PREDICT", "explain", "")
_METHODS = (
    "POST",
    "POST",
    "POST",
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "FOO",
    "get",
)
_LITERALS = (
    "0",
    "-0",
    "1.5",
    "1e309",
    "-1e400",
    "1e-400",
    "9" * 309,
    "9" * 400,
    "9" * 5000,
    "1.",
    ".5",
    "1e",
    "NaN",
    "Inf",
    "-Inf",
    "Infinity",
    "-Infinity",
    "nul",
    "true",
    "null",
    '"\\ud800"',
    '"\\udc00\\u0000"',
    '"\\x"',
    '"\xff"',
    '"\x01"',
    '"',
    "'a'",
    "2147483648",
    "-9223372036854775809",
    "18446744073709551616",
    "[]",
    "{}",
    "[[],[1]]",
    "[1,[2]]",
    '{"b64":"a b="}',
    '{"b64":"*"}',
    '{"b64":1}',
    '{"b64":"YQ==","b64":"Yg=="}',
    "[" * 70 + "]" * 70,
    "[" * 255 + "1" + "]" * 255,
    "[" * 3000,
    "[" + "[]," * 3000 + "[]]",
    "[" + "1," * 5000 + "1]",
)
_HEADERS = (
    ("Origin", "http://["),
    ("Origin", "null"),
    ("Origin", "http://evil.example"),
    ("Host", "evil.example"),
    ("Host", "["),
    ("Host", ""),
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "GZIP"),
    ("Content-Encoding", "x-gzip, br"),
    ("Upgrade", "websocket"),
    ("Connection", "upgrade"),
    ("Sec-Fetch-Site", "cross-site"),
    ("Authorization", "Bearer \xff"),
    ("Content-Type", "\xff"),
    ("X", "y" * 70_000),
    ("Expect", "100-continue"),
    ("Content-Length", "5"),
    ("Content-Length", "-1"),
    ("Content-Length", "9" * 400),
    ("Transfer-Encoding", "chunked"),
    ("Transfer-Encoding", "gzip, chunked"),
)


def json_body(draw: random.Random) -> bytes:
    """A request's body: sometimes right, mostly nearly so."""
    parts = []
    for key in draw.choices(("inputs", "instances", "signature_name", "examples", "extra"), k=draw.randint(0, 4)):
        if key == "signature_name" and draw.random() < 0.9:
            parts.append(f'"{key}": {json.dumps(draw.choice(_SIGNATURES))}')
        else:
            parts.append(f'"{key}": {_value(draw, 0)}')
    return _damaged(("{" + ", ".join(parts) + "}").encode("latin-1", "replace"), draw)


def _value(draw: random.Random, level: int) -> str:
    kind = draw.random()
    if level > 3 or kind < 0.5:
        return draw.choice(_LITERALS)
    if kind < 0.75:
        return "[" + ",".join(_value(draw, level + 1) for _ in range(draw.randint(0, 3))) + "]"
    members = (f"{json.dumps(draw.choice(_NAMES))}: {_value(draw, level + 1)}" for _ in range(draw.randint(0, 3)))
    return "{" + ",".join(members) + "}"


def _damaged(data: bytes, draw: random.Random) -> bytes:
    kind = draw.random()
    if kind < 0.6 or not data:
        return data
    at = draw.randrange(len(data))
    if kind < 0.75:
        return data[:at]
    if kind < 0.9:
        return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
    return data[:at] + draw.randbytes(draw.randint(1, 8)) + data[at:]


def http_request(draw: random.Random) -> bytes:
    """A whole request as it goes over the wire."""
    if draw.random() < 0.05:
        return draw.randbytes(draw.randint(1, 300)) + b"\r\n\r\n"
    name = draw.choice(("m", "other", "none", "%6d", "%", "%zz", "%ff", "m%00", "..", "a" * 5000))
    version = draw.choice(
        ("", "", "", "/versions/2", "/versions/" + "9" * 5000, "/versions/-1", "/labels/stable", "/labels/%ff")
    )
    tail = draw.choice((":" + draw.choice(_VERBS), ":predict", "/metadata", "", "/", "?a=b", "?token=x", "#f"))
    path = draw.choice(
        (f"/v1/models/{name}{version}{tail}",) * 9 + ("/v1/", "/", "*", "http://evil/v1/models/m", "/V1/MODELS/m")
    )
    body = json_body(draw)
    headers = dict(draw.sample(_HEADERS, draw.choice((0, 0, 0, 1, 2))))
    if "gzip" in headers.get("Content-Encoding", "").lower() and draw.random() < 0.8:
        body = _damaged(gzip.compress(body), draw)
    if "Transfer-Encoding" not in headers:
        headers.setdefault("Content-Length", str(len(body)))
    elif draw.random() < 0.5:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    headers.setdefault("Host", "127.0.0.1")
    lines = [
        f"{draw.choice(_METHODS)} {path} HTTP/1.1",
        "Connection: close",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


def send_http(url: str, request: bytes) -> bytes:
    """What the server answers until it closes the connection; nothing if it closes at once."""
    address = urlsplit(url)
    answer = b""
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        try:
            connection.sendall(request)
            # The server may wait for the rest of a body shorter than its Content-Length: say that there is none.
            connection.shutdown(socket.SHUT_WR)
            while block := connection.recv(65536):
                answer += block
        except (ConnectionResetError, BrokenPipeError):
            pass
    return answer


def grpc_request(draw: random.Random) -> bytes:
    """A PredictRequest, mostly wrong."""
    if draw.random() < 0.1:
        return draw.randbytes(draw.randint(0, 200))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = draw.choice(("m", "m", "m", "other", "none", ""))
    request.model_spec.signature_name = draw.choice(_SIGNATURES + ("nope", "n" * 5000))
    if draw.random() < 0.1:
        request.model_spec.version.value = draw.choice((2, 9, -1, 2**63 - 1))
    for name in draw.sample(("x", "a", "b", "n", "s", "contents", "é"), draw.randint(0, 3)):
        tensor = request.inputs[name]
        tensor.dtype = draw.choice((1, 1, 1, 2, 3, 7, 9, 10, 19, 20, 0, 21, 200))
        tensor.tensor_shape.unknown_rank = draw.random() < 0.1
        for _ in range(draw.choice((0, 1, 2, 3, 70, 300))):
            tensor.tensor_shape.dim.add(size=draw.choice((0, 1, 1, 1, 2, 3, -1, -(2**40), 10**6, 2**31, 2**40, 2**62)))
        tensor.float_val.extend(draw.choice(([], [1.5], [float("nan")] * 3, [1e38] * 100)))
        tensor.string_val.extend(draw.choice(([], [b"\xff"], [b"a"] * 3)))
        if draw.random() < 0.2:
            tensor.tensor_content = draw.randbytes(draw.choice((1, 4, 12, 1000)))
    request.output_filter.extend(draw.choice(([], [], ["y"], ["y", "y"], ["\u2028"])))
    return _damaged(request.SerializeToString(), draw)


def send_grpc(channel: grpc.Channel, message: bytes, method: str = "PredictionService/Predict") -> grpc.StatusCode:
    """The status that the server answers with."""
    call = channel.unary_unary(f"/tensorflow.serving.{method}")
    try:
        call(message, timeout=30)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def shown(request: bytes) -> str:
    """A request as text that can be pasted into a test."""
    return repr(request) if len(request) < 500 else base64.b85encode(request).decode()
