"""The images that TensorBoard shows of a training: the inputs, the paper's Figure 2 and the matrix of the subspaces.

The last two tell whether each subspace learns its own label. They come from held-out tracks' labels, one segment each:
label-triplet accuracy, not human similarity. ``msim evaluate report`` says it exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from msim_tf.data.store import FeatureStore
from msim_tf.embeddings import Embeddings
from msim_tf.evaluate import plots
from msim_tf.evaluate.disentanglement import Disentanglement, disentanglement
from msim_tf.features.tempogram import tempogram
from msim_tf.labels.encoding import encode, groups_of
from msim_tf.model.params import TrainParams, layout
from msim_tf.model.tensorboard_logs import SampleTracks, embed_sample
from msim_tf.params import FeatureParams

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 4  # tracks whose inputs are drawn
_LONGEST_TITLE = 40  # characters, as wide as a column
_BPM_TICKS = (240, 120, 80, 60, 40, 30)
_PITCH_CLASSES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")


class SubspaceScores:
    """Scores the subspaces of a model on the labels of some tracks.

    Args:
        sample: held-out tracks.
        params: the training's parameters.
        store: for labels and artists.
    """

    def __init__(self, sample: SampleTracks, params: TrainParams, store: FeatureStore) -> None:
        # [n, n] relations of the sample by dimension: the labels never change, so once for all epochs.
        self._sample = sample
        self._layout = layout(params.network)
        rows = np.arange(len(sample.identifiers))
        labels = encode(store.labels, sample.identifiers, self._layout.names, teacher=store.teacher)
        self._relations = {
            name: labels.relation(name, rows, rows, key_relation=params.key_relation) for name in self._layout.names
        }
        self._groups = [groups_of(name, store.labels.groups) for name in sample.identifiers]

    def matrix(self, model: keras.Model) -> Disentanglement | None:
        """Every subspace on every kind of label; None for a model that has diverged, whose loss shows it."""
        # Subspaces [n, width] side by side, [n, size], as an index holds them.
        parts = embed_sample(model, self._sample)
        vectors = np.concatenate([parts[name] for name in self._layout.names], axis=1)
        if not np.isfinite(vectors).all():
            return None
        system = Embeddings("held-out sample", tuple(self._sample.identifiers), vectors, self._layout)
        return disentanglement(system, self._relations, groups=self._groups)


class EvaluationImages(keras.callbacks.Callback):
    """Images ``evaluation/kiviat`` and ``evaluation/matrix``, scalars ``label_triplets/NAME``.

    Written every few epochs, and after the last.

    Args:
        logdir: TensorBoard's directory.
        scores: of held-out tracks.
        every: epochs between images.
    """

    def __init__(self, logdir: Path, scores: SubspaceScores, *, every: int = 5) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(logdir / "validation"))
        self._scores = scores
        self._every = every

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Embeds the sample and draws."""
        if (epoch + 1) % self._every and epoch + 1 != self.params["epochs"]:
            return
        matrix = self._scores.matrix(self.model)
        if matrix is None:
            return

        # Images of the matrix, and scalars of its diagonal.
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


def input_figure(sample: SampleTracks, features: FeatureParams) -> Figure:
    """What the network hears of a few tracks: one column per track, one row per input, in colour, with axes.

    Args:
        sample: tracks, of which four are shown, evenly spread; their onset envelope is drawn as the tempogram that the
            network makes of it.
        features: of the store, for the axes.
    """
    # A few tracks, evenly spread: [n, *shape] -> [4, *shape] float32, since a store has half floats.
    total = len(sample.identifiers)
    tracks = np.unique(np.linspace(0, total - 1, min(total, _SHOWN)).astype(int))
    inputs = {name: value[tracks].astype(np.float32) for name, value in sample.inputs.items()}
    if "onset" in inputs:
        inputs["tempogram"] = np.asarray(tempogram(inputs.pop("onset"), lags=features.tempogram_lags))

    # One row of axes per input, one column per track. Its title is the end of the identifier, which is the name of the
    # file; a dollar sign would be read as mathematics.
    figure = plots.grid(len(inputs), len(tracks), width=4.2 * len(tracks), height=2.6 * len(inputs) + 0.6)
    for axes, track in zip(figure.axes, tracks):
        identifier = sample.identifiers[track]
        end = identifier if len(identifier) <= _LONGEST_TITLE else "…" + identifier[1 - _LONGEST_TITLE :]
        axes.set_title(end.replace("$", r"\$"), fontsize=9)

    # The values, and what their axes say.
    for row, (name, values) in enumerate(inputs.items()):
        for column in range(len(tracks)):
            axes = figure.axes[row * len(tracks) + column]
            # Low frequencies and short lags below; "magma" is perceptually even and readable without colour vision.
            axes.imshow(
                values[column],
                origin="lower",
                aspect="auto",
                cmap="magma",
                interpolation="nearest",
                extent=(0, features.segment_seconds, -0.5, values.shape[1] - 0.5),
            )
            _label_rows(axes, name, features, first=column == 0)
            if row == len(inputs) - 1:
                axes.set_xlabel("seconds")
    return figure


def _label_rows(axes: Axes, name: str, features: FeatureParams, *, first: bool) -> None:
    """Ticks of the vertical axis: pitch classes, bpm, or mel bands; its title in the first column."""
    title = f"{name}: band"
    if name == "cens" and features.n_chroma == len(_PITCH_CLASSES):
        axes.set_yticks(range(0, 12, 2), _PITCH_CLASSES[::2])
        title = "CENS: pitch class"
    elif name == "tempogram":
        # A lag of one beat is 60 / bpm seconds, in frames.
        lags = {bpm: 60 * features.frame_rate / bpm for bpm in _BPM_TICKS}
        inside = {bpm: lag for bpm, lag in lags.items() if lag < features.tempogram_lags}
        # Longer lags repeat what shorter ones say.
        axes.set_ylim(-0.5, max(inside.values(), default=features.tempogram_lags) + 0.5)
        axes.set_yticks(list(inside.values()), [str(bpm) for bpm in inside])
        title = "tempogram: bpm"
    if first:
        axes.set_ylabel(title)
