"""Training: a store and its labels in, a run directory with the best model out, by Keras ``compile`` and ``fit`` under MirroredStrategy.

A run directory holds everything about one training::

    run.json          TrainParams, digest of the features, dimensions, the split by identifiers
    best.keras        the model of the epoch with the least validation loss (or of the last epoch: TrainParams.keep)
    history.csv       one row per epoch
    tensorboard/      scalars per dimension, embedding statistics, input images, HParams, projector
    checksums.json    of the model that was kept
    summary.json      written last: the training is finished

The same command on the same directory resumes: weights, optimizer, learning-rate schedule, best loss and data order continue as if nothing had
happened. Another command on it is refused.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msim_tf.checksums import file_checksum, load_checked_json, save_checked_json
from msim_tf.data.batch_sampler import BatchComposer, BatchParams
from msim_tf.data.pipeline import make_dataset
from msim_tf.data.store import FeatureStore
from msim_tf.errors import InputError
from msim_tf.labels.encoding import EncodedLabels, encode
from msim_tf.labels.splits import Split, training_rows
from msim_tf.model import callbacks as own
from msim_tf.model.backup import backed_up_epochs
from msim_tf.model.evaluation_images import EvaluationImages
from msim_tf.model.network import in_float32
from msim_tf.model.objectives import compiled_model, dimension_loss
from msim_tf.model.params import NetworkParams, TrainParams
from msim_tf.model.time_averaged_heads import train_heads

FORMAT = "msim-training-run"
FORMAT_VERSION = 2
CHECKSUMS_FILE = "checksums.json"
_CURE = "restore the run from a copy, or train again into another directory"


@dataclass(frozen=True)
class Run:
    """A training as it lies on disk.

    Attributes:
        path: the run directory.
        params: what was asked for.
        digest: of the features.
        identifiers: those of each split, by name.
        summary: what came of it; empty while it is unfinished.
    """

    path: Path
    params: TrainParams
    digest: str
    identifiers: dict[str, list[str]]
    summary: dict[str, Any]

    @property
    def model_path(self) -> Path:
        """The model that is kept: the best one, or the last (``TrainParams.keep``)."""
        return self.path / "best.keras"


@dataclass(frozen=True)
class _Split:
    """One part of the data, ready to compose batches from."""

    clips: np.ndarray
    composer: BatchComposer
    steps: int


def load_run(path: str | Path) -> Run:
    """Reads a run directory.

    Raises:
        InputError: if it is none.
    """
    path = Path(path)
    file, finished = path / "run.json", path / "summary.json"
    what = "a training run (msim train makes one)"
    value = load_checked_json(file, what, cure=_CURE, header=(FORMAT, FORMAT_VERSION))
    summary = load_checked_json(finished, "a summary", cure=_CURE) if finished.exists() else {}
    try:
        return Run(path, TrainParams.from_json(value["params"]), value["digest"], value["identifiers"], summary)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not a training run ({error!r}); {_CURE}") from error


def load_model(run: Run) -> keras.Model:
    """The best model of a run, computed in float32 however it was trained.

    Raises:
        InputError: if its file is missing or damaged.
    """
    validate_model_file(run)
    return in_float32(keras.models.load_model(run.model_path, compile=False))


def validate_model_file(run: Run) -> None:
    """Compares the kept model with the checksum that a finished run has of it.

    Raises:
        InputError: if it is missing or damaged.
    """
    file = run.path / CHECKSUMS_FILE
    if not run.summary or not file.exists():
        return
    checksums = load_checked_json(file, "the checksums of a training run", cure=_CURE)
    try:
        if file_checksum(run.model_path) != checksums.get(run.model_path.name):
            raise InputError(f"{run.model_path}: damaged (it does not have its checksum); {_CURE}")
    except OSError as error:
        raise InputError(f"{run.model_path}: cannot be read ({error.strerror}); {_CURE}") from error


def check_run(path: str | Path) -> list[str]:
    """Reads a run and compares its model with its checksum: one line per problem; an unfinished run is none."""
    try:
        validate_model_file(load_run(path))
    except InputError as error:
        return [str(error)]
    return []


def train(
    store: FeatureStore,
    run_path: str | Path,
    params: TrainParams,
    *,
    split: Split | None = None,
    strategy: tf.distribute.Strategy | None = None,
    allow_unlabelled: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Trains, or resumes, or returns at once when the run is finished.

    Args:
        store: features and labels.
        run_path: directory of the run.
        params: what to do; must equal the run's when it exists.
        split: a published split, whose test part is not heard; None divides the tracks by artist.
        strategy: how to distribute; default MirroredStrategy over all GPUs, or the CPU.
        allow_unlabelled: train although a dimension has no pair of similar and dissimilar tracks; its subspace then stays as initialised.
        callbacks: further Keras callbacks, e.g. a progress bar.

    Returns:
        The finished run.

    Raises:
        InputError: if the run belongs to another command, or labels are missing.
    """
    run_path = Path(run_path)
    strategy = strategy or tf.distribute.MirroredStrategy()
    labels = encode(
        store.labels,
        store.identifiers,
        params.network.dimensions,
        teacher=store.teacher,
        regression=store.passages if params.regression_weight > 0 else None,
    )
    validate_labels(labels, store.path, allow_unlabelled=allow_unlabelled)
    parts = _split(store, params, split)
    run = _open_run(run_path, store, params, parts)
    if run.summary:
        return run
    params = dataclasses.replace(params, network=_with_statistics(params.network, store, parts["train"]))
    train_part = _make_split(store, labels, parts["train"], params, strategy.num_replicas_in_sync, training=True)
    held_out = _make_split(store, labels, parts["validation"], params, strategy.num_replicas_in_sync, training=False)
    started = time.time()
    _fit(store, run, params, train_part, held_out, strategy, callbacks)
    heads = _finish(store, run, params, labels, train_part, strategy, callbacks) if params.head_epochs else {}
    summary = {**_kept_row(run_path / "history.csv", params.keep), **heads, "seconds": round(time.time() - started, 1)}
    save_checked_json(run_path / CHECKSUMS_FILE, {run.model_path.name: file_checksum(run.model_path)})
    save_checked_json(run_path / "summary.json", summary)
    shutil.rmtree(run_path / "backup", ignore_errors=True)
    return dataclasses.replace(run, summary=summary)


def validate_labels(labels: EncodedLabels, where: str | Path, *, allow_unlabelled: bool) -> list[str]:
    """Looks for dimensions in which no triplet can be formed.

    Returns:
        Their names, if they are allowed.

    Raises:
        InputError: naming them, if they are not.
    """
    empty = [name for name in labels.arrays if not labels.known(name).any()]
    if empty and not allow_unlabelled:
        raise InputError(
            f"{where}: no track has a label in {', '.join(empty)}; add them with msim label or msim annotate, "
            "train without them by --dimensions, or leave those subspaces untrained by --allow-unlabelled"
        )
    return empty


def _split(store: FeatureStore, params: TrainParams, split: Split | None) -> dict[str, np.ndarray]:
    parts = training_rows(
        store.identifiers, store.labels.groups, validation=params.validation, seed=params.seed, split=split
    )
    for name in ("train", "validation"):
        if len(parts[name]) < 2:
            advice = f"is {split.source} of these tracks?" if split else "add music, or change --validation"
            raise InputError(f"{store.path}: {len(parts[name])} tracks for {name}, expected at least 2; {advice}")
    return parts


def _open_run(path: Path, store: FeatureStore, params: TrainParams, parts: dict[str, np.ndarray]) -> Run:
    """Starts a run directory, or checks that the one that is there belongs to the same command."""
    identifiers = {name: [store.identifiers[i] for i in indices] for name, indices in parts.items()}
    fresh = Run(path, params, store.params.digest, identifiers, {})
    if not (path / "run.json").exists():
        value = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "digest": fresh.digest,
            "params": params.to_json(),
            "identifiers": identifiers,
        }
        save_checked_json(path / "run.json", value)
        return fresh
    run = load_run(path)
    old, new = run.params.to_json(), params.to_json()
    changed = [f"{name} {old[name]} -> {new[name]}" for name in new if old[name] != new[name] and name != "network"]
    changed += [f"network.{name}" for name in new["network"] if old["network"].get(name) != new["network"][name]]
    if run.digest != fresh.digest or run.identifiers != identifiers:
        changed.append("the store's features, tracks or groups, or the split")
    if changed:
        raise InputError(f"{path} is a run of another command ({'; '.join(changed)}); choose another directory")
    return run


def _with_statistics(network: NetworkParams, store: FeatureStore, clips: np.ndarray) -> NetworkParams:
    """The network with the mel statistics of the training split (paper 3.1: "z-score standardized")."""
    total = square = count = 0.0
    for clip in clips:
        mel = store.read_clip(int(clip)).mel.astype(np.float64)
        total, square, count = total + mel.sum(), square + np.square(mel).sum(), count + mel.size
    mean = total / count
    return dataclasses.replace(network, mel_mean=float(mean), mel_variance=float(square / count - mean**2))


def _make_split(
    store: FeatureStore, labels: EncodedLabels, clips: np.ndarray, params: TrainParams, replicas: int, *, training: bool
) -> _Split:
    batches = BatchParams(
        batch_size=params.batch_size,
        replicas=replicas,
        key_relation=params.key_relation,
        track_pairs=params.track_weight > 0,
        teacher=params.teacher_weight > 0,
        augment=params.augment,
        random_crops=training,
        seed=params.seed + (0 if training else 1),
    )
    composer = BatchComposer(labels.take(clips), store.frames[clips], store.params.segment_frames, batches)
    asked = params.steps_per_epoch if training else params.validation_steps
    segments = int((store.frames[clips] // store.params.segment_frames).sum())
    return _Split(clips, composer, asked or max(1, round(segments / (params.batch_size * replicas))))


def _fit(
    store: FeatureStore,
    run: Run,
    params: TrainParams,
    train_part: _Split,
    held_out: _Split,
    strategy: tf.distribute.Strategy,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    steps, inputs = train_part.steps, params.network.inputs
    done = backed_up_epochs(run.path / "backup", steps)
    own.truncate_history(run.path / "history.csv", done)
    before = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else None
    if params.mixed_precision:
        gpu = bool(tf.config.list_physical_devices("GPU"))
        keras.mixed_precision.set_global_policy("mixed_float16" if gpu else "mixed_bfloat16")
    try:
        model = compiled_model(
            params,
            store.params,
            steps,
            train_part.composer.teacher_targets,
            train_part.composer.regression_size,
            strategy,
        )
    finally:
        keras.mixed_precision.set_global_policy(before or "float32")
    data = make_dataset(
        store, train_part.clips, train_part.composer, inputs, first=done * steps, last=params.epochs * steps
    )
    validation = make_dataset(store, held_out.clips, held_out.composer, inputs, first=0, last=held_out.steps)
    if done >= params.epochs:
        return
    model.fit(
        data,
        epochs=params.epochs,
        steps_per_epoch=steps,
        validation_data=validation.cache(),
        callbacks=[*_callbacks(store, run, params, held_out, done), *callbacks],
        shuffle=False,  # the pipeline has composed the order
        verbose=0,
    )


def _finish(
    store: FeatureStore,
    run: Run,
    params: TrainParams,
    labels: EncodedLabels,
    train_part: _Split,
    strategy: tf.distribute.Strategy,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, float]:
    """Trains the time-averaged heads of the best model on; what killed in between is done again from the start."""
    keras.utils.set_random_seed(params.seed)
    with strategy.scope():
        model = load_model(run)
        losses = train_heads(
            model,
            store,
            labels,
            train_part.clips,
            params,
            replicas=strategy.num_replicas_in_sync,
            loss=dimension_loss(params),
            callbacks=callbacks,
        )
    own.save_model(model, run.model_path)
    return {"head_first_loss": losses[0], "head_loss": losses[-1]}


def _callbacks(
    store: FeatureStore, run: Run, params: TrainParams, held_out: _Split, done: int
) -> list[keras.callbacks.Callback]:
    """All callbacks; what the resumed run needs is written before the backup that will be restored with it."""
    best = own.SaveBest(run.model_path, always=params.keep == "last")
    remembered: dict[str, Any] = {"best": (best, ["value"])}
    chain: list[keras.callbacks.Callback] = [best]
    if params.schedule == "plateau":
        plateau = keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss",
            factor=params.plateau_factor,
            patience=params.patience,
            min_delta=0.0,
            min_lr=params.min_learning_rate,
        )
        remembered["plateau"] = (plateau, ["best", "wait", "cooldown_counter"])
        chain.insert(0, plateau)
    tensorboard = run.path / "tensorboard"
    inputs = params.network.inputs
    sample = own.sample_tracks(store, held_out.clips, inputs)
    shown = own.sample_tracks(store, np.arange(len(store)), inputs)
    return [
        *chain,
        own.EmbeddingStatistics(tensorboard, sample),
        EvaluationImages(tensorboard, sample, params, store),
        keras.callbacks.TensorBoard(str(tensorboard), write_graph=False, profile_batch=0),
        own.RunRecord(tensorboard, shown, params, store, run.identifiers["validation"]),
        keras.callbacks.CSVLogger(str(run.path / "history.csv"), append=True),
        own.RememberState(run.path / "schedule.json", remembered, done),
        keras.callbacks.BackupAndRestore(str(run.path / "backup"), delete_checkpoint=False),
    ]


def _kept_row(history: Path, keep: str) -> dict[str, Any]:
    """The history's row of the epoch whose model is kept, and how many epochs there were."""
    rows = own.read_history(history)
    kept = rows[-1] if keep == "last" else min(rows, key=lambda row: row["val_loss"])
    return {"epochs": len(rows), "kept_epoch": int(kept["epoch"]) + 1, "first_loss": rows[0]["loss"], **kept}
