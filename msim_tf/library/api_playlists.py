"""Hits as playlists that players read: extended M3U in UTF-8, asked for by GET, as players do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from msim_tf.errors import InputError
from msim_tf.library.api_errors import ApiError, validation_line
from msim_tf.library.api_responses import Track
from msim_tf.library.playlists import playlist_entry, playlist_text

MEDIA_TYPE = "audio/mpegurl"  # RFC 8216, section 4
PER_ARTIST = 2  # most tracks of one artist where a request does not say
_Request = TypeVar("_Request", bound=BaseModel)


@dataclass(frozen=True)
class Naming:
    """How a playlist names tracks: by default by paths relative to the music folder, where the playlist belongs.

    Attributes:
        prefix: the player's name of the music folder, for absolute paths; "" for relative ones.
        links: whether it names addresses of the server, which play anywhere while it runs.
    """

    prefix: str = ""
    links: bool = False


def request_of(
    model: type[_Request],
    fields: Mapping[str, str],
    tracks: Sequence[str] = (),
    *,
    ends: tuple[str, str] | None = None,
    profile: str = "",
) -> _Request:
    """The request that a query string describes.

    Args:
        model: the model of the same request as a body.
        fields: field -> JSON; "" where it is absent.
        tracks: ids of tracks in the place of the field "query"; () without them.
        ends: ids of tracks for the fields "from" and "to"; None without them.
        profile: for the field of that name, as it is; "" without it.

    Raises:
        ApiError: 400, naming the field, for what is not JSON or the model does not take.
    """
    body: dict[str, Any] = {}
    for name, text in fields.items():
        if text:
            try:
                body[name] = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ApiError(400, f"{name}: not JSON ({error})") from None
    # Ids of tracks are plain text in the address, unlike the JSON of the other fields.
    if tracks and "query" in body:
        raise ApiError(400, "query and track both say what to be near to; give one of them")
    if tracks:
        body["query"] = {"track": tracks[0]} if len(tracks) == 1 else {"tracks": list(tracks)}
    if ends is not None:
        body |= {"from": ends[0], "to": ends[1]}
    if profile:
        body["profile"] = profile
    try:
        return model.model_validate(body)
    except ValidationError as error:
        # To the user these are fields of the address and not of a body.
        faults = [{**fault, "loc": ("query", *fault["loc"])} for fault in error.errors()]
        raise ApiError(400, validation_line(faults)) from None


def playlist(tracks: Sequence[Track], title: str, naming: Naming, audio: str) -> str:
    """Tracks as extended M3U.

    M3U has no spelling for a relative path with a line break: such tracks are left out of playlists of such paths.

    Args:
        tracks: in order.
        title: of the playlist.
        naming: how it names them.
        audio: the address below which tracks play by their ids.

    Raises:
        InputError: if ``naming`` contradicts itself.
    """
    if naming.prefix and naming.links:
        raise InputError("prefix and links: a playlist names files or addresses, not both")
    entries = []
    for track in tracks:
        name = track["id"]
        if naming.links:
            name = f"{audio}/{quote(name, safe='', errors='surrogateescape')}"
        elif naming.prefix:
            name = str(PurePosixPath(naming.prefix, name))
        # A line break fits in an absolute path, which then becomes a URI, but not in a relative one.
        if len(name.splitlines()) == 1 or name.startswith("/"):
            entries.append(playlist_entry(name, track))
    return playlist_text(entries, format="m3u", title=title)
