"""Batching across requests, as TensorFlow Serving's ``--enable_batching`` does it.

Requests of one signature that wait at the same time run as one batch, whose answers are cut apart again. As in the real server only whole
signatures are batched whose inputs and outputs all have a free first dimension; everything else runs alone. Where the real server lets a
request fail, this one does not: requests whose other dimensions differ are never mixed (there they fail together, unless padded), one
with more rows than a batch holds runs alone, and when a batch fails each of its requests is tried alone, so that only the guilty one fails.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field

import numpy as np

from msim_tf.errors import InputError
from msim_tf.export.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo
from msim_tf.export.status import ServingError
from msim_tf.serving.versions import Runnable

_LOG = logging.getLogger(__name__)

_Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class BatchingOptions:
    """How requests are joined; the names of TensorFlow Serving's ``BatchingParameters``.

    Attributes:
        max_batch_size: most rows of one run.
        batch_timeout_micros: how long the first request waits for others, in microseconds. With 0 nobody waits for company: a batch is what
            came while the threads were busy, which is best on a CPU.
        num_batch_threads: batches that run at the same time.
        allowed_batch_sizes: a batch is padded to the next of them, so that few shapes occur; increasing, the last is ``max_batch_size``.
            Empty means no padding.

    Raises:
        InputError: if a value is out of its range.
    """

    max_batch_size: int = 32
    batch_timeout_micros: int = 0
    num_batch_threads: int = 1
    allowed_batch_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_batch_size < 1 or self.num_batch_threads < 1 or self.batch_timeout_micros < 0:
            raise InputError(f"{self}: sizes and threads are at least 1, the timeout at least 0")
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.max_batch_size):
            raise InputError(
                f"allowed_batch_sizes {sizes} must increase and end with max_batch_size {self.max_batch_size}"
            )

    def padded(self, rows: int) -> int:
        """Rows that a batch of ``rows`` is run with."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


@dataclass(frozen=True)
class _Kind:
    """What requests of one batch have in common."""

    signature: str
    outputs: tuple[str, ...]
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]  # name, type, shape of a row


@dataclass(frozen=True)
class _Request:
    feeds: Mapping[str, np.ndarray]
    rows: int
    deadline: float | None
    answer: Future[_Outputs]


@dataclass
class _Batch:
    kind: _Kind
    due: float
    requests: list[_Request] = field(default_factory=list)
    rows: int = 0
    full: bool = False


class BatchingServable:
    """A servable that joins requests; the same interface, safe to run from several threads at once.

    Args:
        servable: what runs the batches; closed with this one.
        options: how requests are joined.
    """

    def __init__(self, servable: Runnable, options: BatchingOptions = BatchingOptions()) -> None:
        self.signatures = servable.signatures
        self.signature_defs = servable.signature_defs
        self._servable = servable
        self._options = options
        self._changed = threading.Condition()
        self._batches: list[_Batch] = []  # the oldest first
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"msim-batch-{number}", daemon=True)
            for number in range(options.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def signature(self, name: str) -> Signature:
        """As ``Servable.signature``."""
        return self._servable.signature(name)

    def run(
        self,
        signature: str,
        feeds: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
        *,
        timeout: float | None = None,
    ) -> _Outputs:
        """As ``Servable.run``, together with what else is asked meanwhile.

        Raises:
            ServingError: as ``Servable.run``; DEADLINE_EXCEEDED also if the answer is not there in time.
        """
        kind, rows = self._kind(signature, feeds, output_filter)
        if kind is None:
            return self._servable.run(signature, feeds, output_filter, timeout=timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        request = _Request(feeds, rows, deadline, Future())
        self._submit(kind, request)
        try:
            return request.answer.result(timeout)
        except FutureTimeoutError:
            request.answer.cancel()
            raise _too_late() from None

    def close(self) -> None:
        """Answers what is waiting, ends the threads, and closes the servable."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._servable.close()

    def _kind(
        self, signature: str, feeds: Mapping[str, np.ndarray], output_filter: Sequence[str]
    ) -> tuple[_Kind | None, int]:
        """What the request can be joined with, and its rows; None if it must run alone, be it to be told what is wrong with it."""
        chosen = self._servable.signature(signature)
        if not _has_batches(chosen) or set(feeds) != set(chosen.inputs):
            return None, 0
        arrays = {name: np.asarray(value) for name, value in sorted(feeds.items())}
        rows = {array.shape[:1] for array in arrays.values()}
        if len(rows) != 1 or () in rows:
            return None, 0
        count = rows.pop()[0]
        if not 0 < count <= self._options.max_batch_size:
            return None, 0
        inputs = tuple((name, array.dtype.str, array.shape[1:]) for name, array in arrays.items())
        return _Kind(signature or DEFAULT_SIGNATURE, tuple(output_filter), inputs), count

    def _submit(self, kind: _Kind, request: _Request) -> None:
        with self._changed:
            if self._closed:
                raise ServingError("UNAVAILABLE", "the model is being unloaded")
            batch = next((batch for batch in self._batches if batch.kind == kind and not batch.full), None)
            if batch and batch.rows + request.rows > self._options.max_batch_size:
                batch.full = True
                batch = None
            if batch is None:
                batch = _Batch(kind, time.monotonic() + self._options.batch_timeout_micros / 1e6)
                self._batches.append(batch)
            batch.requests.append(request)
            batch.rows += request.rows
            batch.full = batch.rows == self._options.max_batch_size
            self._changed.notify_all()

    def _work(self) -> None:
        while batch := self._next():
            # A request that was given up meanwhile is left out; from here on it cannot be.
            requests = [request for request in batch.requests if request.answer.set_running_or_notify_cancel()]
            if requests:
                self._answer(batch.kind, requests)

    def _next(self) -> _Batch | None:
        """Waits for a batch that is full or due, and takes it; None once closed and empty."""
        with self._changed:
            while True:
                now = time.monotonic()
                for batch in self._batches:
                    if batch.full or batch.due <= now or self._closed:
                        self._batches.remove(batch)
                        return batch
                if self._closed:
                    return None
                self._changed.wait(min((batch.due - now for batch in self._batches), default=None))

    def _answer(self, kind: _Kind, requests: list[_Request]) -> None:
        """Runs the requests together, and if that fails each alone."""
        if len(requests) > 1 or self._options.padded(requests[0].rows) > requests[0].rows:
            try:
                answers = self._joined(kind, requests)
            except Exception as error:  # whatever it is: the guilty one hears it again, alone
                _LOG.info("a batch of %d requests of %s failed: %s", len(requests), kind.signature, error)
            else:
                for request, answer in zip(requests, answers, strict=True):
                    request.answer.set_result(answer)
                return
        for request in requests:
            self._alone(kind, request)

    def _alone(self, kind: _Kind, request: _Request) -> None:
        try:
            timeout = _timeout([request])
            answer = self._servable.run(kind.signature, request.feeds, kind.outputs, timeout=timeout)
        except Exception as error:  # it is the client's, and the thread goes on
            request.answer.set_exception(error)
        else:
            request.answer.set_result(answer)

    def _joined(self, kind: _Kind, requests: list[_Request]) -> list[_Outputs]:
        """The answers of one run.

        Raises:
            ServingError: what the run raises, or FAILED_PRECONDITION if an output has not the rows of the inputs.
        """
        rows = sum(request.rows for request in requests)
        feeds = {name: self._concatenated(name, requests, rows) for name in requests[0].feeds}
        outputs = self._servable.run(kind.signature, feeds, kind.outputs, timeout=_timeout(requests))
        for name, value in outputs.items():
            if value.shape[:1] != (self._options.padded(rows),):
                raise ServingError(
                    "FAILED_PRECONDITION",
                    f"Batched output tensor {name} has shape {value.shape}, not the {rows} rows of the input tensors",
                )
        answers, start = [], 0
        for request in requests:
            stop = start + request.rows
            answers.append({name: value[start:stop] for name, value in outputs.items()})
            start = stop
        return answers

    def _concatenated(self, name: str, requests: list[_Request], rows: int) -> np.ndarray:
        """[padded rows, ...] one input of all requests; the padding repeats the first row, as in the real server."""
        arrays = [np.asarray(request.feeds[name]) for request in requests]
        return np.concatenate([*arrays, *[arrays[0][:1]] * (self._options.padded(rows) - rows)])


def _has_batches(signature: Signature) -> bool:
    return all(map(_is_batched, (*signature.inputs.values(), *signature.outputs.values())))


def _is_batched(info: TensorInfo) -> bool:
    return bool(info.shape) and info.shape[0] is None  # type: ignore[index]


def _timeout(requests: Sequence[_Request]) -> float | None:
    """Seconds until the last of the requests is given up; None if one waits for ever.

    Raises:
        ServingError: DEADLINE_EXCEEDED if all are late.
    """
    deadlines = [request.deadline for request in requests]
    if None in deadlines:
        return None
    left = max(deadline for deadline in deadlines if deadline is not None) - time.monotonic()
    if left <= 0:
        raise _too_late()
    return left


def _too_late() -> ServingError:
    return ServingError(
        "DEADLINE_EXCEEDED", "The request was not answered in time; it waited for a batch or ran in one"
    )
