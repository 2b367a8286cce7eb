"""``msim embed``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msim_tf.cli.engines import list_faults, run_jobs
from msim_tf.cli.options import (
    FiniteRange,
    LocalPath,
    SourcePath,
    absolute,
    import_tensorflow,
    list_failures,
    precision_option,
    printable,
    progress_bar,
)
from msim_tf.cli.steps import check_steps, do_jobs, step_options, write_jobs
from msim_tf.errors import InputError

if TYPE_CHECKING:
    from msim_tf.export.embedding import EmbeddedTracks

_PATH = LocalPath(path_type=Path)


@click.command()
@click.argument("source", type=SourcePath(path_type=Path))
@click.option(
    "--model",
    type=_PATH,
    help="Exported model: saved_models/NAME or one of its versions; by default the one that msim carries.",
)
@click.option("--out", type=_PATH, required=True, help="The .npz file to write.")
@click.option(
    "--pad", is_flag=True, help="Lengthen clips shorter than one segment with silence instead of leaving them out."
)
@click.option(
    "--max-seconds", type=FiniteRange(min=1), default=43200.0, help="Longer files are left out; default 12 hours."
)
@precision_option
@step_options("Only join finished jobs to the .npz file.")
@click.pass_context
def embed(ctx: click.Context, source: Path | str, model: Path | None, out: Path, **options: Any) -> None:
    """Embed every track of SOURCE: a folder of audio, a single file, the URI of one, or a feature store.

    Writes identifiers, embeddings, dimensions and widths. Run again after an interruption, it goes on where it was.
    Files that cannot be used are listed with the reason, and the exit status is then 1.

    On several machines with a shared file system: --engine, or --plan on one, --run with parts of its file on all, and
    --finish on one.
    """
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: expected a name that ends in .npz")
    check_steps(options)
    import_tensorflow()
    from msim_tf import settings
    from msim_tf.audio.sandbox import DecodeLimits
    from msim_tf.engines.work import EmbedWork
    from msim_tf.export import embedding
    from msim_tf.export.embedder import Embedder

    model = model or settings.default_model()
    # The steps for several machines: list what is to do; do a part of it; join the results.
    limits = DecodeLimits(max_seconds=options["max_seconds"])
    if options["plan_file"]:
        jobs = embedding.plan(source, model, out, pad=options["pad"])
        write_jobs(options["plan_file"], jobs, out)
        return
    if options["run_file"]:

        def run(jobs: list[embedding.EmbeddingJob]) -> Iterator[embedding.Part]:
            return (embedding.run_job(job, source, model, out, limits=limits) for job in jobs)

        do_jobs(options["run_file"], embedding.EmbeddingJob.from_json, run, "embed", out)
        return
    if options["engine"]:
        jobs = embedding.plan(source, model, out, pad=options["pad"])
        work = EmbedWork(absolute(source), str(model.absolute()), str(out.absolute()), options["max_seconds"])
        list_faults(run_jobs(options, work, jobs, out))
    if options["engine"] or options["only_finish"]:
        tracks = embedding.finish(out)
    else:
        with progress_bar("embed") as progress:
            embedder = Embedder(model, limits)
            tracks = embedding.embed_source(source, embedder, out, pad=options["pad"], progress=progress)
            embedder.close()
    _print_tracks(out, tracks)
    if tracks.failures or tracks.pending:
        ctx.exit(1)


def _print_tracks(out: Path, tracks: EmbeddedTracks) -> None:
    """What was embedded, what is still to be done, and the failures."""
    if tracks.pending:
        click.echo(f"{out}: not written, {tracks.pending} tracks are still to be embedded")
        return
    click.echo(f"{out}: {len(tracks.identifiers)} tracks, {tracks.embeddings.shape[1]} coordinates")
    for notice in tracks.notices:
        click.echo(f"  left out, {notice}", err=True)
    for identifier, notes in tracks.notes.items():
        click.echo(f"  {printable(identifier)}: {'; '.join(notes)}", err=True)
    list_failures({printable(name): reason for name, reason in tracks.failures.items()})
