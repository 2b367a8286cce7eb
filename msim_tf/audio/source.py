"""Where sound files come from: a folder, a single file, or an URI such as ``s3://bucket/music`` that fsspec opens.

Behind an URI a listing gives name, size and etag in the place of ``stat``, and a file is fetched into a temporary one
while it is decoded. ``TMPDIR`` says where; room for one file per thread is enough.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from msim_tf.audio.kinds import AUDIO_SUFFIXES, UNSUPPORTED_SUFFIXES
from msim_tf.audio.scan import FileState, Scan, is_hidden, scan_folder
from msim_tf.errors import InputError
from msim_tf.extras import require
from msim_tf.parallel import in_order

# Two letters at least: C: is a drive.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What file systems call that by which a changed file is noticed, best first.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "generation")
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified", "created")
_REQUESTS = 16  # at once, to a server whose listing tells no sizes

Source = str | Path


class SourceUnavailable(InputError):
    """A file cannot be fetched now: a fault of the network or the server, not of the file."""


def is_uri(source: Source) -> bool:
    """Whether a source is an URI rather than a path."""
    return isinstance(source, str) and _URI.match(source) is not None


def source_root(source: Source) -> Source:
    """The folder of a source: itself, or that of the single file that it is."""
    if not is_uri(source):
        return source if Path(source).is_dir() else Path(source).parent
    return str(source).rpartition("/")[0] if _is_sound(str(source)) else source


def scan_source(source: Source) -> Scan:
    """Lists the sound files of a source.

    Raises:
        InputError: if it cannot be read, or holds no sound file at all.
    """
    if not is_uri(source):
        return scan_folder(Path(source))
    uri = str(source)
    system, path = _open(uri)
    try:
        return _listed(system, uri, path.rstrip("/"))
    except InputError:
        raise
    except Exception as error:  # each file system has its own
        raise InputError(f"{uri}: cannot be listed ({_reason(error)})") from error


@contextmanager
def local_file(root: Source, identifier: str, state: FileState) -> Iterator[Path]:
    """A path under which a file of a source can be opened: its own, or that of a temporary copy.

    Args:
        root: the folder.
        identifier: of the file.
        state: of the file when it was listed.

    Raises:
        InputError: if the file is gone or has another size; the message does not name it.
        SourceUnavailable: if it cannot be fetched.
        OSError: if the copy cannot be written.
    """
    if not is_uri(root):
        yield Path(root) / identifier
        return
    system, path = _open(str(root))
    with tempfile.TemporaryDirectory(prefix="msim-") as folder:
        copy = Path(folder, "sound").with_suffix(PurePosixPath(identifier).suffix)
        # Web servers take and list names in percent-encoding.
        name = quote(identifier) if _is_web(system) else identifier
        _fetch(system, f"{path.rstrip('/')}/{name}", copy)
        if state.size and copy.stat().st_size != state.size:
            raise InputError("changed after it was listed; run again")
        yield copy


def _fetch(system: Any, path: str, copy: Path) -> None:
    try:
        system.get_file(path, str(copy))
    except FileNotFoundError:
        raise InputError("is gone since it was listed") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        raise SourceUnavailable(f"{path}: cannot be fetched ({_reason(error)})") from error


def _open(uri: str) -> tuple[Any, str]:
    """The file system of an URI, and the path in it."""
    require("fsspec")
    import fsspec

    try:
        return fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"{uri}: cannot be opened ({_reason(error)})") from error


def _listed(system: Any, uri: str, path: str) -> Scan:
    # A single file.
    if _is_sound(path):
        name = _unquoted(system, path.rpartition("/")[2])
        return Scan({name: _state(system.info(path))}, {}, (), uri=str(source_root(uri)))

    # Name below the folder -> (name in the file system, what its listing says).
    # A folder that cannot be listed must not look empty; object stores list without folders and raise by themselves.
    strict = {"on_error": "raise"} if _is_web(system) else {}
    entries = {
        _unquoted(system, name[len(path) :].lstrip("/")): (name, information)
        for name, information in system.find(path, detail=True, **strict).items()
        if name.startswith(f"{path}/")
    }
    if "store.db" in entries:
        raise InputError(f"{uri}: a feature store; stores need a local or shared file system, copy it there")
    suffixes = Counter(os.path.splitext(name)[1].lower() for name in entries)
    unsupported = {suffix: count for suffix, count in sorted(suffixes.items()) if suffix in UNSUPPORTED_SUFFIXES}
    sounds = {name: entry for name, entry in sorted(entries.items()) if _is_sound(name)}
    # A server may list what is not below the folder, and names that no file system has.
    visible = {name: entry for name, entry in sounds.items() if not any(map(_is_left_out, name.split("/")))}
    if not visible:
        raise InputError(f"{uri}: holds no audio; looked below it for {' '.join(AUDIO_SUFFIXES)}")

    # States of the files, several requests at once where the listing has none.
    files: dict[str, FileState] = {}
    failures: dict[str, str] = {}
    for (name, _), state in in_order(partial(_state_or_reason, system), visible.items(), _REQUESTS):
        if isinstance(state, str):
            failures[name] = state
        else:
            files[name] = state
    hidden = len(sounds) - len(visible)
    return Scan(files, failures, (), hidden, unsupported, uri=uri.rstrip("/"))


def _is_left_out(part: str) -> bool:
    return part in ("", ".", "..") or "\0" in part or is_hidden(part)


def _state_or_reason(system: Any, item: tuple[str, tuple[str, Mapping[str, Any]]]) -> FileState | str:
    """The state of a file as its listing tells it, or as it must be asked for."""
    _, (path, information) = item
    if information.get("size") is not None:
        return _state(information)
    try:
        return _state(system.info(path))
    except FileNotFoundError:
        return "cannot be read (listed, but not there)"


def _state(information: Mapping[str, Any]) -> FileState:
    versions = [information[key] for key in (*_VERSION_KEYS, *_TIME_KEYS) if information.get(key)]
    if not versions:
        return FileState(int(information.get("size") or 0), 0)
    # A listing may give a time in seconds where a look at the file gives it as an object.
    text = str(versions[0].timestamp() if isinstance(versions[0], datetime) else versions[0])
    # 63 bits, as a database has them.
    version = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return FileState(int(information.get("size") or 0), version)


def _is_sound(name: str) -> bool:
    return name.lower().endswith(AUDIO_SUFFIXES)


def _is_web(system: Any) -> bool:
    protocols = system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)
    return "http" in protocols


def _unquoted(system: Any, path: str) -> str:
    return unquote(path) if _is_web(system) else path


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
