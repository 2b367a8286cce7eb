"""Sound files of the library over HTTP, whole or in part (RFC 9110, section 14), and nothing but these files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from msim_tf.library.api_errors import ApiError

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


def open_within(root: Path, identifier: str) -> int:
    """A file descriptor of the regular file ``root / identifier``, if that really lies below ``root``.

    Links are resolved first and the result is opened without following any: one that leads out of the folder is
    refused, also when it was put there after indexing.

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


def audio_response(root: Path, identifier: str) -> Response:
    """The answer to a GET or HEAD of a track's sound file: whole, or the ranges that are asked for.

    Raises:
        ApiError: 404; 416 or 400 for a range that makes no sense, once the answer is sent.
    """
    descriptor = open_within(root, identifier)
    return _TrackFile(descriptor, MEDIA_TYPES.get(os.path.splitext(identifier)[1].lower(), "application/octet-stream"))


class _TrackFile(FileResponse):
    """A file that is open already: what is sent is what was checked. It is closed however the request ends."""

    def __init__(self, descriptor: int, media_type: str) -> None:
        headers = {"Cache-Control": "private, no-cache"}
        super().__init__(
            f"/dev/fd/{descriptor}", headers=headers, media_type=media_type, stat_result=os.fstat(descriptor)
        )
        self._descriptor = descriptor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def refusing(message: Message) -> None:
            # Starlette words a wrong range as plain text; raised before anything is sent, it becomes an error like all
            # others.
            if message["type"] == "http.response.start" and message["status"] >= 400:
                raise _range_error(message["status"], Headers(scope=scope)["range"], Headers(raw=message["headers"]))
            await send(message)

        try:
            await super().__call__(scope, receive, refusing)
        finally:
            os.close(self._descriptor)


def _range_error(status: int, asked: str, headers: Headers) -> ApiError:
    size = headers.get("content-range")
    if size is None:
        return ApiError(status, f"range {asked[:100]!r}: expected e.g. bytes=0-499")
    return ApiError(status, f"range {asked[:100]!r} is not within {size[8:]} bytes", {"Content-Range": size})
