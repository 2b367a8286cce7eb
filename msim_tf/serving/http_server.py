"""The HTTP server under the REST API: uvicorn, with limits that it lacks.

- Open connections are limited. One more closes the connection that has waited longest for a request to begin; if
  all are at work, the new one is answered with 503.
- A request's header must arrive within seconds, also on a connection that was just opened or is kept alive.
- The limit follows the process's file descriptors, so accepting never fails for want of one; if it fails all the same,
  because something else took them, the accept loop rests and says so once a minute.
- What goes wrong again and again is logged once a minute.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from msim_tf.errors import InputError

_LOG = logging.getLogger(__name__)
_KEEP_ALIVE_SECONDS = 30
_HEADER_SECONDS = 15.0
_HEADER_BYTES = 64 * 2**10
_BACKLOG = 128
_REPEAT_SECONDS = 60.0
_START_SECONDS = 30.0
# File descriptors that are left for models, sound files, gRPC's own threads and whatever else the process opens.
_SPARE_DESCRIPTORS = 32
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\nconnection: close\r\n"
    b"content-length: 45\r\n\r\n" + b'{"error": "too many connections; try again"}\n'
)
# Loggers of the server, of asyncio's accept loop, and of this package.
_NOISY_LOGGERS = ("uvicorn.error", "asyncio", "msim_tf.serving.rest", "msim_tf.serving.grpc_service")


def connection_limit(requested: int) -> int:
    """How many connections each API may have open: ``requested``, or a third of the free
    file descriptors if these are fewer.
    """
    # The descriptors that are free now, of which the two APIs get a third each.
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/dev/fd"))
    free = (2**20 if soft == resource.RLIM_INFINITY else soft) - used - _SPARE_DESCRIPTORS
    limit = max(4, min(requested, free // 3))
    if limit < requested:
        _LOG.warning(
            "at most %d connections for each API, because the process may open %d files (ulimit -n)", limit, soft
        )
    return limit


class OncePerMinute(logging.Filter):
    """Lets a message through once a minute, told apart by its template and the place that logs it."""

    def __init__(self, seconds: float = _REPEAT_SECONDS) -> None:
        super().__init__()
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        key, now = (record.pathname, record.lineno), time.monotonic()
        with self._lock:
            if now - self._last.get(key, -self._seconds) < self._seconds:
                return False
            self._last[key] = now
        return True


@contextmanager
def repeated_faults_once_a_minute() -> Iterator[None]:
    """Keeps a fault that repeats from filling the disk with its log."""
    once = OncePerMinute()
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).addFilter(once)
    try:
        yield
    finally:
        for name in _NOISY_LOGGERS:
            logging.getLogger(name).removeFilter(once)


class LimitedProtocol(H11Protocol):
    """One connection that notes since when it has waited for a request.

    Attributes:
        max_connections: of the server; set by the subclass that ``RestServer`` makes.
    """

    max_connections = 512

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, closes the longest idle one for it, or refuses it."""
        self.waiting_since = time.monotonic()
        if len(self.connections) >= self.max_connections:
            connections: list[Any] = list(self.connections)
            idle = [other for other in connections if other.is_idle()]
            if not idle:
                _LOG.warning("all %d connections are at work; a new one was refused", self.max_connections)
                transport.write(_UNAVAILABLE)
                transport.close()
                return
            # Taken out of the set at once: until the loop has told it that it is cut off, it would count as open.
            oldest = min(idle, key=lambda other: other.waiting_since)
            self.connections.discard(oldest)
            oldest.transport.abort()
        super().connection_made(transport)

    def is_idle(self) -> bool:
        """Whether no request is being received or answered: none has begun, its header is
        incomplete, or the last one is answered.
        """
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn; a refused connection was never taken."""
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As uvicorn; a refused connection is not listened to."""
        if self.transport is not None:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """As uvicorn; from now on the connection waits."""
        self.waiting_since = time.monotonic()
        super().on_response_complete()

    def _should_upgrade(self) -> bool:
        """Never, and without a word: what asks for a WebSocket gets the answer to its path."""
        return False


class RestServer(uvicorn.Server):
    """uvicorn in a thread.

    Args:
        app: the application.
        max_connections: open at the same time.
        stop_seconds: for requests under way once the server is stopped; then they are cut off.
        header_seconds: for a request's header to arrive.
    """

    def __init__(
        self, app: ASGIApp, *, max_connections: int, stop_seconds: float, header_seconds: float = _HEADER_SECONDS
    ) -> None:
        protocol = type("Protocol", (LimitedProtocol,), {"max_connections": max_connections})
        config = uvicorn.Config(
            _ending_quietly(app),
            http=protocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            # asyncio accepts so many at a turn, before it closes any; each takes a file descriptor.
            backlog=max(4, min(_BACKLOG, max_connections // 2)),
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
        super().__init__(config)
        self._ready = threading.Event()
        self._stop_seconds = stop_seconds
        self._header_seconds = header_seconds
        # uvicorn leaves the process's signals alone when it does not run in the main thread.
        self._thread: threading.Thread | None = None

    def start(self, listener: socket.socket) -> None:
        """Serves on ``listener``; returns once connections are taken.

        Raises:
            InputError: if that takes half a minute.
        """
        self._thread = threading.Thread(target=self.run, args=([listener],), name="msim-rest", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_SECONDS):
            raise InputError(f"the REST server did not start within {_START_SECONDS:g} s")
        # Connections that the kernel keeps until they are accepted may be more.
        listener.listen(_BACKLOG)

    def stop(self) -> None:
        """Takes no more connections, waits for the requests under way, and ends the thread."""
        self.should_exit = True
        if self._thread:
            self._thread.join()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, then says that it is ready."""
        await super().startup(sockets)
        self._ready.set()

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn, ten times a second; once a second closes connections whose request does not come."""
        if counter % 10 == 0:
            now = time.monotonic()
            connections: list[Any] = list(self.server_state.connections)
            for connection in connections:
                # After an answer uvicorn's own timer runs until the next byte comes; the header then has this long
                # again.
                patience = self._header_seconds + (_KEEP_ALIVE_SECONDS if connection.cycle else 0.0)
                if connection.is_idle() and now - connection.waiting_since > patience:
                    connection.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, in fractions of a second, and nobody can hold it up."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        # Connections that have nothing to answer are closed already; the others close after their answer.
        deadline = time.monotonic() + self._stop_seconds
        while self.server_state.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # The next turns of the loop tell the connections that they are cut off; then their
        # requests have nobody left to answer.
        await asyncio.sleep(0.02)
        for task in list(self.server_state.tasks):
            task.cancel()


def _ending_quietly(app: ASGIApp) -> ASGIApp:
    """``app`` whose requests can be cancelled when the server ends, without a traceback in the log for each."""

    async def cancellable(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            return

    return cancellable


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket; bound here, because uvicorn would end the process if it cannot be.

    Raises:
        OSError, OverflowError: if it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio switches Nagle's algorithm off; else each
    # answer on a kept connection waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError):
        listener.close()
        raise
    return listener
