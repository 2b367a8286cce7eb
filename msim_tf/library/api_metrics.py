"""What Prometheus may scrape of a library's API: requests by operation and status, their time, the library's size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Scope, Send

from msim_tf.extras import require
from msim_tf.library.api_state import LiveLibrary

PATH = "/metrics"
# Seconds; a search takes milliseconds, an upload seconds.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class LibraryMetrics:
    """Counters of one server, in a registry of their own.

    Args:
        library: what is served.

    Raises:
        InputError: if prometheus_client is not installed.
    """

    def __init__(self, library: LiveLibrary) -> None:
        require("prometheus_client")
        import prometheus_client

        self._client = prometheus_client
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "msim_library_requests", "Requests answered.", ["operation", "status"], registry=self._registry
        )
        self._seconds = prometheus_client.Histogram(
            "msim_library_request_seconds",
            "Time until the last byte was sent.",
            ["operation"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        tracks = prometheus_client.Gauge("msim_library_tracks", "Tracks that can be found.", registry=self._registry)
        tracks.set_function(lambda: len(library.state().index))
        # Memory, processor time and open files of the process.
        prometheus_client.ProcessCollector(registry=self._registry)

    def response(self) -> Response:
        """All of it as text, for ``GET /metrics``."""
        text = self._client.generate_latest(self._registry)
        return Response(text, headers={"Cache-Control": "no-store"}, media_type=self._client.CONTENT_TYPE_LATEST)

    @contextmanager
    def measured(self, scope: Scope, send: Send) -> Iterator[Send]:
        """Counts the block as one request.

        Args:
            scope: of the request; the route that answers it notes itself there.
            send: what its answer goes to.

        Yields:
            What the answer is to be sent with.
        """
        begun, status = time.perf_counter(), "none"

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            yield sending
        finally:
            # Addresses that nothing answers are one operation, else every scan of the net would add its own.
            route: Any = scope.get("route")
            operation = getattr(route, "operation_id", None) or "none"
            self._requests.labels(operation, status).inc()
            self._seconds.labels(operation).observe(time.perf_counter() - begun)
