"""``msim index``, ``import``, ``path`` and ``learn``: makes a library, a playlist from it, and weights from choices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msim_tf.cli.listing import listing, listing_options, match_json, match_line, print_json
from msim_tf.cli.options import LocalPath, import_tensorflow, list_failures, printable, profile_option, progress_bar
from msim_tf.embeddings import load_embeddings
from msim_tf.errors import InputError
from msim_tf.settings import default_library, default_model

if TYPE_CHECKING:
    from msim_tf.library.update_options import Summary, UpdateOptions

_PATH = LocalPath(path_type=Path)
_SHOWN = 10
_RETRY_SECONDS = 60.0
_WEIGHTS_HELP = "DIMENSION=NUMBER, comma separated or repeated; 0 is off. Default all equal."


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
@click.option("--engine", type=click.Choice(["auto", "exact", "faiss"]), default="auto", help="Of the search.")
@click.option("--batch", type=click.IntRange(min=1), default=200, help="Tracks between two saves.")
@click.option("--max-seconds", type=click.FloatRange(min=1), default=43200.0, help="Longer files are left out.")
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
    type=click.FloatRange(min=0.1),
    help="With --watch: look for changes so often. For network mounts, where the system tells of no change.",
    show_default=False,
)
@click.pass_context
def index(
    ctx: click.Context,
    folder: Path | None,
    library: Path | None,
    model: Path | None,
    dry_run: bool,
    failures: bool,
    as_json: bool,
    max_seconds: float,
    watch: bool,
    poll_seconds: float | None,
    **settings: Any,
) -> None:
    """Make LIBRARY of the music below FOLDER, or bring it up to date: new, changed, moved and deleted files.
    Without LIBRARY it is the default one, in your folder for data.

    Interrupted at any moment, the same command goes on from the last save. What has not changed is skipped. Files that
    cannot be used are listed with the reason, and the exit status is then 1; they are read again when they have
    changed. Tracks whose files are gone are kept, but not offered, until the files return or --prune forgets them.
    Search the library with msim query, msim path and msim serve --library.
    """
    if failures:
        _list_all_failures(library or folder or default_library(), as_json=as_json)
        return
    if (watch and dry_run) or (poll_seconds and not watch):
        raise InputError("--poll-seconds goes with --watch, --dry-run does not")
    if folder is None:
        raise InputError("give the folder of music, for example: msim index ~/Music")
    library = library or default_library()
    import_tensorflow()
    from msim_tf.audio.sandbox import DecodeLimits
    from msim_tf.export.embedder import Embedder
    from msim_tf.library.build import update_library
    from msim_tf.library.update_options import UpdateOptions

    options = UpdateOptions(**settings)
    if dry_run:
        _print_plan(folder, library, options)
        return
    embedder = Embedder(model or _library_model(library), DecodeLimits(max_seconds=max_seconds))

    def update() -> Summary:
        with _stages() as progress:
            return update_library(folder, library, embedder, options, progress=progress)

    if watch:
        _watch(folder, library, update, poll_seconds)
        return
    summary = update()
    _print_summary(library, summary)
    if summary.failures:
        ctx.exit(1)


def _watch(folder: Path, library: Path, update: Callable[[], Summary], poll_seconds: float | None) -> None:
    """Updates at once and after every change, until interrupted. Only the first update may fail for good."""
    from msim_tf.library.watch import settled_changes

    first = True
    try:
        for _ in settled_changes(folder, library, poll_seconds=poll_seconds):
            summary = update() if first else _updated_at_last(update)
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

    plan, scan = planned_update(folder, library, options)
    gone = len(plan.missing) + (len(plan.still_missing) if options.prune else 0)
    counts = {"new": len(plan.new), "changed": len(plan.changed), "moved": len(plan.moved)}
    counts |= {"returned": len(plan.returned), "removed" if options.prune else "missing": gone}
    for what, count in counts.items():
        click.echo(f"would be {what}: {count}")
    click.echo(f"unchanged: {plan.unchanged + len(plan.touched)}")
    list_failures({printable(path): reason for path, reason in scan.failures.items()})


def _list_all_failures(library: Path, *, as_json: bool) -> None:
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


def _library_model(library: Path) -> Path:
    """The model that embedded a library; the default one for a new library."""
    from msim_tf.library.catalog import is_library, load_catalog
    from msim_tf.search.index_directory import refuse_old_format

    refuse_old_format(library)
    recorded = load_catalog(library).model if is_library(library) else ""
    return Path(recorded) if recorded else default_model()


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
    counts = [f"{getattr(summary, what)} {what}" for what in ("new", "changed", "moved", "removed", "unchanged")]
    click.echo(f"{library}: {summary.tracks} tracks; {', '.join(counts)}, {len(summary.failures)} failed")
    embedded = summary.new + summary.changed
    if embedded:
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


@click.command("import")
@click.argument("embeddings", type=_PATH)
@click.argument("library", type=_PATH)
@click.option("--name", default="", help="What the library is called; by default the name of the embeddings.")
@click.option("--engine", type=click.Choice(["auto", "exact", "faiss"]), default="auto", help="Of the search.")
def import_(embeddings: Path, library: Path, name: str, engine: str) -> None:
    """Make LIBRARY of EMBEDDINGS, an .npz of msim embed or of another system with
    subspaces, to search it with msim query.

    It has no metadata to filter by, and no folder of music to play.
    """
    from msim_tf.library.catalog import Catalog, save_library
    from msim_tf.search.index import Index

    loaded = load_embeddings(embeddings)
    index = Index.build(loaded, engine=engine)
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

    triplets, dropped = read_triplets(choices)
    index = load_catalog(library).open_index() if is_library(library) else Index.build(load_embeddings(library))
    present, missing = scorable(triplets, {track for track in triplets.identifiers if track in index})
    if not len(present):
        raise InputError(f"{choices}: no choice is among tracks of {library}; the columns must name its identifiers")
    anchors, nearer, far_anchors, farther = (index.vectors(side) for side in zip(*present.members))
    layout = index.source.layout
    differences = choice_differences(anchors, nearer, farther, layout, far_anchors=far_anchors)
    learnt = learn_profile(name or profile.stem, differences, layout, queries=present.queries)
    save_profile(profile, learnt)
    left_out = missing.count + dropped.count
    click.echo(f"{profile}: {len(present)} choices" + (f", {left_out} left out" if left_out else ""))
    for dimension, weight in learnt.weights.items():
        click.echo(f"  {dimension:<11}{weight:.3f}")
    click.echo(
        f"  explains {learnt.agreement:.0%} of choices it has not seen, on other queries; equal weights "
        f"{learnt.equal_agreement:.0%}"
    )
    verdict = "better than equal weights" if learnt.helps else "not shown to be better than equal weights"
    click.echo(f"  {verdict}: gain {learnt.gain_low:+.3f} to {learnt.gain_high:+.3f} (95 %, over queries)")
