"""``msim embed``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msim_tf.cli.engines import check_engine, engine_options, list_faults, run_jobs
from msim_tf.cli.options import (
    LocalPath,
    SourcePath,
    absolute,
    import_tensorflow,
    list_failures,
    one_step,
    precision_option,
    printable,
    progress_bar,
    read_jobs,
)
from msim_tf.errors import InputError

if TYPE_CHECKING:
    from msim_tf.export.embedding import EmbeddedTracks

_PATH = LocalPath(path_type=Path)


@click.command()
@click.argument("source", type=SourcePath(path_type=Path))
@click.option("--model", type=_PATH, required=True, help="Exported model: saved_models/NAME or one of its versions.")
@click.option("--out", type=_PATH, required=True, help="The .npz file to write.")
@click.option(
    "--pad", is_flag=True, help="Lengthen clips shorter than one segment with silence instead of leaving them out."
)
@click.option(
    "--max-seconds", type=click.FloatRange(min=1), default=43200.0, help="Longer files are left out; default 12 hours."
)
@precision_option
@click.option(
    "--plan", "plan_file", type=click.File("w"), help="Only write the jobs that are to do, a line of JSON each."
)
@click.option("--run", "run_file", type=click.File("r"), help="Only do the jobs of this file (- is standard input).")
@click.option("--finish", "only_finish", is_flag=True, help="Only join finished jobs to the .npz file.")
@engine_options
@click.pass_context
def embed(ctx: click.Context, source: Path | str, model: Path, out: Path, **options: Any) -> None:
    """Embed every track of SOURCE: a folder of audio, a single file, the URI of one, or a feature store.

    Writes identifiers, embeddings, dimensions and widths. Run again after an interruption, it goes on where it was.
    Files that cannot be used are listed with the reason, and the exit status is then 1.

    On several machines with a shared file system: --engine, or --plan on one, --run with parts of its file on all, and
    --finish on one.
    """
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: expected a name that ends in .npz")
    one_step(options)
    check_engine(options)
    import_tensorflow()
    from msim_tf.audio.sandbox import DecodeLimits
    from msim_tf.engines.work import EmbedWork
    from msim_tf.export import embedding
    from msim_tf.export.embedder import Embedder

    limits = DecodeLimits(max_seconds=options["max_seconds"])
    if options["plan_file"]:
        jobs = embedding.plan(source, model, out, pad=options["pad"])
        options["plan_file"].writelines(json.dumps(job.to_json()) + "\n" for job in jobs)
        click.echo(f"{out}: {len(jobs)} jobs to run")
        return
    if options["run_file"]:
        jobs = read_jobs(options["run_file"], embedding.EmbeddingJob.from_json, "embed")
        with progress_bar("embed", "job") as progress:
            for done, job in enumerate(jobs, 1):
                embedding.run_job(job, source, model, out, limits=limits)
                progress(done, len(jobs))
        click.echo(f"{out}: {len(jobs)} jobs done")
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
