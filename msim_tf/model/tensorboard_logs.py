"""The scalars that TensorBoard shows of a training, and the order in which its dashboard "Custom Scalars" opens.

``tensorboard_images`` draws; ``tensorboard_run`` writes what a training writes once: inputs, HParams, projector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalars

from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import DIMENSION_NAMES

_SAMPLE = 256  # tracks at most in embedding statistics and projector
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
    # [n] clips, [n] first frames: the middle of a track is music, its ends may be silence.
    chosen = clips[np.unique(np.linspace(0, len(clips) - 1, min(len(clips), _SAMPLE)).astype(int))]
    segments = store.read_segments(chosen, (store.frames[chosen] - store.params.segment_frames) // 2)
    return SampleTracks({name: segments[name] for name in inputs}, [store.identifiers[i] for i in chosen])


def embed_sample(model: keras.Model, sample: SampleTracks) -> dict[str, np.ndarray]:
    """Subspaces of the sample's segments: dimension -> [n, width] float32, without what else a training predicts."""
    # Blocks of 64 bound the memory of the activations. Other outputs predict what a teacher says.
    parts = []
    for start in range(0, len(sample.identifiers), 64):
        block = {name: value[start : start + 64] for name, value in sample.inputs.items()}
        parts.append(model(block, training=False))
    names = [name for name in parts[0] if name in DIMENSION_NAMES]
    return {name: np.concatenate([np.asarray(part[name], np.float32) for part in parts]) for name in names}


class LossScalars(keras.callbacks.Callback):
    """Writes the scalars of every epoch for TensorBoard, under names that it groups by their first part.

    ``loss/total``, ``loss/<dimension>``, ``active_triplets/<dimension>``, ``valid_pairs/<dimension>`` of both splits;
    ``learning_rate``. A dimension without a triplet in the whole epoch has no loss: its point is left out, not 0.
    TensorBoard sorts groups by name; the layout that is written as well puts the losses first.

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

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Writes the layout of "Custom Scalars"."""
        layout = custom_scalars.pb(scalar_layout(self._dimensions))
        with self._writers[""].as_default(step=0):
            tf.summary.experimental.write_raw_pb(layout.SerializeToString())
        self._writers[""].flush()

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
    # The logs of one split, without its prefix. Training has none, so there the validation's are removed.
    own = {name[len(prefix) :]: value for name, value in logs.items() if name.startswith(prefix)}
    if not prefix:
        own = {name: value for name, value in own.items() if not name.startswith("val_")}
    if len(dimensions) == 1 and "valid_pairs" in own:
        # With one output Keras leaves its name out.
        (only,) = dimensions
        own |= {f"{only}_loss": own["loss"]} | {f"{only}_{kind}": own[kind] for kind in _TRIPLET_KINDS}

    # Losses of the outputs that had a triplet in this epoch, and of those that count none, such as a teacher's.
    scalars = {}
    for name, value in own.items():
        output, _, kind = name.rpartition("_")
        if kind == "loss" and output and own.get(f"{output}_valid_pairs", 1):
            scalars[f"loss/{output}"] = value
    if scalars:
        # Without a single triplet the total is 0 as well, and says as little.
        scalars["loss/total"] = own["loss"]

    # The metrics of the dimensions, under the same condition.
    for dimension in dimensions:
        if own.get(f"{dimension}_valid_pairs"):
            scalars |= {f"{kind}/{dimension}": own[f"{dimension}_{kind}"] for kind in _TRIPLET_KINDS}
    return scalars


def scalar_layout(dimensions: Sequence[str]) -> layout_pb2.Layout:
    """What "Custom Scalars" shows, in this order: losses, label triplets, active triplets, embedding, learning rate.

    Each chart has the curves of both splits, which TensorBoard tells apart by colour.

    Args:
        dimensions: those that the network has.
    """
    groups = {
        "Loss": ["loss/total", *(f"loss/{name}" for name in dimensions)],
        "Held-out tracks in the order of their labels (0.5 is chance)": [
            f"label_triplets/{name}" for name in dimensions
        ],
        "Share of the triplets that still push": [f"active_triplets/{name}" for name in dimensions],
        "Spread of the embedding (near 0 is collapsed)": [f"embedding/spread_{name}" for name in dimensions],
        "Norm of the embedding": [f"embedding/norm_{name}" for name in dimensions],
        "Learning rate": ["learning_rate"],
    }
    # Tags are regular expressions there: escaped, and to their end, or "loss/era" would also draw "loss/era_teacher".
    categories = []
    for title, tags in groups.items():
        lines = {tag: layout_pb2.MultilineChartContent(tag=[f"{re.escape(tag)}$"]) for tag in tags}
        charts = [layout_pb2.Chart(title=tag, multiline=content) for tag, content in lines.items()]
        categories.append(layout_pb2.Category(title=title, chart=charts))
    return layout_pb2.Layout(category=categories)


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
