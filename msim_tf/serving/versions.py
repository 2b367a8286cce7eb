"""Which version of a model is served: the state machine behind hot reload. Knows nothing of HTTP, gRPC or TensorFlow.

The policy is TensorFlow Serving's default, ``latest { num_versions: 1 }``: the highest version directory is served; a
new one is loaded *before* the old one is unloaded; a deleted one falls back to the next lower. A version that cannot be
loaded stays LOADING while it is tried again and ends as END with its error, and the old one goes on serving. Two
deliberate differences from the real server: while a broken version waits for its next attempt other changes are still
followed, and changed files are tried again at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from msim_tf.export import error_texts as texts
from msim_tf.export.metadata import version_directories
from msim_tf.export.signatures import Signature
from msim_tf.export.status import ServingError

_LOG = logging.getLogger(__name__)


class Runnable(Protocol):
    """What a loaded model offers to those who lease it; see ``Servable``. The manager itself only closes it."""

    signatures: dict[str, Signature]
    signature_defs: dict[str, Any]

    def signature(self, name: str) -> Signature:
        """One signature by name; "" is the default."""

    def run(
        self,
        signature: str,
        feeds: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
        *,
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs one signature."""

    def close(self) -> None:
        """Frees the model."""


@dataclass(frozen=True)
class VersionStatus:
    """One version as the status API reports it.

    Attributes:
        version: number of the directory.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        code: canonical code of the last load, "OK" unless it failed.
        message: its error text.
    """

    version: int
    state: str
    code: str = "OK"
    message: str = ""


@dataclass
class _Loaded:
    """A model in use; whoever gives back the last lease of a retired one closes it."""

    version: int
    servable: Runnable
    leases: int = 0
    retired: bool = False


@dataclass
class _Failure:
    """Attempts to load a version that failed."""

    attempts: int = 0
    next_attempt: float = 0.0
    files: object = None
    code: str = "UNKNOWN"
    message: str = ""


class ServedModel:
    """One model's versions under ``base_path``; every method may be called from any
    thread, ``poll`` from one at a time.

    Args:
        name: the model's name in requests.
        base_path: directory of version directories, whose names are whole numbers.
        load: makes a servable from a version directory; whatever it raises fails the load.
        labels: names for versions.
        max_load_retries: attempts after the first before a broken version is given up.
        retry_seconds: pause between them.
    """

    def __init__(
        self,
        name: str,
        base_path: str | Path,
        load: Callable[[Path], Runnable],
        *,
        labels: Mapping[str, int] | None = None,
        max_load_retries: int = 5,
        retry_seconds: float = 60.0,
    ) -> None:
        self.name = name
        self.base_path = Path(base_path)
        self.labels = dict(labels or {})
        self._load = load
        self._max_load_retries = max_load_retries
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._current: _Loaded | None = None
        self._status: dict[int, VersionStatus] = {}
        self._failures: dict[int, _Failure] = {}

    def poll(self) -> None:
        """Looks at the directory once and loads and unloads what follows from it."""
        try:
            directories = version_directories(self.base_path)
        except OSError as error:
            # The real server, too, goes on serving when the storage is gone for a while.
            _LOG.warning("model %s: %s cannot be listed: %s", self.name, self.base_path, error)
            return
        # A broken version whose directory is gone is no longer tried; its error stays in its status.
        for version in [version for version in self._failures if version not in directories]:
            failure = self._failures.pop(version)
            self._set(VersionStatus(version, "END", failure.code, failure.message))
        # The highest version is to be served.
        wanted = max(directories, default=None)
        if wanted is not None and wanted not in self._status:
            self._set(VersionStatus(wanted, "START"))
        if wanted is None:
            self._replace(None)
        elif self._current is None or wanted != self._current.version:
            self._try(wanted, directories)

    @contextmanager
    def lease(self, version: int | None = None, label: str = "") -> Iterator[tuple[int, Runnable]]:
        """The served version and its model, which stays loaded until the block ends.

        Raises:
            ServingError: NOT_FOUND if that version is not served, INVALID_ARGUMENT for an unknown label.
        """
        if label:
            if label not in self.labels:
                raise texts.UNKNOWN_LABEL.error(label=label)
            version = self.labels[label]
        # While somebody holds a lease, a model that is replaced stays open; whoever gives the last one back closes it.
        with self._lock:
            loaded = self._current
            if loaded is None or version not in (None, loaded.version):
                raise not_found(self.name, version)
            loaded.leases += 1
        try:
            yield loaded.version, loaded.servable
        finally:
            with self._lock:
                loaded.leases -= 1
                unused = loaded.retired and loaded.leases == 0
            if unused:
                self._close(loaded)

    def statuses(self, version: int | None = None) -> list[VersionStatus]:
        """All versions seen since the start, newest first, or only ``version``.

        Raises:
            ServingError: NOT_FOUND if there is none.
        """
        with self._lock:
            if version is not None and version not in self._status:
                raise texts.NO_SUCH_VERSION.error(version=version, model=self.name)
            statuses = sorted(self._status.values(), key=lambda status: -status.version)
        if not statuses:
            raise texts.NO_VERSIONS.error(model=self.name)
        return [status for status in statuses if version in (None, status.version)]

    def failures(self) -> dict[int, str]:
        """Versions that could not be loaded so far, with the last error."""
        with self._lock:
            return {version: failure.message for version, failure in self._failures.items() if failure.attempts}

    def close(self) -> None:
        """Unloads what is loaded; requests still under way end with an error, so wait for them first."""
        with self._lock:
            loaded = self._current
        self._replace(None)
        if loaded and loaded.leases:
            loaded.servable.close()

    def _try(self, wanted: int, directories: Mapping[int, Path]) -> None:
        """Loads the highest version; if that cannot be and nothing is served, the next lower one that loads."""
        if self._attempt(wanted, directories[wanted]):
            return
        lower = sorted((version for version in directories if version < wanted), reverse=True)
        served = self._current.version if self._current else None
        if served in directories:
            return
        # What was served is deleted, or nothing was: a lower version is better than none.
        for version in lower:
            if self._attempt(version, directories[version]):
                return

    def _attempt(self, version: int, directory: Path) -> bool:
        """Whether ``version`` is served after at most one attempt to load it."""
        # After a failure: not again before its time, nor after the last attempt, unless the files have changed since.
        failure = self._failures.setdefault(version, _Failure())
        files = _fingerprint(directory)
        if failure.attempts and failure.files == files:
            if failure.attempts > self._max_load_retries or time.monotonic() < failure.next_attempt:
                return False
        elif failure.attempts:
            failure = self._failures[version] = _Failure()
        # Between attempts the state stays LOADING, as in the real server.
        self._set(VersionStatus(version, "LOADING"))
        try:
            servable = self._load(directory)
        except Exception as error:  # whatever is wrong with one version must not end the polling
            failure.attempts += 1
            failure.files = files
            failure.code = error.code if isinstance(error, ServingError) else "UNKNOWN"
            failure.message = error.message if isinstance(error, ServingError) else str(error)
            failure.next_attempt = time.monotonic() + self._retry_seconds
            _LOG.warning("model %s: version %d not loaded, attempt %d: %s", self.name, version, failure.attempts, error)
            if failure.attempts > self._max_load_retries:
                self._set(VersionStatus(version, "END", failure.code, failure.message))
            return False
        del self._failures[version]
        self._replace(_Loaded(version, servable))
        return True

    def _replace(self, new: _Loaded | None) -> None:
        """Puts ``new`` in the place of what is served, which is closed once nobody uses it."""
        with self._lock:
            old, self._current = self._current, new
            if new:
                self._status[new.version] = VersionStatus(new.version, "AVAILABLE")
            if old is None:
                return
            old.retired = True
            self._status[old.version] = VersionStatus(old.version, "UNLOADING")
            unused = old.leases == 0
        if unused:
            self._close(old)

    def _close(self, loaded: _Loaded) -> None:
        loaded.servable.close()
        self._set(VersionStatus(loaded.version, "END"))

    def _set(self, status: VersionStatus) -> None:
        with self._lock:
            self._status[status.version] = status


class Models:
    """The models of one server by name."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._models = dict(models)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def __contains__(self, name: str) -> bool:
        return name in self._models

    @contextmanager
    def lease(self, name: str, version: int | None = None, label: str = "") -> Iterator[tuple[int, Runnable]]:
        """``ServedModel.lease`` of the model called ``name``.

        Raises:
            ServingError: NOT_FOUND also for an unknown model.
        """
        if name not in self._models:
            if label:
                raise texts.UNKNOWN_LABEL.error(label=label)
            raise not_found(name, version)
        with self._models[name].lease(version, label) as leased:
            yield leased

    def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """``ServedModel.statuses`` of the model called ``name``."""
        if name not in self._models:
            if version is None:
                raise texts.NO_VERSIONS.error(model=name)
            raise texts.NO_SUCH_VERSION.error(version=version, model=name)
        return self._models[name].statuses(version)


class Poller:
    """A thread that polls every model until it is stopped."""

    def __init__(self, models: Models, seconds: float) -> None:
        self._models = models
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="msim-poll", daemon=True)

    def start(self) -> None:
        """Starts polling."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; a load under way is waited for."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            for model in self._models:
                model.poll()


def not_found(name: str, version: int | None) -> ServingError:
    """The real server's error for a model or version that is not served."""
    if version is None:
        return texts.UNKNOWN_MODEL.error(model=name)
    return texts.UNKNOWN_VERSION.error(model=name, version=version)


def _fingerprint(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a version's files: changes when a copy goes on or somebody repairs it."""
    try:
        files = [(path, path.stat()) for path in sorted(directory.rglob("*"))]
    except OSError:
        return ()
    return tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in files)
