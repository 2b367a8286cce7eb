"""Artist, album, title, year and genre as a file's own tags tell them, in the spelling of ``search.tracks``.

tinytag reads what it knows; ``ape_tags`` and FFmpeg (in a decoder process) the rest: wv, ape, tta, mka, webm, mpc, dsf.

Tags are somebody else's text: control characters become spaces, and length and number are bounded.
A file whose tags cannot be read has none.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msim_tf.audio.ape_tags import read_ape_tags

# Names in lower case: tinytag's own fields, those that it passes on as the file spells them (Vorbis comments, ID3
# frames), and FFmpeg's, which puts the level of a Matroska tag before its name.
_NAMES = {
    "artist": ("artist", "track/artist"),
    "album_artist": ("albumartist", "album artist", "album_artist", "album/artist"),
    "album": ("album", "album/title"),
    "title": ("title", "track/title"),
    "year": (
        *("originaldate", "tdor", "tory", "originalyear", "year", "_year", "date"),
        *("date_released", "album/date_released", "date_recorded", "track/date_recorded"),
    ),
    "genre": ("written_genre", "genre"),
}
_WRITTEN_GENRE = "written_genre"
_GENRE_NUMBERS = re.compile(r"(?:\((?:\d{1,3}|RX|CR)\))+")
_LONGEST = 300
_MOST_VALUES = 10
_SECONDS = 2.0  # of processor time; a common file takes a millisecond


def read_tags(path: Path, read_metadata: Callable[[Path], Mapping[str, str]] | None = None) -> dict[str, Any]:
    """The tags of a sound file; what is not told is left out.

    Args:
        path: the file.
        read_metadata: reads what FFmpeg knows of a file that has no other tags: ``audio.sandbox.Decoder.metadata``.

    Raises:
        DecoderUnavailable: by ``read_metadata``.
    """
    from tinytag import TinyTag

    _id3_genres()
    try:
        with _limited(_SECONDS):
            written = TinyTag.get(path, duration=False).as_dict()
    except Exception:  # a parser of foreign bytes: whatever it says, the music may still be good
        written = {}
    # tinytag's fields come before those of an APEv2 tag; FFmpeg is asked only where both have none.
    tags = canonical_tags(written)
    with suppress(OSError):
        tags = {**canonical_tags(read_ape_tags(path)), **tags}
    if not tags and read_metadata:
        tags = canonical_tags({name.lower(): text for name, text in read_metadata(path).items()})
    return tags


@functools.cache
def _id3_genres() -> tuple[str, ...]:
    """The genres of ID3v1 by number; makes tinytag pass ID3 genres on as they are written.

    It resolves the number in "(17)Rock; Pop" and drops the text behind it. Its table of frames is private: should it
    have another form one day, genres are what tinytag makes of them.
    """
    from tinytag import tinytag

    reader = getattr(tinytag, "_ID3", None)
    frames = getattr(reader, "_ID3_MAPPING", None)
    if isinstance(frames, dict):
        frames.update({frame: f"other.{_WRITTEN_GENRE}" for frame in (b"TCON", b"TCO") if frame in frames})
    return tuple(getattr(reader, "_ID3V1_GENRES", ()))


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


def canonical_tags(written: Mapping[str, Any]) -> dict[str, Any]:
    """Tags as readers give them (name in lower case -> text or texts), in our spelling."""
    values = {name: _first(written, keys) for name, keys in _NAMES.items()}
    tags: dict[str, Any] = {}
    for name in ("artist", "album_artist", "album", "title"):
        if not values[name]:
            continue
        text = values[name][0]
        if "artist" in name:
            # Taggers write "A feat. B" beside A and B, and tinytag lists all three: names that another one contains go.
            texts = values[name][:_MOST_VALUES]
            text = "; ".join(own for own in texts if not any(own != other and own in other for other in texts))
        tags[name] = text[:_LONGEST]

    # The year is where a date has four digits that begin with 1 or 2; genres come in many spellings.
    year = re.search(r"\b[12][0-9]{3}", " ".join(values["year"]))
    if year:
        tags["year"] = int(year[0])
    genres = _genres(values["genre"], id3=bool(written.get(_WRITTEN_GENRE)))
    if genres:
        tags["genre"] = genres
    return tags


def _genres(texts: list[str], *, id3: bool) -> list[str]:
    """Every genre of some texts, once: "(17)Rock; Pop/Funk" is Rock, Pop and Funk.

    ID3v2.3 puts numbers of ID3v1's genres in brackets before the text, ID3v2.4 writes them alone; semicolons and
    slashes separate everywhere.
    """
    genres: dict[str, str] = {}
    for text in texts:
        numbers = _GENRE_NUMBERS.match(text) if id3 else None
        written = text[numbers.end() :] if numbers else text
        names = [_genre_name(number) for number in re.findall(r"\w+", numbers[0])] if numbers else []
        # A doubled bracket in front stands for a single one.
        written = written[1:] if written.startswith("((") else written
        parts = [part.strip() for part in re.split(r"[;/]", written)]
        names += [_genre_name(part) for part in parts] if id3 else parts
        for name in filter(None, names):
            genres.setdefault(name.casefold(), name[:_LONGEST])
    return list(genres.values())[:_MOST_VALUES]


def _genre_name(text: str) -> str:
    """The genre that a number or an abbreviation of ID3 stands for, other texts as they are."""
    if text in ("RX", "CR"):
        return {"RX": "Remix", "CR": "Cover"}[text]
    table = _id3_genres()
    return table[int(text)] if text.isdecimal() and len(text) < 4 and int(text) < len(table) else text


def _first(written: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """The texts of the first key that has any."""
    for key in keys:
        value = written.get(key, [])
        texts = []
        for text in value if isinstance(value, list) else [value]:
            # Printable text that has bytes in UTF-8, with single spaces.
            text = str(text).encode("utf-8", "replace").decode()
            words = "".join(character if character.isprintable() else " " for character in text).split()
            if words:
                texts.append(" ".join(words))
        if texts:
            return texts
    return []
