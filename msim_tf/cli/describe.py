"""``msim describe``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from msim_tf.cli.listing import print_json
from msim_tf.cli.options import (
    FiniteRange,
    LocalPath,
    import_tensorflow,
    list_failures,
    list_notes,
    precision_option,
    printable,
    progress_bar,
)
from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.errors import unforeseen

if TYPE_CHECKING:
    from msim_tf.export.description import Description
    from msim_tf.export.embedder import Embedder

_PATH = LocalPath(path_type=Path)
_FORMATS = ("table", "json", "csv")
_WORDS_SHOWN = 5  # of a dimension, however unlikely, where one file is described


@click.command()
@click.argument("source", type=_PATH)
@click.option("--model", type=_PATH, help="Exported model; by default the one that msim carries.")
@click.option("--format", "format", type=click.Choice(_FORMATS), default="table", show_default=True)
@click.option("--pad", is_flag=True, help="Lengthen what is shorter than one segment with silence.")
@click.option(
    "--max-seconds", type=FiniteRange(min=1), default=43200.0, help="Longer files are left out; default 12 hours."
)
@precision_option
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.pass_context
def describe(
    ctx: click.Context, source: Path, model: Path | None, format: str, pad: bool, max_seconds: float, quiet: bool
) -> None:
    """Say what SOURCE sounds like: words, tempo and key of a file, or of every file of a folder.

    A word, tempo or key is stated from a probability of one half; for a single file the likeliest candidates are shown
    as well. JSON has the probability of every word; CSV gives the likeliest tempo and key with theirs. Files that
    cannot be used are listed with the reason, and the exit status is then 1.
    """
    import_tensorflow()
    from msim_tf import settings
    from msim_tf.audio.sandbox import DecodeLimits
    from msim_tf.export.embedder import Embedder

    # Lines and CSV are printed as soon as a track is described; what is wrong with others is listed at the end.
    embedder = Embedder(model or settings.default_model(), DecodeLimits(max_seconds=max_seconds))
    failures: dict[str, str] = {}
    notes: dict[str, str] = {}
    try:
        embedder.validate_describes()
        descriptions = _descriptions(embedder, source, failures, notes, pad=pad, quiet=quiet or source.is_file())
        if format == "json":
            print_json([{"track": name, **description.to_json()} for name, description in descriptions])
        elif format == "csv":
            _print_csv(descriptions)
        else:
            for name, description in descriptions:
                click.echo(_details(name, description) if source.is_file() else f"{printable(name)}: {description}")
    finally:
        embedder.close()
        list_notes(notes)
        list_failures({printable(name): printable(reason) for name, reason in failures.items()})
    if failures:
        ctx.exit(1)


def _descriptions(
    embedder: Embedder, source: Path, failures: dict[str, str], notes: dict[str, str], *, pad: bool, quiet: bool
) -> Iterator[tuple[str, Description]]:
    """Every track that can be used, one after the other; the others and what is wrong go into the two dicts."""
    from msim_tf.audio.scan import scan_folder

    scan = scan_folder(source)
    failures |= scan.failures
    for notice in scan.notices():
        click.echo(f"  left out, {notice}", err=True)
    # Files are decoded ahead in threads while the model describes the one before.
    names = list(scan.files)
    with progress_bar("describe", disable=quiet) as progress:
        for done, (name, features) in enumerate(embedder.extract_all(scan.root, names, pad=pad), 1):
            progress(done, len(names))
            if isinstance(features, str):
                failures[name] = features
                continue
            if features.notes:
                notes[name] = "; ".join(features.notes)
            try:
                vector, description = embedder.hear(features)
            except Exception as error:  # one file never ends a run
                failures[name] = unforeseen(error)
                continue
            if description is None or not np.isfinite(vector).all():
                failures[name] = "the model's output is not finite"
                continue
            yield name, description


def _details(name: str, description: Description) -> str:
    """A single track at length: every dimension with its likeliest values and their probabilities."""
    lines = [f"{printable(name)}: {description}"]
    for dimension, words in description.words.items():
        likely = [f"{word} {p:.2f}" for word, p in list(words.items())[:_WORDS_SHOWN]]
        lines.append(f"  {dimension:<12}{', '.join(likely)}")
    if description.tempo:
        lines.append(f"  {'tempo':<12}{', '.join(f'{bpm:.1f} bpm {p:.2f}' for bpm, p in description.tempo)}")
    if description.key:
        lines.append(f"  {'key':<12}{', '.join(f'{key} {p:.2f}' for key, p in description.key[:3])}")
    return "\n".join(lines)


def _print_csv(descriptions: Iterator[tuple[str, Description]]) -> None:
    """A row for each track as soon as it is known; several words of a dimension are separated by semicolons."""
    columns = ["track", "musical", *TAG_DIMENSION_NAMES, "bpm", "bpm_probability", "key", "key_probability"]
    click.echo(_csv_line(columns), nl=False)
    for name, description in descriptions:
        # Tempo and key of what is not music mean nothing.
        bpm, bpm_probability = description.tempo[0] if description.musical and description.tempo else ("", "")
        key, key_probability = description.key[0] if description.musical and description.key else ("", "")
        row = [
            printable(name),
            description.musical,
            *(";".join(description.stated(tag)) for tag in TAG_DIMENSION_NAMES),
        ]
        row += [bpm and f"{bpm:.1f}", bpm_probability and f"{bpm_probability:.3f}"]
        row += [key, key_probability and f"{key_probability:.3f}"]
        click.echo(_csv_line(row), nl=False)


def _csv_line(values: list) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()
