"""Training of the head that says words: which words it can tell, and how sure it may be of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import scipy.optimize
import scipy.stats
import tensorflow as tf

from msim_tf.labels.words import FEWEST, WordTargets
from msim_tf.model.description_heads import build_word_head, tag_columns
from msim_tf.model.head_fitting import BATCH, CROPS, TrackPart, fit_on_crops, repeated_crops
from msim_tf.model.network import embedding_function
from msim_tf.model.params import TrainParams

_SEGMENTS = 8  # of each track, evenly spread
_TELLS_APART = 0.7  # area under the ROC curve on held-out tracks below which a word is not said


def train_words(
    model: keras.Model, learnt: WordTargets, training: TrackPart, held_out: TrackPart, params: TrainParams
) -> tuple[keras.Model | None, WordTargets, dict[str, Any]]:
    """The head (None if no word is left), the words that it can tell, and how well."""
    # [tracks, segments, tag coordinates] of both parts: the network is run once, not for every batch.
    columns = tag_columns(params.network)
    embeddings = {part: _embeddings(model, part)[:, :, columns] for part in (training, held_out)}
    # [tracks, words] by dimension: +1, -1, or 0 where nothing is known.
    targets = {}
    for part in (training, held_out):
        targets[part] = {name: array[part.rows].astype(np.float32) for name, array in learnt.targets.items()}
    head = build_word_head(len(columns), learnt.words)

    # Batches of [batch, crops, coordinates]: some segments of some tracks.
    rng = np.random.default_rng(params.seed)

    def batches() -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        while True:
            rows = rng.integers(len(training.rows), size=BATCH)
            crops = repeated_crops(rng.integers(_SEGMENTS, size=(BATCH, CROPS)), rng)
            inputs = embeddings[training][rows[:, None], crops]
            yield inputs, {name: array[rows] for name, array in targets[training].items()}

    fit_on_crops(head, batches, dict.fromkeys(learnt.words, _known_cross_entropy), params.describe_steps)

    # [tracks, segments, coordinates] -> mean logits [tracks, words] by dimension, in one call on all segments.
    tracks, segments, coordinates = embeddings[held_out].shape
    of_segments = head(tf.constant(embeddings[held_out].reshape(-1, coordinates)), training=False)
    logits = {name: value.numpy().reshape(tracks, segments, -1).mean(axis=1) for name, value in of_segments.items()}

    # Calibrate, and keep only words that held-out tracks do not show to be guessed.
    chosen: dict[str, np.ndarray] = {}
    figures: dict[str, Any] = {}
    for name, words in learnt.words.items():
        # [words] of this dimension: how well each tells the held-out tracks apart.
        areas = [roc_area(logits[name][:, i], targets[held_out][name][:, i]) for i in range(len(words))]
        # Where held-out tracks test some words of a dimension, those that they cannot test are not said either.
        untested = all(area is None for area in areas)
        chosen[name] = np.array([untested if area is None else area >= _TELLS_APART for area in areas])
        figures |= {f"{name}/{word}": area for word, area, keep in zip(words, areas, chosen[name]) if keep}
        _calibrate_words(head.get_layer(f"{name}_words"), logits[name], targets[held_out][name])
    kept = learnt.select(chosen)
    return _with_words(head, kept, chosen) if kept.words else None, kept, figures


def _embeddings(model: keras.Model, part: TrackPart) -> np.ndarray:
    """[tracks, segments, size] float32: ``_SEGMENTS`` evenly spread segments of every track."""
    # A few tracks at a time: ``BATCH`` segments bound the memory of the activations.
    store, embed = part.store, embedding_function(model)
    names = tuple(model.input)
    embedded = []
    for first in range(0, len(part.rows), BATCH // _SEGMENTS):
        rows = part.rows[first : first + BATCH // _SEGMENTS]
        last = store.frames[rows] - store.params.segment_frames
        starts = np.linspace(0, last, _SEGMENTS).round().astype(np.int64).T  # [rows, segments]
        segments = store.read_segments(np.repeat(rows, _SEGMENTS), starts.ravel(), names=names)
        embedded.append(embed(segments).reshape(len(rows), _SEGMENTS, -1))
    return np.concatenate(embedded)


def _known_cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy over what is known; targets [batch, words] are +1, -1 or, where nothing is known, 0."""
    # softplus(-z) is -log sigmoid(z), and softplus(z) is -log (1 - sigmoid(z)): the sign of the target chooses.
    loss = tf.nn.softplus(-target * logits)
    is_known = tf.abs(target)
    return tf.reduce_sum(loss * is_known) / tf.maximum(tf.reduce_sum(is_known), 1.0)


def roc_area(scores: np.ndarray, target: np.ndarray) -> float | None:
    """Area under the ROC curve: how often a track that a word fits scores above one that it does not fit.

    Args:
        scores: [n] float.
        target: [n], +1 fits, -1 does not, 0 unknown.

    Returns:
        In [0, 1], ties count half; None with fewer than ``FEWEST`` tracks on a side.
    """
    positive, negative = scores[target > 0], scores[target < 0]
    if min(len(positive), len(negative)) < FEWEST:
        return None
    # Mann and Whitney's U, as a share of all pairs.
    wins = scipy.stats.mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(wins / (len(positive) * len(negative)))


def _calibrate_words(layer: keras.layers.Layer, logits: np.ndarray, target: np.ndarray) -> None:
    """Platt's scaling of each word on held-out tracks, folded into the layer; too few tracks change nothing."""
    # z -> e^a z + b for each word (Platt, "Probabilistic outputs for support vector machines", 1999); e^a is positive,
    # so a word that tells tracks apart the wrong way is not turned around.
    kernel, bias = layer.get_weights()
    for column in range(logits.shape[1]):
        is_known = target[:, column] != 0
        if min((target[:, column] > 0).sum(), (target[:, column] < 0).sum()) < FEWEST:
            continue
        z, sign = logits[is_known, column].astype(np.float64), target[is_known, column]

        def loss(scaling: np.ndarray, z: np.ndarray = z, sign: np.ndarray = sign) -> float:
            # The last term draws towards no change where tracks are few.
            scaled = np.logaddexp(0, -sign * (np.exp(scaling[0]) * z + scaling[1])).mean()
            return float(scaled + 0.01 * np.square(scaling).sum())

        # The layer's weights after the scaling: e^a (x W + c) + b.
        scale, shift = scipy.optimize.minimize(loss, np.zeros(2), method="L-BFGS-B").x
        kernel[:, column] *= np.exp(scale)
        bias[column] = bias[column] * np.exp(scale) + shift
    layer.set_weights([kernel, bias])


def _with_words(head: keras.Model, kept: WordTargets, chosen: dict[str, np.ndarray]) -> keras.Model:
    """The same head with the columns of the chosen words only."""
    smaller = build_word_head(head.input_shape[-1], kept.words)
    smaller.get_layer("word_hidden").set_weights(head.get_layer("word_hidden").get_weights())
    for name in kept.words:
        kernel, bias = head.get_layer(f"{name}_words").get_weights()
        smaller.get_layer(f"{name}_words").set_weights([kernel[:, chosen[name]], bias[chosen[name]]])
    return smaller
