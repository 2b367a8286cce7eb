"""``msim train`` and ``msim export``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from msim_tf.cli.options import LocalPath, field_options, given, import_tensorflow, preset
from msim_tf.dimensions import DIMENSION_NAMES, dimension
from msim_tf.errors import InputError
from msim_tf.model.params import NETWORK_PRESETS, TRAIN_PRESETS, NetworkParams, TrainParams

_PATH = LocalPath(path_type=Path)
_NETWORK_OPTIONS = {
    "width": "Scale of all filter counts; 1.0 is the paper's.",
    "trunk_width": "Scale of those after the inputs' branches have met; 0: as --width, the paper's.",
    "slow_stride": "Tempogram and CENS branches see every so many-th frame; 1 is the paper's.",
}


@click.command(context_settings={"show_default": True})
@click.argument("store", type=_PATH)
@click.argument("run", type=_PATH)
@click.option(
    "--preset", "preset_name", default="small", help=f"Recipe: {', '.join(TRAIN_PRESETS)}. Other options change it."
)
@click.option(
    "--network", "network_name", default=None, help=f"Network of the paper's Table 1: {', '.join(NETWORK_PRESETS)}."
)
@click.option(
    "--dimensions",
    default=None,
    help=f"Comma-separated, of {','.join(DIMENSION_NAMES)}; the embedding shrinks with them.",
)
@click.option(
    "--allow-unlabelled", is_flag=True, help="Train although nobody labels a dimension; its subspace stays untrained."
)
@click.option(
    "--split",
    "split_file",
    type=_PATH,
    help="Published split (msim dataset labels --split); its test part is not heard.",
)
@field_options(NetworkParams, _NETWORK_OPTIONS)
@field_options(
    TrainParams,
    {
        "epochs": "Passes of --steps-per-epoch batches.",
        "steps_per_epoch": "Batches per epoch; 0: as many as hear each clip about once.",
        "batch_size": "Segments per replica.",
        "learning_rate": "Initial learning rate of Adam.",
        "schedule": "plateau (the paper's) or cosine.",
        "patience": "Epochs without a better validation loss before the rate is divided.",
        "margin": "Margin of the triplet loss.",
        "fallback": "For pairs without a semi-hard negative: hardest or skip.",
        "key_relation": "Which keys are similar: parallel, relative or both.",
        "objective": "triplet (the paper's) or contrastive.",
        "temperature": "Temperature of the contrastive objective.",
        "track_weight": "Weight of the track regularisation of Lee et al.; 0 is off.",
        "teacher_weight": "Weight of the loss on a teacher's tags (see msim label); 0 is off.",
        "regression_weight": "Weight of predicting all that a teacher says of a track; 0 is off.",
        "augment": "Also hear tracks at other tempi and in other keys.",
        "head_epochs": "Epochs in which only the time-averaged heads learn, from whole clips; 0 for none.",
        "describe_steps": "Batches from which the heads learn that say words, tempo and key; 0 for none.",
        "keep": "Which epoch's model is kept: best (least validation loss) or last.",
        "mixed_precision": "Compute in 16 bits.",
        "start_from": "Exported version (saved_models/NAME/N) of the same network; its weights are the initial ones.",
        "validation": "Share of tracks, by whole artists, that is held out.",
        "seed": "Decides weights, split and batches.",
    },
)
def train(
    store: Path,
    run: Path,
    preset_name: str,
    network_name: str | None,
    dimensions: str | None,
    allow_unlabelled: bool,
    split_file: Path | None,
    **changes: Any,
) -> None:
    """Train a model on the features and labels of STORE; everything goes into the directory RUN.

    The same command on the same RUN resumes an interrupted training. Watch it with: tensorboard --logdir
    RUN/tensorboard
    """
    network_changes = {name: changes.pop(name) for name in _NETWORK_OPTIONS}
    params = _train_params(preset_name, network_name, dimensions, given(network_changes), given(changes))
    import_tensorflow()
    from msim_tf.data.store import FeatureStore
    from msim_tf.export.metadata import load_metadata
    from msim_tf.labels.splits import load_split
    from msim_tf.model import training

    # Weights to start from must be of the same features as the store.
    opened = FeatureStore(store)
    if params.start_from:
        load_metadata(params.start_from).validate_features(opened.params, store)
    finished = training.train(
        opened,
        run,
        params,
        split=load_split(split_file) if split_file else None,
        allow_unlabelled=allow_unlabelled,
        callbacks=[_progress_callback()],
    )
    summary = finished.summary
    click.echo(
        f"{run}: {summary['epochs']} epochs, kept {summary['kept_epoch']}: validation loss {summary['val_loss']:.4f} "
        f"({summary['seconds']:.0f} s)"
    )
    # A dimension without a triplet in any batch was not trained, or not validated, whatever its loss says.
    without, unseen = (_without_triplets(summary, params.network.dimensions, part) for part in ("", "val_"))
    if without:
        click.echo(f"  no triplets, so untrained: {', '.join(without)}")
    if unseen := [name for name in unseen if name not in without]:
        click.echo(f"  no triplets among the held-out tracks, so not validated: {', '.join(unseen)} (see --validation)")
    _print_heads(finished.path)
    click.echo(f"  watch: tensorboard --logdir {run / 'tensorboard'}")


@click.command()
@click.argument("run", type=_PATH)
@click.argument("store", type=_PATH)
@click.argument("target", type=_PATH)
def export(run: Path, store: Path, target: Path) -> None:
    """Export the best model of RUN, trained on STORE, as the next version below TARGET (saved_models/NAME).

    Every signature is run through TensorFlow Serving's own loader and compared with the model before the version
    appears.
    """
    import_tensorflow()
    from msim_tf.data.store_database import store_params
    from msim_tf.export.export import export_run
    from msim_tf.model.run import load_run

    version = export_run(load_run(run), store_params(store), target)
    megabytes = sum(file.stat().st_size for file in version.rglob("*") if file.is_file()) / 1e6
    click.echo(f"{version}: {megabytes:.1f} MB, verified signature by signature")


def _train_params(
    name: str,
    network_name: str | None,
    dimensions: str | None,
    network_changes: dict[str, Any],
    changes: dict[str, Any],
) -> TrainParams:
    """The recipe that the options describe: a preset, another network in it, then single changes."""
    params = preset(TRAIN_PRESETS, name, "training")
    network = params.network
    # A network of Table 1 keeps the preset's scale.
    if network_name:
        widths = {"width": network.width, "trunk_width": network.trunk_width}
        network = dataclasses.replace(preset(NETWORK_PRESETS, network_name, "network"), **widths)
    network = dataclasses.replace(network, **network_changes)
    if dimensions:
        chosen = tuple(text.strip() for text in dimensions.split(","))
        unknown = [text for text in chosen if text not in DIMENSION_NAMES]
        if unknown:
            raise InputError(f"--dimensions: unknown {', '.join(unknown)}; there are {', '.join(DIMENSION_NAMES)}")
        ordered = tuple(text for text in DIMENSION_NAMES if text in chosen)
        # Time-averaged heads stay where one of their dimensions is left, and one for the backbone.
        with_input = [text for text in ordered if dimension(text).averaged_input]
        heads = network.time_averaged_heads and 0 < len(with_input) < len(ordered)
        network = dataclasses.replace(network, dimensions=ordered, time_averaged_heads=heads)
    # A network without time-averaged heads has no epochs for them, unless the user gives some.
    if not network.heads:
        changes = {"head_epochs": 0, **changes}
    return dataclasses.replace(params, network=network, **changes)


def _print_heads(run: Path) -> None:
    """What the heads of a run can say, and how well on held-out tracks."""
    from msim_tf.model.description_heads import load_heads

    heads = load_heads(run)
    if heads is None:
        return
    count = sum(map(len, heads.words.values()))
    click.echo(
        f"  describes music with {count} words" + "".join(f", {name}" for name in heads.models if name != "words")
    )
    for name, figures in heads.held_out.items():
        if name != "words":
            text = ", ".join(f"{what} {value:.2f}" for what, value in figures.items() if what != "tracks")
            click.echo(f"    {name}: {text or 'not judged'} ({figures['tracks']} held-out tracks)")


def _without_triplets(summary: dict[str, Any], dimensions: tuple[str, ...], part: str) -> list[str]:
    """Dimensions in which no batch of the best epoch had a triplet; ``part`` is "" or "val_"."""
    # With one output Keras leaves its name out.
    names = [f"{part}{name}_valid_pairs" if len(dimensions) > 1 else f"{part}valid_pairs" for name in dimensions]
    return [dimension for dimension, name in zip(dimensions, names) if not summary[name]]


def _progress_callback() -> Any:
    """A Keras callback: one bar over all epochs of a stage, with the losses beside it."""
    import sys

    import keras
    from tqdm import tqdm

    class Progress(keras.callbacks.Callback):
        bar: Any = None

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if self.bar is None:
                self.bar = tqdm(
                    desc="train",
                    total=self.params["epochs"],
                    initial=epoch,
                    unit="epoch",
                    dynamic_ncols=True,
                    file=sys.stderr,
                )

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs = logs or {}
            names = {"loss": "loss", "val_loss": "validation"}
            shown = ", ".join(f"{text} {logs[name]:.4f}" for name, text in names.items() if name in logs)
            self.bar.set_postfix_str(shown, refresh=False)
            self.bar.update(1)

        def on_train_end(self, logs: Any = None) -> None:
            if self.bar is not None:
                self.bar.close()
                self.bar = None

    return Progress()
