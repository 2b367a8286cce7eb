"""``msim query``: the tracks of a library nearest to a track, a file, the middle of several, or a mix."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from msim_tf.cli.listing import Listing, listing, listing_options, match_json, match_line, print_json
from msim_tf.cli.options import FiniteRange, LocalPath, filter_options, parse_weights, printable, profile_option
from msim_tf.errors import InputError
from msim_tf.library.catalog import is_embeddings, is_library
from msim_tf.library.library import Library
from msim_tf.library.playlists import is_playlist, read_playlist
from msim_tf.search.diversity import Diversity
from msim_tf.search.explanation import explain as explanation_of
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.profiles import named_weights
from msim_tf.search.query import Match, Query, mixed_query, search
from msim_tf.search.reasons import why_nothing
from msim_tf.search.weights import load_profile
from msim_tf.settings import default_library

_PATH = LocalPath(path_type=Path)


@click.command(context_settings={"show_default": True})
@click.argument("arguments", metavar="[LIBRARY] TRACK...", nargs=-1)
@click.option(
    "-w",
    "--weight",
    "--weights",
    "weights",
    multiple=True,
    help="DIMENSION=NUMBER, comma separated or repeated; 0 is off, negative is unlike. Default all equal.",
)
@click.option("-k", "count", type=click.IntRange(min=1), default=10, help="How many tracks.")
@click.option("--each", is_flag=True, help="Also rank by every dimension alone.")
@click.option(
    "--model", type=_PATH, help="Exported model, to query by an audio file; a library knows where its model was."
)
@click.option("--mix", multiple=True, help="DIMENSION=TRACK, repeatable: the genre of A with the tempo of B.")
@profile_option
@filter_options
@click.option("--per-artist", type=click.IntRange(min=1), help="Most hits of one artist.")
@click.option("--per-album", type=click.IntRange(min=1), help="Most hits of one album.")
@click.option("--diversity", type=FiniteRange(0, 1, max_open=True), default=0.0, help="Move hits away from each other.")
@click.option("--all-versions", is_flag=True, help="Show versions of one song apart, not as one hit.")
@click.option("--explain", is_flag=True, help="Say of each hit why.")
@listing_options
def query(arguments: tuple[str, ...], **options: Any) -> None:
    """Rank the tracks of LIBRARY by their distance to TRACK: one of its tracks or an audio file; the middle of several.
    A playlist (M3U, PLS, XSPF) stands for its tracks. Without LIBRARY the default one is searched.

    The distance is the weighted sum over dimensions of squared distances between unit vectors. Example: same mood and
    tempo, another era:

        msim query my/library song.ogg -w mood=1,tempo=1,era=-0.5

    LIBRARY is made by msim index of a folder of music, or by msim import of embeddings.
    """
    filters = {name: options.pop(name) for name in ("bpm", "octaves", "year", "keys", "tags", "artists")}
    printed = {name: options.pop(name) for name in ("as_json", "format", "relative_to", "replace_prefix")}
    path, tracks = library_and_tracks(arguments)
    library = Library(path, model=options.pop("model"))
    shown = listing(printed, library.catalog.music)
    _query_library(library, tracks, chosen_filters(**filters), QueryOptions(**options), shown)


def library_and_tracks(arguments: tuple[str, ...], *, tracks: int | None = None) -> tuple[Path, tuple[str, ...]]:
    """The library and the tracks of a command whose arguments are ``[LIBRARY] TRACK...``.

    Args:
        arguments: as they were given.
        tracks: how many tracks the command takes, None for any number.

    Returns:
        The directory of the library, the default one if none is named; the tracks.
    """
    if not arguments:
        return default_library(), ()
    # With a number of tracks, one more argument is the library. Else the first is one if it is one, if it is a file of
    # embeddings, which is refused as a library and never a track, or if there is no default library.
    if tracks is not None:
        named = len(arguments) != tracks
    else:
        named = is_library(arguments[0]) or is_embeddings(arguments[0]) or not is_library(default_library())
    if named:
        return Path(arguments[0]), arguments[1:]
    return default_library(), arguments


@dataclass(frozen=True)
class QueryOptions:
    """The options of ``msim query``, but for filters; see its help."""

    weights: tuple[str, ...]
    count: int
    each: bool
    mix: tuple[str, ...]
    profile: str | None
    explain: bool
    all_versions: bool
    diversity: float
    per_artist: int | None
    per_album: int | None


def _query_library(
    library: Library, tracks: tuple[str, ...], filters: Filters, options: QueryOptions, shown: Listing
) -> None:
    """Prints the ranking, and with ``each`` one for every dimension alone."""
    index = library.index
    if index.note:
        click.echo(f"msim: {index.note}", err=True)
    if (options.each or options.explain) and shown.format not in ("table", "json"):
        raise InputError(f"--format {shown.format} has no place for --each and --explain")
    # One ranking by all weights together, and with --each one by every dimension of the query.
    query = _query(library, tracks, options.mix)
    rankings = {"overall": chosen_weights(options.weights, options.profile)}
    if options.each:
        rankings |= {name: {name: 1.0} for name in query.dimensions}
    limits = Diversity(options.per_artist, options.per_album, 1 - options.diversity, not options.all_versions)
    matches = {
        name: search(index, query, weights=weights, k=options.count, filters=filters, diversity=limits)
        for name, weights in rankings.items()
    }
    if not matches["overall"]:
        click.echo(f"msim: nothing found: {printable(why_nothing(index, filters, query.exclude))}", err=True)
    if shown.format == "json":
        print_json({name: [_hit_json(index, query, match) for match in ranking] for name, ranking in matches.items()})
        return
    if shown.format != "table":
        shown.print_tracks(matches["overall"], f"Similar to {printable(' '.join(tracks or options.mix))}")
        return
    for name, ranking in matches.items():
        click.echo(name)
        for place, match in enumerate(ranking, 1):
            click.echo(match_line(place, match))
            if options.explain:
                why = explanation_of(index, query, match)
                if why.summary:
                    click.echo(f"        {printable(why.summary)}")
                click.echo(f"        {printable(why.line())}")


def chosen_weights(texts: tuple[str, ...], profile: str | None) -> dict[str, float] | None:
    """Weights by hand or of a profile, which is a name or a file; None for equal ones.

    Raises:
        InputError: if both are given, or one cannot be read.
    """
    if texts and profile:
        raise InputError("--weights and --profile both say what counts; give one of them")
    if profile is None:
        return parse_weights(texts) or None
    is_file = Path(profile).exists() or profile.endswith(".json")
    return load_profile(profile).weights if is_file else named_weights(profile)


def _hit_json(index: Index, query: Query, match: Match) -> dict[str, Any]:
    why = explanation_of(index, query, match)
    return {
        **match_json(match),
        "evidence": why.evidence,
        "notes": list(why.notes),
        "explanation": why.line(),
        "summary": why.summary,
    }


def _query(library: Library, tracks: tuple[str, ...], mix: tuple[str, ...]) -> Query:
    """The query by tracks, or by a mix."""
    if bool(tracks) == bool(mix):
        raise InputError("give either tracks to be near to, or --mix DIMENSION=TRACK")
    if tracks:
        # A playlist stands for its tracks.
        examples: list[str | Path | np.ndarray] = []
        for track in tracks:
            examples += read_playlist(track) if is_playlist(track) and track not in library else [track]
        return library.query(examples)
    parts: dict[str, str | np.ndarray] = {}
    for text in mix:
        name, sign, track = text.partition("=")
        if not sign or name in parts:
            raise InputError(f"mix {text!r}: expected DIMENSION=TRACK, each dimension once, for example genre=a.ogg")
        parts[name] = library.locate(track)
    return mixed_query(library.index, parts)


def chosen_filters(
    *,
    bpm: str | None,
    octaves: bool,
    year: str | None,
    keys: tuple[str, ...],
    tags: tuple[str, ...],
    artists: tuple[str, ...],
) -> Filters:
    """The filters that the options of ``filter_options`` say."""
    years = _limits(year, "year", "1970-1979")
    return Filters(
        bpm=_limits(bpm, "bpm", "118-124"),
        octaves=octaves,
        keys=keys,
        tags=tags,
        artists=artists,
        years=None if years is None else (int(years[0]), int(years[1])),
    )


def _limits(text: str | None, name: str, example: str) -> tuple[float, float] | None:
    """ "118-124" as two numbers; one number is both limits."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:-\s*([0-9]+(?:\.[0-9]+)?))?\s*", text)
    if not match:
        raise InputError(f"--{name} {text!r}: expected LOWEST-HIGHEST, for example {example}")
    limits = float(match[1]), float(match[2] or match[1])
    if math.isinf(max(limits)):
        raise InputError(f"--{name} {text[:20]}...: too large a number, expected e.g. {example}")
    return limits
