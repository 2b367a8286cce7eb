"""How much a request may hold, how much all requests together, and how memory goes back to the system afterwards.

The limit of a request follows from the model: an input's free first axis counts as 256 rows, its other free axes
together as 65,536. So 256 segments of features fit, and 16.8 million samples of audio, 12.7 minutes at 22,050 Hz,
in any division into rows. An input of unknown rank may hold as many values. JSON takes up to 16 bytes per value, so
the limit in bytes is 16 times the values of the largest signature, and 64 KiB. It holds for REST and gRPC; whoever
sets it in bytes sets the number of values with it.
"""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from msim_tf.export import error_texts as texts
from msim_tf.export.signatures import Signature, TensorInfo

ROWS = 256
FREE_AXES = 65_536
_JSON_BYTES_PER_VALUE = 16
_REQUEST_OVERHEAD = 64 * 2**10
# What Python needs for a number in a list, and for a list.
_NUMBER_BYTES, _CONTAINER_BYTES = 32, 64
_TRIM_ABOVE = 8 * 2**20
_TRIM_SECONDS = 1.0


def most_values(info: TensorInfo) -> int:
    """How many values a request may send for one input."""
    if info.shape is None:
        return ROWS * FREE_AXES
    fixed = math.prod(size for size in info.shape if size is not None)
    rows = ROWS if info.shape and info.shape[0] is None else 1
    others = FREE_AXES if None in info.shape[1:] else 1
    return max(fixed, 1) * rows * others


def most_request_bytes(models: Iterable[Mapping[str, Signature]]) -> int:
    """The default limit in bytes of a request to a server of these models, each given by its signatures."""
    sums = [
        sum(map(most_values, signature.inputs.values())) for signatures in models for signature in signatures.values()
    ]
    return _REQUEST_OVERHEAD + _JSON_BYTES_PER_VALUE * max(sums, default=0)


def values_within(max_request_bytes: int) -> int:
    """How many values a request of at most ``max_request_bytes`` may hold, however few bytes it needs for them."""
    return max_request_bytes // _JSON_BYTES_PER_VALUE


def has_too_many_values(body: bytes, max_values: int) -> bool:
    """Whether parsing this JSON would take the memory of more than ``max_values`` numbers,
    with half as much again for their lists.

    Every value but the first of its list or object follows a comma, so commas and
    brackets bound what a parser would build.
    """
    most = (_NUMBER_BYTES + _CONTAINER_BYTES) // 2 * (max_values + 1024)
    # The dearest byte is an opening bracket: a body shorter than this cannot cost so much, and is not looked at.
    if _CONTAINER_BYTES * len(body) <= most:
        return False
    values = body.count(b",") + 1
    containers = body.count(b"[") + body.count(b"{")
    return _NUMBER_BYTES * values + _CONTAINER_BYTES * containers > most


class Budget:
    """Bytes that all requests under way may hold together; safe to use from several threads.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that are reserved now."""
        return self._used

    def reservation(self) -> Reservation:
        """An empty reservation, to be used in a ``with`` statement."""
        return Reservation(self)

    def take(self, size: int) -> None:
        """Reserves ``size`` bytes.

        Raises:
            ServingError: RESOURCE_EXHAUSTED if they are not left.
        """
        with self._lock:
            if self._used + size > self.size:
                raise texts.SERVER_BUSY.error()
            self._used += size

    def give_back(self, size: int) -> None:
        """Ends a reservation of ``size`` bytes."""
        with self._lock:
            self._used -= size


class Reservation:
    """What one request holds of a budget; given back at the end of the ``with`` block."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.size = 0

    def grow(self, size: int) -> None:
        """Reserves ``size`` more bytes.

        Raises:
            ServingError: RESOURCE_EXHAUSTED if they are not left.
        """
        self._budget.take(size)
        self.size += size

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *exception: object) -> None:
        self._budget.give_back(self.size)


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Lets Python look for cycles after 100,000 new objects instead of 700.

    While a request of millions of lists is parsed, it would look through all of them again and again: that takes five
    times as long as parsing, and nobody else is answered meanwhile.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class MemoryReturn:
    """Hands freed memory back to the system after large requests, at most once a second.

    The C library keeps what it freed for later use. After a burst of large requests that can be gigabytes, which no
    other process gets. On systems without ``malloc_trim`` (macOS, musl) nothing happens.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def after(self, size: int) -> None:
        """Called at the end of a request that held ``size`` bytes."""
        if self._trim is None or size < _TRIM_ABOVE:
            return
        with self._lock:
            if self._timer is None:
                # A moment later, when the request's objects are gone and those of its neighbours perhaps, too.
                self._timer = threading.Timer(_TRIM_SECONDS, self._run)
                self._timer.daemon = True
                self._timer.start()

    def stop(self) -> None:
        """Drops what is planned."""
        with self._lock:
            if self._timer:
                self._timer.cancel()

    def _run(self) -> None:
        with self._lock:
            self._timer = None
        self._trim(0)  # type: ignore[misc]
