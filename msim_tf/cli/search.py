"""``msim embed``."""

from __future__ import annotations

from pathlib import Path

import click

from msim_tf.cli.options import import_tensorflow, list_failures, printable, progress_bar
from msim_tf.embeddings import save_embeddings
from msim_tf.errors import InputError

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=_PATH)
@click.option("--model", type=_PATH, required=True, help="Exported model: saved_models/NAME or one of its versions.")
@click.option("--out", type=_PATH, required=True, help="The .npz file to write.")
@click.option(
    "--pad", is_flag=True, help="Lengthen clips shorter than one segment with silence instead of leaving them out."
)
@click.option(
    "--max-seconds", type=click.FloatRange(min=1), default=43200.0, help="Longer files are left out; default 12 hours."
)
@click.pass_context
def embed(ctx: click.Context, source: Path, model: Path, out: Path, pad: bool, max_seconds: float) -> None:
    """Embed every track of SOURCE: a folder of audio, a single file, or a feature store.

    Writes identifiers, embeddings, dimensions and widths. Files that cannot be used are listed with
    the reason, and the exit status is then 1.
    """
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: expected a name that ends in .npz")
    import_tensorflow()
    from msim_tf.audio.sandbox import DecodeLimits
    from msim_tf.export.embedder import Embedder

    embedder = Embedder(model, DecodeLimits(max_seconds=max_seconds))
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
