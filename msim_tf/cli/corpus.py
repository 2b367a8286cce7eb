"""``msim extract``, ``msim annotate``, ``msim label``: from a folder of audio to a store with labels."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msim_tf.cli.engines import list_faults, run_jobs
from msim_tf.cli.options import (
    LONGEST_WAIT,
    FiniteRange,
    LocalPath,
    SourcePath,
    absolute,
    import_tensorflow,
    list_failures,
    list_notes,
    preset,
    printable,
    progress_bar,
)
from msim_tf.cli.steps import check_steps, do_jobs, step_options, write_jobs
from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.params import FEATURE_PRESETS, FeatureParams

if TYPE_CHECKING:
    from msim_tf.audio.sandbox import DecodeLimits
    from msim_tf.data.writer import Extraction

_PATH = LocalPath(path_type=Path)


@click.command()
@click.argument("source", type=SourcePath(path_type=Path))
@click.argument("store", type=_PATH)
@click.option("--features", default="paper", show_default=True, help=f"Feature preset: {', '.join(FEATURE_PRESETS)}.")
@click.option(
    "--pad", is_flag=True, help="Lengthen clips shorter than one segment with silence instead of leaving them out."
)
@click.option(
    "--prune", is_flag=True, help="Forget clips whose files have left SOURCE; else they wait for their return."
)
@click.option(
    "--max-seconds", type=FiniteRange(min=1), default=43200.0, help="Longer files are left out; default 12 hours."
)
@click.option("--workers", type=click.IntRange(min=1), help="Threads; default one per core, with --engine one per job.")
@step_options("Only take finished jobs into STORE.")
@click.pass_context
def extract(ctx: click.Context, source: Path | str, store: Path, **options: Any) -> None:
    """Extract mel-spectrogram, onset envelope and CENS chroma of every audio file below SOURCE into STORE.

    SOURCE is a folder, a single file, or the URI of one (s3://, gs://, https://, ...; extra cloud).

    Run again after an interruption, or after files were added, changed or deleted: only what is new
    is extracted. Files that cannot be used are listed with the reason, and the exit status is then
    1. They are tried again when they change.

    On several machines with a shared file system: --engine, or --plan on one, --run with parts of its file on all, and
    --finish on one.
    """
    params = preset(FEATURE_PRESETS, options["features"], "feature")
    check_steps(options)
    import_tensorflow()
    from msim_tf.audio.sandbox import DecodeLimits
    from msim_tf.data import writer
    from msim_tf.data.store_database import store_params
    from msim_tf.engines.work import ExtractWork

    limits = DecodeLimits(max_seconds=options["max_seconds"])
    # The steps for several machines: list what is to do; do a part of it; take the results into the store.
    if options["plan_file"]:
        _, listing = writer.list_source(source)
        jobs = writer.plan(listing, store, params, pad=options["pad"], prune=options["prune"])
        write_jobs(options["plan_file"], jobs, store)
        return
    if options["run_file"]:
        _run_jobs(source, store, options["run_file"], options["workers"], limits)
        return
    if options["only_finish"]:
        done, params = writer.finish(store), store_params(store)
    elif options["engine"]:
        # All three steps here, the middle one on a cluster.
        root, listing = writer.list_source(source)
        jobs = writer.plan(listing, store, params, pad=options["pad"], prune=options["prune"])
        threads = options["workers"] or 1
        work = ExtractWork(absolute(root), str(store.absolute()), options["max_seconds"], threads)
        list_faults(run_jobs(options, work, jobs, store))
        done = dataclasses.replace(writer.finish(store), notices=tuple(listing.notices()))
    else:
        # All of it on this machine.
        with progress_bar("extract") as progress:
            settings = {name: options[name] for name in ("pad", "prune", "workers")}
            done = writer.extract_folder(source, store, params, **settings, limits=limits, progress=progress)
    _print_extraction(store, done, params)
    if done.failures or done.pending:
        ctx.exit(1)


def _run_jobs(source: Path | str, store: Path, lines: Iterable[str], workers: int | None, limits: DecodeLimits) -> None:
    """Does the jobs that ``msim extract --plan`` wrote, one per line."""
    from msim_tf.audio.source import source_root
    from msim_tf.data import writer

    def run(jobs: list[writer.ShardJob]) -> Iterator[Any]:
        return writer.run_jobs(jobs, source_root(source), store, workers=workers, limits=limits)

    do_jobs(lines, writer.ShardJob.from_json, run, "extract", store)


def _print_extraction(store: Path, done: Extraction, params: FeatureParams) -> None:
    """What the store holds, what is damaged, missing or still to be done, and the failures."""
    hours = done.frames / params.frame_rate / 3600
    click.echo(f"{store}: {done.clips} clips, {hours:.2f} h, features {params.digest}")
    if done.missing:
        click.echo(f"  {done.missing} clips are missing from the folder and left out; --prune forgets them")
    if done.pending:
        click.echo(f"  {done.pending} clips are still to be extracted")
    for notice in done.notices:
        click.echo(f"  left out, {notice}", err=True)
    list_notes(done.notes)
    list_failures({printable(name): printable(reason) for name, reason in done.failures.items()})


@click.command()
@click.argument("source", type=_PATH)
@click.argument("store", type=_PATH)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default one per core.")
@click.option(
    "--seconds", type=FiniteRange(10, LONGEST_WAIT), default=120, show_default=True, help="Middle part that is heard."
)
@click.pass_context
def annotate(ctx: click.Context, source: Path, store: Path, workers: int | None, seconds: float) -> None:
    """Estimate tempo and key of the clips of STORE with madmom, from the audio in SOURCE, and add them to its labels.

    Labels that STORE has already win over estimates. An estimate of low confidence is left out: that track is unknown
    there. madmom's models are licensed CC BY-NC-SA.
    """
    import_tensorflow()
    from msim_tf.data.store import FeatureStore
    from msim_tf.data.store_database import StoreDatabase
    from msim_tf.labels.annotate import annotate_folder
    from msim_tf.labels.annotations import annotation_labels

    # Estimates are saved one by one, so that an interrupted run goes on; labels of the store win over them.
    opened = FeatureStore(store)
    root = source if source.is_dir() else source.parent
    with progress_bar("annotate") as progress, StoreDatabase(store, writable=True) as database:
        annotations, failures = annotate_folder(
            root, opened.identifiers, database, workers=workers, progress=progress, seconds=seconds
        )
        with database.transaction():
            labels = annotation_labels(annotations).merge(database.labels())
            database.write_labels(labels)
    _print_coverage(store, labels.values, opened.identifiers)
    list_failures(failures)
    if failures:
        ctx.exit(1)


@click.command()
@click.argument("store", type=_PATH)
@click.argument("labels", type=_PATH, nargs=-1, required=True)
def label(store: Path, labels: tuple[Path, ...]) -> None:
    """Add LABELS to STORE: CSV tables (columns track, dimension, value), JAMS files or folders of JAMS
    files, a teacher's scores or vectors (npz).

    A dimension is genre, mood, instrument, era, tempo (bpm) or key; "tag" lets the taxonomy decide; "artist" gives the
    group that is never split between training and validation (a track may have several). What is given here wins over
    what STORE had for the same track and dimension. Scores of tags by another model (embeddings with the names of their
    columns as "tags" in meta) count for pairs of tracks that are not both labelled; its own embeddings, without such
    names, are for --regression-weight, and so is, better, what it says of passages of each track (see
    msim_tf.labels.passages); of the two, the one that is given last counts.
    """
    import_tensorflow()
    from msim_tf.data.store import FeatureStore
    from msim_tf.data.store_database import write_labels
    from msim_tf.labels.encoding import read_labels_csv, read_labels_jams, validate_tracks

    # Tables are merged in memory and written at the end, so a wrong one changes no label; a teacher is saved at once.
    opened = FeatureStore(store)
    merged = opened.labels
    for path in labels:
        if path.suffix == ".npz":
            click.echo(f"{store}: {_add_teacher(store, opened.identifiers, path)}")
            continue
        jams = path.is_dir() or path.suffix == ".jams"
        table = read_labels_jams(path, opened.identifiers) if jams else read_labels_csv(path)
        validate_tracks(table, opened.identifiers, table=path, tracks_of=store)
        merged = merged.merge(table)
    write_labels(store, merged)
    _print_coverage(store, merged.values, opened.identifiers)


def _add_teacher(store: Path, tracks: list[str], path: Path) -> str:
    """Adds what another model says of tracks; tells what that was."""
    from msim_tf.data.teacher_files import write_passages, write_teacher
    from msim_tf.embeddings import load_embeddings
    from msim_tf.labels.passages import is_passages, load_passages

    if is_passages(path):
        return f"what a teacher says of passages of {write_passages(store, tracks, load_passages(path))} tracks"
    teacher = load_embeddings(path)
    count = write_teacher(store, tracks, teacher)
    # Vectors whose columns have names are scores of tags.
    return f"a teacher's {'tags' if 'tags' in teacher.meta else 'vectors'} of {count} tracks"


def _print_coverage(store: Path, values: dict[str, dict[str, tuple[str, ...]]], identifiers: list[str]) -> None:
    """How many tracks are labelled in each dimension, and with what."""
    click.echo(f"{store}: labels of {len(identifiers)} tracks")
    for name in DIMENSION_NAMES:
        labelled = [values[identifier][name] for identifier in identifiers if name in values.get(identifier, {})]
        common = ", ".join(f"{value} {count}" for value, count in Counter(sum(labelled, ())).most_common(4))
        click.echo(f"  {name:<11}{len(labelled):>6} known  {common}".rstrip())
