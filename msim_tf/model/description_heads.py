"""Heads that say what the network hears: words of each tag dimension, the tempo in bpm, the key.

They are small models of their own beside the network, and none of its subspaces changes when they learn:

* *words* of the tag dimensions, from the tag subspaces of the embedding;
* *tempo*, one of ``theory.TEMPO_STEPS``, from the tempogram's average over time, as a classification of finely spaced
  tempi (Schreiber and Müller, "A single-step approach to musical tempo estimation using a convolutional neural
  network", ISMIR 2018);
* *key*, one of 24, from the average of CENS chroma and of features of its single frames, as heard from each of the
  twelve tonics by one and the same perceptron.

Each gives logits per segment. A track's are the mean over its segments, which for probabilities is their geometric
mean, made to sum to 1 again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from msim_tf.checksums import file_checksum, load_checked_json, save_checked_json
from msim_tf.dimensions import PROBABILITIES, TAG_DIMENSION_NAMES, dimension
from msim_tf.errors import InputError
from msim_tf.model.callbacks import save_model
from msim_tf.model.layers import KeyLogits, Tempogram, Transpositions
from msim_tf.model.network import HEAD_UNITS, chord_statistics, every_frame, layer_normalisation
from msim_tf.model.params import NetworkParams, layout
from msim_tf.params import FeatureParams
from msim_tf.theory import KEYS, STEPS_PER_OCTAVE, TEMPO_STEPS, key_name, near_tempo_steps

WORDS = "words"  # the head of all tag dimensions
CANDIDATES = "_candidates"  # bpm of the likeliest tempo, its half and its double
CONFIDENCE = "_confidence"  # their probabilities
_DESCRIPTION_FILE = "description.json"
_FORMAT, _FORMAT_VERSION = "msim-description-heads", 1
_CURE = "train again, or restore the run from a copy"
_WORD_UNITS, _TEMPO_UNITS = 256, 256
_DROPOUT = 0.3


@dataclass(frozen=True, eq=False)
class DescriptionHeads:
    """Heads that belong to one network.

    Attributes:
        words: tag dimension -> the words of its logits.
        models: "words", and one for each dimension of kind tempo or key, as far as something was learnt. ``words``
            takes [batch, tag coordinates] and gives a dict by dimension; the others take one input of the network,
            [batch, *shape], and give logits [batch, classes].
        held_out: how well they do on tracks that they did not learn from, for people.
    """

    words: dict[str, tuple[str, ...]]
    models: dict[str, keras.Model]
    held_out: dict[str, Any]

    @property
    def classes(self) -> dict[str, list[Any]]:
        """Dimension -> what its logits are of, in their order: words, tempi in bpm, or names of keys."""
        classes: dict[str, list[Any]] = {name: list(words) for name, words in self.words.items()}
        for name in self.models:
            if name != WORDS:
                tempo = dimension(name).kind == "tempo"
                classes[name] = TEMPO_STEPS.round(4).tolist() if tempo else [key_name(key) for key in range(KEYS)]
        return classes

    def to_json(self) -> dict[str, Any]:
        """What ``msim.json`` says of them."""
        return {"classes": self.classes, "held_out": self.held_out}


def build_word_head(tag_size: int, words: Mapping[str, tuple[str, ...]]) -> keras.Model:
    """[batch, tag coordinates] of the embedding -> dict of logits [batch, words] by dimension."""
    # One hidden layer for all dimensions, so that words of one can use the subspaces of the others.
    embedding = keras.Input((tag_size,), name="tags", dtype="float32")
    hidden = keras.layers.Dense(_WORD_UNITS, activation="relu", name="word_hidden", dtype="float32")(embedding)
    hidden = keras.layers.Dropout(_DROPOUT, name="word_dropout", dtype="float32")(hidden)
    outputs = {
        name: keras.layers.Dense(len(own), name=f"{name}_words", dtype="float32")(hidden) for name, own in words.items()
    }
    return keras.Model(embedding, outputs, name="word_head")


def build_tempo_head(features: FeatureParams, stride: int) -> keras.Model:
    """The onset envelope [batch, frames + lags - 1] -> logits [batch, steps] of ``TEMPO_STEPS``."""
    # [batch, lags, frames] -> [batch, lags]: the average tempogram, its lags standardised against each other.
    onset = keras.Input(features.input_shapes["onset"], name="onset", dtype="float32")
    rows = Tempogram(features.tempogram_lags, stride, name="tempogram")(onset)
    pulse = keras.layers.GlobalAveragePooling1D(data_format="channels_first", name="pulse", dtype="float32")(rows)
    x = layer_normalisation("pulse_contrast")(pulse)

    # -> [batch, steps]: the first layer is that of the network's own head, see ``copy_network_head``.
    for name, units in (("hidden", HEAD_UNITS["onset"]), ("combined", _TEMPO_UNITS)):
        x = keras.layers.Dense(units, activation="relu", name=name, dtype="float32")(x)
        x = keras.layers.Dropout(_DROPOUT, name=f"{name}_dropout", dtype="float32")(x)
    logits = keras.layers.Dense(len(TEMPO_STEPS), name="logits", dtype="float32")(x)
    return keras.Model(onset, logits, name="tempo_head")


def build_key_head(features: FeatureParams, stride: int) -> keras.Model:
    """CENS [batch, 12, frames], of which every ``stride``-th frame is used -> logits [batch, 24]."""
    # [batch * 12, 12, frames]: each of the twelve pitch classes in turn as the tonic.
    cens = keras.Input(features.input_shapes["cens"], name="cens", dtype="float32")
    transposed = Transpositions(name="transpositions", dtype="float32")(every_frame(cens, stride))

    # [batch * 12, 12] and [batch * 12, units]: the average chroma, and the average response to single frames, which
    # hold chords.
    mean = keras.layers.GlobalAveragePooling1D(data_format="channels_first", name="chroma", dtype="float32")(transposed)
    statistics = [layer_normalisation("chroma_contrast")(mean), chord_statistics(transposed, "chords")]
    x = keras.layers.Concatenate(name="key_statistics", dtype="float32")(statistics)
    x = keras.layers.Dense(HEAD_UNITS["cens"], activation="relu", name="hidden", dtype="float32")(x)
    x = keras.layers.Dropout(_DROPOUT, name="hidden_dropout", dtype="float32")(x)

    # [batch * 12, 2] -> [batch, 24]: major and minor on each tonic.
    modes = keras.layers.Dense(2, name="logits", dtype="float32")(x)
    return keras.Model(cens, KeyLogits(name="keys", dtype="float32")(modes), name="key_head")


def copy_network_head(head: keras.Model, model: keras.Model, name: str) -> None:
    """Starts a head of tempo or key where the network's own time-averaged head for that dimension ended.

    Their first layers are the same, and the network has learnt them from more tracks: pairs need no labels.

    Args:
        head: of ``build_tempo_head`` or ``build_key_head``; changed in place.
        model: the network; without a time-averaged head for the dimension nothing is copied.
        name: the dimension.
    """
    of_network = {layer.name: layer for layer in model.layers}
    for own, theirs in (("hidden", f"{name}_hidden"), ("chords_frame_hidden", f"{name}_frame_hidden")):
        if theirs in of_network and own in {layer.name for layer in head.layers}:
            head.get_layer(own).set_weights(of_network[theirs].get_weights())
            # What single frames say of chords stays as the network learnt it: labelled tracks are too few for more.
            head.get_layer(own).trainable = own == "hidden"


def tag_columns(network: NetworkParams) -> list[int]:
    """Which coordinates of the embedding the words are read from: those of the tag dimensions."""
    tags = [name for name in network.dimensions if name in TAG_DIMENSION_NAMES]
    return [int(column) for column in layout(network).mask(tags).nonzero()[0]] if tags else []


def segment_logits(
    heads: DescriptionHeads, network: NetworkParams, inputs: Mapping[str, tf.Tensor], embedding: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The logits of segments.

    Args:
        heads: of this network.
        network: its parameters.
        inputs: what the network takes, each [batch, *shape] float32.
        embedding: [batch, size] of the same segments.

    Returns:
        Dimension -> [batch, words, steps or keys] float32, in the order of ``heads.classes``.
    """
    # Words from the tag coordinates of the embedding, tempo and key from the inputs themselves.
    logits: dict[str, tf.Tensor] = {}
    if WORDS in heads.models:
        logits |= heads.models[WORDS](tf.gather(embedding, tag_columns(network), axis=-1), training=False)
    for name in network.dimensions:
        if name in heads.models:
            source = "onset" if dimension(name).kind == "tempo" else "cens"
            logits[name] = heads.models[name](inputs[source], training=False)
    return {name: logits[name] for name in heads.classes}


def described(logits: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What the signatures give for logits of segments, or for the mean logits of tracks.

    Returns:
        For every dimension "<name>_probabilities" [batch, n]: of words each of its own, of tempi and keys together 1.
        For a tempo also "<name>_candidates", bpm [batch, 3] of the likeliest tempo, its half and its double, and
        "<name>_confidence" [batch, 3], as ``theory.tempo_estimate`` computes them.
    """
    outputs: dict[str, tf.Tensor] = {}
    for name, values in logits.items():
        kind = dimension(name).kind
        # A track has any number of words, but one tempo and one key.
        probabilities = tf.sigmoid(values) if kind == "tag" else tf.nn.softmax(values)
        outputs[name + PROBABILITIES] = probabilities
        if kind == "tempo":
            outputs[name + CANDIDATES], outputs[name + CONFIDENCE] = _tempo_estimate(probabilities)
    return outputs


def _tempo_estimate(probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """``theory.tempo_estimate`` in TensorFlow: [batch, steps] -> bpm and confidence, each [batch, 3]."""
    # [batch, steps]: the probability of each step with its neighbours, and their mean tempo, finer than one step.
    near = tf.constant(near_tempo_steps())
    log_bpm = tf.math.log(tf.constant(TEMPO_STEPS, tf.float32)) / tf.math.log(2.0)
    mass = probabilities @ near
    centre = (probabilities * log_bpm) @ near / tf.maximum(mass, 1e-12)

    # [batch, 3] bpm: the step with most probability around it, then half and double its tempo.
    best = tf.argmax(mass, axis=-1, output_type=tf.int32)[:, None]
    bpm = tf.pow(2.0, tf.gather(centre, best, batch_dims=1) + tf.constant([0.0, -1.0, 1.0]))

    # [batch, 3] confidence: the steps one octave below and above; outside of all steps there is no probability.
    places = best + STEPS_PER_OCTAVE * tf.constant([0, -1, 1])
    inside = tf.cast((places >= 0) & (places < len(TEMPO_STEPS)), tf.float32)
    confidence = tf.gather(mass, tf.clip_by_value(places, 0, len(TEMPO_STEPS) - 1), batch_dims=1)
    return bpm, tf.minimum(confidence * inside, 1.0)


def save_heads(heads: DescriptionHeads, directory: Path) -> None:
    """Writes the heads into a run directory; the file that names them last."""
    # A file for each head; the description has their checksums, in the same order.
    files = [directory / f"describe_{name}.keras" for name in heads.models]
    for file, model in zip(files, heads.models.values()):
        save_model(model, file)
    value = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "words": {name: list(words) for name, words in heads.words.items()},
        "models": list(heads.models),
        "files": {file.name: file_checksum(file) for file in files},
        "held_out": heads.held_out,
    }
    save_checked_json(directory / _DESCRIPTION_FILE, value)


def load_heads(directory: Path) -> DescriptionHeads | None:
    """The heads in a run directory; None if that training made none.

    Raises:
        InputError: if they are damaged.
    """
    file = directory / _DESCRIPTION_FILE
    if not file.exists():
        return None
    value = load_checked_json(file, "the heads of a training run", cure=_CURE, header=(_FORMAT, _FORMAT_VERSION))
    try:
        for name, checksum in value["files"].items():
            if file_checksum(directory / name) != checksum:
                raise InputError(f"{directory / name}: damaged (it does not have its checksum); {_CURE}")
        # Files and heads are stored in the same order.
        paths = [directory / name for name in value["files"]]
        models = {
            name: keras.models.load_model(path, compile=False)
            for name, path in zip(value["models"], paths, strict=True)
        }
        words = {name: tuple(own) for name, own in value["words"].items()}
        return DescriptionHeads(words, models, value["held_out"])
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise InputError(f"{file}: its heads cannot be read ({error}); {_CURE}") from error
