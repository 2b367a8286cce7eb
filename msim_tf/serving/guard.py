"""Who may use a server, and how much a request may send: the checks that the REST API, gRPC and a library's API share.

Any page that a browser has open can send requests to 127.0.0.1. Three checks keep such pages out of a server without a
token. The Host header must name this machine (otherwise a foreign name was rebound to 127.0.0.1). The browser's own
Origin and Sec-Fetch-Site headers must not name another site. And an API of our own accepts only content types that a
page of another origin cannot send without asking first. CORS headers are sent to the origins that the library's API is
told of, and to no other.

With a token every request needs it: ``Authorization: Bearer TOKEN``, or for GET ``?token=TOKEN``, because
the audio elements of a page send no headers.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Collection, Mapping
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request

from msim_tf.errors import InputError

# A file that was dropped on the page is played from the browser's own memory, hence blob:.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a token may be in the address
    "Cross-Origin-Resource-Policy": "same-origin",
}


class HttpError(InputError):
    """A request that is refused.

    Attributes:
        status: the HTTP status.
        message: one line of text.
        headers: to send with the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_request(
    method: str,
    headers: Headers,
    query: str,
    token: str,
    *,
    loopback: bool = True,
    origins: Collection[str] = (),
) -> None:
    """Lets a request pass or refuses it.

    Args:
        method: of the request.
        headers: of the request.
        query: its query string.
        token: what the request must send; "" for a server that has none.
        loopback: whether the server listens on loopback only. A server without a token that other
            machines reach by any name cannot compare that name, so it refuses browsers unless they
            address it by a number or by this machine's name.
        origins: other sites whose pages may send it.

    Raises:
        HttpError: 401 without the token; 403 for a foreign host or site.
    """
    host = headers.get("host", "")
    # Browsers name the site of the page that asks: it must be this server's, or one of those allowed.
    origin = headers.get("origin")
    if origin not in origins:
        foreign = origin is not None and _network_location(origin) != host.lower()
        if foreign or headers.get("sec-fetch-site") == "cross-site":
            raise HttpError(403, "requests from pages of other sites are refused")
    if token:
        authorization = headers.get("authorization", "")
        accepted = has_token(authorization, token)
        # A page's audio elements send no headers: without one, GET may have the token in the address.
        if not authorization.lower().startswith("bearer ") and method in ("GET", "HEAD"):
            in_address = parse_qs(query).get("token", [""])[0]
            accepted = hmac.compare_digest(in_address.encode("utf-8", "replace"), token.encode())
        if not accepted:
            raise HttpError(401, "a token is required: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        return
    # Without a token: a foreign name in Host is one whose owner has pointed it at this machine (DNS rebinding).
    from_browser = "origin" in headers or "sec-fetch-site" in headers
    allowed = is_loopback(_host_name(host)) if loopback else not from_browser or _is_this_machine(_host_name(host))
    if not allowed:
        raise HttpError(403, f"host {host!r} is not this machine; ask for 127.0.0.1 or localhost")


def has_token(authorization: str, token: str) -> bool:
    """Whether the header or metadata value ``authorization`` is "Bearer" and the token;
    takes equally long for every wrong one.
    """
    scheme, _, bearer = authorization.partition(" ")
    # Back to the bytes that were sent: Starlette reads headers as Latin-1, gRPC as UTF-8.
    try:
        sent = bearer.strip().encode("latin-1")
    except UnicodeEncodeError:
        sent = bearer.strip().encode("utf-8", "replace")
    return scheme.lower() == "bearer" and hmac.compare_digest(sent, token.encode())


def check_content_type(headers: Headers, expected: tuple[str, ...], shown: str) -> None:
    """Refuses bodies of other types; a page of another origin cannot send these
    without a preflight, which is not answered.

    Args:
        headers: of the request.
        expected: types; one that ends in "/" stands for all types below it.
        shown: how an error calls them.

    Raises:
        HttpError: 415.
    """
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if not any(kind == value or value.endswith("/") and kind.startswith(value) for value in expected):
        raise HttpError(415, f"content type {kind or 'none'!r}: expected {shown}")


async def read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """The whole body.

    Args:
        request: the request.
        max_bytes: a longer one is refused as soon as that is certain.
        seconds: to send it in.

    Raises:
        HttpError: 413 or 408.
    """
    too_large = HttpError(413, f"the body is larger than {max_bytes} bytes", {"Connection": "close"})
    if content_length(request.headers) > max_bytes:
        raise too_large
    # Counted as it comes, since the declared length may be absent or wrong.
    body = bytearray()
    try:
        with anyio.fail_after(seconds):
            async for part in request.stream():
                body += part
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise HttpError(408, f"the body took longer than {seconds:g} s", {"Connection": "close"}) from None
    return bytes(body)


def content_length(headers: Headers) -> int:
    """The length that a request declares; 0 if it declares none, or nothing that is a number."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _network_location(origin: str) -> str | None:
    """ "host:port" of an Origin header; None if it is no address."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _is_this_machine(name: str) -> bool:
    """Whether a name in a Host header cannot be a foreign one: a number, or this machine's name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return is_loopback(name) or name.lower() == socket.gethostname().lower()
    return True


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
