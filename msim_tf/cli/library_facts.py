"""``msim status``, ``info`` and ``list``: what a library has, what it knows of a track, and its tracks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from msim_tf.cli.library_query import chosen_filters, library_and_tracks
from msim_tf.cli.listing import listing, listing_options, match_json, match_line, print_json, track_line
from msim_tf.cli.options import LocalPath, filter_options, printable
from msim_tf.errors import InputError
from msim_tf.library.catalog import is_library, load_catalog
from msim_tf.library.descriptions import DESCRIBED
from msim_tf.library.file_table import FileTable
from msim_tf.library.library import Library
from msim_tf.library.status import library_status
from msim_tf.search.index import Index
from msim_tf.search.query import allowed_rows, search
from msim_tf.search.tracks import TAG_KEYS, TEXT_KEYS
from msim_tf.settings import default_library

_PATH = LocalPath(path_type=Path)
_WIDTH = 12


@click.command()
@click.argument("library", type=_PATH, required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(library: Path | None, as_json: bool) -> None:
    """What LIBRARY has: tracks, missing and unusable files, its model, its size, and when it was last written.
    Without LIBRARY it is the default one.

    msim index FOLDER brings it up to date, msim index LIBRARY --failures names the files that cannot be used.
    """
    facts = library_status(library or default_library())
    # JSON knows neither paths nor times.
    if as_json:
        values = dataclasses.asdict(facts)
        music = None if facts.music is None else str(facts.music)
        print_json({**values, "path": str(facts.path), "music": music, "updated": facts.updated.isoformat()})
        return
    click.echo(f"{printable(facts.name)} ({printable(str(facts.path))})")
    rows = {
        "music": printable(str(facts.music)) if facts.music else "none, it was made of vectors",
        "tracks": f"{facts.tracks:,}",
        "missing": f"{facts.missing:,}" + (", kept until their files return or --prune" if facts.missing else ""),
        "failures": f"{facts.failures:,}" + (", named by msim index --failures" if facts.failures else ""),
        "model": printable(facts.model) + (f" ({printable(facts.model_path)})" if facts.model_path else ""),
        "dimensions": ", ".join(facts.dimensions),
        "size": f"{facts.bytes / 2**20:,.1f} MB",
        "updated": f"{facts.updated:%Y-%m-%d %H:%M}",
    }
    _print_rows(rows)


@click.command()
@click.argument("arguments", metavar="[LIBRARY] TRACK", nargs=-1)
@click.option("-k", "count", type=click.IntRange(min=0), default=5, show_default=True, help="How many neighbours.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def info(arguments: tuple[str, ...], count: int, as_json: bool) -> None:
    """What LIBRARY knows of TRACK, one of its tracks by name or file: tags, tempo, key, what is wrong with its
    file, and its nearest neighbours with equal weights.
    """
    # "msim info LIBRARY" would look for a track of that name; people mean msim status.
    directory, tracks = library_and_tracks(arguments, tracks=1)
    if len(tracks) != 1 or is_library(tracks[0]):
        raise InputError("expected [LIBRARY] TRACK, one track; msim list names them, msim status tells of a library")
    library = Library(directory)
    track = library.identify(tracks[0])
    metadata = library[track]
    notes = FileTable(library.index.table.database).record(track).notes
    neighbours = search(library.index, library.query([track]), k=count) if count else []
    if as_json:
        hits = [match_json(match) for match in neighbours]
        print_json({"identifier": track, "metadata": metadata, "notes": list(notes), "neighbours": hits})
        return
    click.echo(printable(track))
    rows = _fact_rows(metadata)
    if library.catalog.music:
        rows["file"] = printable(str(library.catalog.music / track))
    _print_rows({**rows, **({"note": printable("; ".join(notes))} if notes else {})})
    if neighbours:
        click.echo("nearest")
    for place, match in enumerate(neighbours, 1):
        click.echo(match_line(place, match))


def _fact_rows(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a track as lines for people; what is unknown has none."""
    rows = {name.replace("_", " "): metadata[name] for name in TEXT_KEYS if name in metadata}
    if "year" in metadata:
        rows["year"] = str(metadata["year"])
    if "seconds" in metadata:
        minutes, seconds = divmod(round(metadata["seconds"]), 60)
        rows["length"] = f"{minutes}:{seconds:02d}"
    if "tempo" in metadata:
        rows["tempo"] = f"{metadata['tempo']:.0f} bpm"
    if "key" in metadata:
        rows["key"] = metadata["key"]
    rows |= {name: ", ".join(metadata[name]) for name in TAG_KEYS if metadata.get(name)}
    # What no tag told is marked as the model's own.
    for name in metadata.get(DESCRIBED, {}).get("fields", ()):
        rows[name] += "  (heard by the model)"
    if not metadata.get(DESCRIBED, {}).get("musical", True):
        rows["music"] = "none, as far as the model hears"
    return {name: printable(text) for name, text in rows.items()}


def _print_rows(rows: Mapping[str, str]) -> None:
    for name, text in rows.items():
        click.echo(f"  {name:<{_WIDTH}}  {text}")


@click.command("list")
@click.argument("library", type=_PATH, required=False)
@filter_options
@listing_options
def list_(library: Path | None, **options: Any) -> None:
    """The tracks of LIBRARY in the order of their paths; with filters, those that pass. Without LIBRARY it is the
    default one. Example: all that is slow, as a playlist:

        msim list --bpm 50-80 --format m3u > slow.m3u8
    """
    printed = {name: options.pop(name) for name in ("as_json", "format", "relative_to", "replace_prefix")}
    catalog = load_catalog(library or default_library())
    shown = listing(printed, catalog.music)
    # The tables are enough, so no engine is loaded.
    index = Index.open(catalog.path, engine=False)
    rows = allowed_rows(index, chosen_filters(**options)).nonzero()[0]
    tracks = sorted(index.described(rows.tolist()).values(), key=lambda track: track[0])
    if shown.format == "json":
        print_json([{"identifier": name, "metadata": metadata} for name, metadata in tracks])
    elif shown.format == "tsv":
        click.echo("\t".join(("artist", "title", "track")))
        for name, metadata in tracks:
            song = (metadata.get("artist", ""), metadata.get("title", ""), name)
            click.echo("\t".join(map(printable, song)))
    elif shown.format == "table":
        for name, metadata in tracks:
            click.echo(track_line(name, metadata))
    else:
        shown.print_files(tracks, printable(catalog.name))
