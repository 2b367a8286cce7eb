"""Counts and latencies of requests in Prometheus' text format, under the names that TensorFlow Serving gives them.

Written here rather than by ``prometheus_client``, which would call the counter ``request_count_total``: dashboards and
alerts made for the real server must find what they look for.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from msim_tf.export.status import ServingError, code_of_http_status
from msim_tf.serving.guard import HttpError
from msim_tf.serving.versions import Models

PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4"
# Upper bounds of the buckets in microseconds: 33, each 1.8 times the one before, and the rest (in its sources:
# servables/tensorflow/util.cc).
_BOUNDS = [10 * 1.8**exponent for exponent in range(33)]
_COUNT = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"


class _Histogram:
    """Observations of one kind of request."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(_BOUNDS) + 1)
        self.sum = 0.0

    def add(self, microseconds: float) -> None:
        self.buckets[bisect.bisect_left(_BOUNDS, microseconds)] += 1
        self.sum += microseconds


class Monitoring:
    """What was asked of each model; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._latencies: dict[tuple[str, str, str], _Histogram] = {}

    def record(self, kind: tuple[str, str, str], status: str, microseconds: float) -> None:
        """Counts a request.

        Args:
            kind: model; API, as "predict"; entrypoint, "REST" or "GRPC".
            status: "OK", or the code of its error.
            microseconds: that it took.
        """
        with self._lock:
            self._counts[kind[0], status] += 1
            # As in the real server, only requests that succeed have a latency.
            if status == "OK":
                self._latencies.setdefault(kind, _Histogram()).add(microseconds)

    def text(self) -> str:
        """All of it in Prometheus' text format, version 0.0.4."""
        with self._lock:
            lines = [f"# TYPE {_COUNT} counter"]
            lines += [
                f"{_COUNT}{_labels(model_name=model, status=status)} {count}"
                for (model, status), count in sorted(self._counts.items())
            ]
            lines.append(f"# TYPE {_LATENCY} histogram")
            for (model, api, entrypoint), histogram in sorted(self._latencies.items()):
                names = {"model_name": model, "API": api, "entrypoint": entrypoint}
                # Prometheus' buckets are cumulative: each counts all requests up to its bound.
                total = 0
                for bound, count in zip([*map("{:.6g}".format, _BOUNDS), "+Inf"], histogram.buckets):
                    total += count
                    lines.append(f"{_LATENCY}_bucket{_labels(**names, le=bound)} {total}")
                lines.append(f"{_LATENCY}_sum{_labels(**names)} {histogram.sum:.6g}")
                lines.append(f"{_LATENCY}_count{_labels(**names)} {total}")
        return "\n".join(lines) + "\n"


@contextmanager
def measured(monitoring: Monitoring | None, models: Models, name: str, api: str, entrypoint: str) -> Iterator[None]:
    """Counts the block as a request for the model ``name``, and how it ends.

    Models that are not served are not counted: a name that a client makes up would stay for ever.

    Args:
        monitoring: what counts; None counts nothing.
        models: what is served.
        name: the model that the request names.
        api: "predict", "classify" or "regress" by REST; the method's name by gRPC.
        entrypoint: "REST" or "GRPC".
    """
    if monitoring is None or name not in models:
        yield
        return
    status, begun = "INTERNAL", time.perf_counter()
    try:
        yield
        status = "OK"
    except ServingError as error:
        status = error.code
        raise
    except HttpError as error:
        status = code_of_http_status(error.status)
        raise
    finally:
        monitoring.record((name, api, entrypoint), status, 1e6 * (time.perf_counter() - begun))


def _labels(**values: str) -> str:
    """Label values may hold anything, with three characters escaped."""
    escaped = {
        name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for name, value in values.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
