"""Decodes sound files in processes of their own, so that a decoder's crash, endless loop or
hunger for memory costs one file and no run.

``Decoder`` keeps worker processes (``worker``) and hands out their blocks as ``decode.read_blocks`` does. A
worker that dies is replaced; the file at which it died has an ``InputError`` with the reason. The workers are
started by name (``python -m``), never forked, and do not import TensorFlow: 60 MB each. Linux and macOS; macOS
does not limit address space, so there memory is not bounded.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import msim_tf
from msim_tf.audio.decode import MAX_SECONDS, TooLong
from msim_tf.errors import InputError

_START_SECONDS = 120.0  # a cold disk and a busy machine
_GRACE_SECONDS = 10.0  # the worker's own alarm comes first; this is for a worker that was stopped


@dataclass(frozen=True)
class DecodeLimits:
    """What decoding one file may cost.

    Attributes:
        seconds: without a block of samples (4 s of sound), and of processor time before the first; more processor time
            is granted as sound comes, at a fifth of its length.
        memory: bytes of address space of the process; the libraries alone map some 600 MB.
        max_seconds: length of the sound.
        total_seconds: from the first request to the last block, with what the caller does in between.
    """

    seconds: float = 60.0
    memory: int = 2 * 2**30
    max_seconds: float = MAX_SECONDS
    total_seconds: float = math.inf


class DecoderUnavailable(InputError):
    """No decoder process can be started: a fault of the machine or the installation, not of a file."""


class Decoder:
    """Decodes in worker processes, one for each thread that decodes at the same time; safe to share between threads.

    Args:
        limits: what a file may cost.
    """

    def __init__(self, limits: DecodeLimits | None = None) -> None:
        if os.name != "posix":
            raise DecoderUnavailable("decoding in processes of their own needs Linux or macOS")
        self.limits = limits or DecodeLimits()
        self._idle: list[_Worker] = []
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_blocks(self, path: str | Path, *, sr: int, notes: list[str] | None = None) -> Iterator[np.ndarray]:
        """The blocks that ``decode.read_blocks`` gives, decoded apart.

        Raises:
            InputError: as there, and if the decoder crashes or exceeds a limit.
            DecoderUnavailable: if no process can be started.
        """
        ending = yield from self._answer(path, {"sr": sr, "metadata": False})
        if notes is not None:
            notes.extend(ending["notes"])

    def metadata(self, path: str | Path) -> dict[str, str]:
        """Tags of a file as FFmpeg names them; none if it cannot be read, or reading it crashes or exceeds a limit.

        Raises:
            DecoderUnavailable: if no process can be started.
        """
        answer = self._answer(path, {"sr": 0, "metadata": True})
        try:
            next(answer)
        except StopIteration as ending:
            return ending.value["metadata"]
        except DecoderUnavailable:
            raise
        except InputError:
            return {}
        raise AssertionError("tags hold no sound")

    def _answer(self, path: str | Path, request: dict[str, Any]) -> Generator[np.ndarray, None, dict[str, Any]]:
        """The blocks that a worker answers with; the value of the generator is what it says at the end."""
        worker = self._worker()
        finished = False
        try:
            ending = yield from worker.blocks({"path": str(Path(path).absolute()), **request}, self.limits)
            finished = not ending["leaving"]
        except WorkerDied as error:
            raise InputError(f"{path}: {error}") from None
        finally:
            # A worker in the middle of a file, because the caller stopped, is of no more use.
            with self._lock:
                kept = finished and not self._closed
                if kept:
                    self._idle.append(worker)
            if not kept:
                worker.close()
        if ending["error"]:
            raise (TooLong if ending["too_long"] else InputError)(f"{path}: {ending['error']}")
        return ending

    def close(self) -> None:
        """Ends the workers that are idle; those at work end with their file."""
        with self._lock:
            self._closed = True
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.close()

    def _worker(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive():
                    return worker
                worker.close()
        return _Worker(self.limits)


class WorkerDied(Exception):
    """A worker ended in the middle of a file; the text says how."""


class _Worker:
    """One process."""

    def __init__(self, limits: DecodeLimits) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [str(theirs.fileno()), str(os.getpid()), str(limits.memory)]
            # The package may be imported from a folder that the new process would not look in.
            paths = [str(Path(msim_tf.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
            threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "msim_tf.audio.worker", *arguments],
                    env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            except OSError as error:
                ours.close()
                raise DecoderUnavailable(f"a decoder process cannot be started ({error.strerror})") from error
        self._connection = Connection(ours.detach())
        self._await_start()

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def blocks(self, request: dict[str, Any], limits: DecodeLimits) -> Generator[np.ndarray, None, dict[str, Any]]:
        """Answers a request for a file; the value of the generator is what the worker says at the end.

        Raises:
            WorkerDied: if it crashes or exceeds a limit.
        """
        request = {**request, "seconds": limits.seconds, "max_seconds": limits.max_seconds}
        patience = min(limits.seconds, limits.total_seconds)
        deadline = time.monotonic() + limits.total_seconds
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            while data := self._received(min(limits.seconds + _GRACE_SECONDS, deadline - time.monotonic()), patience):
                yield np.frombuffer(data, np.float32)
            ending: dict[str, Any] = json.loads(self._received(_GRACE_SECONDS, patience))
        except (EOFError, OSError):
            raise WorkerDied(self._why(limits)) from None
        return ending

    def close(self) -> None:
        """Ends the process at once."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()

    def _received(self, seconds: float, limit: float) -> bytes:
        """The next message; ``limit`` is what the user is told if it does not come in time."""
        if seconds <= 0 or not self._connection.poll(seconds):
            self._process.kill()
            raise WorkerDied(f"takes longer than {limit:g} s to decode")
        return self._connection.recv_bytes()

    def _await_start(self) -> None:
        """Waits for the first message, so that a broken installation is not taken for a broken file."""
        try:
            self._received(_START_SECONDS, _START_SECONDS)
        except (EOFError, OSError, WorkerDied):
            self._process.kill()
            _, errors = self._process.communicate()
            self._connection.close()
            lines = errors.decode("utf-8", "replace").strip().splitlines() or ["no message"]
            raise DecoderUnavailable(f"the decoder process does not start: {lines[-1]}") from None

    def _why(self, limits: DecodeLimits) -> str:
        """How the process ended."""
        try:
            status = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "its decoder hangs"
        if status in (-signal.SIGALRM, -signal.SIGXCPU):
            return f"takes longer than {limits.seconds:g} s to decode"
        if status == -signal.SIGKILL:
            return "its decoder was killed (SIGKILL), perhaps for want of memory"
        if status < 0:
            names = {number.value: number.name for number in signal.Signals}
            return f"its decoder crashed ({names.get(-status, f'signal {-status}')})"
        return f"its decoder ended with status {status}"
