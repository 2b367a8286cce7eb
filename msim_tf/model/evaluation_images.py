"""Shows in TensorBoard, while training, whether each subspace learns its own label: paper's Figure 2 and the matrix.

Both come from held-out tracks' labels, one segment each: label-triplet accuracy, not human similarity. ``msim evaluate
report`` says it exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msim_tf.data.store import FeatureStore
from msim_tf.embeddings import Embeddings
from msim_tf.evaluate import plots
from msim_tf.evaluate.disentanglement import Disentanglement, disentanglement
from msim_tf.labels.encoding import encode, groups_of
from msim_tf.model.callbacks import SampleTracks, embed_sample
from msim_tf.model.params import TrainParams, layout


class EvaluationImages(keras.callbacks.Callback):
    """Images ``evaluation/kiviat`` and ``evaluation/matrix``, scalars ``label_triplets/NAME``.

    Written every few epochs, and after the last.

    Args:
        logdir: TensorBoard's directory.
        sample: held-out tracks.
        params: the training's parameters.
        store: for labels and artists.
        every: epochs between images.
    """

    def __init__(
        self, logdir: Path, sample: SampleTracks, params: TrainParams, store: FeatureStore, *, every: int = 5
    ) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(logdir / "validation"))
        self._sample = sample
        self._layout = layout(params.network)
        self._every = every
        rows = np.arange(len(sample.identifiers))
        labels = encode(store.labels, sample.identifiers, self._layout.names, teacher=store.teacher)
        self._relations = {
            name: labels.relation(name, rows, rows, key_relation=params.key_relation) for name in self._layout.names
        }
        self._groups = [groups_of(name, store.labels.groups) for name in sample.identifiers]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Embeds the sample and draws."""
        if (epoch + 1) % self._every and epoch + 1 != self.params["epochs"]:
            return
        parts = embed_sample(self.model, self._sample)
        vectors = np.concatenate([parts[name] for name in self._layout.names], axis=1)
        if not np.isfinite(vectors).all():
            return  # a diverged training shows in its loss; it is not for a picture to end it
        system = Embeddings("held-out sample", tuple(self._sample.identifiers), vectors, self._layout)
        matrix = disentanglement(system, self._relations, groups=self._groups)
        with self._writer.as_default(step=epoch):
            for name, figure in figures(matrix).items():
                tf.summary.image(f"evaluation/{name}", plots.rgba(figure)[None])
            for name, accuracy in own_accuracy(matrix).items():
                tf.summary.scalar(f"label_triplets/{name}", accuracy)
        self._writer.flush()


def own_accuracy(matrix: Disentanglement) -> dict[str, float]:
    """Accuracy of each subspace on its own label, where it could be tested."""
    return {
        name: float(matrix.accuracy[matrix.subspaces.index(name), matrix.kinds.index(name)]) for name in matrix.tested
    }


def figures(matrix: Disentanglement) -> dict[str, Any]:
    """The matrix, and a Kiviat diagram where at least three dimensions could be tested."""
    drawn = {"matrix": plots.heat_map(matrix, title="held-out sample")}
    accuracy = own_accuracy(matrix)
    if len(accuracy) >= 3:
        drawn["kiviat"] = plots.kiviat({"label triplets": accuracy}, title="label triplets, held-out sample")
    return drawn
