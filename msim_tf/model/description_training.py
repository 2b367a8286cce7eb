"""The stage of a training in which the heads of ``description_heads`` learn; the network stays as it is.

Words are learnt from embeddings of the training tracks, tempo and key from features of the tracks that are labelled
with them, which are also played at other tempi and in other keys. A head hears several segments of a track and is
judged by the mean of its logits, as tracks are described later (``head_fitting``). Afterwards every head is calibrated
on the held-out tracks. ``word_training`` has the words; tempo and key are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import scipy.optimize
import scipy.special
import tensorflow as tf

from msim_tf.data.augmentation import MAX_OCTAVES, frames_needed, frames_spanned, transposed_chroma
from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import dimension
from msim_tf.evaluate.retrieval import key_score
from msim_tf.features.segments import whole_segments
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.labels.words import FEWEST, learnable, word_targets
from msim_tf.model.description_heads import (
    WORDS,
    DescriptionHeads,
    build_key_head,
    build_tempo_head,
    copy_network_head,
)
from msim_tf.model.head_fitting import BATCH, CROPS, TrackPart, fit_on_crops, repeated_crops
from msim_tf.model.params import TrainParams
from msim_tf.model.word_training import train_words
from msim_tf.theory import (
    KEYS,
    STEPS_PER_OCTAVE,
    TEMPO_STEPS,
    key_name,
    octave_distance,
    tempo_estimate,
    transposed_key,
)

# "Accuracy 1" of Gouyon et al., "An experimental comparison of audio tempo induction algorithms", IEEE TASLP 2006.
_TEMPO_TOLERANCE = 0.04
_TEMPO_BLUR = 1.0  # steps of TEMPO_STEPS; a label is right to about as much


def train_heads_to_describe(
    model: keras.Model, store: FeatureStore, labels: EncodedLabels, parts: dict[str, np.ndarray], params: TrainParams
) -> DescriptionHeads:
    """Trains the heads of a trained network.

    Args:
        model: of ``build_network``, in float32.
        store: features.
        labels: of all tracks of the store.
        parts: rows of the store for "train" and "validation".
        params: how the network was trained; its ``describe_steps``.
    """
    # Words, from the embeddings of the tracks.
    keras.utils.set_random_seed(params.seed)
    training, held_out = (TrackPart(store, labels, parts[name]) for name in ("train", "validation"))
    models: dict[str, keras.Model] = {}
    figures: dict[str, Any] = {}
    targets = learnable(word_targets(labels, store.teacher), training.rows)
    if targets.words:
        head, targets, figures[WORDS] = train_words(model, targets, training, held_out, params)
        if head is not None:
            models[WORDS] = head

    exact = train_tempo_and_key(model, training, held_out, params)
    return DescriptionHeads(targets.words, models | exact.models, figures | exact.held_out)


def train_tempo_and_key(
    model: keras.Model, training: TrackPart, held_out: TrackPart, params: TrainParams
) -> DescriptionHeads:
    """Trains heads of tempo and key, from the inputs; a dimension with too few labelled tracks gets none.

    Args:
        model: of ``build_network``, in float32; the heads start from its own.
        training: tracks to learn from.
        held_out: tracks on which the heads are calibrated and judged.
        params: how the network was trained; their ``describe_steps``.
    """
    models: dict[str, keras.Model] = {}
    figures: dict[str, Any] = {}
    for name in params.network.dimensions:
        task = _TASKS.get(dimension(name).kind)
        if task is None or task.source not in params.network.inputs:
            continue
        if training.labels.labelled(name)[training.rows].sum() >= FEWEST:
            head = task.build(training.store.params, params.network.slow_stride)
            copy_network_head(head, model, name)
            figures[name] = _train_classes(head, task, name, training, held_out, params)
            models[name] = head
    return DescriptionHeads({}, models, figures)


@dataclass(frozen=True)
class _Task:
    """A classification of tracks by what is known exactly: tempo or key.

    Attributes:
        source: the model input.
        build: a new head, from the features' parameters and the network's stride.
        soft_labels: labels [n] and class weights [n, classes] that sum to 1.
        figures: how well probabilities [n, classes] fit labels [n], for people.
    """

    source: str
    build: Callable[[Any, int], keras.Model]
    soft_labels: Callable[[np.ndarray], np.ndarray]
    figures: Callable[[np.ndarray, np.ndarray], dict[str, Any]]


def tempo_classes(bpm: np.ndarray) -> np.ndarray:
    """[n] bpm -> [n, steps]: a bell over ``TEMPO_STEPS`` around each tempo; one outside them is moved in by octaves."""
    # Octaves up for what is too slow, minus octaves down for what is too fast; 0 inside.
    bpm = np.asarray(bpm, np.float64)
    low, high = TEMPO_STEPS[0], TEMPO_STEPS[-1]
    octaves = np.ceil(np.maximum(np.log2(low / bpm), 0)) - np.ceil(np.maximum(np.log2(bpm / high), 0))
    bpm = bpm * np.exp2(octaves)

    # [n] place among the steps -> [n, steps]: a normal density, made to sum to 1.
    steps = STEPS_PER_OCTAVE * np.log2(bpm / low)
    bell = np.exp(-0.5 * np.square((np.arange(len(TEMPO_STEPS)) - steps[:, None]) / _TEMPO_BLUR))
    return (bell / bell.sum(1, keepdims=True)).astype(np.float32)


def _tempo_figures(probabilities: np.ndarray, bpm: np.ndarray) -> dict[str, Any]:
    """Shares of the tracks whose likeliest tempo is right, and right with octaves folded."""
    exact, folded = tempo_hits(tempo_estimate(probabilities)[0][:, 0], bpm)
    return {"within 4 %": float(exact.mean()), "octaves folded": float(folded.mean()), "tracks": len(bpm)}


def tempo_hits(estimate: np.ndarray, bpm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which estimates are within 4 % of the tempo, and which are with octaves folded: [n] bool each."""
    exact = np.abs(estimate / bpm - 1) <= _TEMPO_TOLERANCE
    return exact, octave_distance(estimate, bpm) <= np.log2(1 + _TEMPO_TOLERANCE)


def _key_figures(probabilities: np.ndarray, keys: np.ndarray) -> dict[str, Any]:
    """Share of the tracks whose likeliest key is right, and the mean of MIREX's weighted score."""
    estimate = probabilities.argmax(axis=1)
    exact, score = (estimate == keys).mean(), key_scores(estimate, keys).mean()
    return {"exact": float(exact), "weighted score": float(score), "tracks": len(keys)}


def key_scores(estimate: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """``evaluate.retrieval.key_score`` of each estimated key: [n] in [0, 1]."""
    pairs = zip(keys.astype(int).tolist(), estimate.astype(int).tolist())
    return np.array([key_score(key_name(key), key_name(estimated)) for key, estimated in pairs])


_TASKS = {
    "tempo": _Task("onset", build_tempo_head, tempo_classes, _tempo_figures),
    "key": _Task(
        "cens",
        build_key_head,
        lambda keys: np.eye(KEYS, dtype=np.float32)[keys.astype(int)],
        _key_figures,
    ),
}


def _train_classes(
    head: keras.Model, task: _Task, name: str, training: TrackPart, held_out: TrackPart, params: TrainParams
) -> dict[str, Any]:
    """Trains and calibrates a head in place; how well it does on held-out tracks."""
    store = training.store
    batches = _augmented_batches(task, name, training, params)
    fit_on_crops(head, batches, _soft_cross_entropy, params.describe_steps)

    # Without enough labelled held-out tracks the head stays as it is, uncalibrated and untested.
    labels = held_out.labels
    rows = held_out.rows[labels.labelled(name)[held_out.rows]]
    if len(rows) < FEWEST:
        return {"tracks": int(len(rows))}

    # [n, classes]: mean logits of whole tracks, to which the temperature is fitted and by which the head is judged.
    of_tracks = []
    for row in rows.tolist():
        starts = whole_segments(int(store.frames[row]), store.params)
        segments = store.read_segments(np.full(len(starts), row), starts, names=(task.source,))[task.source]
        of_tracks.append(head(tf.cast(segments, tf.float32), training=False).numpy().mean(axis=0))
    logits = np.stack(of_tracks)
    values = labels.arrays[name][rows].astype(np.float64)
    classes = task.soft_labels(values)
    _calibrate_classes(head.get_layer("logits"), logits, classes)
    return task.figures(scipy.special.softmax(logits, axis=1), values)


def _augmented_batches(
    task: _Task, name: str, training: TrackPart, params: TrainParams
) -> Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Crops of labelled tracks, at any tempo or in any key."""
    store, length = training.store, training.store.params.segment_frames
    rows = training.rows[training.labels.labelled(name)[training.rows]]
    values = training.labels.arrays[name]
    rng = np.random.default_rng(params.seed)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            # [batch] each: tracks, tempo factors, semitones, labels. Tempo is learnt at other tempi, key in other keys.
            chosen = rng.choice(rows, BATCH)
            stretch, transpose, label = np.ones(BATCH), np.zeros(BATCH, np.int64), values[chosen].astype(np.float64)
            if task.source == "onset":
                # Half as recorded; a clip must be long enough to be played faster.
                faster = np.exp2(rng.uniform(-MAX_OCTAVES, MAX_OCTAVES, BATCH))
                free = (rng.random(BATCH) < 0.5) & (store.frames[chosen] >= frames_needed(length))
                stretch = np.where(free, faster, 1.0)
                label = label * stretch
            else:
                transpose = rng.integers(12, size=BATCH)
                label = transposed_key(label.astype(np.int64), transpose).astype(np.float64)

            # [batch, crops] first frames, anywhere in the track; a faster segment spans more frames of it.
            last = store.frames[chosen] - frames_spanned(length, stretch)
            starts = repeated_crops((rng.random((BATCH, CROPS)) * (last[:, None] + 1)).astype(np.int64), rng)

            # One read of [batch * crops, *shape], then [batch, crops, *shape].
            read = store.read_segments(
                np.repeat(chosen, CROPS), starts.ravel(), np.repeat(stretch, CROPS), names=(task.source,)
            )[task.source]
            if task.source == "cens":
                read = transposed_chroma(read, np.repeat(transpose, CROPS))
            yield read.reshape(BATCH, CROPS, *read.shape[1:]).astype(np.float32), task.soft_labels(label)

    return batches


def _soft_cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """[batch, classes], twice -> [batch]: -sum of target * log softmax(logits); targets sum to 1."""
    return tf.nn.softmax_cross_entropy_with_logits(target, logits)


def _calibrate_classes(layer: keras.layers.Layer, logits: np.ndarray, classes: np.ndarray) -> None:
    """One temperature for all classes (Guo et al., "On calibration of modern neural networks", ICML 2017), folded into
    the layer and into ``logits``.
    """

    # The search is over the logarithm of the scale, which keeps it positive: between e^-3 and e.
    def loss(log_scale: float) -> float:
        return float(-(classes * scipy.special.log_softmax(np.exp(log_scale) * logits, axis=1)).sum(1).mean())

    scale = float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=(-3.0, 1.0), method="bounded").x))
    # Kernel and bias times the scale are logits times the scale.
    layer.set_weights([scale * weights for weights in layer.get_weights()])
    logits *= scale
