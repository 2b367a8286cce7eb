"""The beets plug-in ``msim``: songs of a beets library that sound alike.

    beet msimupdate                                     bring the msim library up to date with beets' music
    beet msim artist:Nirvana -w mood=1,tempo=1          list what is near to those songs
    beet msim title:Lithium --playlist ~/lithium.m3u8   write it as a playlist

Hits carry ``$msim_distance`` and ``$msim_distance_mood`` (and so on for each dimension) for ``--format``; these are
not stored, since they depend on the query. ``beet msimupdate --write-fields`` stores ``bpm`` and ``initial_key``, and
the words that the msim library has for a dimension as ``msim_genre``, ``msim_mood``, ``msim_instrument`` and
``msim_era``. What the msim library does not know is not written.

Settings, in the section ``msim`` of beets' configuration::

    library    directory of the msim library; by default msim's own (see msim_tf.settings)
    count      how many songs to list (10)
    per_artist most songs of one artist; 0 for any number (2)
"""

from __future__ import annotations

import optparse
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beets import ui
from beets.dbcore import types
from beets.library import Item
from beets.library import Library as BeetsLibrary
from beets.plugins import BeetsPlugin

import msim_tf
from msim_tf.cli.library_query import chosen_weights
from msim_tf.cli.options import progress_bar
from msim_tf.dimensions import DIMENSIONS, TAG_DIMENSION_NAMES
from msim_tf.files import atomic_file
from msim_tf.library.playlists import PathStyle, PlaylistEntry, playlist_text
from msim_tf.settings import default_library
from msim_tf.startup import quiet_tensorflow

if TYPE_CHECKING:
    from msim_tf.library.update_options import Summary

_DISTANCE = types.Float(3)
_DISTANCES = {"msim_distance": _DISTANCE, **{f"msim_distance_{each.name}": _DISTANCE for each in DIMENSIONS}}
_WORDS = {f"msim_{name}": name for name in TAG_DIMENSION_NAMES}
"""Field of beets -> dimension whose words it holds."""


class MsimPlugin(BeetsPlugin):
    """Two commands: ``beet msim`` and ``beet msimupdate``."""

    item_types = {**_DISTANCES, **dict.fromkeys(_WORDS, types.SEMICOLON_SPACE_DSV)}

    def __init__(self) -> None:
        super().__init__()
        self.config.add({"library": "", "count": 10, "per_artist": 2})

    def commands(self) -> list[ui.Subcommand]:
        """What ``beet`` offers."""
        similar = ui.Subcommand("msim", help="list songs that sound like those of a query")
        similar.parser.usage = "%prog QUERY [options]"
        similar.parser.add_option(
            "-w",
            "--weight",
            dest="weights",
            action="append",
            default=[],
            metavar="DIMENSION=NUMBER",
            help="what counts, comma separated or repeated; 0 is off, negative is unlike; default all equal",
        )
        similar.parser.add_option("--profile", help="weights by name, or a file that msim learn made")
        similar.parser.add_option("-n", "--count", type="int", help="how many songs")
        similar.parser.add_option("--per-artist", type="int", help="most songs of one artist; 0 for any number")
        similar.parser.add_option("--all-versions", action="store_true", help="list versions of one song apart")
        similar.parser.add_option("--within", metavar="QUERY", help="only list songs that match this query, too")
        similar.parser.add_option("--playlist", metavar="FILE", help="write a playlist instead: M3U, or XSPF by suffix")
        similar.parser.add_option(
            "--relative-to", metavar="FOLDER", help="with --playlist: name files relative to this folder"
        )
        similar.parser.add_path_option()
        similar.parser.add_format_option()
        similar.func = _one_line_errors(self._list_similar)

        update = ui.Subcommand("msimupdate", help="bring the msim library up to date with the music of beets")
        update.parser.usage = "%prog [QUERY] [options]"
        update.parser.add_option("--annotate", action="store_true", help="also estimate tempo and key (madmom)")
        update.parser.add_option("--prune", action="store_true", help="forget tracks whose files are gone")
        update.parser.add_option("--retry", action="store_true", help="read unusable files again")
        update.parser.add_option(
            "--write-fields",
            action="store_true",
            help="store bpm, initial_key and msim_* of the songs that match QUERY, where they are known",
        )
        update.parser.add_option(
            "--overwrite", action="store_true", help="with --write-fields: replace a bpm or initial_key that is there"
        )
        update.func = _one_line_errors(self._update)
        return [similar, update]

    def _list_similar(self, beets: BeetsLibrary, options: optparse.Values, query: list[str]) -> None:
        if not query:
            raise ui.UserError("give the songs to be near to, for example: beet msim artist:Nirvana title:Lithium")
        library = msim_tf.open_library(self._directory())
        seeds = self._tracks(library, beets.items(query))
        songs = self._tracks(library, beets.items(options.within or ""))

        # Limits and versions are decided among the songs of beets, so they are part of the search.
        count = options.count if options.count is not None else self.config["count"].get(int)
        limit = options.per_artist if options.per_artist is not None else self.config["per_artist"].get(int)
        weights: dict[str, Any] = dict(chosen_weights(tuple(options.weights), options.profile) or {})
        hits = library.similar(
            list(seeds),
            k=count,
            filters=msim_tf.Filters(tracks=frozenset(songs)),
            diversity=msim_tf.Diversity(per_artist=limit or None, versions=not options.all_versions),
            **weights,
        )
        similar_items = [_with_distances(songs[hit.track], hit) for hit in hits]
        if not options.playlist:
            for item in similar_items:
                ui.print_(format(item))
            return
        _write_playlist(Path(options.playlist).expanduser(), similar_items, options.relative_to, " ".join(query))
        ui.print_(f"{options.playlist}: {len(similar_items)} songs")

    def _tracks(self, library: msim_tf.Library, items: Iterable[Item]) -> dict[str, Item]:
        """Identifiers of the songs that the msim library has.

        Raises:
            UserError: if it has none of them, or there is none.
        """
        songs = {}
        missing = []
        for item in items:
            identifier = library.identifier_of(_file(item))
            if identifier is None:
                missing.append(item)
            else:
                songs[identifier] = item
        if not songs and not missing:
            raise ui.UserError("no song matches the query")
        if not songs:
            raise ui.UserError(
                f"none of {len(missing)} matching songs is in the msim library {library.catalog.path}: beet msimupdate"
            )
        if missing:
            self._log.debug("not in the msim library: {} of {}", len(missing), len(missing) + len(songs))
        return songs

    def _update(self, beets: BeetsLibrary, options: optparse.Values, query: list[str]) -> None:
        if (query or options.overwrite) and not options.write_fields:
            raise ui.UserError("a query and --overwrite go with --write-fields; the msim library is of all music")
        quiet_tensorflow()
        from msim_tf.library.update_options import UpdateOptions

        settings = UpdateOptions(annotate=bool(options.annotate), prune=bool(options.prune), retry=bool(options.retry))
        with progress_bar("msim") as report:
            library = msim_tf.index(
                os.fsdecode(beets.directory),
                self._directory(),
                options=settings,
                progress=lambda stage, done, total: report(done, total) if stage == "embed" else None,
            )
        assert library.summary is not None
        ui.print_(_summary_line(library.catalog.path, library.summary))
        if options.write_fields:
            self._write_fields(library, beets.items(query), overwrite=bool(options.overwrite))
        for name, reason in library.summary.failures.items():
            self._log.warning("left out: {}: {}", name, reason)
        if library.summary.failures:
            raise ui.UserError(f"{len(library.summary.failures)} files could not be used; the others are up to date")

    def _write_fields(self, library: msim_tf.Library, items: Iterable[Item], *, overwrite: bool) -> None:
        """Stores what the msim library knows of songs, in beets' database and, if beets is set to, in their tags."""
        written: Counter[str] = Counter()
        for item in items:
            identifier = library.identifier_of(_file(item))
            if identifier is None:
                continue
            metadata = library[identifier]
            changes = _new_fields(item, metadata, overwrite=overwrite)
            # Words that the library no longer has are no longer true.
            stale = [name for name in _WORDS if name in item and not metadata.get(_WORDS[name])]
            if not changes and not stale:
                continue
            item.update(changes)
            for name in stale:
                del item[name]
            item.store()
            if ui.should_write() and not changes.keys().isdisjoint(("bpm", "initial_key")):
                item.try_write()
            written.update(changes.keys())
        counts = ", ".join(f"{name} of {count}" for name, count in sorted(written.items()))
        ui.print_(f"wrote {counts} songs" if counts else "no field to write")

    def _directory(self) -> Path:
        """Where the msim library is."""
        configured = self.config["library"].get()
        return Path(self.config["library"].as_filename()) if configured else default_library()


def _one_line_errors(function: Any) -> Any:
    """The command, with msim's errors as beets prints its own."""

    def command(beets: BeetsLibrary, options: optparse.Values, arguments: list[str]) -> None:
        try:
            function(beets, options, arguments)
        except msim_tf.InputError as error:
            raise ui.UserError(str(error)) from error

    return command


def _file(item: Item) -> Path:
    return Path(os.fsdecode(item.path))


def _with_distances(item: Item, hit: msim_tf.Hit) -> Item:
    """The song with its distances as fields for ``--format``; they are not stored."""
    item["msim_distance"] = hit.distance
    for name, share in hit.shares.items():
        item[f"msim_distance_{name}"] = share
    return item


def _write_playlist(path: Path, items: Iterable[Item], relative_to: str | None, title: str) -> None:
    style = PathStyle(Path(relative_to).expanduser() if relative_to else None)
    entries = [PlaylistEntry(style.path(_file(item)), item.title, item.artist, item.length or None) for item in items]
    kind = "xspf" if path.suffix.lower() == ".xspf" else "m3u"
    with atomic_file(path) as file:
        file.write(playlist_text(entries, format=kind, title=f"Similar to {title}").encode("utf-8", "surrogateescape"))


def _new_fields(item: Item, metadata: Mapping[str, Any], *, overwrite: bool) -> dict[str, Any]:
    """Fields of a song that the msim library knows, and that differ from what beets has.

    Args:
        item: the song.
        metadata: what the msim library knows of it, as ``msim_tf.search.tracks`` spells it.
        overwrite: whether a bpm or initial_key that is there may be replaced.
    """
    fields: dict[str, Any] = {}
    if "tempo" in metadata and (overwrite or not item.get("bpm")):
        fields["bpm"] = round(metadata["tempo"])
    if "key" in metadata and (overwrite or not item.get("initial_key")):
        fields["initial_key"] = beets_key(metadata["key"])
    fields |= {name: metadata[dimension] for name, dimension in _WORDS.items() if metadata.get(dimension)}
    return {name: value for name, value in fields.items() if item.get(name) != value}


def beets_key(key: str) -> str:
    """A key as beets spells it: "Bb minor" is "A#m".

    Beets' own reader would take "C# minor" for C minor, because it drops the sharp with the space.
    """
    tonic, mode = key.split()
    return types.MusicalKey().parse(tonic + ("m" if mode == "minor" else "")) or ""


def _summary_line(path: Path, summary: Summary) -> str:
    counts = [f"{getattr(summary, what)} {what}" for what in ("new", "changed", "moved", "removed", "unchanged")]
    missing = f", {summary.missing} missing" if summary.missing else ""
    return f"{path}: {summary.tracks} tracks; {', '.join(counts)}{missing}, {len(summary.failures)} failed"
