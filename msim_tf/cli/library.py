"""``msim import``, ``path`` and ``learn``: a library of vectors, a playlist from one, and weights from choices."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from msim_tf.cli.listing import listing, listing_options, match_json, match_line, print_json
from msim_tf.cli.options import LocalPath, printable, profile_option
from msim_tf.embeddings import load_embeddings
from msim_tf.errors import InputError

_PATH = LocalPath(path_type=Path)
_WEIGHTS_HELP = "DIMENSION=NUMBER, comma separated or repeated; 0 is off. Default all equal."


@click.command("import")
@click.argument("embeddings", type=_PATH)
@click.argument("library", type=_PATH)
@click.option("--name", default="", help="What the library is called; by default the name of the embeddings.")
@click.option("--search-engine", type=click.Choice(["auto", "exact", "faiss"]), default="auto", help="Of queries.")
def import_(embeddings: Path, library: Path, name: str, search_engine: str) -> None:
    """Make LIBRARY of EMBEDDINGS, an .npz of msim embed or of another system with
    subspaces, to search it with msim query.

    It has no metadata to filter by, and no folder of music to play.
    """
    from msim_tf.library.catalog import Catalog, save_library
    from msim_tf.search.index import Index

    loaded = load_embeddings(embeddings)
    index = Index.build(loaded, engine=search_engine)
    save_library(index, Catalog(library, name or loaded.name, None))
    click.echo(f"{library}: {len(index)} tracks")


@click.command(context_settings={"show_default": True})
@click.argument("arguments", metavar="[LIBRARY] FROM TO", nargs=-1)
@click.option("--length", type=click.IntRange(min=2), default=10, help="Tracks, both ends included.")
@click.option("-w", "--weight", "--weights", "weights", multiple=True, help=_WEIGHTS_HELP)
@profile_option
@click.option(
    "--per-artist", type=click.IntRange(min=1), help="Most tracks of one artist; by default 2 while others are left."
)
@click.option("--per-album", type=click.IntRange(min=1), help="Most tracks of one album.")
@listing_options
def path(
    arguments: tuple[str, ...],
    length: int,
    weights: tuple[str, ...],
    profile: str | None,
    per_artist: int | None,
    per_album: int | None,
    **printed: Any,
) -> None:
    """A playlist from track FROM to track TO of LIBRARY that turns gradually, without repeats."""
    from msim_tf.cli.library_query import chosen_weights, library_and_tracks
    from msim_tf.library.library import Library
    from msim_tf.search.diversity import Diversity
    from msim_tf.search.path import track_path

    directory, ends = library_and_tracks(arguments, tracks=2)
    if len(ends) != 2:
        raise InputError(f"{len(ends)} tracks are given; a path leads FROM one TO another")
    library = Library(directory)
    shown = listing(printed, library.catalog.music)
    # Without limits, track_path takes two tracks of an artist while others are left.
    start, end = map(library.identify, ends)
    diversity = Diversity(per_artist, per_album) if per_artist or per_album else None
    steps = track_path(
        library.index, start, end, length=length, weights=chosen_weights(weights, profile), diversity=diversity
    )
    if shown.format == "json":
        print_json([match_json(step) for step in steps])
    elif shown.format != "table":
        shown.print_tracks(steps, printable(f"From {start} to {end}"))
    else:
        for place, step in enumerate(steps, 1):
            click.echo(match_line(place, step))


@click.command()
@click.argument("choices", type=_PATH)
@click.argument("profile", type=_PATH)
@click.option(
    "--library", type=_PATH, required=True, help="Where the chosen tracks are: a library, or an .npz of msim embed."
)
@click.option("--name", help="Of the profile; default the name of its file.")
def learn(choices: Path, profile: Path, library: Path, name: str | None) -> None:
    """Learn weights from CHOICES ("positive is closer to anchor than negative") and
    save them as PROFILE, for --profile.

    CHOICES is a table with the columns anchor,positive,negative, or judgements in any form that msim evaluate
    triplets reads. Choices of tracks that LIBRARY does not have are left out and counted. The weights are
    tried on choices about queries that they have not seen (cross-validation over queries), and what is
    printed says whether they beat equal weights there.
    """
    from msim_tf.evaluate.triplet_files import read_triplets
    from msim_tf.evaluate.triplets import scorable
    from msim_tf.library.catalog import is_library, load_catalog
    from msim_tf.search.index import Index
    from msim_tf.search.weights import choice_differences, learn_profile, save_profile

    # Only choices whose three tracks the library has can be learnt from.
    triplets, dropped = read_triplets(choices)
    index = load_catalog(library).open_index() if is_library(library) else Index.build(load_embeddings(library))
    present, missing = scorable(triplets, {track for track in triplets.identifiers if track in index})
    if not len(present):
        raise InputError(f"{choices}: no choice is among tracks of {library}; the columns must name its identifiers")
    # [choices, size] each: a choice compares two pairs, whose first tracks may differ.
    anchors, nearer, far_anchors, farther = (index.vectors(side) for side in zip(*present.members))
    layout = index.source.layout
    differences = choice_differences(anchors, nearer, farther, layout, far_anchors=far_anchors)
    learnt = learn_profile(name or profile.stem, differences, layout, queries=present.queries)
    save_profile(profile, learnt)
    left_out = missing.count + dropped.count
    click.echo(f"{profile}: {len(present)} choices" + (f", {left_out} left out" if left_out else ""))
    for dimension, weight in learnt.weights.items():
        click.echo(f"  {dimension:<11}{weight:.3f}")
    if math.isnan(learnt.agreement):
        click.echo("  choices about one query only: whether the weights help on others is unknown")
        return
    click.echo(
        f"  explains {learnt.agreement:.0%} of choices it has not seen, on other queries; equal weights "
        f"{learnt.equal_agreement:.0%}"
    )
    verdict = "better than equal weights" if learnt.helps else "not shown to be better than equal weights"
    click.echo(f"  {verdict}: gain {learnt.gain_low:+.3f} to {learnt.gain_high:+.3f} (95 %, over queries)")
