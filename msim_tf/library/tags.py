"""Artist, album, title, year and genre as a file's own tags tell them, by mutagen, in the spelling of ``search.tracks``.

Tags are somebody else's text: control characters become spaces, and length and number are bounded. A file whose tags cannot be read has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Names in Vorbis comments and in mutagen's "easy" tags, and ID3 frames as WAV and AIFF hold them.
_NAMES = {
    "artist": ("artist", "TPE1"),
    "album_artist": ("albumartist", "album artist", "TPE2"),
    "album": ("album", "TALB"),
    "title": ("title", "TIT2"),
    "year": ("originaldate", "date", "year", "TDOR", "TDRC", "TYER"),
    "genre": ("genre", "TCON"),
}
_LONGEST = 300
_MOST_GENRES = 10


def read_tags(path: Path) -> dict[str, Any]:
    """The tags of a sound file; what is not told is left out."""
    import mutagen

    try:
        file = mutagen.File(path, easy=True)
        held = dict(file.tags.items()) if file is not None and file.tags is not None else {}
    except Exception:  # a parser of foreign bytes: whatever it says, the music may still be good
        return {}
    return canonical_tags(held)


def canonical_tags(held: Mapping[str, Any]) -> dict[str, Any]:
    """Tags as mutagen gives them, in our spelling."""
    values = {name: _first(held, keys) for name, keys in _NAMES.items()}
    told: dict[str, Any] = {
        name: ", ".join(values[name]) if "artist" in name else values[name][0]
        for name in ("artist", "album_artist", "album", "title")
        if values[name]
    }
    told |= {name: text[:_LONGEST] for name, text in told.items()}
    year = re.search(r"\b[12][0-9]{3}", " ".join(values["year"]))
    genres = [genre.strip() for text in values["genre"] for genre in text.split(";")]
    known = list(dict.fromkeys(genre[:_LONGEST] for genre in genres if genre))[:_MOST_GENRES]
    return {**told, **({"year": int(year[0])} if year else {}), **({"genre": known} if known else {})}


def _first(held: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """The texts of the first key that has any."""
    for key in keys:
        texts = [_clean(text) for text in _texts(held.get(key))]
        if any(texts):
            return [text for text in texts if text]
    return []


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    # An ID3 genre may be a number, which only this property spells out.
    value = getattr(value, "genres", None) or getattr(value, "text", value)
    return [str(text) for text in (value if isinstance(value, (list, tuple)) else [value])]


def _clean(text: str) -> str:
    """Printable text that has bytes in UTF-8, with single spaces."""
    text = text.encode("utf-8", "replace").decode()
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
