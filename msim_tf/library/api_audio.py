"""Sound files of the library over HTTP, whole or in part (RFC 9110, section 14), and nothing but these files."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse

from msim_tf.library.api_errors import ApiError

_BLOCK = 2**18
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*")
# By suffix and not by the system's table, which differs from machine to machine.
MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".rf64": "audio/wav",
    ".w64": "audio/x-w64",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".mp3": "audio/mpeg",
    ".aiff": "audio/aiff",
    ".aif": "audio/aiff",
    ".aifc": "audio/aiff",
    ".au": "audio/basic",
    ".snd": "audio/basic",
    ".caf": "audio/x-caf",
}


@dataclass(frozen=True)
class Part:
    """Which bytes are sent: ``start`` to ``stop`` (not included)."""

    start: int
    stop: int


def open_within(root: Path, identifier: str) -> int:
    """A file descriptor of the regular file ``root / identifier``, if that really lies below ``root``.

    Links are resolved first and the result is opened without following any: one that leads out of the folder is refused, also when it
    was put there after indexing.

    Raises:
        ApiError: 404.
    """
    try:
        real_root = root.resolve(strict=True)
        real = (real_root / identifier).resolve(strict=True)
        # Not blocking: a pipe in the place of a file must not hold the server.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(real, flags) if real.is_relative_to(real_root) else -1
    except (OSError, ValueError, RuntimeError):  # ValueError: NUL in the name; RuntimeError: links in a circle
        raise ApiError(404, f"the file of {identifier!r} cannot be read; index again") from None
    if descriptor < 0:
        raise ApiError(404, f"{identifier!r} is not in the music folder")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ApiError(404, f"{identifier!r} is not a file")
    return descriptor


def requested_part(header: str | None, size: int) -> Part | None:
    """The one range that a request asks for.

    Args:
        header: the Range header.
        size: of the file.

    Returns:
        The part, or None for the whole file: no header, one that is not understood, or several ranges, which a server may ignore.

    Raises:
        ApiError: 416 if there is no such part.
    """
    found = _RANGE.fullmatch(header) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last n bytes
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= stop:
        raise ApiError(416, f"range {header!r} is not within {size} bytes", {"Content-Range": f"bytes */{size}"})
    return Part(start, stop)


def audio_response(root: Path, identifier: str, method: str, headers: Headers) -> Response:
    """The answer to a GET or HEAD of a track's sound file.

    Raises:
        ApiError: 404 or 416.
    """
    descriptor = open_within(root, identifier)
    try:
        status = os.fstat(descriptor)
        told = _file_headers(identifier, status)
        wanted = headers.get("range") if _may_resume(headers, told) else None
        part = requested_part(wanted, status.st_size)
    except BaseException:
        os.close(descriptor)
        raise
    code = 200 if part is None else 206
    if part is not None:
        told["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{status.st_size}"
    part = part or Part(0, status.st_size)
    told["Content-Length"] = str(part.stop - part.start)
    if method == "HEAD":
        os.close(descriptor)
        return Response(status_code=code, headers=told)
    return _FileResponse(descriptor, part, code, told)


def _file_headers(identifier: str, status: os.stat_result) -> dict[str, str]:
    return {
        "Content-Type": MEDIA_TYPES.get(os.path.splitext(identifier)[1].lower(), "application/octet-stream"),
        "Accept-Ranges": "bytes",
        "ETag": f'"{status.st_size:x}-{status.st_mtime_ns:x}"',
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        "Cache-Control": "private, no-cache",
    }


def _may_resume(headers: Headers, told: dict[str, str]) -> bool:
    """Whether the file is still the one that the client has a part of."""
    return headers.get("if-range", told["ETag"]) in (told["ETag"], told["Last-Modified"])


class _FileResponse(StreamingResponse):
    """Streams part of a file, and closes it however the request ends."""

    def __init__(self, descriptor: int, part: Part, status: int, headers: dict[str, str]) -> None:
        super().__init__(_blocks(descriptor, part), status, headers=headers)
        self._descriptor = descriptor

    async def __call__(self, *arguments: Any) -> None:
        try:
            await super().__call__(*arguments)
        finally:
            os.close(self._descriptor)


def _blocks(descriptor: int, part: Part) -> Iterator[bytes]:
    position = part.start
    while position < part.stop:
        block = os.pread(descriptor, min(_BLOCK, part.stop - position), position)
        if not block:
            return  # cut short meanwhile; the client sees fewer bytes than promised
        position += len(block)
        yield block
