"""What ``msim query`` does with a library of ``msim index``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from msim_tf.cli.options import import_tensorflow, parse_weights, printable
from msim_tf.errors import InputError
from msim_tf.library.catalog import Catalog, load_catalog
from msim_tf.search.diversity import Diversity
from msim_tf.search.explanation import explain as explanation_of
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.query import Match, Query, examples_query, mixed_query, search, track_query, vector_query
from msim_tf.search.weights import load_profile

# A track as it was given, to a track of the index or a vector.
Located = Callable[[str], str | np.ndarray]


def query_library(
    path: Path,
    tracks: tuple[str, ...],
    *,
    weights: tuple[str, ...],
    count: int,
    each: bool,
    model: Path | None,
    as_json: bool,
    mix: tuple[str, ...],
    profile: Path | None,
    explain: bool,
    diversity: float,
    per_artist: int | None,
    per_album: int | None,
    **filters: Any,
) -> None:
    """Prints the ranking, and with ``each`` one for every dimension alone."""
    catalog = load_catalog(path)
    index = catalog.open_index()
    query = _query(index, tracks, mix, _locator(catalog, index, model))
    rankings = {"overall": chosen_weights(weights, profile)}
    if each:
        rankings |= {name: {name: 1.0} for name in query.dimensions}
    limits = Diversity(per_artist, per_album, 1 - diversity)
    allowed = chosen_filters(**filters)
    found = {
        name: search(index, query, weights=chosen, k=count, filters=allowed, diversity=limits)
        for name, chosen in rankings.items()
    }
    if as_json:
        told = {name: [_hit_json(index, query, match) for match in matches] for name, matches in found.items()}
        click.echo(json.dumps(told, indent=1))
        return
    for name, matches in found.items():
        click.echo(name)
        for place, match in enumerate(matches, 1):
            click.echo(match_line(place, match))
            if explain:
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
    told = " - ".join(match.metadata[key] for key in ("artist", "title") if key in match.metadata)
    return f"  {place:>2}. {match.distance:6.3f}  {printable(match.identifier)}" + (
        f"  ({printable(told)})" if told else ""
    )


def match_json(match: Match) -> dict[str, Any]:
    """A hit as JSON, without what only the library itself needs."""
    metadata = {key: value for key, value in match.metadata.items() if key != "file"}
    told = {"identifier": match.identifier, "distance": match.distance, "shares": match.shares}
    return {**told, "distances": match.distances, "metadata": metadata}


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
        if track in index:
            return track
        file = Path(track)
        if not file.is_file():
            index.row(track)  # raises, with names that are alike
        resolved = file.resolve()
        if resolved.is_relative_to(catalog.music) and resolved.relative_to(catalog.music).as_posix() in index:
            return resolved.relative_to(catalog.music).as_posix()
        if not embedders:
            embedders.append(_embedder(catalog, index, model))
        return embedders[0].embed_file(file)

    return located


def _embedder(catalog: Catalog, index: Index, model: Path | None) -> Any:
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
