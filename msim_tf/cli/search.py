"""``msim embed`` and ``msim query``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from msim_tf.cli.options import filter_options, import_tensorflow, list_failures, parse_weights, printable, progress_bar
from msim_tf.embeddings import Embeddings, load_embeddings, save_embeddings
from msim_tf.errors import InputError
from msim_tf.search.ranking import Hit, nearest, normalised

_PATH = click.Path(path_type=Path)
_LIBRARY_ONLY = (
    "mix",
    "profile",
    "bpm",
    "octaves",
    "year",
    "keys",
    "tags",
    "artists",
    "per_artist",
    "per_album",
    "diversity",
    "explain",
)


@click.command()
@click.argument("source", type=_PATH)
@click.option("--model", type=_PATH, required=True, help="Exported model: saved_models/NAME or one of its versions.")
@click.option("--out", type=_PATH, required=True, help="The .npz file to write.")
@click.option(
    "--pad", is_flag=True, help="Lengthen clips shorter than one segment with silence instead of leaving them out."
)
@click.pass_context
def embed(ctx: click.Context, source: Path, model: Path, out: Path, pad: bool) -> None:
    """Embed every track of SOURCE: a folder of audio, a single file, or a feature store.

    Writes identifiers, embeddings, dimensions and widths. Files that cannot be used are listed with the reason, and the exit status is then 1.
    """
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: expected a name that ends in .npz")
    import_tensorflow()
    from msim_tf.export.embedder import Embedder

    embedder = Embedder(model)
    with progress_bar("embed") as progress:
        tracks = embedder.embed(source, pad=pad, progress=progress)
    metadata = embedder.metadata
    meta = {"model": metadata.name, "version": metadata.directory.name, "digest": metadata.features.digest}
    save_embeddings(
        out, identifiers=tracks.identifiers, embeddings=tracks.embeddings, layout=metadata.layout, meta=meta
    )
    click.echo(f"{out}: {len(tracks.identifiers)} tracks, {metadata.layout.size} coordinates")
    for notice in tracks.notices:
        click.echo(f"  left out, {notice}", err=True)
    for identifier, notes in tracks.notes.items():
        click.echo(f"  {printable(identifier)}: {'; '.join(notes)}", err=True)
    list_failures({printable(name): reason for name, reason in tracks.failures.items()})
    if tracks.failures:
        ctx.exit(1)


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
    """Rank the tracks of LIBRARY by their distance to TRACK: an identifier or an audio file; the middle of several.

    The distance is the weighted sum over dimensions of squared distances between unit vectors. Example: same mood and tempo, another era:

        msim query my/library song.ogg -w mood=1,tempo=1,era=-0.5

    LIBRARY is made by msim index, or by msim embed (.npz): that knows no metadata, and so has no filters, limits, mixes and explanations.
    """
    from msim_tf.library.catalog import is_library

    if is_library(library):
        from msim_tf.cli.library_query import query_library

        query_library(library, tracks, **options)
        return
    unavailable = [name for name in _LIBRARY_ONLY if options[name]]
    if unavailable or len(tracks) != 1:
        what = f"--{unavailable[0].replace('_', '-')}" if unavailable else f"{len(tracks)} tracks"
        raise InputError(f"{library}: {what} needs a library of msim index; embeddings are queried by one track")
    _query_embeddings(
        library, tracks[0], **{name: options[name] for name in ("weights", "count", "each", "model", "as_json")}
    )


def _query_embeddings(
    embeddings: Path, track: str, *, weights: tuple[str, ...], count: int, each: bool, model: Path | None, as_json: bool
) -> None:
    library = load_embeddings(embeddings)
    if library.layout is None:
        raise InputError(f"{embeddings}: has no subspaces to weigh; make it with msim embed")
    candidates = normalised(library.embeddings, library.layout)
    vector, own = _query_vector(library, candidates, embeddings, track, model)
    rankings = {"overall": parse_weights(weights) or None}
    if each:
        rankings |= {name: {name: 1.0} for name in library.layout.names}
    found = {
        name: nearest(vector, candidates, library.layout, weights=chosen, k=count, exclude=own)
        for name, chosen in rankings.items()
    }
    if as_json:
        click.echo(
            json.dumps({name: [_as_json(library, hit) for hit in hits] for name, hits in found.items()}, indent=1)
        )
        return
    for name, hits in found.items():
        _print_ranking(name, hits, library)


def _query_vector(
    library: Embeddings, candidates: np.ndarray, path: Path, track: str, model: Path | None
) -> tuple[np.ndarray, int | None]:
    """The normalised query, and its own row if it is in the library."""
    if track in library:
        row = int(library.rows([track])[0])
        return candidates[row], row
    if not Path(track).exists():
        like = [name for name in library.identifiers if track.lower() in name.lower()][:3]
        hint = (
            f"did you mean {', '.join(like)}?" if like else "give one of its identifiers, or an audio file and --model"
        )
        raise InputError(f"{path} has no track {track!r}; {hint}")
    if model is None:
        raise InputError(f"{track} is not in {path}; to query by an audio file name the model with --model")
    import_tensorflow()
    from msim_tf.export.embedder import Embedder

    embedder = Embedder(model)
    digest = library.meta.get("digest")
    if (embedder.metadata.name, embedder.metadata.directory.name, embedder.metadata.features.digest) != (
        library.meta.get("model"),
        library.meta.get("version"),
        digest,
    ):
        raise InputError(
            f"{path} was made by {library.meta.get('model')} version {library.meta.get('version')} (features {digest}), "
            f"{model} is {embedder.metadata.name} version {embedder.metadata.directory.name} (features "
            f"{embedder.metadata.features.digest}); embed the library again with msim embed"
        )
    layout = embedder.metadata.layout
    return normalised(embedder.embed_file(track), layout), None


def _print_ranking(name: str, hits: list[Hit], library: Embeddings) -> None:
    click.echo(name)
    for place, hit in enumerate(hits, 1):
        largest = sorted(hit.shares.items(), key=lambda share: -abs(share[1]))[:2]
        why = (
            ", ".join(f"{dimension} {share:.2f}" for dimension, share in largest if share) if name == "overall" else ""
        )
        click.echo(f"  {place:>2}. {hit.distance:6.3f}  {library.identifiers[hit.row]}" + (f"  ({why})" if why else ""))


def _as_json(library: Embeddings, hit: Hit) -> dict[str, object]:
    return {"identifier": library.identifiers[hit.row], "distance": hit.distance, "shares": hit.shares}
