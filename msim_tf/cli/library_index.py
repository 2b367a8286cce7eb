"""``msim index``: makes a library of a folder of music, and keeps it up to date."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from msim_tf.cli.engines import list_faults, run_jobs
from msim_tf.cli.options import (
    LONGEST_WAIT,
    FiniteRange,
    LocalPath,
    import_tensorflow,
    list_failures,
    precision_option,
    printable,
    progress_bar,
)
from msim_tf.cli.steps import check_steps, do_jobs, step_options, write_jobs
from msim_tf.errors import InputError
from msim_tf.settings import default_library, default_model

if TYPE_CHECKING:
    from msim_tf.audio.sandbox import DecodeLimits
    from msim_tf.library.update_options import Summary, UpdateOptions

_PATH = LocalPath(path_type=Path)
_SHOWN = 10
_RETRY_SECONDS = 60.0


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=_PATH, required=False)
@click.argument("library", type=_PATH, required=False)
@click.option(
    "--model",
    type=_PATH,
    help="Exported model: saved_models/NAME; by default the library's own, at first the one that ships with msim.",
    show_default=False,
)
@click.option("--annotate", is_flag=True, help="Also estimate tempo and key (madmom; some 3 s per track and core).")
@click.option(
    "--rebuild", is_flag=True, help="Embed everything again, e.g. with another model; the old index serves on."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--pad", is_flag=True, help="Lengthen tracks shorter than one segment with silence.")
@click.option(
    "--prune", is_flag=True, help="Forget tracks whose files are gone, instead of keeping them for their return."
)
@click.option("--retry", is_flag=True, help="Read files again that could not be used, though they have not changed.")
@click.option("--search-engine", type=click.Choice(["auto", "exact", "faiss"]), default="auto", help="Of queries.")
@precision_option
@click.option("--batch", type=click.IntRange(min=1), default=200, help="Tracks between two saves.")
@click.option("--max-seconds", type=FiniteRange(min=1), default=43200.0, help="Longer files are left out.")
@click.option("--name", default="", help="What the library is called; at first the folder's name.")
@click.option(
    "--failures",
    is_flag=True,
    help="Only list all files of the library that cannot be used or are damaged, with the reason.",
)
@click.option("--json", "as_json", is_flag=True, help="With --failures: print JSON.")
@click.option("--watch", is_flag=True, help="Go on and index what changes, until interrupted.")
@click.option(
    "--poll-seconds",
    type=FiniteRange(0.1, LONGEST_WAIT),
    help="With --watch: look for changes so often. For network mounts, where the system tells of no change.",
    show_default=False,
)
@step_options("Only put finished jobs into the library.")
@click.pass_context
def index(ctx: click.Context, folder: Path | None, library: Path | None, model: Path | None, **options: Any) -> None:
    """Make LIBRARY of the music below FOLDER, or bring it up to date: new, changed, moved and deleted files.
    Without LIBRARY it is the default one, in your folder for data.

    Interrupted at any moment, the same command goes on from the last save. What has not changed is skipped. Files that
    cannot be used are listed with the reason, and the exit status is then 1; they are read again when they have
    changed. Tracks whose files are gone are kept, but not offered, until the files return or --prune forgets them.
    Search the library with msim query, msim path and msim serve --library.

    On several machines with a shared file system: --engine, or --plan on one, --run with parts of its file on all, and
    --finish on one.
    """
    if options["failures"]:
        _list_all_failures(library or folder or default_library(), as_json=options["as_json"])
        return
    _check_options(options)
    if folder is None:
        raise InputError("give the folder of music, for example: msim index ~/Music")
    library = library or default_library()
    # Without --model: the one that embedded the library, or the default one for a new library.
    if model is None:
        from msim_tf.library.catalog import is_library, load_catalog
        from msim_tf.search.index_directory import refuse_old_format

        refuse_old_format(library)
        recorded = load_catalog(library).model if is_library(library) else ""
        model = Path(recorded) if recorded else default_model()
    import_tensorflow()
    from msim_tf.audio.sandbox import DecodeLimits
    from msim_tf.library.update_options import UpdateOptions

    update = UpdateOptions(
        engine=options["search_engine"],
        **{name: options[name] for name in ("rebuild", "annotate", "pad", "prune", "retry", "batch", "name")},
    )
    limits = DecodeLimits(max_seconds=options["max_seconds"])
    # One of the steps, or all of them; only those that end with a whole update have a summary to print.
    if options["dry_run"]:
        _print_plan(folder, library, update)
    elif options["plan_file"]:
        from msim_tf.library.index_jobs import plan

        write_jobs(options["plan_file"], plan(folder, library, model, update), library)
    elif options["run_file"]:
        _run_jobs(folder, library, model, limits, options["run_file"])
    elif options["watch"]:
        _watch(folder, library, _updater(folder, library, model, update, limits), options["poll_seconds"])
    else:
        if options["engine"] or options["only_finish"]:
            summary = _finished(folder, library, model, update, options)
        else:
            summary = _updater(folder, library, model, update, limits)()
        _print_summary(library, summary)
        if summary.failures or summary.pending:
            ctx.exit(1)


def _check_options(options: dict[str, Any]) -> None:
    """Refuses options that do not belong together.

    Raises:
        InputError: saying which.
    """
    if (options["watch"] and options["dry_run"]) or (options["poll_seconds"] and not options["watch"]):
        raise InputError("--poll-seconds goes with --watch, --dry-run does not")
    check_steps(options)
    divided = options["engine"] or options["plan_file"] or options["run_file"] or options["only_finish"]
    if divided and (options["watch"] or options["dry_run"]):
        raise InputError("--watch and --dry-run are for one machine, without --engine, --plan, --run and --finish")


def _updater(
    folder: Path, library: Path, model: Path, options: UpdateOptions, limits: DecodeLimits
) -> Callable[[], Summary]:
    """A function that updates the library on this machine, as often as it is called."""
    from msim_tf.export.embedder import Embedder
    from msim_tf.library.build import update_library

    embedder = Embedder(model, limits)

    def update() -> Summary:
        with _stages() as progress:
            return update_library(folder, library, embedder, options, progress=progress)

    return update


def _run_jobs(folder: Path, library: Path, model: Path, limits: DecodeLimits, lines: TextIO) -> None:
    from msim_tf.export.embedding_job import EmbeddingJob, Part
    from msim_tf.library import index_jobs

    def run(jobs: list[EmbeddingJob]) -> Iterator[Part]:
        return (index_jobs.run_job(job, folder, model, library, limits=limits) for job in jobs)

    do_jobs(lines, EmbeddingJob.from_json, run, "index", library)


def _finished(folder: Path, library: Path, model: Path, update: UpdateOptions, options: dict[str, Any]) -> Summary:
    """Puts finished jobs into the library; with ``--engine``, plans and runs them first."""
    from msim_tf.engines.work import EmbedWork
    from msim_tf.library import index_jobs

    if options["engine"]:
        jobs = index_jobs.plan(folder, library, model, update)
        # Workers may run in another directory.
        shared = [str(path.absolute()) for path in (folder, model, library)]
        work = EmbedWork(shared[0], shared[1], shared[2], options["max_seconds"])
        list_faults(run_jobs(options, work, jobs, library))
    with _stages() as progress:
        return index_jobs.finish(folder, library, model, update, progress=progress)


def _watch(folder: Path, library: Path, update: Callable[[], Summary], poll_seconds: float | None) -> None:
    """Updates at once and after every change, until interrupted. Only the first update may fail for good."""
    from msim_tf.library.watch import settled_changes

    first = True
    try:
        for _ in settled_changes(folder, library, poll_seconds=poll_seconds):
            summary = update() if first else _updated_at_last(update)
            # Later rounds without a change say nothing.
            if first or summary.new or summary.changed or summary.moved or summary.removed or summary.vanished:
                _print_summary(library, summary)
            if first:
                click.echo(f"watching {printable(str(folder))} (stop with Ctrl-C)")
            first = False
    except KeyboardInterrupt:
        return


def _updated_at_last(update: Callable[[], Summary]) -> Summary:
    """Updates, and tries again in a minute while that fails: a disk is away, or another process is indexing."""
    while True:
        try:
            return update()
        except InputError as error:
            click.echo(f"msim: {error}; trying again in a minute", err=True)
            time.sleep(_RETRY_SECONDS)


def _print_plan(folder: Path, library: Path, options: UpdateOptions) -> None:
    from msim_tf.library.build import planned_update

    # Missing tracks of before are gone as well, once --prune forgets them.
    plan, scan = planned_update(folder, library, options)
    gone = len(plan.missing) + (len(plan.still_missing) if options.prune else 0)
    counts = {"new": len(plan.new), "changed": len(plan.changed), "moved": len(plan.moved)}
    counts |= {"returned": len(plan.returned), "removed" if options.prune else "missing": gone}
    for what, count in counts.items():
        click.echo(f"would be {what}: {count}")
    click.echo(f"unchanged: {plan.unchanged + len(plan.touched)}")
    list_failures({printable(path): reason for path, reason in scan.failures.items()})


def _list_all_failures(library: Path, *, as_json: bool) -> None:
    """Every file that the library cannot use, and every one that it uses though something is wrong with it."""
    from msim_tf.library.catalog import load_catalog
    from msim_tf.library.file_table import FileTable

    index = load_catalog(library).open_index()
    records = FileTable(index.table.database).records()
    wrong = {name: record for name, record in sorted(records.items()) if record.failure or record.notes}
    if as_json:
        click.echo(json.dumps({name: record.to_json() for name, record in wrong.items()}, indent=1))
        return
    for name, record in wrong.items():
        text = record.failure or f"used, though {'; '.join(record.notes)}"
        click.echo(f"{printable(name)}: {printable(text)}")


@contextmanager
def _stages() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage that has something to do."""
    with ExitStack() as stack:
        reports: dict[str, Callable[[int, int], None]] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in reports:
                reports[stage] = stack.enter_context(progress_bar(stage))
            reports[stage](done, total)

        yield progress


def _print_summary(library: Path, summary: Summary) -> None:
    """What an update did: counts and speed, what is missing, gone or damaged, and the first failures."""
    counts = [f"{getattr(summary, what)} {what}" for what in ("new", "changed", "moved", "removed", "unchanged")]
    click.echo(f"{library}: {summary.tracks} tracks; {', '.join(counts)}, {len(summary.failures)} failed")
    embedded = summary.new + summary.changed
    if summary.pending:
        click.echo(f"  {summary.pending} tracks are still to be embedded")
    elif embedded:
        click.echo(f"  {summary.seconds / embedded:.2f} s per track")
    if summary.returned:
        click.echo(f"  {summary.returned} tracks are back")
    if summary.missing:
        click.echo(f"  {summary.missing} tracks are missing, kept but not offered; --prune forgets them")
    for name, count in list(summary.vanished.items())[:_SHOWN]:
        click.echo(f"  gone: {printable(name)}" + (f" ({count} tracks)" if name.endswith("/") else ""), err=True)
    if len(summary.vanished) > _SHOWN:
        click.echo(f"  gone: {len(summary.vanished) - _SHOWN} more", err=True)
    for notice in summary.notices:
        click.echo(f"  left out, {notice}", err=True)
    if summary.notes:
        click.echo(f"  {len(summary.notes)} files are used though something is wrong with them", err=True)
    for name, notes in list(summary.notes.items())[:_SHOWN]:
        click.echo(f"  {printable(name)}: {printable('; '.join(notes))}", err=True)
    list_failures({printable(path): printable(reason) for path, reason in summary.failures.items()})
    if summary.remembered:
        click.echo(
            f"  {summary.remembered} of these failed before and have not changed; --retry reads them again", err=True
        )
    if max(len(summary.failures), len(summary.notes)) > _SHOWN:
        click.echo(f"  msim index {library} --failures lists all", err=True)
