"""What lies in a music folder: sound files with size and time, and everything else that
a listener may miss, with the reason.

Links are followed, to files and to folders, wherever they lead; each real folder is listed once, so loops end and
a second way to the same folder adds nothing. Hidden things of systems and programs are left out and counted, and
so are kinds of music that nothing here decodes.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msim_tf.audio.kinds import AUDIO_SUFFIXES, UNSUPPORTED_SUFFIXES
from msim_tf.errors import InputError

_BLOCK = 2**20
# A dot and a small letter or underscore begin what systems and programs hide (.git, ._song.mp3,
# .nfs00ab). Albums and bands with a dot in front go on with a digit, a capital or another dot (".38
# Special", "...And Justice for All"), except for these.
_HIDDEN = re.compile(
    r"\.[a-z_].*|\.(Trash|DS_Store|Spotlight-V|TemporaryItems|DocumentRevisions|AppleD|VolumeIcon|LSOverride|PKInstall|MobileBackups|Trashes).*"
    r"|@eaDir|@Recycle|@Recently-Snapshot|@tmp|#recycle|#snapshot|\$RECYCLE\.BIN|RECYCLER"
    r"|System Volume Information|lost\+found|__MACOSX",
    re.DOTALL,
)


@dataclass(frozen=True)
class FileState:
    """What tells cheaply that a file has not changed.

    Attributes:
        size: bytes.
        modified: nanoseconds since 1970; behind an URI, a number made of the etag.
    """

    size: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """The state of a local file; a time before 1678 or after 2262 becomes the nearest one in 64 bits."""
        return cls(status.st_size, min(max(status.st_mtime_ns, -(2**63)), 2**63 - 1))


def states_to_json(files: Mapping[str, FileState]) -> list[list[Any]]:
    """Identifiers and states as a job's JSON has them."""
    return [[name, state.size, state.modified] for name, state in files.items()]


def states_from_json(value: Any) -> dict[str, FileState]:
    """The inverse of ``states_to_json``; a ``TypeError`` or ``ValueError`` says that it is something else."""
    return {str(name): FileState(int(size), int(modified)) for name, size, modified in value}


@dataclass(frozen=True)
class Scan:
    """A look at a music folder.

    Attributes:
        files: identifier -> state, in the order of the identifiers (POSIX paths relative to the folder).
        failures: what was left out -> why. Names that are not UTF-8 hold surrogates, as ``os.fsdecode`` makes them.
        unreadable: folders that could not be listed, as identifiers with a slash at the
            end: what is in them is unknown, not gone.
        hidden: how many hidden files and folders were left out.
        unsupported: suffix -> how many files of a kind of music that cannot be decoded.
        root: the folder; that of the file, where a single file was scanned.
        uri: of the folder, if the files are behind one; then there is no root.
    """

    files: dict[str, FileState]
    failures: dict[str, str]
    unreadable: tuple[str, ...]
    hidden: int = 0
    unsupported: dict[str, int] = field(default_factory=dict)
    root: Path = Path()
    uri: str = ""

    def notices(self) -> list[str]:
        """What was left out without a reason of its own, each as a line for a summary."""
        lines = []
        if self.unsupported:
            counts = ", ".join(f"{count} {suffix}" for suffix, count in self.unsupported.items())
            lines.append(f"of a kind that is not decoded: {counts}")
        if self.hidden:
            lines.append(f"hidden: {self.hidden}")
        return lines


def scan_folder(path: Path) -> Scan:
    """Looks at all of a folder, or at a single sound file.

    Raises:
        InputError: if it cannot be read, or holds no sound file at all (an unmounted disk must not empty a library).
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected a folder of music or a sound file"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        # A file that somebody named counts, whatever its suffix.
        state = _state_or_reason(path, path.name)
        if isinstance(state, str):
            raise InputError(f"{path}: {state}")
        return Scan({path.name: state}, {}, (), root=path.parent)

    # Everything below a folder; nothing at all is more likely a wrong path or an unmounted disk than an empty library.
    walk = _Walk(path)
    walk.run()
    counted = Scan({}, {}, (), walk.hidden, dict(sorted(walk.unsupported.items())))
    if not walk.files:
        left_out = [f"{name}: {reason}" for name, reason in list(walk.failures.items())[:1]] + counted.notices()
        raise InputError(
            f"{path}: holds no audio; looked below it for {' '.join(AUDIO_SUFFIXES)}"
            + (f" (left out: {'; '.join(left_out)})" if left_out else "")
        )
    files = dict(sorted(walk.files.items()))
    return Scan(files, walk.failures, tuple(walk.unreadable), walk.hidden, counted.unsupported, path)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system or program rather than to a music collection."""
    return _HIDDEN.fullmatch(name) is not None


class _Walk:
    """One pass over a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._visited: set[tuple[int, int]] = set()
        self._links: list[Path] = []
        self.files: dict[str, FileState] = {}
        self.failures: dict[str, str] = {}
        self.unreadable: list[str] = []
        self.hidden = 0
        self.unsupported: Counter[str] = Counter()

    def run(self) -> None:
        """All real folders first, then what links lead to: a folder has its real name where it has one."""
        waiting = [self._root]
        while waiting or self._links:
            folder = waiting.pop() if waiting else self._links.pop(0)
            waiting += reversed(self._list(folder))

    def _list(self, folder: Path) -> list[Path]:
        """Takes the files of one folder, and returns its real sub-folders."""
        identifier = self._identifier(folder)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self._visited:
                return []
            self._visited.add((status.st_dev, status.st_ino))
            names = sorted(os.listdir(folder))
        except OSError as error:
            if folder == self._root:
                raise InputError(f"{folder}: cannot be read ({error.strerror}); expected a folder of music") from error
            self.unreadable.append(identifier + "/")
            self.failures[identifier + "/"] = f"cannot be read ({error.strerror})"
            return []

        # Sound files are taken; folders wait for their turn, links for that of all real folders.
        folders: list[Path] = []
        before = len(self.files) + len(self._links)
        for name in names:
            path = folder / name
            if is_hidden(name):
                self.hidden += 1
            elif os.path.isdir(path):
                if not _is_utf8(name):
                    self.failures[self._identifier(path) + "/"] = "its name is not valid UTF-8; rename the folder"
                elif path.is_symlink():
                    self._links.append(path)
                else:
                    folders.append(path)
            else:
                self._take(path, name)

        # An empty folder called like a sound file is worth a word.
        if identifier.lower().endswith(AUDIO_SUFFIXES) and not folders and len(self.files) + len(self._links) == before:
            self.failures[identifier + "/"] = "a folder, not a sound file"
        return folders

    def _take(self, path: Path, name: str) -> None:
        suffix = os.path.splitext(name)[1].lower()
        if suffix in UNSUPPORTED_SUFFIXES:
            self.unsupported[suffix] += 1
        if not name.lower().endswith(AUDIO_SUFFIXES):
            return
        identifier = self._identifier(path)
        state = _state_or_reason(path, name)
        if isinstance(state, str):
            self.failures[identifier] = state
        else:
            self.files[identifier] = state

    def _identifier(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _state_or_reason(path: Path, name: str) -> FileState | str:
    if not _is_utf8(name):
        return "its name is not valid UTF-8; rename the file"
    try:
        status = path.stat()
    except OSError as error:  # a link to nothing, links in a circle
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"  # opening a pipe would wait for ever
    return FileState.of(status)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


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
