"""``msim dataset``: labels, artists and splits of public data sets, from their publishers' own files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msim_tf.cli.options import FiniteRange, LocalPath, import_tensorflow, printable
from msim_tf.datasets.catalogue import dataset_facts, datasets
from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.errors import InputError

if TYPE_CHECKING:
    from msim_tf.datasets.collection import DatasetLabels

_PATH = LocalPath(path_type=Path)
_SHOWN = 3


@click.group()
def dataset() -> None:
    """Public data sets in the words of this program: what each gives, and its labels from its own files.

    \b
        msim dataset list
        msim dataset labels fma ~/data/fma --out fma.csv --split fma.json
    """


@dataset.command("list")
@click.argument("names", nargs=-1)
def list_datasets(names: tuple[str, ...]) -> None:
    """What is supported: what each data set gives, its size and licence, and where people get it; all, or NAMES."""
    for facts in [dataset_facts(name) for name in names] or datasets().values():
        click.echo(f"{facts.name}: {facts.title}")
        for what, source in facts.gives.items():
            click.echo(f"  {what:<13}{source}")
        rows = {
            "size": facts.size,
            "licence": facts.licence,
            "may train": facts.may_train,
            "may ship": facts.may_ship,
            "where": facts.where,
            "reads": facts.files,
            "release read": facts.release,
        }
        for title, text in rows.items():
            click.echo(f"  {title:<13}{text}")


@dataset.command()
@click.argument("name")
@click.argument("root", type=_PATH)
@click.option("--out", type=_PATH, help="Label table to write (CSV), for msim label.")
@click.option("--store", type=_PATH, help="Feature store to label at once; tracks are found by their names there.")
@click.option("--audio", type=_PATH, help="Folder that names of tracks are relative to; default ROOT.")
@click.option("--split", type=_PATH, help="File to write the published split to (JSON), for msim train --split.")
@click.option(
    "--left-out", "left_out", type=_PATH, help="File to write every item that was left out to, with the reason."
)
@click.option(
    "--threshold",
    type=FiniteRange(0, 100),
    default=50.0,
    show_default=True,
    help="msd: tags weigh more than this.",
)
@click.option("--era-from-year", is_flag=True, help="msd: the year gives the era where no tag does.")
@click.option(
    "--split-number", type=click.IntRange(0, 4), default=0, show_default=True, help="jamendo: which of its splits."
)
@click.option("--as-published", is_flag=True, help="Keep training tracks whose artist is in validation or test, too.")
@click.pass_context
def labels(
    ctx: click.Context,
    name: str,
    root: Path,
    out: Path | None,
    store: Path | None,
    audio: Path | None,
    split: Path | None,
    left_out: Path | None,
    threshold: float,
    era_from_year: bool,
    split_number: int,
    as_published: bool,
) -> None:
    """Read the labels of data set NAME from its own files below ROOT, as its publisher lays them out.

    Says how many tracks have a label in each dimension, and counts and names what was left out: items without
    audio, unreadable ones, repetitions by a published list. A track without a label is unknown. Faults of this
    copy (missing or broken files) exit with status 1.
    """
    from msim_tf.datasets.collection import ReadOptions, TrackNames
    from msim_tf.datasets.reading import read_dataset, tracks_below
    from msim_tf.labels.splits import save_split
    from msim_tf.labels.tables import write_labels_csv

    facts = dataset_facts(name)
    if out is None and store is None and split is None:
        raise InputError("nothing to write: give --out, --store or --split")
    if store is not None and audio is not None:
        raise InputError("--audio and --store both name tracks; give one of them")
    # What tracks are called: as in the store, or by the audio files below a folder.
    if store is not None:
        import_tensorflow()
        from msim_tf.data.store import FeatureStore
        from msim_tf.data.store_database import write_labels

        opened = FeatureStore(store)
        tracks = TrackNames(opened.identifiers)
    else:
        from msim_tf.datasets.recognition import validate_root

        # A wrong root is told before a walk through a million files.
        validate_root(root, facts.name)
        try:
            tracks = tracks_below(audio or root)
        except InputError as error:
            raise error if audio else InputError(f"{error}; if it lies elsewhere: --audio FOLDER") from error
    # All is read before anything is written.
    options = ReadOptions(threshold=threshold, era_from_year=era_from_year, split_number=split_number)
    read = read_dataset(facts.name, root, tracks, options=options, by_artist=not as_published)
    if split is not None and read.split is None:
        raise InputError(
            f"{root}: no published split of {facts.title} lies there, so there is none for --split {split}"
        )
    if out is not None:
        write_labels_csv(out, read.labels)
    if split is not None and read.split is not None:
        save_split(split, read.split)
    if store is not None:
        write_labels(store, opened.labels.merge(read.labels))
    if left_out is not None:
        _write_left_out(left_out, read)
    _print_labels(facts.name, len(tracks.identifiers), read)
    if any(read.left_out.get(reason) for reason in read.faults):
        ctx.exit(1)


def _print_labels(name: str, tracks: int, read: DatasetLabels) -> None:
    """How many of the tracks are labelled, and with what; the split; what was left out, and why."""
    # How many tracks have a label in each dimension, and an artist.
    counts = Counter(dimension for values in read.labels.values.values() for dimension in values if values[dimension])
    counts["artist"] = len(read.labels.groups)
    shown = ", ".join(f"{dimension} {counts[dimension]}" for dimension in DIMENSION_NAMES if counts[dimension])
    click.echo(f"{name}: {len(read.labels.values)} of {tracks} tracks labelled: {shown}; artists of {counts['artist']}")
    if read.split:
        parts = ", ".join(f"{part} {len(items)}" for part, items in read.split.parts.items())
        click.echo(f"  split ({read.split.source}): {parts}")
    for note in read.notes:
        click.echo(f"  note: {note}")
    for reason, items in read.left_out.items():
        names = ", ".join(printable(item) for item in items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
        click.echo(f"  left out {len(items)}: {reason}: {names}", err=True)


def _write_left_out(path: Path, read: DatasetLabels) -> None:
    """Every item that was left out, with the reason, as a CSV table."""
    import csv

    from msim_tf.files import atomic_file

    with atomic_file(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("item", "reason"))
        writer.writerows((item, reason) for reason, items in read.left_out.items() for item in items)
