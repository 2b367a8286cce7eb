"""Keras callbacks of a training: the best model, the state of a resumed run, what TensorBoard shows beyond scalars."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins import projector
from tensorboard.plugins.hparams import api as hparams

from msim_tf.checksums import load_checked_json, save_checked_json
from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.features.tempogram import tempogram
from msim_tf.files import atomic_file, sync_directory, temporary_name
from msim_tf.model.params import TrainParams

_SAMPLE = 256  # tracks at most in embedding statistics and projector
_IMAGES = 4
_TRIPLET_KINDS = ("active_triplets", "valid_pairs")  # the metrics of every dimension


@dataclass(frozen=True)
class SampleTracks:
    """One fixed segment, the middle one, of some tracks.

    Attributes:
        inputs: the model's inputs, each [n, *shape].
        identifiers: the tracks.
    """

    inputs: dict[str, np.ndarray]
    identifiers: list[str]


def sample_tracks(store: FeatureStore, clips: np.ndarray, inputs: Sequence[str]) -> SampleTracks:
    """Picks at most 256 of ``clips``, evenly spread, and reads a segment of each."""
    chosen = clips[np.unique(np.linspace(0, len(clips) - 1, min(len(clips), _SAMPLE)).astype(int))]
    segments = store.read_segments(chosen, (store.frames[chosen] - store.params.segment_frames) // 2)
    return SampleTracks({name: segments[name] for name in inputs}, [store.identifiers[i] for i in chosen])


def save_model(model: keras.Model, path: Path) -> None:
    """Writes a ``.keras`` file atomically, which Keras does not."""
    temporary = temporary_name(path)
    model.save(temporary)
    os.replace(temporary, path)
    sync_directory(path.parent)


class SaveBest(keras.callbacks.Callback):
    """Saves the model whenever the validation loss is the least so far.

    The write is atomic, which that of Keras' own checkpoint is not.

    Args:
        path: the ``.keras`` file.
        always: save after every epoch, so that the last one stays.
    """

    def __init__(self, path: Path, *, always: bool = False) -> None:
        super().__init__()
        self.path = path
        self.always = always
        self.value = float("inf")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Compares and saves."""
        value = float((logs or {})["val_loss"])
        if value < self.value or self.always:
            save_model(self.model, self.path)
        self.value = min(value, self.value)


class RememberState(keras.callbacks.Callback):
    """Keeps the Python state of other callbacks for a resumed run; BackupAndRestore forgets it.

    Place it after those callbacks and before BackupAndRestore: whatever epoch the backup holds, its state is then on
    disk.

    Args:
        path: JSON file with the state after each of the last epochs.
        remembered: name -> (callback, names of its attributes).
        epoch: finished epochs of the run that is resumed.
        writes: whether this host writes; the others only read.
    """

    def __init__(
        self,
        path: Path,
        remembered: Mapping[str, tuple[keras.callbacks.Callback, Sequence[str]]],
        epoch: int,
        *,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self._writes = writes
        self._path = path
        self._remembered = remembered
        self._epoch = epoch
        self._states: dict[str, Any] = (
            load_checked_json(path, "the state of a training", cure="train again into another directory")
            if epoch
            else {}
        )

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Gives the callbacks their state back, after they have reset themselves."""
        for name, values in self._states.get(str(self._epoch), {}).items():
            if name in self._remembered:
                for attribute, value in values.items():
                    setattr(self._remembered[name][0], attribute, value)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes the state; the epoch before stays, in case the backup of this one is never written."""
        if not self._writes:
            return
        state = {
            name: {attribute: _plain(getattr(callback, attribute)) for attribute in attributes}
            for name, (callback, attributes) in self._remembered.items()
        }
        self._states = {key: value for key, value in self._states.items() if int(key) == epoch}
        self._states[str(epoch + 1)] = state
        save_checked_json(self._path, self._states)


class RestoreOnly(keras.callbacks.BackupAndRestore):
    """Restores what another host's ``BackupAndRestore`` has written, and writes nothing; for Keras 3.

    Args:
        backup: its directory.
    """

    def __init__(self, backup: str) -> None:
        super().__init__(backup, delete_checkpoint=False)

    def _save_model(self) -> None:
        """Writes nothing."""


class LossScalars(keras.callbacks.Callback):
    """Writes the scalars of every epoch for TensorBoard, under names that it groups by their first part.

    ``loss/total``, ``loss/<dimension>``, ``active_triplets/<dimension>``, ``valid_pairs/<dimension>`` of both splits;
    ``learning_rate``. A dimension without a triplet in the whole epoch has no loss: its point is left out, not 0.

    Args:
        logdir: TensorBoard's directory.
        dimensions: those that the network has.
    """

    def __init__(self, logdir: Path, dimensions: Sequence[str]) -> None:
        super().__init__()
        self._dimensions = tuple(dimensions)
        self._writers = {
            prefix: tf.summary.create_file_writer(str(logdir / part))
            for prefix, part in (("", "train"), ("val_", "validation"))
        }

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes both splits."""
        for prefix, writer in self._writers.items():
            with writer.as_default(step=epoch):
                for tag, value in loss_scalars(logs or {}, prefix, self._dimensions).items():
                    tf.summary.scalar(tag, value)
                if not prefix:
                    # A number per schedule, or a variable, of which every replica has the same value.
                    tf.summary.scalar("learning_rate", tf.convert_to_tensor(self.model.optimizer.learning_rate))
            writer.flush()


def loss_scalars(logs: Mapping[str, float], prefix: str, dimensions: Sequence[str]) -> dict[str, float]:
    """TensorBoard's names and values for the logs of one epoch.

    Args:
        logs: of Keras, e.g. "loss", "val_genre_loss", "genre_valid_pairs".
        prefix: "" for training, "val_" for validation.
        dimensions: those that the network has.
    """
    own = {name[len(prefix) :]: value for name, value in logs.items() if name.startswith(prefix)}
    if not prefix:
        own = {name: value for name, value in own.items() if not name.startswith("val_")}
    if len(dimensions) == 1 and "valid_pairs" in own:
        # With one output Keras leaves its name out.
        (only,) = dimensions
        own |= {f"{only}_loss": own["loss"]} | {f"{only}_{kind}": own[kind] for kind in _TRIPLET_KINDS}
    scalars = {"loss/total": own["loss"]} if "loss" in own else {}
    for name, value in own.items():
        output, _, kind = name.rpartition("_")
        if kind == "loss" and output and own.get(f"{output}_valid_pairs", 1):
            scalars[f"loss/{output}"] = value
    for dimension in dimensions:
        if own.get(f"{dimension}_valid_pairs"):
            scalars |= {f"{kind}/{dimension}": own[f"{dimension}_{kind}"] for kind in _TRIPLET_KINDS}
    return scalars


class EmbeddingStatistics(keras.callbacks.Callback):
    """Writes each subspace's mean norm and spread over tracks: a spread near zero shows that it collapses.

    Args:
        logdir: TensorBoard's directory.
        sample: the tracks that are embedded after every epoch.
    """

    def __init__(self, logdir: Path, sample: SampleTracks) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(logdir / "validation"))
        self._sample = sample

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Embeds the sample and writes the scalars."""
        with self._writer.as_default(step=epoch):
            for name, subspace in embed_sample(self.model, self._sample).items():
                norms = np.linalg.norm(subspace, axis=1, keepdims=True)
                unit = subspace / np.maximum(norms, 1e-12)
                tf.summary.scalar(f"embedding/norm_{name}", norms.mean())
                # 1 when tracks point in all directions, 0 when they all point in one.
                tf.summary.scalar(f"embedding/spread_{name}", 1.0 - np.linalg.norm(unit.mean(0)))
        self._writer.flush()


class RunRecord(keras.callbacks.Callback):
    """Writes input images and HParams when training begins, and the Embedding Projector when it ends.

    Args:
        logdir: TensorBoard's directory.
        sample: the tracks shown.
        params: the training's parameters.
        store: for labels.
        held_out: identifiers of the validation split, told apart in the projector.
    """

    def __init__(
        self, logdir: Path, sample: SampleTracks, params: TrainParams, store: FeatureStore, held_out: Collection[str]
    ) -> None:
        super().__init__()
        self._held_out = set(held_out)
        self._logdir = logdir
        self._sample = sample
        self._params = params
        self._store = store

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Writes pictures of the inputs, and the parameters of the training."""
        with tf.summary.create_file_writer(str(self._logdir / "train")).as_default(step=0):
            for name, images in _input_images(self._sample.inputs, self._store.params.tempogram_lags).items():
                tf.summary.image(f"input/{name}", images, max_outputs=_IMAGES)
            hparams.hparams(_flat(self._params))

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Writes one projector entry per subspace, with identifiers and labels as metadata."""
        folder = self._logdir / "projector"
        folder.mkdir(parents=True, exist_ok=True)
        config = projector.ProjectorConfig()
        for name, subspace in embed_sample(self.model, self._sample).items():
            with atomic_file(folder / f"{name}.tsv", "w") as file:
                np.savetxt(file, subspace, fmt="%.5f", delimiter="\t")
            entry = config.embeddings.add()
            entry.tensor_name = name
            entry.tensor_path = f"projector/{name}.tsv"
            entry.metadata_path = "projector/metadata.tsv"
        with atomic_file(folder / "metadata.tsv", "w") as file:
            rows = csv.writer(file, delimiter="\t", lineterminator="\n")
            rows.writerow(["track", "split", *DIMENSION_NAMES])
            for identifier in self._sample.identifiers:
                values = self._store.labels.values.get(identifier, {})
                split = "validation" if identifier in self._held_out else "train"
                rows.writerow([identifier, split, *(", ".join(values.get(name, ())) for name in DIMENSION_NAMES)])
        projector.visualize_embeddings(str(self._logdir), config)


def embed_sample(model: keras.Model, sample: SampleTracks) -> dict[str, np.ndarray]:
    """Subspaces of the sample's segments: name -> [n, width] float32."""
    parts = [
        model({name: value[i : i + 64] for name, value in sample.inputs.items()}, training=False)
        for i in range(0, len(sample.identifiers), 64)
    ]
    return {name: np.concatenate([np.asarray(part[name], np.float32) for part in parts]) for name in parts[0]}


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a CSVLogger's file as numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def truncate_history(path: Path, epochs: int) -> None:
    """Drops the rows of epochs that will be run again, and a last row that a kill tore."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = lines[:1] + [line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[0]) < epochs]
    if len(kept) == 1:
        path.unlink()
        return
    with atomic_file(path, "w") as file:
        file.writelines(kept)


def _input_images(inputs: Mapping[str, np.ndarray], lags: int) -> dict[str, tf.Tensor]:
    """Inputs as grey images in [0, 1], low frequencies and lags below."""
    pictures = {name: tf.cast(value[:_IMAGES], tf.float32) for name, value in inputs.items()}
    if "onset" in pictures:
        pictures["tempogram"] = tempogram(pictures.pop("onset"), lags=lags)
    images = {}
    for name, value in pictures.items():
        low = tf.reduce_min(value, [1, 2], keepdims=True)
        high = tf.reduce_max(value, [1, 2], keepdims=True)
        images[name] = ((value - low) / tf.maximum(high - low, 1e-9))[:, ::-1, :, None]
    return images


def _flat(params: TrainParams) -> dict[str, Any]:
    """The parameters as HParams takes them: one level, plain values."""
    values = dataclasses.asdict(params)
    values |= {f"network_{name}": value for name, value in values.pop("network").items()}
    return {name: ",".join(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _plain(value: Any) -> Any:
    return None if value is None else float(value) if isinstance(value, (float, np.floating)) else int(value)
