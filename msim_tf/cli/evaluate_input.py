"""Options that several commands of ``msim evaluate`` have, and reading what they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from msim_tf.embeddings import Embeddings
    from msim_tf.evaluate.triplets import Dropped, Triplets

FILE_HELP = "Judgements in any form that msim evaluate triplets reads."

agreement_option = click.option(
    "--agreement",
    type=float,
    default=0.9,
    show_default=True,
    help="Share of listeners that must agree, where the file has votes.",
)
metric_option = click.option(
    "--metric", type=click.Choice(["euclidean", "cosine"]), default="euclidean", show_default=True, help="Distance."
)
clips_option = click.option(
    "--clips", is_flag=True, help="Compare the exact clips that listeners heard, not whole tracks."
)


def load_system(text: str) -> Embeddings:
    """``FILE.npz`` or ``NAME=FILE.npz``."""
    from msim_tf.embeddings import load_embeddings

    # A file whose own name holds "=" is that file.
    name, equals, path = text.partition("=")
    if equals and not Path(text).exists():
        return load_embeddings(path, name=name)
    return load_embeddings(text)


def read_judgements(file: Path, *, agreement: float | None, clips: bool) -> tuple[Triplets, Dropped]:
    """The triplets that pass the filter, in the reading asked for, and what did not."""
    from msim_tf.evaluate.triplet_files import read_triplets
    from msim_tf.evaluate.triplets import agreeing, clip_reading

    triplets, dropped = read_triplets(file)
    if agreement is not None:
        triplets, unsure = agreeing(triplets, agreement)
        dropped += unsure
    return (clip_reading(triplets) if clips else triplets), dropped
