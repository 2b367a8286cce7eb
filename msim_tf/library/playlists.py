"""Playlists out and in: M3U, XSPF and PLS, the files that players exchange.

Writes extended M3U in UTF-8 (``.m3u8``; players read it under ``.m3u`` as well) and XSPF 1 (https://www.xspf.org/spec).
Reads both, and PLS. A playlist names files by absolute paths, by paths relative to its own folder, or by ``file:``
URIs; entries that are streams on other hosts are left out.
"""

from __future__ import annotations

import codecs
import configparser
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from msim_tf.errors import InputError
from msim_tf.names import xml_characters

FORMATS = ("m3u", "xspf")
SUFFIXES = (".m3u", ".m3u8", ".pls", ".xspf")
_XSPF = "http://xspf.org/ns/0/"
# A playlist of a million tracks has some 100 MB; more is not a playlist.
_MOST_BYTES = 2**27


@dataclass(frozen=True)
class PlaylistEntry:
    """One track of a playlist.

    Attributes:
        path: its file as the playlist shall name it.
        title: its title, "" where unknown.
        artist: its artist, "" where unknown.
        seconds: its length, None where unknown.
    """

    path: str
    title: str = ""
    artist: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class PathStyle:
    """How a playlist names files.

    Attributes:
        relative_to: a folder that paths start from; None for absolute paths.
        replace_prefix: (old, new): another machine's name for the folder ``old``; applied to absolute paths.
    """

    relative_to: Path | None = None
    replace_prefix: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.relative_to is not None and self.replace_prefix is not None:
            raise InputError("a playlist has paths relative to a folder or with a replaced prefix, not both")

    def path(self, file: Path) -> str:
        """The name of ``file`` in a playlist, with forward slashes.

        Raises:
            InputError: if the prefix to replace is not that of the file.
        """
        file = Path(os.path.abspath(file))
        if self.relative_to is not None:
            return PurePosixPath(os.path.relpath(file, self.relative_to)).as_posix()
        if self.replace_prefix is None:
            return file.as_posix()
        old, new = self.replace_prefix
        # Whole names only: /music is no prefix of /music2/a.ogg.
        folder = PurePosixPath(old)
        if not PurePosixPath(file.as_posix()).is_relative_to(folder):
            raise InputError(f"{file} does not begin with {old}, the prefix to replace")
        return f"{new.rstrip('/')}/{PurePosixPath(file.as_posix()).relative_to(folder)}"


def playlist_entry(path: str, metadata: Mapping[str, Any]) -> PlaylistEntry:
    """A track as a playlist names it: its path, and title, artist and length of a library's metadata."""
    return PlaylistEntry(path, metadata.get("title", ""), metadata.get("artist", ""), metadata.get("seconds"))


def playlist_text(entries: Iterable[PlaylistEntry], *, format: str, title: str = "") -> str:
    """A playlist as the text of its file.

    Args:
        entries: the tracks, in order.
        format: one of ``FORMATS``.
        title: of the playlist; "" for none.

    Raises:
        InputError: if there is no such format, or it cannot hold a name.
    """
    if format == "m3u":
        return _m3u(entries, title)
    if format == "xspf":
        return _xspf(entries, title)
    raise InputError(f"playlist format {format!r}: expected one of {', '.join(FORMATS)}")


def read_playlist(path: str | Path) -> list[Path]:
    """The files that a playlist names, in order; they need not exist.

    Args:
        path: an M3U, PLS or XSPF file.

    Raises:
        InputError: if it cannot be read, is no playlist, or names no file.
    """
    path = Path(path)
    content = _content(path)
    suffix = path.suffix.lower()
    # PLS and XSPF say what they are; everything else is lines of paths.
    if suffix == ".xspf" or content.lstrip().startswith("<?xml"):
        locations = _xspf_locations(content, path)
    elif suffix == ".pls" or content.lstrip().lower().startswith("[playlist]"):
        locations = _pls_locations(content, path)
    else:
        lines = (line.strip("\r\n") for line in content.splitlines())
        locations = [line for line in lines if line.strip() and not line.startswith("#")]
    files = [file for file in (_file(location, path.parent) for location in locations) if file is not None]
    if not files:
        raise InputError(f"{path}: names no file; expected an M3U, PLS or XSPF playlist")
    return files


def is_playlist(path: str | Path) -> bool:
    """Whether the name of ``path`` is that of a playlist."""
    return Path(path).suffix.lower() in SUFFIXES


def _m3u(entries: Iterable[PlaylistEntry], title: str) -> str:
    lines = ["#EXTM3U"]
    if title:
        lines.append(f"#PLAYLIST:{_one_line(title)}")
    for entry in entries:
        name = " - ".join(part for part in (entry.artist, entry.title) if part)
        seconds = -1 if entry.seconds is None else round(entry.seconds)  # -1 says that the length is unknown
        lines.append(f"#EXTINF:{seconds},{_one_line(name or PurePosixPath(entry.path).stem)}")
        # A name that begins with # or a space would be read as a comment or lose the space.
        path = f"./{entry.path}" if entry.path[:1] in ("#", " ") else entry.path
        # A path with a line break becomes a URI, which has to be absolute.
        if path != _one_line(path):
            if not path.startswith("/"):
                raise InputError(f"{path!r}: an M3U playlist cannot hold this name as a relative path; write XSPF")
            path = _uri(path)
        lines.append(path)
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _xspf(entries: Iterable[PlaylistEntry], title: str) -> str:
    playlist = ElementTree.Element("playlist", {"version": "1", "xmlns": _XSPF})
    if title:
        ElementTree.SubElement(playlist, "title").text = xml_characters(title)
    tracks = ElementTree.SubElement(playlist, "trackList")
    for entry in entries:
        track = ElementTree.SubElement(tracks, "track")
        ElementTree.SubElement(track, "location").text = _uri(entry.path)
        if entry.title:
            ElementTree.SubElement(track, "title").text = xml_characters(entry.title)
        if entry.artist:
            ElementTree.SubElement(track, "creator").text = xml_characters(entry.artist)
        if entry.seconds is not None:
            ElementTree.SubElement(track, "duration").text = str(round(1000 * entry.seconds))  # milliseconds
    ElementTree.indent(playlist)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(playlist, encoding="unicode")}\n'


def _uri(path: str) -> str:
    """A path as a URI reference: absolute ones as ``file:`` URIs, relative ones escaped."""
    escaped = quote(path.encode("utf-8", "surrogateescape"))
    if path.startswith("/"):
        return f"file://{escaped}"
    # A colon in the first name of a relative reference would end a scheme (RFC 3986, section 4.2).
    return f"./{escaped}" if ":" in path.split("/", 1)[0] else escaped


def _content(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a playlist") from error
    if len(raw) > _MOST_BYTES:
        raise InputError(f"{path}: larger than {_MOST_BYTES // 2**20} MB; expected a playlist")
    # Editors of Windows may save UTF-16, which a byte order mark shows; its players write cp1252 into .m3u.
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        content = raw.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        content = raw.decode("cp1252", "replace")
    if "\0" in content:
        raise InputError(f"{path}: not text; expected an M3U, PLS or XSPF playlist")
    return content


def _xspf_locations(content: str, path: Path) -> list[str]:
    # Entities are how an XML file makes a parser grow without end, and XSPF has no use for them.
    if "<!DOCTYPE" in content:
        raise InputError(f"{path}: declares a document type, which playlists have no use for")
    try:
        # As text: its declaration may name another encoding, which ``_content`` has decoded.
        root = ElementTree.fromstring(content.lstrip())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not XML ({error}); expected an XSPF playlist") from error
    # The first location of each track, whatever namespace the file declares.
    tracks = (element for element in root.iter() if element.tag.rpartition("}")[2] == "track")
    firsts = (next((part for part in track if part.tag.rpartition("}")[2] == "location"), None) for track in tracks)
    return [_as_uri(location.text.strip()) for location in firsts if location is not None and location.text]


def _as_uri(location: str) -> str:
    """XSPF locations are URI references: a relative one is unescaped here, as paths of the other formats are not."""
    try:
        has_scheme = bool(urlsplit(location).scheme)
    except ValueError:  # brackets that hold no address
        has_scheme = True
    return location if has_scheme else unquote(location, errors="surrogateescape")


def _pls_locations(content: str, path: Path) -> list[str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    try:
        parser.read_string(content)
    except configparser.Error as error:
        raise InputError(f"{path}: not a PLS playlist ({str(error).splitlines()[0]})") from error
    # Its keys are File1, Title1, Length1, File2, ..., which configparser puts in small letters.
    section = next((parser[name] for name in parser.sections() if name.lower() == "playlist"), None)
    if section is None:
        raise InputError(f"{path}: has no section [playlist]; expected a PLS playlist")
    # "File2" before "File10"; by length and digits, since numbers may be written with zeros or thousands of digits.
    keys = [key for key in section if re.fullmatch(r"file[0-9]+", key)]
    keys.sort(key=lambda key: (len(key[4:].lstrip("0")), key[4:].lstrip("0")))
    return [section[key] for key in keys]


def _file(location: str, folder: Path) -> Path | None:
    """The file of a location; None if it is on another host."""
    # One letter before a colon is a drive of Windows, and "a: b.mp3" a file name; "://" follows a scheme only.
    if "://" in location or location.lower().startswith("file:/"):
        try:
            uri = urlsplit(location)
        except ValueError:
            return None
        if uri.scheme.lower() == "file":
            return Path(unquote(uri.path, errors="surrogateescape")) if uri.netloc in ("", "localhost") else None
        if uri.scheme:
            return None
    # Names of Windows have backslashes; in a path with slashes they belong to the names.
    if "\\" in location and "/" not in location:
        location = location.replace("\\", "/")
    return folder / location
