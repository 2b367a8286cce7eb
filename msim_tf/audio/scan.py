"""What lies in a music folder, and nothing outside it: sound files with size and time, and what cannot be used with the reason.

Hidden names are skipped and links to folders are not followed. A link to a file is followed when it ends inside the folder.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from msim_tf.audio.decode import AUDIO_SUFFIXES
from msim_tf.errors import InputError

_BLOCK = 2**20


@dataclass(frozen=True)
class FileState:
    """What tells cheaply that a file has not changed.

    Attributes:
        size: bytes.
        modified: nanoseconds since 1970.
    """

    size: int
    modified: int


@dataclass(frozen=True)
class Scan:
    """A look at a music folder.

    Attributes:
        files: identifier -> state, in the order of the identifiers (POSIX paths relative to the folder).
        failures: what was left out -> why.
        unreadable: folders that could not be listed, as identifiers with a slash at the end: what is in them is unknown, not gone.
    """

    files: dict[str, FileState]
    failures: dict[str, str]
    unreadable: tuple[str, ...]


def scan_folder(root: Path) -> Scan:
    """Looks at all of ``root``.

    Raises:
        InputError: if it is no folder that can be listed, or holds no sound file at all (an unmounted disk must not empty a library).
    """
    files: dict[str, FileState] = {}
    failures: dict[str, str] = {}
    unreadable: list[str] = []

    def refuse(error: OSError) -> None:
        if Path(error.filename) == root:
            raise InputError(f"{root}: cannot be read ({error.strerror}); expected a folder of music") from error
        folder = Path(error.filename).relative_to(root).as_posix() + "/"
        unreadable.append(folder)
        failures[folder] = f"cannot be read ({error.strerror})"

    real_root = root.resolve()
    for parent, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or not name.lower().endswith(AUDIO_SUFFIXES):
                continue
            path = Path(parent) / name
            identifier = path.relative_to(root).as_posix()
            found = _state_or_reason(path, identifier, real_root)
            if isinstance(found, str):
                failures[identifier] = found
            else:
                files[identifier] = found
    if not files:
        raise InputError(f"{root}: holds no audio; looked below it for {' '.join(AUDIO_SUFFIXES)}")
    return Scan(dict(sorted(files.items())), failures, tuple(unreadable))


def _state_or_reason(path: Path, identifier: str, real_root: Path) -> FileState | str:
    try:
        identifier.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8; rename the file"
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(real_root):
            return "a link out of the music folder"
        status = path.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"  # opening a pipe would wait for ever
    return FileState(status.st_size, status.st_mtime_ns)


def content_hash(path: Path) -> str:
    """SHA-256 of a file, as hex digits.

    Raises:
        OSError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
