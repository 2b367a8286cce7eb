"""``msim query``: the tracks of a library nearest to a track, a file, the middle of several, or a mix."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from msim_tf.cli.options import filter_options, import_tensorflow, parse_weights, printable
from msim_tf.errors import InputError
from msim_tf.library.catalog import Catalog, load_catalog
from msim_tf.names import unprintable
from msim_tf.search.diversity import Diversity
from msim_tf.search.explanation import explain as explanation_of
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.query import Match, Query, examples_query, mixed_query, search, track_query, vector_query
from msim_tf.search.weights import load_profile

_PATH = click.Path(path_type=Path)

# A track as it was given, to a track of the index or a vector.
Located = Callable[[str], str | np.ndarray]


@click.command(context_settings={"show_default": True})
@click.argument("library", type=_PATH)
@click.argument("tracks", metavar="TRACK...", nargs=-1)
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--mix", multiple=True, help="DIMENSION=TRACK, repeatable: the genre of A with the tempo of B.")
@click.option("--profile", type=_PATH, help="Weights that msim learn made.")
@filter_options
@click.option("--per-artist", type=click.IntRange(min=1), help="Most hits of one artist.")
@click.option("--per-album", type=click.IntRange(min=1), help="Most hits of one album.")
@click.option(
    "--diversity", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Move hits away from each other."
)
@click.option("--explain", is_flag=True, help="Say of each hit why.")
def query(library: Path, tracks: tuple[str, ...], **options: Any) -> None:
    """Rank the tracks of LIBRARY by their distance to TRACK: one of its tracks or an audio file; the middle of several.

    The distance is the weighted sum over dimensions of squared distances between unit vectors. Example: same mood and
    tempo, another era:

        msim query my/library song.ogg -w mood=1,tempo=1,era=-0.5

    LIBRARY is made by msim index of a folder of music, or by msim import of embeddings.
    """
    filters = {name: options.pop(name) for name in ("bpm", "octaves", "year", "keys", "tags", "artists")}
    _query_library(library, tracks, chosen_filters(**filters), QueryOptions(**options))


@dataclass(frozen=True)
class QueryOptions:
    """The options of ``msim query``, but for filters; see its help."""

    weights: tuple[str, ...]
    count: int
    each: bool
    model: Path | None
    as_json: bool
    mix: tuple[str, ...]
    profile: Path | None
    explain: bool
    diversity: float
    per_artist: int | None
    per_album: int | None


def _query_library(path: Path, tracks: tuple[str, ...], filters: Filters, options: QueryOptions) -> None:
    """Prints the ranking, and with ``each`` one for every dimension alone."""
    catalog = load_catalog(path)
    index = catalog.open_index()
    if index.note:
        click.echo(f"msim: {index.note}", err=True)
    query = _query(index, tracks, options.mix, _locator(catalog, index, options.model))
    rankings = {"overall": chosen_weights(options.weights, options.profile)}
    if options.each:
        rankings |= {name: {name: 1.0} for name in query.dimensions}
    limits = Diversity(options.per_artist, options.per_album, 1 - options.diversity)
    matches = {
        name: search(index, query, weights=weights, k=options.count, filters=filters, diversity=limits)
        for name, weights in rankings.items()
    }
    if options.as_json:
        hits = {name: [_hit_json(index, query, match) for match in ranking] for name, ranking in matches.items()}
        click.echo(json.dumps(hits, indent=1))
        return
    for name, ranking in matches.items():
        click.echo(name)
        for place, match in enumerate(ranking, 1):
            click.echo(match_line(place, match))
            if options.explain:
                click.echo(f"        {printable(explanation_of(index, query, match).line())}")


def chosen_weights(texts: tuple[str, ...], profile: Path | None) -> dict[str, float] | None:
    """Weights by hand or of a profile; None for equal ones.

    Raises:
        InputError: if both are given, or one cannot be read.
    """
    if texts and profile:
        raise InputError("--weights and --profile both say what counts; give one of them")
    return load_profile(profile).weights if profile else parse_weights(texts) or None


def match_line(place: int, match: Match) -> str:
    """A hit in one line: place, distance, artist and title where known, identifier."""
    song = " - ".join(match.metadata[key] for key in ("artist", "title") if key in match.metadata)
    line = f"  {place:>2}. {match.distance:6.3f}  {printable(match.identifier)}"
    return line + (f"  ({printable(song)})" if song else "")


def match_json(match: Match) -> dict[str, Any]:
    """A hit as JSON."""
    return {
        "identifier": match.identifier,
        "distance": match.distance,
        "shares": match.shares,
        "distances": match.distances,
        "metadata": match.metadata,
    }


def _hit_json(index: Index, query: Query, match: Match) -> dict[str, Any]:
    why = explanation_of(index, query, match)
    return {**match_json(match), "evidence": why.evidence, "notes": list(why.notes), "explanation": why.line()}


def _query(index: Index, tracks: tuple[str, ...], mix: tuple[str, ...], located: Located) -> Query:
    if bool(tracks) == bool(mix):
        raise InputError("give either tracks to be near to, or --mix DIMENSION=TRACK")
    if tracks:
        examples = [located(track) for track in tracks]
        # The mean of one is the same up to rounding, and rounding would show in ties.
        one = examples[0]
        if len(examples) > 1:
            return examples_query(index, examples)
        return track_query(index, one) if isinstance(one, str) else vector_query(index, one)
    parts = {}
    for text in mix:
        name, sign, track = text.partition("=")
        if not sign or name in parts:
            raise InputError(f"mix {text!r}: expected DIMENSION=TRACK, each dimension once, for example genre=a.ogg")
        parts[name] = located(track)
    return mixed_query(index, parts)


def _locator(catalog: Catalog, index: Index, model: Path | None) -> Located:
    """Finds tracks of the index by identifier or path, and embeds any other file, with a model that is loaded once."""
    embedders: list[Any] = []

    def located(track: str) -> str | np.ndarray:
        # As it is called, or as a listing prints names that a terminal cannot show.
        for name in (track, unprintable(track)):
            if name in index:
                return name
        file = Path(track)
        if not file.is_file():
            index.row(track)  # raises, with names that are alike
        resolved = file.resolve()
        if catalog.music and resolved.is_relative_to(catalog.music):
            name = resolved.relative_to(catalog.music).as_posix()
            if name in index:
                return name
        if not embedders:
            embedders.append(_embedder(catalog, index, model))
        return embedders[0].embed_file(file)

    return located


def _embedder(catalog: Catalog, index: Index, model: Path | None) -> Any:
    if not (model or catalog.model):
        raise InputError(f"{catalog.path} does not say which model made its vectors; name the model with --model")
    import_tensorflow()
    from msim_tf.export.embedder import Embedder
    from msim_tf.library.update import source_of

    embedder = Embedder(model or catalog.model)
    index.source.validate(source_of(embedder.metadata), catalog.path, model or catalog.model)
    return embedder


def chosen_filters(
    *,
    bpm: str | None,
    octaves: bool,
    year: str | None,
    keys: tuple[str, ...],
    tags: tuple[str, ...],
    artists: tuple[str, ...],
) -> Filters:
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
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:-\s*([0-9]+(?:\.[0-9]+)?))?\s*", text)
    if not found:
        raise InputError(f"--{name} {text!r}: expected LOWEST-HIGHEST, for example {example}")
    return float(found[1]), float(found[2] or found[1])
