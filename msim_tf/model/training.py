"""Training: a store and its labels in, a run directory with the best model out, by Keras ``compile`` and ``fit``.

The same command on the same directory resumes: weights, optimizer, learning-rate schedule, best loss and data order
continue as if nothing had happened. Another command on it is refused. On several hosts (see ``model.multi_worker``)
every process calls ``train`` with the same arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msim_tf.data.batch_sampler import BatchParams, BatchSampler
from msim_tf.data.pipeline import StorePart
from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import TEACHER
from msim_tf.errors import InputError
from msim_tf.labels.encoding import EncodedLabels, encode
from msim_tf.labels.splits import Split, training_rows
from msim_tf.model import callbacks as own
from msim_tf.model.backup import backed_up_epochs, backup_callback
from msim_tf.model.description_heads import save_heads
from msim_tf.model.description_training import train_heads_to_describe
from msim_tf.model.initial_weights import assign_exported_weights
from msim_tf.model.multi_worker import Hosts, hosts_of_environment
from msim_tf.model.objectives import build_compiled_model
from msim_tf.model.params import NetworkParams, TrainParams
from msim_tf.model.run import Run, finish_run, kept_epoch, load_model, load_run, start_run
from msim_tf.model.tensorboard_images import EvaluationImages, SubspaceScores
from msim_tf.model.tensorboard_logs import EmbeddingStatistics, LossScalars, loss_scalars, sample_tracks
from msim_tf.model.tensorboard_run import RunInputs, write_projector, write_result
from msim_tf.model.time_averaged_heads import head_part, train_heads


@dataclass(frozen=True)
class _Job:
    """All that the stages of one training share.

    Attributes:
        store: features and labels.
        labels: encoded, of all tracks of the store.
        run: its directory.
        params: the run's, with the mel statistics of the training split.
        hosts: who trains.
        callbacks: of the caller.
    """

    store: FeatureStore
    labels: EncodedLabels
    run: Run
    params: TrainParams
    hosts: Hosts
    callbacks: Sequence[keras.callbacks.Callback]

    def part(self, clips: np.ndarray, *, training: bool) -> StorePart:
        """The training or validation split, ready for batches."""
        params = self.params
        batches = BatchParams(
            batch_size=params.batch_size,
            replicas=self.hosts.strategy.num_replicas_in_sync,
            key_relation=params.key_relation,
            track_pairs=params.track_weight > 0,
            teacher=params.teacher_weight > 0,
            augment=params.augment,
            random_crops=training,
            seed=params.seed + (0 if training else 1),
        )
        frames = self.store.frames[clips]
        sampler = BatchSampler(self.labels.take(clips), frames, self.store.params.segment_frames, batches)
        return StorePart(self.store, clips, sampler)

    def steps(self, part: StorePart, wanted: int) -> int:
        """``wanted`` batches or, if that is 0, as many as use every segment of the part about once."""
        # A global batch is one block of ``batch_size`` segments for each replica.
        segments = int((self.store.frames[part.clips] // self.store.params.segment_frames).sum())
        batch = part.sampler.params.batch_size * part.sampler.params.replicas
        return wanted or max(1, round(segments / batch))


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
        split: a published split, whose test part is left out; None divides the tracks by artist.
        strategy: how to distribute on this host; by default the hosts of ``TF_CONFIG``, else all GPUs, or the CPU.
        allow_unlabelled: train although a dimension has no pair of similar and dissimilar tracks; its subspace then
            stays as initialised.
        callbacks: further Keras callbacks, e.g. a progress bar.

    Returns:
        The finished run.

    Raises:
        InputError: if the run belongs to another command, labels are missing, or another host has stopped.
    """
    # Labels and splits are validated before anything is written.
    hosts = Hosts(strategy) if strategy else hosts_of_environment()
    labels = encode(
        store.labels,
        store.identifiers,
        params.network.dimensions,
        teacher=store.teacher,
        regression=store.passages if params.regression_weight > 0 else None,
    )
    validate_labels(labels, store.path, allow_unlabelled=allow_unlabelled)
    parts = _split(store, params, split)
    identifiers = {name: [store.identifiers[i] for i in indices] for name, indices in parts.items()}

    with hosts.noticing_loss():
        # The run keeps the parameters of the command; the statistics of the split are computed again when it resumes.
        run = _started(Run(Path(run_path), params, store.params.digest, identifiers, {}), hosts)
        if run.summary:
            return run
        params = dataclasses.replace(params, network=_with_statistics(params.network, store, parts["train"]))
        job = _Job(store, labels, run, params, hosts, callbacks)

        # First the whole network, then the time-averaged heads alone.
        started = time.time()
        train_part = job.part(parts["train"], training=True)
        _fit(job, train_part, job.part(parts["validation"], training=False))
        heads = _fit_heads(job, train_part) if params.head_epochs else {}

        # The heads that describe music learn last, from the model that is kept. Only the chief writes, and the summary
        # last: by it the run is finished.
        if hosts.is_chief:
            summary = {**kept_epoch(run.path / "history.csv", params.keep), **heads}
            # A run whose loss never was a number keeps no model.
            if params.describe_steps or run.model_path.exists():
                kept = load_model(run)
                _show_kept_model(job, kept, parts["validation"], summary)
                if params.describe_steps:
                    describing = train_heads_to_describe(kept, store, labels, parts, params)
                    if describing.models:
                        save_heads(describing, run.path)
            finish_run(run, {**summary, "seconds": round(time.time() - started, 1)})
            shutil.rmtree(run.path / "backup", ignore_errors=True)
        hosts.agreed()  # the others read what the chief has written
    return dataclasses.replace(run, summary=load_run(run.path).summary)


def validate_labels(labels: EncodedLabels, where: str | Path, *, allow_unlabelled: bool) -> list[str]:
    """Looks for dimensions in which no triplet can be formed.

    Returns:
        Their names, if they are allowed.

    Raises:
        InputError: naming them, if they are not.
    """
    empty = [name for name in labels.arrays if not labels.labelled(name).any()]
    if empty and not allow_unlabelled:
        raise InputError(
            f"{where}: no track has a label in {', '.join(empty)}; add them with msim label or msim annotate, "
            "train without them by --dimensions, or leave those subspaces untrained by --allow-unlabelled"
        )
    return empty


def _split(store: FeatureStore, params: TrainParams, split: Split | None) -> dict[str, np.ndarray]:
    """Rows of the store for "train" and "validation"."""
    parts = training_rows(
        store.identifiers, store.labels.groups, validation=params.validation, seed=params.seed, split=split
    )
    # A triplet needs a pair of tracks, in validation as well.
    for name in ("train", "validation"):
        if len(parts[name]) < 2:
            advice = f"is {split.source} of these tracks?" if split else "add music, or change --validation"
            raise InputError(f"{store.path}: {len(parts[name])} tracks for {name}, expected at least 2; {advice}")
    return parts


def _started(fresh: Run, hosts: Hosts) -> Run:
    """The run directory, made by the chief and then checked by every host."""
    # The others wait until the chief has made the directory, and then check that they see the same one.
    if hosts.is_chief:
        start_run(fresh)
    hosts.agreed()
    if not hosts.is_chief and not (fresh.path / "run.json").exists():
        raise InputError(f"{fresh.path}: the chief's run is not there; all hosts need one file system for it")
    return start_run(fresh)


def _with_statistics(network: NetworkParams, store: FeatureStore, clips: np.ndarray) -> NetworkParams:
    """The network with the mel statistics of the training split (paper 3.1: "z-score standardized")."""
    # One pass over the clips, (n_mels, frames) each, in float64: in float32 the sums of a large store lose digits.
    total = square = count = 0.0
    for clip in clips:
        mel = store.read_clip(int(clip)).mel.astype(np.float64)
        total, square, count = total + mel.sum(), square + np.square(mel).sum(), count + mel.size

    # var(x) = E[x^2] - E[x]^2.
    mean = total / count
    return dataclasses.replace(network, mel_mean=float(mean), mel_variance=float(square / count - mean**2))


def _fit(job: _Job, train_part: StorePart, held_out: StorePart) -> None:
    """Trains the whole network from the last finished epoch on."""
    run, params, hosts = job.run, job.params, job.hosts
    steps, inputs = job.steps(train_part, params.steps_per_epoch), params.network.inputs
    validation_steps = job.steps(held_out, params.validation_steps)

    # The chief mends what a kill may have torn; then all continue from the same epoch.
    done = backed_up_epochs(run.path / "backup", steps) if hosts.is_chief else 0
    if hosts.is_chief:
        own.truncate_history(run.path / "history.csv", done)
    done = hosts.agreed(done)
    if done >= params.epochs:
        return

    # Initial weights; a resumed training replaces them by those of its backup when ``fit`` begins.
    with _precision(params):
        model = build_compiled_model(params, job.store.params, steps, train_part.sampler, hosts.strategy)
    if params.start_from:
        assign_exported_weights(model, params.start_from, fresh=(TEACHER,))
    hosts.prepare(model)

    # Batches are numbered through all epochs, so a resumed training goes on with the batch that came next.
    data = hosts.dataset(train_part, inputs, first=done * steps, last=params.epochs * steps)
    validation = hosts.dataset(held_out, inputs, first=0, last=validation_steps, cached=True)
    model.fit(
        data,
        epochs=params.epochs,
        steps_per_epoch=steps,
        validation_data=validation,
        validation_steps=None if hosts.share is None else validation_steps,
        callbacks=[*_callbacks(job, held_out, done), *job.callbacks],
        shuffle=False,  # the pipeline has decided the order
        verbose=0,
    )


@contextlib.contextmanager
def _precision(params: TrainParams) -> Iterator[None]:
    """Keras' global policy while a model is built: 16 bits if the parameters say so."""
    before = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else None
    # float16 needs a GPU; CPUs compute bfloat16, which has the range of float32 and needs no loss scaling.
    if params.mixed_precision:
        gpu = bool(tf.config.list_physical_devices("GPU"))
        keras.mixed_precision.set_global_policy("mixed_float16" if gpu else "mixed_bfloat16")
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before or "float32")


def _fit_heads(job: _Job, train_part: StorePart) -> dict[str, float]:
    """Trains the time-averaged heads of the best model on; a stage that was killed starts again."""
    keras.utils.set_random_seed(job.params.seed)
    job.hosts.agreed()  # the chief has written the model
    with job.hosts.strategy.scope():
        model = load_model(job.run)
        part = head_part(job.store, job.labels, train_part.clips, job.params, job.hosts)
        losses = train_heads(model, part, job.params, job.hosts, callbacks=job.callbacks)
    if job.hosts.is_chief:
        own.save_model(model, job.run.model_path)
    return {"head_first_loss": losses[0], "head_loss": losses[-1]}


def _show_kept_model(job: _Job, model: keras.Model, held_out: np.ndarray, summary: Mapping[str, float]) -> None:
    """Final scores and projector for TensorBoard."""
    logdir, inputs = job.run.path / "tensorboard", job.params.network.inputs
    # Scores are of the held-out tracks alone; the projector shows tracks of both splits.
    loss = loss_scalars(summary, "val_", job.params.network.dimensions).get("loss/total")
    write_result(logdir, model, loss, SubspaceScores(sample_tracks(job.store, held_out, inputs), job.params, job.store))
    shown = sample_tracks(job.store, np.arange(len(job.store)), inputs)
    write_projector(logdir, model, shown, job.store, job.run.identifiers["validation"])


def _callbacks(job: _Job, held_out: StorePart, done: int) -> list[keras.callbacks.Callback]:
    """All callbacks; what the resumed run needs is written before the backup that will be restored with it."""
    store, run, params = job.store, job.run, job.params
    # The learning rate: a callback watches for a plateau, a cosine is part of the optimizer.
    remembered: dict[str, Any] = {}
    schedule: list[keras.callbacks.Callback] = []
    if params.schedule == "plateau":
        plateau = keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss",
            factor=params.plateau_factor,
            patience=params.patience,
            min_delta=0.0,
            min_lr=params.min_learning_rate,
        )
        remembered["plateau"] = (plateau, ["best", "wait", "cooldown_counter"])
        schedule = [plateau]

    if not job.hosts.is_chief:
        # The learning rate follows the same losses on every host; only the chief writes.
        state = own.RememberState(run.path / "schedule.json", remembered, done, writes=False)
        return [*schedule, state, own.RestoreOnly(str(run.path / "backup"))]

    # Keras calls them in this order: what a resumed run needs is on disk before the backup of the same epoch.
    best = own.SaveBest(run.model_path, always=params.keep == "last")
    remembered["best"] = (best, ["value"])
    tensorboard = run.path / "tensorboard"
    sample = sample_tracks(store, held_out.clips, params.network.inputs)
    return [
        *schedule,
        best,
        EmbeddingStatistics(tensorboard, sample),
        EvaluationImages(tensorboard, SubspaceScores(sample, params, store)),
        LossScalars(tensorboard, params.network.dimensions),
        RunInputs(tensorboard, sample, params, store),
        keras.callbacks.CSVLogger(str(run.path / "history.csv"), append=True),
        own.RememberState(run.path / "schedule.json", remembered, done),
        backup_callback(run.path / "backup"),
    ]
