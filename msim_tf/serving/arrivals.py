"""gRPC requests whose message is on its way, and what ends those that do not come.

A request takes a thread from its header on. So that clients that begin requests and send nothing do not take them all,
a message has limited time, and when many are awaited, the one that is awaited longest gives way to a new one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc


class Arrivals:
    """What is awaited; safe to use from several threads.

    Args:
        seconds: for a message to arrive.
        most: messages that are awaited at the same time.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most = seconds, most
        self._lock = threading.Lock()
        self._awaited: dict[object, tuple[float, grpc.ServicerContext]] = {}  # in the order of their coming
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._end_late_ones, name="msim-arrivals", daemon=True)
        self._watch.start()

    @contextmanager
    def awaited(self, context: grpc.ServicerContext) -> Iterator[None]:
        """While a message is received. The request is cancelled if that takes too long; receiving then raises."""
        key = object()
        # With all places taken, the message that is awaited longest gives up its own.
        with self._lock:
            longest = next(iter(self._awaited)) if len(self._awaited) >= self._most else None
            given_up = self._awaited.pop(longest, None)
            self._awaited[key] = (time.monotonic() + self._seconds, context)
        if given_up:
            given_up[1].cancel()
        try:
            yield
        finally:
            with self._lock:
                self._awaited.pop(key, None)

    def stop(self) -> None:
        """Ends the thread that watches."""
        self._stopped.set()
        self._watch.join()

    def _end_late_ones(self) -> None:
        while not self._stopped.wait(min(1.0, self._seconds / 4)):
            now = time.monotonic()
            with self._lock:
                late = [context for end, context in self._awaited.values() if end < now]
            for context in late:
                context.cancel()
