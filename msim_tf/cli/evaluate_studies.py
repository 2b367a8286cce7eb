"""``msim evaluate table1``, ``baselines`` and ``report``: studies of a store."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from msim_tf.cli.evaluate_input import (
    FILE_HELP,
    agreement_option,
    clips_option,
    load_system,
    metric_option,
    read_judgements,
)
from msim_tf.cli.evaluate_output import print_matrix
from msim_tf.cli.options import LocalPath, field_options, given, import_tensorflow, preset, progress_bar
from msim_tf.extras import require
from msim_tf.model.params import NETWORK_PRESETS, TRAIN_PRESETS, NetworkParams, TrainParams

_PATH = LocalPath(path_type=Path)


@click.command(short_help="Train the paper's five networks and compare them.")
@click.argument("store", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder of the study; the same command continues it.")
@click.option(
    "--preset", "preset_name", default="small", show_default=True, help=f"Recipe: {', '.join(TRAIN_PRESETS)}."
)
@click.option(
    "--network", "names", multiple=True, help=f"Only this one, repeatable; default {', '.join(NETWORK_PRESETS)}."
)
@field_options(NetworkParams, {"width": "Scale of all filter counts; 1.0 is the paper's."})
@click.option(
    "--time-averaged-heads", is_flag=True, help="Not the paper's network: tempo and key straight from their inputs."
)
@field_options(
    TrainParams,
    {
        "epochs": "Passes over the training tracks, for every network.",
        "steps_per_epoch": "Batches per epoch; 0: as many as hear each clip about once.",
        "batch_size": "Segments per replica.",
        "learning_rate": "Initial learning rate of Adam.",
        "key_relation": "Which keys are similar: parallel, relative or both.",
        "validation": "Share of tracks, by whole artists, that is held out.",
        "seed": "Decides weights, split, batches and label triplets.",
    },
)
@click.option("--allow-unlabelled", is_flag=True, help="Train although nobody labels a dimension.")
@click.option(
    "--split",
    "split_file",
    type=_PATH,
    help="Published split (msim dataset labels --split); its test part is not heard.",
)
@click.option("--triplets", "file", type=_PATH, help=f"{FILE_HELP} Default: triplets from the held-out tracks' labels.")
@agreement_option
@metric_option
@clips_option
@click.option("--external", "externals", multiple=True, help="NAME=FILE.npz of another system, repeatable.")
@click.option("--baseline", help="System that the others are compared with; default baseline, or the first network.")
@click.option(
    "--per-label", type=click.IntRange(min=1), default=200, show_default=True, help="Label triplets per label."
)
def table1(
    store: Path,
    out: Path,
    preset_name: str,
    names: tuple[str, ...],
    width: float | None,
    time_averaged_heads: bool,
    allow_unlabelled: bool,
    split_file: Path | None,
    file: Path | None,
    agreement: float,
    metric: str,
    clips: bool,
    externals: tuple[str, ...],
    baseline: str | None,
    per_label: int,
    **changes: Any,
) -> None:
    """Train the paper's five networks on STORE with the same split, seed and budget, and write Table 1.

    MFCC statistics and a random projection stand beside them. Interrupted, the same command continues
    where it stopped. Without --triplets the score is on label triplets: how well labels of held-out
    tracks are predicted, not human similarity.
    """
    # What the options name is read before TensorFlow is loaded and anything trains.
    recipe = dataclasses.replace(preset(TRAIN_PRESETS, preset_name, "training"), **given(changes))
    networks = {name: preset(NETWORK_PRESETS, name, "network") for name in names or NETWORK_PRESETS}
    chosen = read_judgements(file, agreement=agreement, clips=clips)[0] if file else None
    others = [load_system(text) for text in externals]
    require("matplotlib")
    import_tensorflow()
    from msim_tf.data.store import FeatureStore
    from msim_tf.evaluate.studies.table1 import Table1Options, run_table1, table1_networks
    from msim_tf.labels.splits import load_split

    options = Table1Options(
        networks=table1_networks(recipe, networks, width=width, time_averaged_heads=time_averaged_heads),
        baseline=baseline or ("baseline" if "baseline" in networks else next(iter(networks))),
        metric=metric,
        per_kind=per_label,
        allow_unlabelled=allow_unlabelled,
        split=load_split(split_file) if split_file else None,
    )
    with _stage_bars() as progress:
        table = run_table1(FeatureStore(store), out, options, triplets=chosen, externals=others, progress=progress)
    click.echo(table.markdown())
    click.echo(f"{out / 'table1.md'}, .csv, .json")


@click.command(short_help="MFCC statistics and a random projection of a store.")
@click.argument("store", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder for mfcc.npz and random_projection.npz.")
@click.option(
    "--size",
    type=click.IntRange(min=1),
    default=NetworkParams().embedding_size,
    show_default=True,
    help="Coordinates of the random projection.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random projection.")
def baselines(store: Path, out: Path, size: int, seed: int) -> None:
    """Write what a model must beat: MFCC statistics and a random projection of the mel-spectrograms in STORE.

    Both are standardised over all tracks of STORE.
    """
    import_tensorflow()
    from msim_tf.data.store import FeatureStore
    from msim_tf.embeddings import save_embeddings
    from msim_tf.evaluate.studies.tracks import baselines as computed
    from msim_tf.evaluate.studies.tracks import stored_mels

    opened = FeatureStore(store)
    systems = computed(opened.identifiers, stored_mels(opened, opened.identifiers), size=size, seed=seed)
    for system, name in zip(systems, ("mfcc.npz", "random_projection.npz")):
        meta = {**system.meta, "digest": opened.params.digest}
        save_embeddings(out / name, identifiers=system.identifiers, embeddings=system.embeddings, meta=meta)
        click.echo(f"{out / name}: {len(system.identifiers)} tracks, {system.embeddings.shape[1]} coordinates")


@click.command(short_help="One page on what each subspace knows.")
@click.argument("embeddings", nargs=-1, required=True)
@click.option("--store", type=_PATH, required=True, help="Feature store with the labels of the tracks.")
@click.option("--triplets", "file", type=_PATH, help=f"{FILE_HELP} Default: triplets from the labels.")
@click.option("--split", type=_PATH, help="RUN/run.json of the training: only its validation tracks.")
@click.option("--audio", type=_PATH, help="Folder of the music, for links to the worst triplets.")
@click.option("--out", type=_PATH, required=True, help="Folder of the report.")
@click.option(
    "-k", type=click.IntRange(min=1), default=10, show_default=True, help="Depth of the retrieval's precision."
)
@agreement_option
@metric_option
@clips_option
@click.option("--baseline", help="System that the others are compared with; default the last.")
@click.option("--key-relation", default="parallel", show_default=True, help="Similar keys: parallel, relative or both.")
@click.option(
    "--per-label", type=click.IntRange(min=1), default=200, show_default=True, help="Label triplets per label."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
def report(
    embeddings: tuple[str, ...],
    store: Path,
    file: Path | None,
    split: Path | None,
    audio: Path | None,
    out: Path,
    k: int,
    agreement: float,
    metric: str,
    clips: bool,
    baseline: str | None,
    key_relation: str,
    per_label: int,
    seed: int,
) -> None:
    """Write a page on the first of EMBEDDINGS (FILE.npz or NAME=FILE.npz), the others and two baselines beside it.

    What each subspace holds, retrieval with artist filter, tempo and key of the nearest neighbour,
    triplets, and the worst of them with links.
    """
    require("jinja2")
    require("matplotlib")
    systems = [load_system(text) for text in embeddings]
    judged = read_judgements(file, agreement=agreement, clips=clips)[0] if file else None
    import_tensorflow()
    from msim_tf.audio.scan import scan_folder
    from msim_tf.data.store import FeatureStore
    from msim_tf.evaluate.studies.store_report import ReportOptions, store_report
    from msim_tf.model.run import load_run

    # The split of the training, whose held-out tracks the report is on; where the sound of each lies, for links.
    parts = load_run(split.parent if split.name == "run.json" else split).identifiers if split else None
    sounds = {}
    if audio:
        scan = scan_folder(audio)
        sounds = {name: scan.root / name for name in scan.files}
    options = ReportOptions(
        k=k, metric=metric, baseline=baseline, per_kind=per_label, key_relation=key_relation, seed=seed
    )
    made, page = store_report(FeatureStore(store), systems, out, options, triplets=judged, split=parts, audio=sounds)
    click.echo(page)
    for result in made.results:
        click.echo(f"  {result.lines()[0]}")
    if made.matrix:
        print_matrix(made.matrix)


@contextlib.contextmanager
def _stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar after the other, as the stages report themselves."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Callable[[int, int], None]] = {}

        def report(what: str, done: int, total: int) -> None:
            # A new stage closes the bar of the one before.
            if what not in bars:
                stack.close()
                unit = "epoch" if what.startswith("train") else "track"
                bars[what] = stack.enter_context(progress_bar(what, unit))
            bars[what](done, total)

        yield report
