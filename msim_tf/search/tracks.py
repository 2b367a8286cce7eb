"""What an index knows of a track beside its vector, in one canonical spelling that filters and explanations rely on.

All keys are optional:

    artist, album_artist, album, title   text
    year                                 integer
    tempo                                beats per minute, > 0
    key                                  "A minor", "Bb major": as ``theory.key_name`` writes it
    genre, mood, instrument, era, tags   lists of text; the first four are evidence of their dimension

Anything else is kept as it is, as long as JSON can hold it (a caller's file size, time or hash).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.errors import InputError
from msim_tf.names import comparable, comparable_artist
from msim_tf.theory import key_name, parse_bpm, parse_key

TEXT_KEYS = ("artist", "album_artist", "album", "title")
TAG_KEYS = (*TAG_DIMENSION_NAMES, "tags")

_YEARS = (1000, 2999)


def track_metadata(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Metadata in its canonical spelling; unknown values (None, "", empty lists) are left out.

    A list of one is accepted for a single value, as labels of a dimension come, and a single text for a list of tags.

    Args:
        value: as described at the head of this module.
        where: whose it is, for the error text.

    Raises:
        InputError: naming ``where`` and the key at fault.
    """
    readers = {
        **dict.fromkeys(TEXT_KEYS, _text),
        **dict.fromkeys(TAG_KEYS, _tags),
        "tempo": _tempo,
        "key": _key,
        "year": _year,
    }
    # Fields of our own are read into one spelling; foreign ones pass if JSON can hold them.
    present = {key: field for key, field in value.items() if field is not None and field not in ("", [], ())}
    try:
        clean = {key: readers[key](field) if key in readers else field for key, field in present.items()}
        json.dumps(clean, allow_nan=False)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"metadata of {where}: {error}") from None
    return clean


def all_tags(metadata: Mapping[str, Any]) -> set[str]:
    """Every tag of a track, whatever its dimension, in one case."""
    return {tag.casefold() for key in TAG_KEYS for tag in metadata.get(key, ())}


def artist_of(metadata: Mapping[str, Any]) -> str:
    """The first artist, comparable (``names.comparable_artist``), "" where unknown."""
    return comparable_artist(metadata.get("artist", ""))


def album_of(metadata: Mapping[str, Any]) -> str:
    """The album, comparable, told apart from other artists' album of that name; "" where unknown."""
    if "album" not in metadata:
        return ""
    artist = metadata.get("album_artist") or metadata.get("artist", "")
    return f"{comparable_artist(artist)}\n{comparable(metadata['album'])}"


def _single(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return value[0]
    return value


def _text(value: Any) -> str:
    value = _single(value)
    if not isinstance(value, str):
        raise InputError(f"{value!r} is not text")
    return value


def _tags(value: Any) -> list[str]:
    tags = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(tag, str) and tag for tag in tags):
        raise InputError(f"{value!r}: expected a list of tags")
    return tags


def _tempo(value: Any) -> float:
    return parse_bpm(_single(value))


def _key(value: Any) -> str:
    return key_name(parse_key(_text(value)))


def _year(value: Any) -> int:
    text = str(_single(value)).strip()
    year = int(text) if text.isdecimal() else 0
    if not _YEARS[0] <= year <= _YEARS[1]:
        raise InputError(f"year {value!r}: expected {_YEARS[0]}..{_YEARS[1]}")
    return year
