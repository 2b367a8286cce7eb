"""What a training writes for TensorBoard once: inputs and HParams at its start, final scores and projector at its end.

Scores and projector are of the model that is kept: they show what will be exported.
"""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins import projector
from tensorboard.plugins.hparams import api as hparams

from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import DIMENSION_NAMES, dimension
from msim_tf.evaluate import plots
from msim_tf.files import atomic_file
from msim_tf.labels.teacher import standardised, tag_columns
from msim_tf.model.params import TrainParams
from msim_tf.model.tensorboard_images import SubspaceScores, input_figure, own_accuracy
from msim_tf.model.tensorboard_logs import SampleTracks, embed_sample

_MOST_COLOURS = 20  # values of a tag dimension by which the projector colours; more are not told apart


class RunInputs(keras.callbacks.Callback):
    """Writes a picture of the inputs and the parameters of the training when it begins.

    Args:
        logdir: TensorBoard's directory.
        sample: the tracks shown.
        params: the training's parameters.
        store: for its feature parameters.
    """

    def __init__(self, logdir: Path, sample: SampleTracks, params: TrainParams, store: FeatureStore) -> None:
        super().__init__()
        self._logdir = logdir
        self._sample = sample
        self._params = params
        self._features = store.params

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Writes them."""
        with tf.summary.create_file_writer(str(self._logdir / "train")).as_default(step=0):
            picture = plots.rgba(input_figure(self._sample, self._features))
            tf.summary.image("input/features", picture[None])
        # The run "." is the session of HParams: its scores are those of the run as a whole.
        with tf.summary.create_file_writer(str(self._logdir)).as_default(step=0):
            # HParams takes one level of plain values: fields of the network become "network_NAME", tuples text.
            values = dataclasses.asdict(self._params)
            values |= {f"network_{name}": value for name, value in values.pop("network").items()}
            values = {name: ",".join(value) if isinstance(value, tuple) else value for name, value in values.items()}
            scores = {name: f"{name}, label triplets" for name in self._params.network.dimensions}
            hparams.hparams_config(
                hparams=[hparams.HParam(name) for name in values],
                metrics=[
                    hparams.Metric(f"final/{name}", display_name=text)
                    for name, text in {"loss": "validation loss", **scores}.items()
                ],
            )
            hparams.hparams(values)


def write_result(logdir: Path, model: keras.Model, loss: float | None, scores: SubspaceScores) -> None:
    """Writes the final scores, which HParams shows beside the parameters.

    ``final/loss``, and ``final/<dimension>``: label triplets in the right order, where they could be tested.

    Args:
        logdir: TensorBoard's directory.
        model: the model that is kept.
        loss: its validation loss; None where no triplet was held out.
        scores: of held-out tracks.
    """
    matrix = scores.matrix(model)
    with tf.summary.create_file_writer(str(logdir)).as_default(step=0):
        if loss is not None:
            tf.summary.scalar("final/loss", loss)
        for name, accuracy in (own_accuracy(matrix) if matrix else {}).items():
            tf.summary.scalar(f"final/{name}", accuracy)


def write_projector(
    logdir: Path, model: keras.Model, sample: SampleTracks, store: FeatureStore, held_out: Collection[str]
) -> None:
    """Writes one entry of the Embedding Projector per subspace, to be coloured by split or by any label.

    Args:
        logdir: TensorBoard's directory.
        model: the model that is kept.
        sample: the tracks shown.
        store: for labels, a teacher's where nobody gave any.
        held_out: identifiers of the validation split.
    """
    # One table of vectors per subspace, [n, width] as text, all with the same table of labels.
    folder = logdir / "projector"
    folder.mkdir(parents=True, exist_ok=True)
    config = projector.ProjectorConfig()
    for name, subspace in embed_sample(model, sample).items():
        with atomic_file(folder / f"{name}.tsv", "w") as file:
            np.savetxt(file, subspace, fmt="%.5f", delimiter="\t")
        entry = config.embeddings.add()
        entry.tensor_name = name
        entry.tensor_path = f"projector/{name}.tsv"
        entry.metadata_path = "projector/metadata.tsv"

    # The table of labels: a row per track, in the order of the vectors.
    split = ["validation" if track in held_out else "train" for track in sample.identifiers]
    columns = {name: projector_labels(store, sample.identifiers, name) for name in DIMENSION_NAMES}
    with atomic_file(folder / "metadata.tsv", "w") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(["track", "split", *columns])
        rows.writerows(zip(sample.identifiers, split, *columns.values()))
    projector.visualize_embeddings(str(logdir), config)


def projector_labels(store: FeatureStore, identifiers: Sequence[str], name: str) -> list[str]:
    """One value per track by which the projector can colour: it takes few values, or numbers.

    Of several tags the one that most tracks share counts, of unlabelled tracks the teacher's strongest.

    Args:
        store: labels and teacher.
        identifiers: the tracks.
        name: of the dimension.

    Returns:
        [n] tag, bpm or key; "" where it is unknown, "other" for rare tags.
    """
    # Tempo and key have one value at most, tags any number.
    values = [store.labels.values.get(track, {}).get(name, ()) for track in identifiers]
    if dimension(name).kind != "tag":
        return [own[0] if own else "" for own in values]

    # An unlabelled track gets the word of which the teacher is surest.
    if store.teacher:
        columns = tag_columns(store.teacher)
        chosen = [index for index, column in enumerate(columns) if column.dimension == name]
        scored = [track for track in identifiers if track in store.teacher]
        if chosen and scored:
            # [tracks, tags of this dimension]: frequent tags are strong everywhere, so what counts is how far a score
            # is above its tag's mean.
            scores = store.teacher.embeddings[store.teacher.rows(scored)][:, chosen]
            surest = standardised(scores).argmax(axis=1)
            strongest = {track: (columns[chosen[best]].word,) for track, best in zip(scored, surest)}
            values = [own or strongest.get(track, ()) for own, track in zip(values, identifiers)]

    # One tag per track: the most frequent of its own, so that colours are shared; of equally frequent ones the last in
    # the alphabet.
    counts = Counter(tag for own in values for tag in own)
    common = {tag for tag, _ in counts.most_common(_MOST_COLOURS)}
    shared = [max(own, key=lambda tag: (counts[tag], tag), default="") for own in values]
    return [tag if not tag or tag in common else "other" for tag in shared]
