"""The stage of a training in which the heads of ``description_heads`` learn; the network stays as it is.

Words are learnt from embeddings of the training tracks, tempo and key from features of the tracks that are labelled
with them, which are also played at other tempi and in other keys. A head hears several segments of a track and is
judged by the mean of its logits, as tracks are described later; one time in four all of them are the same segment, so
that it also learns what a single one cannot tell. Afterwards every head is calibrated on the held-out tracks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf

from msim_tf.data.augmentation import MAX_OCTAVES, frames_needed, frames_spanned, transposed_chroma
from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import dimension
from msim_tf.features.segments import whole_segments
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.labels.words import FEWEST, WordTargets, learnable, word_targets
from msim_tf.model.description_heads import (
    WORDS,
    DescriptionHeads,
    build_key_head,
    build_tempo_head,
    build_word_head,
    copy_network_head,
    tag_columns,
)
from msim_tf.model.layers import FoldCrops, MeanOfCrops
from msim_tf.model.network import embedding_function
from msim_tf.model.params import TrainParams
from msim_tf.theory import (
    KEYS,
    STEPS_PER_OCTAVE,
    TEMPO_STEPS,
    octave_distance,
    parallel_key,
    relative_key,
    tempo_estimate,
    transposed_key,
)

_BATCH = 64
_CROPS = 4
_SEGMENTS = 8  # of each track, evenly spread, from which words are learnt
_SAME_SEGMENT = 0.25
_LEARNING_RATE = 1e-3
_TELLS_APART = 0.7  # area under the ROC curve on held-out tracks below which a word is not said
_TEMPO_TOLERANCE = 0.04  # MIREX
_TEMPO_BLUR = 1.0  # steps of TEMPO_STEPS; a label is right to about as much


@dataclass(frozen=True, eq=False)
class _Part:
    """The tracks of one part of the split.

    Attributes:
        store: their features.
        labels: of all tracks of the store.
        rows: [n] int, which of them.
    """

    store: FeatureStore
    labels: EncodedLabels
    rows: np.ndarray


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
    keras.utils.set_random_seed(params.seed)
    training, held_out = (_Part(store, labels, parts[name]) for name in ("train", "validation"))
    models: dict[str, keras.Model] = {}
    figures: dict[str, Any] = {}
    known = learnable(word_targets(labels, store.teacher), training.rows)
    if known.words:
        head, known, figures[WORDS] = _train_words(model, known, training, held_out, params)
        if head is not None:
            models[WORDS] = head
    for name in params.network.dimensions:
        task = _TASKS.get(dimension(name).kind)
        if task is None or task.source not in params.network.inputs:
            continue
        if labels.labelled(name)[training.rows].sum() >= FEWEST:
            head = task.build(store.params, params.network.slow_stride)
            copy_network_head(head, model, name)
            figures[name] = _train_classes(head, task, name, training, held_out, params)
            models[name] = head
    return DescriptionHeads(known.words, models, figures)


# ---- words


def _train_words(
    model: keras.Model, known: WordTargets, training: _Part, held_out: _Part, params: TrainParams
) -> tuple[keras.Model | None, WordTargets, dict[str, Any]]:
    """The head (None if no word is left), the words that it can tell, and how well."""
    columns = tag_columns(params.network)
    # [tracks, segments, tag coordinates] of both parts.
    embeddings = {part: _embeddings(model, part)[:, :, columns] for part in (training, held_out)}
    targets = {
        part: {name: array[part.rows].astype(np.float32) for name, array in known.targets.items()}
        for part in (training, held_out)
    }
    head = build_word_head(len(columns), known.words)
    rng = np.random.default_rng(params.seed)

    def batches() -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        while True:
            rows = rng.integers(len(training.rows), size=_BATCH)
            crops = _repeated(rng.integers(_SEGMENTS, size=(_BATCH, _CROPS)), rng)
            inputs = embeddings[training][rows[:, None], crops]
            yield inputs, {name: array[rows] for name, array in targets[training].items()}

    _fit(head, batches, dict.fromkeys(known.words, _known_cross_entropy), params.describe_steps)
    # Calibrate, and keep only words that held-out tracks do not show to be guessed.
    logits = _track_logits(head, embeddings[held_out])
    chosen: dict[str, np.ndarray] = {}
    figures: dict[str, Any] = {}
    for name, words in known.words.items():
        areas = [roc_area(logits[name][:, i], targets[held_out][name][:, i]) for i in range(len(words))]
        # Where held-out tracks test some words of a dimension, those that they cannot test are not said either.
        untested = all(area is None for area in areas)
        chosen[name] = np.array([untested if area is None else area >= _TELLS_APART for area in areas])
        figures |= {f"{name}/{word}": area for word, area, keep in zip(words, areas, chosen[name]) if keep}
        _calibrate_words(head.get_layer(f"{name}_words"), logits[name], targets[held_out][name])
    kept = known.select(chosen)
    return _with_words(head, kept, chosen) if kept.words else None, kept, figures


def _embeddings(model: keras.Model, part: _Part) -> np.ndarray:
    """[tracks, segments, size] float32: ``_SEGMENTS`` evenly spread segments of every track."""
    store, embed = part.store, embedding_function(model)
    names = tuple(model.input)
    embedded = []
    for first in range(0, len(part.rows), _BATCH // _SEGMENTS):
        rows = part.rows[first : first + _BATCH // _SEGMENTS]
        last = store.frames[rows] - store.params.segment_frames
        starts = np.linspace(0, last, _SEGMENTS).round().astype(np.int64).T  # [rows, segments]
        segments = store.read_segments(np.repeat(rows, _SEGMENTS), starts.ravel(), names=names)
        embedded.append(embed(segments).reshape(len(rows), _SEGMENTS, -1))
    return np.concatenate(embedded)


def _known_cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy over what is known; targets [batch, words] are +1, -1 or, where nothing is known, 0."""
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
    ranks = scipy.stats.rankdata(np.concatenate([positive, negative]))[: len(positive)]
    # Mann and Whitney's U, as a share of all pairs.
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def _calibrate_words(layer: keras.layers.Layer, logits: np.ndarray, target: np.ndarray) -> None:
    """Platt's scaling of each word on held-out tracks, folded into the layer; too few tracks change nothing."""
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


# ---- tempo and key


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
    bpm = np.asarray(bpm, np.float64)
    low, high = TEMPO_STEPS[0], TEMPO_STEPS[-1]
    octaves = np.ceil(np.maximum(np.log2(low / bpm), 0)) - np.ceil(np.maximum(np.log2(bpm / high), 0))
    bpm = bpm * np.exp2(octaves)
    steps = STEPS_PER_OCTAVE * np.log2(bpm / low)
    bell = np.exp(-0.5 * np.square((np.arange(len(TEMPO_STEPS)) - steps[:, None]) / _TEMPO_BLUR))
    return (bell / bell.sum(1, keepdims=True)).astype(np.float32)


def _tempo_figures(probabilities: np.ndarray, bpm: np.ndarray) -> dict[str, Any]:
    exact, folded = tempo_hits(tempo_estimate(probabilities)[0][:, 0], bpm)
    return {"within 4 %": float(exact.mean()), "octaves folded": float(folded.mean()), "tracks": len(bpm)}


def tempo_hits(estimate: np.ndarray, bpm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which estimates are within 4 % of the tempo, as MIREX counts, and which with octaves folded: [n] bool each."""
    exact = np.abs(estimate / bpm - 1) <= _TEMPO_TOLERANCE
    return exact, octave_distance(estimate, bpm) <= np.log2(1 + _TEMPO_TOLERANCE)


def _key_figures(probabilities: np.ndarray, keys: np.ndarray) -> dict[str, Any]:
    estimate = probabilities.argmax(axis=1)
    exact, score = (estimate == keys).mean(), key_scores(estimate, keys).mean()
    return {"exact": float(exact), "weighted score": float(score), "tracks": len(keys)}


def key_scores(estimate: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """MIREX' weighted score of each estimated key: 1 exact, .5 a fifth above, .3 relative, .2 parallel."""
    same_mode = estimate // 12 == keys // 12
    score = np.where(same_mode & ((estimate - keys) % 12 == 7), 0.5, 0.0)
    score = np.where(estimate == relative_key(keys), 0.3, score)
    score = np.where(estimate == parallel_key(keys), 0.2, score)
    return np.where(estimate == keys, 1.0, score)


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
    head: keras.Model, task: _Task, name: str, training: _Part, held_out: _Part, params: TrainParams
) -> dict[str, Any]:
    """Trains and calibrates a head in place; how well it does on held-out tracks."""
    store = training.store
    batches = _augmented_batches(task, name, training, params)
    _fit(head, batches, _soft_cross_entropy, params.describe_steps)
    labels = held_out.labels
    rows = held_out.rows[labels.labelled(name)[held_out.rows]]
    if len(rows) < FEWEST:
        return {"tracks": int(len(rows))}
    logits = np.stack([_clip_logits(head, task.source, store, int(row)) for row in rows])
    values = labels.arrays[name][rows].astype(np.float64)
    classes = task.soft_labels(values)
    _calibrate_classes(head.get_layer("logits"), logits, classes)
    return task.figures(scipy.special.softmax(logits, axis=1), values)


def _augmented_batches(
    task: _Task, name: str, training: _Part, params: TrainParams
) -> Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Crops of labelled tracks, at any tempo or in any key."""
    store, length = training.store, training.store.params.segment_frames
    rows = training.rows[training.labels.labelled(name)[training.rows]]
    values = training.labels.arrays[name]
    rng = np.random.default_rng(params.seed)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            chosen = rng.choice(rows, _BATCH)
            stretch, transpose, label = np.ones(_BATCH), np.zeros(_BATCH, np.int64), values[chosen].astype(np.float64)
            if task.source == "onset":
                # Half as recorded; a clip must be long enough to be played faster.
                faster = np.exp2(rng.uniform(-MAX_OCTAVES, MAX_OCTAVES, _BATCH))
                free = (rng.random(_BATCH) < 0.5) & (store.frames[chosen] >= frames_needed(length))
                stretch = np.where(free, faster, 1.0)
                label = label * stretch
            else:
                transpose = rng.integers(12, size=_BATCH)
                label = transposed_key(label.astype(np.int64), transpose).astype(np.float64)
            # [batch, crops] first frames.
            last = store.frames[chosen] - frames_spanned(length, stretch)
            starts = _repeated((rng.random((_BATCH, _CROPS)) * (last[:, None] + 1)).astype(np.int64), rng)
            read = store.read_segments(
                np.repeat(chosen, _CROPS), starts.ravel(), np.repeat(stretch, _CROPS), names=(task.source,)
            )[task.source]
            if task.source == "cens":
                read = transposed_chroma(read, np.repeat(transpose, _CROPS))
            yield read.reshape(_BATCH, _CROPS, *read.shape[1:]).astype(np.float32), task.soft_labels(label)

    return batches


def _soft_cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax_cross_entropy_with_logits(target, logits)


def _clip_logits(head: keras.Model, source: str, store: FeatureStore, row: int) -> np.ndarray:
    """[classes]: the mean over the segments of a whole track."""
    starts = whole_segments(int(store.frames[row]), store.params)
    segments = store.read_segments(np.full(len(starts), row), starts, names=(source,))[source]
    return head(tf.cast(segments, tf.float32), training=False).numpy().mean(axis=0)


def _calibrate_classes(layer: keras.layers.Layer, logits: np.ndarray, classes: np.ndarray) -> None:
    """One temperature for all classes (Guo et al., "On calibration of modern neural networks", ICML 2017), folded into
    the layer and into ``logits``.
    """

    def loss(log_scale: float) -> float:
        return float(-(classes * scipy.special.log_softmax(np.exp(log_scale) * logits, axis=1)).sum(1).mean())

    scale = float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=(-3.0, 1.0), method="bounded").x))
    layer.set_weights([scale * weights for weights in layer.get_weights()])
    logits *= scale


# ---- both


def _repeated(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[batch, crops], some rows of which are changed to hold their first crop only."""
    same = rng.random((len(crops), 1)) < _SAME_SEGMENT
    return np.where(same, crops[:, :1], crops)


def _fit(head: keras.Model, batches: Callable[[], Iterator[Any]], loss: Any, steps: int) -> None:
    """Trains a head in place on batches of [batch, crops, ...], by the mean of its logits over the crops."""
    first = next(iter(batches()))
    specification = tf.nest.map_structure(lambda value: tf.TensorSpec(value.shape, value.dtype), first)
    data = tf.data.Dataset.from_generator(batches, output_signature=specification).prefetch(2)
    crops = keras.Input(first[0].shape[1:], name="crops", dtype="float32")
    # [batch, crops, ...] -> [batch * crops, ...] -> [batch * crops, classes] -> [batch, classes]
    logits = head(FoldCrops(name="fold")(crops))
    named = logits if isinstance(logits, dict) else {"classes": logits}
    means = {name: MeanOfCrops(_CROPS, name=name)(value) for name, value in named.items()}
    model = keras.Model(crops, means if isinstance(logits, dict) else means["classes"])
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, decay_steps=max(1, steps))
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, jit_compile=False)
    model.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)


def _track_logits(head: keras.Model, segments: np.ndarray) -> dict[str, np.ndarray]:
    """[tracks, segments, coordinates] -> mean logits [tracks, words] by dimension."""
    flat = tf.constant(segments.reshape(-1, segments.shape[-1]))
    return {
        name: value.numpy().reshape(*segments.shape[:2], -1).mean(axis=1)
        for name, value in head(flat, training=False).items()
    }
