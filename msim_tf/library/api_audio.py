"""Sound files of the library over HTTP, whole or in part (RFC 9110, section 14), and nothing but these files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from msim_tf.audio.scan import FileState
from msim_tf.library.api_errors import ApiError

# By suffix and not by the system's table, which differs from machine to machine.
_SUFFIXES = {
    "audio/wav": (".wav", ".wave", ".bwf", ".rf64"),
    "audio/x-w64": (".w64",),
    "audio/flac": (".flac",),
    "audio/ogg": (".ogg", ".oga", ".opus", ".spx"),
    "audio/mpeg": (".mp3", ".mp2", ".mp1", ".mpa", ".mpga"),
    "audio/aiff": (".aiff", ".aif", ".aifc"),
    "audio/basic": (".au", ".snd"),
    "audio/x-caf": (".caf",),
    "audio/x-voc": (".voc",),
    "audio/mp4": (".m4a", ".m4b", ".m4r", ".m4p"),
    "audio/vnd.audible.aax": (".aax",),
    "audio/3gpp": (".3ga",),
    "audio/aac": (".aac", ".adts"),
    "audio/x-ms-wma": (".wma", ".asf"),
    "audio/x-wavpack": (".wv",),
    "audio/x-ape": (".ape",),
    "audio/x-tta": (".tta",),
    "audio/x-tak": (".tak",),
    "audio/x-shorten": (".shn",),
    "audio/x-musepack": (".mpc", ".mp+", ".mpp"),
    "audio/x-matroska": (".mka",),
    "audio/webm": (".weba", ".webm"),
    "audio/ac3": (".ac3",),
    "audio/eac3": (".eac3", ".ec3"),
    "audio/vnd.dts": (".dts",),
    "audio/vnd.dolby.mlp": (".mlp",),
    "audio/x-dsf": (".dsf",),
    "audio/x-dff": (".dff",),
    "audio/vnd.rn-realaudio": (".ra", ".rm", ".ram"),
    "audio/amr": (".amr",),
    "audio/amr-wb": (".awb",),
    "audio/atrac3": (".oma", ".aa3", ".at3"),
}
MEDIA_TYPES = {suffix: media_type for media_type, suffixes in _SUFFIXES.items() for suffix in suffixes}


def open_track(root: Path, identifier: str, indexed: FileState) -> int:
    """A file descriptor of the sound file of a track.

    Links are resolved first, and the result is opened without following any. Where that leads out of the folder, only
    the very file is opened that was indexed there, by its size and time: a link may have been put there, or turned
    elsewhere, since.

    Args:
        root: the folder of music.
        identifier: of a track of the library.
        indexed: the file as it was when it was indexed.

    Raises:
        ApiError: 404.
    """
    try:
        real_root = root.resolve(strict=True)
        real = (real_root / identifier).resolve(strict=True)
        expected = None if real.is_relative_to(real_root) else indexed
        # Looked at before it is opened, since opening a device may do something to it.
        _validate(real.stat(), expected, identifier)
        # Not blocking: a pipe in the place of a file must not hold the server.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except ApiError:
        raise
    except (OSError, ValueError, RuntimeError):  # ValueError: NUL in the name; RuntimeError: links in a circle
        raise ApiError(404, f"the file of {identifier!r} cannot be read; index again") from None
    # Once more on the open file, since the name may have been turned to another one in between.
    try:
        _validate(os.fstat(descriptor), expected, identifier)
    except ApiError:
        os.close(descriptor)
        raise
    return descriptor


def _validate(status: os.stat_result, expected: FileState | None, identifier: str) -> None:
    """Refuses what is not a regular file, or not the ``expected`` one.

    Raises:
        ApiError: 404.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ApiError(404, f"{identifier!r} is not a file")
    if expected not in (None, FileState.of(status)):
        raise ApiError(
            404, f"{identifier!r} is not in the music folder, nor the file that was indexed there; index again"
        )


def audio_response(root: Path, identifier: str, indexed: FileState) -> Response:
    """The answer to a GET or HEAD of a track's sound file: whole, or the ranges that are asked for.

    Args:
        root: the folder of music.
        identifier: of a track of the library.
        indexed: the file as it was when it was indexed.

    Raises:
        ApiError: 404; 416 or 400 for a range that makes no sense, once the answer is sent.
    """
    descriptor = open_track(root, identifier, indexed)
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


def _range_error(status: int, requested: str, headers: Headers) -> ApiError:
    """A wrong range in one line; where the file's size is known, with it, as RFC 9110 has it for status 416."""
    size = headers.get("content-range")
    if size is None:
        return ApiError(status, f"range {requested[:100]!r}: expected e.g. bytes=0-499")
    return ApiError(status, f"range {requested[:100]!r} is not within {size[8:]} bytes", {"Content-Range": size})
