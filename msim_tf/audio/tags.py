"""Artist, album, title, year and genre as a file's own tags tell them, by tinytag,
in the spelling of ``search.tracks``.

Tags are somebody else's text: control characters become spaces, and length and number are bounded.
A file whose tags cannot be read has none.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# tinytag's names, each in lower case: its own fields, and those that it passes on as the file
# spells them (Vorbis comments, ID3 frames).
_NAMES = {
    "artist": ("artist",),
    "album_artist": ("albumartist", "album artist", "album_artist"),
    "album": ("album",),
    "title": ("title",),
    "year": ("originaldate", "tdor", "tory", "originalyear", "year", "_year"),
    "genre": ("genre",),
}
_LONGEST = 300
_MOST_VALUES = 10
_SECONDS = 2.0  # of processor time; a common file takes a millisecond


def read_tags(path: Path) -> dict[str, Any]:
    """The tags of a sound file; what is not told is left out."""
    from tinytag import TinyTag

    try:
        with _limited(_SECONDS):
            held = TinyTag.get(path, duration=False).as_dict()
    except Exception:  # a parser of foreign bytes: whatever it says, the music may still be good
        return {}
    return canonical_tags(held)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Stops Python code after ``seconds`` of this thread's time: tinytag looks for each value of a field among those
    before it, which takes an hour for two megabytes of made-up values.

    Raises:
        TimeoutError: inside the block, at the next call of any function.
    """
    end = time.thread_time() + seconds

    def check(*_: Any) -> None:
        if time.thread_time() > end:
            raise TimeoutError(f"no end after {seconds} s")

    before = sys.getprofile()
    sys.setprofile(check)
    try:
        yield
    finally:
        sys.setprofile(before)


def canonical_tags(held: Mapping[str, Any]) -> dict[str, Any]:
    """Tags as tinytag gives them (name -> texts), in our spelling."""
    values = {name: _first(held, keys) for name, keys in _NAMES.items()}
    told: dict[str, Any] = {
        name: ", ".join(_separate(values[name])) if "artist" in name else values[name][0]
        for name in ("artist", "album_artist", "album", "title")
        if values[name]
    }
    told |= {name: text[:_LONGEST] for name, text in told.items()}
    year = re.search(r"\b[12][0-9]{3}", " ".join(values["year"]))
    genres = [genre.strip() for text in values["genre"] for genre in text.split(";")]
    known = list(dict.fromkeys(genre[:_LONGEST] for genre in genres if genre))[:_MOST_VALUES]
    return {**told, **({"year": int(year[0])} if year else {}), **({"genre": known} if known else {})}


def _first(held: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """The texts of the first key that has any."""
    for key in keys:
        value = held.get(key, [])
        texts = [_clean(text) for text in (value if isinstance(value, list) else [value])]
        if any(texts):
            return [text for text in texts if text]
    return []


def _separate(texts: list[str]) -> list[str]:
    """Without names that another text contains: taggers write "A feat.

    B", and beside it A and B, which tinytag puts in one list.
    """
    texts = texts[:_MOST_VALUES]
    return [text for text in texts if not any(text != other and text in other for other in texts)]


def _clean(text: Any) -> str:
    """Printable text that has bytes in UTF-8, with single spaces."""
    text = str(text).encode("utf-8", "replace").decode()
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
