"""The Subsonic server behind the proxy: requests passed through untouched, and questions of our own.

Questions carry the credentials of the client whose request they serve, so nobody learns of songs that the server would
not show them. Credentials are neither kept nor logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

# What concerns one connection only (RFC 9110, section 7.6.1), and what each side computes for itself.
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_CREDENTIALS = ("u", "p", "t", "s", "apiKey", "v", "c")
_TIMEOUT = httpx.Timeout(30.0, read=300.0)  # seconds; a server may transcode for long before its first byte


class Refused(Exception):
    """The server answered a question with an error.

    Attributes:
        code: the Subsonic error code; 70 is "not found".
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Upstream:
    """One Subsonic server.

    Args:
        address: its address, e.g. "http://127.0.0.1:4533"; may end in a path.
        transport: how to reach it; by default over the network.
    """

    def __init__(self, address: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        # httpx logs addresses, and in this API they hold passwords.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._base = httpx.URL(address.rstrip("/"))
        # Answers are passed on as they came: not unzipped, redirects not followed, cookies not kept.
        self._client = httpx.AsyncClient(transport=transport, timeout=_TIMEOUT, follow_redirects=False, trust_env=False)

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def ask(self, method: str, credentials: Mapping[str, str], **parameters: str | int) -> dict[str, Any]:
        """Calls a method of the Subsonic API.

        Args:
            method: e.g. "getSong".
            credentials: parameters of the client's request; only those that say who it is are used.
            parameters: of the method.

        Returns:
            The ``subsonic-response`` object.

        Raises:
            Refused: if the server answers with an error, or with something else than the Subsonic API.
            httpx.HTTPError: if it cannot be reached.
        """
        who = {name: credentials[name] for name in _CREDENTIALS if name in credentials}
        # By GET, which servers of the original API know, too.
        response = await self._client.get(
            self._base.copy_with(path=f"{self._base.path.rstrip('/')}/rest/{method}.view"),
            params={**who, **parameters, "f": "json"},
        )
        try:
            envelope = response.json()["subsonic-response"]
            if envelope["status"] != "ok":
                raise Refused(int(envelope["error"].get("code", 0)), str(envelope["error"].get("message", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Refused(0, f"{method}: HTTP {response.status_code}, not a Subsonic response") from None
        return envelope

    async def pass_through(self, request: Request, body: bytes | None = None) -> Response:
        """Sends a request on and streams the answer back, both byte by byte as they came.

        Args:
            request: the client's request.
            body: its body, if that was read already.

        Raises:
            httpx.HTTPError: if the server cannot be reached.
        """
        # The bytes of path and query as they came, below the server's own path.
        target = self._base.raw_path.rstrip(b"/") + (request.scope.get("raw_path") or request.url.path.encode())
        query: bytes = request.scope["query_string"]
        headers = [
            (name, value)
            for name, value in request.headers.raw
            if name.decode("latin-1").lower() not in _HOP_BY_HOP and name.lower() != b"host"
        ]
        # A body that was not read yet is streamed on.
        has_body = body is None and ("content-length" in request.headers or "transfer-encoding" in request.headers)
        sent = httpx.Request(
            request.method,
            self._base.copy_with(raw_path=target + (b"?" + query if query else b"")),
            headers=headers,
            content=request.stream() if has_body else body,
        )
        answer = await self._client.send(sent, stream=True)
        response = StreamingResponse(answer.aiter_raw(), answer.status_code, background=BackgroundTask(answer.aclose))
        response.raw_headers = [
            (name.lower(), value)
            for name, value in answer.headers.raw
            if name.decode("latin-1").lower() not in _HOP_BY_HOP
        ]
        return response
