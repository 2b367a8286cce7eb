"""Who may ask the library API: what stands between a listener's music and every other page and machine.

Without a token the server is on loopback and any page in the user's browser can reach it. Three checks keep such pages out: the Host header
must name this machine (else a foreign name was rebound to 127.0.0.1), the browser's own Sec-Fetch-Site and Origin headers must not tell of
another site, and bodies need content types that a page of another origin cannot send without asking first. No CORS header is ever sent.

With a token, every request below /api needs it: ``Authorization: Bearer TOKEN``, or for GET ``?token=TOKEN``, because audio elements of a
page send no headers.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers

from msim_tf.library.api_errors import ApiError

# A file that was dropped on the page is played from the browser's own memory, hence blob:.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a token may be in the address
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_request(method: str, headers: Headers, query: str, token: str) -> None:
    """Lets a request pass or refuses it.

    Args:
        method: of the request.
        headers: of the request.
        query: its query string.
        token: what it must know, "" for a server on loopback that has none.

    Raises:
        ApiError: 401 without the token; 403 for a foreign host or site.
    """
    _check_site(headers)
    if token:
        _check_token(method, headers, query, token)
    elif not is_loopback(_host_name(headers.get("host", ""))):
        raise ApiError(403, f"host {headers.get('host', '')!r} is not this machine; ask for 127.0.0.1 or localhost")


def _check_site(headers: Headers) -> None:
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != headers.get("host", "")
    if foreign or headers.get("sec-fetch-site") == "cross-site":
        raise ApiError(403, "requests from pages of other sites are refused")


def _check_token(method: str, headers: Headers, query: str, token: str) -> None:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = bearer.strip().encode("latin-1")  # as it was sent
    if scheme.lower() != "bearer":
        in_address = parse_qs(query).get("token", [""])[0] if method in ("GET", "HEAD") else ""
        given = in_address.encode("utf-8", "replace")
    if not hmac.compare_digest(given, token.encode()):
        raise ApiError(401, "a token is required: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
