"""Atomic writes: a file or directory of ours is either whole or not there.

Everything is first written under a temporary name in the *same* directory, flushed to disk, and renamed. Then the
directory is flushed too, so that the rename survives a power cut. A process killed at any moment leaves at most a
``.tmp-*`` leftover, which no reader looks at and the next write of the same name uses again. Two writers of one name
never share a temporary file: the last rename wins.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from msim_tf.errors import InputError

_TEMPORARY = ".tmp-"


def temporary_name(path: Path, attempt: int = 0) -> Path:
    """The name under which ``path`` is written before it is whole; simultaneous writers count attempts."""
    return path.with_name(f"{_TEMPORARY}{attempt}-{path.name}" if attempt else _TEMPORARY + path.name)


class TemporaryFile:
    """A temporary file that one writer at a time holds, and then publishes under its real name.

    Args:
        path: the name that it is meant for; its parent directory is made when missing.
        mode: "w" or "wb". Text is UTF-8; bytes of names that are not are spelt out as ``names.storable`` does, which
            JSON reads back.

    Attributes:
        file: the open file.

    Raises:
        InputError: if ``path`` is something else than a file, which the rename would replace: a device, a folder.
    """

    def __init__(self, path: str | Path, mode: str = "wb") -> None:
        path = Path(path)
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a regular file; give the name of a file to write")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, self._name = _locked_temporary(path)
        encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
        # close() closes it.
        self.file: IO[Any] = open(descriptor, mode, encoding=encoding, errors=errors)  # noqa: SIM115
        self._published = False

    def publish(self, path: str | Path) -> None:
        """Flushes the file to disk and gives it its real name, replacing what is there."""
        self.file.flush()
        os.fsync(self.file.fileno())
        os.replace(self._name, path)
        self._published = True
        sync_directory(Path(path).parent)

    def close(self) -> None:
        """Closes the file, and removes it unless it was published."""
        # Unlinked before closing: with the lock still held, no other writer can have begun to use it.
        if not self._published:
            self._name.unlink(missing_ok=True)
        self.file.close()


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """An open, empty, locked file beside ``path``, and its name: the first attempt
    whose file no living writer holds.
    """
    attempt = 0
    while True:
        name = temporary_name(path, attempt)
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            attempt += 1
            continue
        # Between opening and locking, its writer may have published or removed the file.
        if _is_still(descriptor, name):
            os.truncate(descriptor, 0)
            return descriptor, name
        os.close(descriptor)


def _is_still(descriptor: int, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name))
    except FileNotFoundError:
        return False


def remove_leftovers(directory: Path) -> None:
    """Removes temporary files of killed writers; those of living ones stay."""
    for path in directory.glob(f"{_TEMPORARY}*"):
        # A living writer holds the lock of its file.
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue


def sync_directory(path: Path) -> None:
    """Flushes the names in a directory to disk; without it, a power cut may undo a rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush directories.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file that becomes ``path`` when the block ends without an exception.

    Args:
        path: destination; its parent directory is made when missing.
        mode: "w" or "wb".

    Yields:
        The open file.
    """
    with closing(TemporaryFile(path, mode)) as temporary:
        yield temporary.file
        temporary.publish(path)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yields an empty temporary directory that becomes ``path`` when the block ends without an exception.

    Raises:
        InputError: if ``path`` already exists; a published directory is never overwritten.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists already; choose another name or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def exclusive(directory: Path, what: str, *, name: str = ".lock") -> Iterator[None]:
    """Keeps a second writer out of ``directory``, which is made when missing; the lock
    ends with the process, however it ends.

    Writers of different parts of a directory lock different files, ``name``.

    Raises:
        InputError: if another process holds it, saying ``what`` that process is doing.
    """
    from filelock import FileLock, Timeout

    directory.mkdir(parents=True, exist_ok=True)
    # Never by a mere file, which a killed process would leave behind: better an error where the system has no locks.
    lock = FileLock(directory / name, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{directory}: another process is {what}; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


def save_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically."""
    with atomic_file(path, "w") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: for what is no JSON, and for lists in lists so deep that Python cannot follow.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def load_json(path: str | Path, what: str) -> Any:
    """Reads a JSON file of ours.

    Args:
        path: the file.
        what: what the file should be, for the error text, e.g. "a feature store's manifest".

    Raises:
        InputError: if it is missing, unreadable or not JSON.
    """
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} not found; expected {what}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {what}") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); expected {what}") from error


def validate_format(header: Any, path: str | Path, *, name: str, version: int) -> None:
    """Refuses a foreign file, or one of ours in a format this release does not read.

    Args:
        header: the parsed JSON; ours is an object with ``format`` and ``format_version``.
        path: where it was found, for the error text.
        name: the expected ``format``.
        version: the expected ``format_version``.

    Raises:
        InputError: naming what was found and what was expected.
    """
    if not isinstance(header, dict) or header.get("format") != name:
        raise InputError(f"{path}: not of format {name!r}")
    if header.get("format_version") != version:
        raise InputError(
            f"{path}: format version {header.get('format_version')}, this release reads {version}; make it again with "
            "this release"
        )
