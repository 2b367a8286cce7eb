"""Atomic writes: a file or directory of ours is either whole or not there.

Everything is first written under a temporary name in the *same* directory, flushed to disk, and renamed. A process killed at any moment
leaves at most a ``.tmp-*`` leftover, which no reader looks at and the next write of the same name removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from msim_tf.errors import InputError

_TEMPORARY = ".tmp-"


def temporary_name(path: Path) -> Path:
    """The name under which ``path`` is written before it is whole."""
    return path.with_name(_TEMPORARY + path.name)


@contextmanager
def atomic_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file that becomes ``path`` when the block ends without an exception.

    Args:
        path: destination; its parent directory is made when missing.
        mode: "w" or "wb".

    Yields:
        The open file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def exclusive(directory: Path, what: str, *, name: str = ".lock") -> Iterator[None]:
    """Keeps a second writer out of ``directory``, which is made when missing; the lock ends with the process, however it ends.

    Writers of different parts of a directory lock different files, ``name``.

    Raises:
        InputError: if another process holds it, saying ``what`` that process is doing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory}: another process is {what}; wait for it to end") from None
        yield


def save_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically."""
    with atomic_file(path, "w") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def load_json(path: str | Path, what: str) -> Any:
    """Reads a JSON file of ours.

    Args:
        path: the file.
        what: what the file should be, for the error text, e.g. "a feature store's manifest".

    Raises:
        InputError: if it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
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
            f"{path}: format version {header.get('format_version')}, this release reads {version}; make it again with this release"
        )
