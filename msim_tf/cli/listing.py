"""How ``msim query``, ``msim path`` and ``msim list`` print tracks: for people, for programs and for players."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from msim_tf.errors import InputError
from msim_tf.library.playlists import PathStyle, playlist_entry, playlist_text
from msim_tf.names import printable
from msim_tf.search.query import Match

FORMATS = ("table", "json", "tsv", "paths", "m3u", "xspf")
_OPTIONS = (
    click.option("--json", "as_json", is_flag=True, help="As --format json."),
    click.option(
        "--format",
        "format",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="For people (table), programs (json, tsv, paths) or players (m3u, xspf).",
    ),
    click.option(
        "--relative-to",
        type=click.Path(path_type=Path),
        help="With m3u, xspf, paths: name files relative to this folder, e.g. that of the playlist.",
    ),
    click.option(
        "--replace-prefix",
        metavar="OLD=NEW",
        help="With m3u, xspf, paths: another machine's name for a folder, e.g. /home/me/Music=/music.",
    ),
)


@dataclass(frozen=True)
class Listing:
    """What the options say.

    Attributes:
        format: one of ``FORMATS``.
        style: how files are named.
        music: the music folder; None for a library without one.
    """

    format: str
    style: PathStyle
    music: Path | None

    def print_tracks(self, matches: Sequence[Match], title: str) -> None:
        """Prints tracks for programs and players."""
        if self.format == "tsv":
            click.echo("\t".join(("distance", "artist", "title", "track")))
            for match in matches:
                song = (match.metadata.get("artist", ""), match.metadata.get("title", ""))
                click.echo("\t".join((f"{match.distance:.6f}", *map(printable, song), printable(match.identifier))))
            return
        self.print_files([(match.identifier, match.metadata) for match in matches], title)

    def print_files(self, tracks: Iterable[tuple[str, Mapping[str, Any]]], title: str) -> None:
        """Prints the files of tracks: a path in each line, or a playlist.

        Args:
            tracks: identifier and metadata of each.
            title: of the playlist.

        Raises:
            InputError: if the library has no folder of music.
        """
        if self.music is None:
            raise InputError(f"this library has no folder of music, so --format {self.format} has no files to name")
        # Players find files by the names that the options of the style give them.
        entries = [playlist_entry(self.style.path(self.music / name), metadata) for name, metadata in tracks]
        if self.format == "paths":
            # Bytes as they are, so that any file name reaches the next program.
            for entry in entries:
                click.echo(entry.path.encode("utf-8", "surrogateescape"))
            return
        text = playlist_text(entries, format=self.format, title=title)
        click.echo(text.encode("utf-8", "surrogateescape"), nl=False)


def listing_options(function: Callable) -> Callable:
    """Adds the options that ``listing`` reads."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def listing(options: Mapping[str, Any], music: Path | None) -> Listing:
    """What the options of ``listing_options`` say.

    Raises:
        InputError: if they contradict each other.
    """
    format = "json" if options["as_json"] else options["format"]
    # Both options name files, so they need a format that does.
    prefix = options["replace_prefix"]
    if prefix is not None:
        old, sign, new = prefix.partition("=")
        if not (sign and old and new):
            raise InputError(f"--replace-prefix {prefix!r}: expected OLD=NEW, for example /home/me/Music=/music")
        prefix = (old, new)
    if (prefix or options["relative_to"]) and format not in ("paths", "m3u", "xspf"):
        raise InputError(f"--relative-to and --replace-prefix name files, which --format {format} does not")
    return Listing(format, PathStyle(options["relative_to"], prefix), music)


def match_line(place: int, match: Match) -> str:
    """A track in one line: place, distance, identifier, artist and title where known, how many versions if several."""
    line = f"  {place:>2}. {match.distance:6.3f}  {track_line(match.identifier, match.metadata)}"
    return line + (f"  ({len(match.versions) + 1} versions)" if match.versions else "")


def track_line(identifier: str, metadata: Mapping[str, Any]) -> str:
    """A track's identifier, with artist and title where known."""
    song = " - ".join(metadata[key] for key in ("artist", "title") if key in metadata)
    return printable(identifier) + (f"  ({printable(song)})" if song else "")


def match_json(match: Match) -> dict[str, Any]:
    """A track as JSON."""
    return {
        "identifier": match.identifier,
        "distance": match.distance,
        "shares": match.shares,
        "distances": match.distances,
        "metadata": match.metadata,
        "versions": list(match.versions),
    }


def print_json(value: Any) -> None:
    """Prints indented JSON."""
    click.echo(json.dumps(value, indent=1))
