"""Teaches an exported model to say words, tempo and key, and exports it as its next version.

    python -m tools.add_heads saved_models/open6/3 STORE saved_models/open6 --steps 1000
    python -m tools.add_heads saved_models/open6/5 STORE saved_models/open6 --steps 3000 --keep-words

STORE holds the features and labels that the heads learn from. The network and its subspaces stay as they are: its
weights are read from the version's own checkpoint, and the new version embeds as the old one does, to within 1e-5.
With --keep-words the head that says words stays as well, and only tempo and key learn. Version 4 of open6 was made so
from version 3, and version 6 from version 5.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.errors import InputError
from msim_tf.export.export import export_model
from msim_tf.export.metadata import load_description, load_metadata
from msim_tf.export.servable import Servable
from msim_tf.labels.encoding import encode
from msim_tf.labels.splits import training_rows
from msim_tf.model.description_heads import WORDS, DescriptionHeads, build_word_head, tag_columns
from msim_tf.model.description_training import train_heads_to_describe, train_tempo_and_key
from msim_tf.model.head_fitting import TrackPart
from msim_tf.model.initial_weights import assign_exported_weights
from msim_tf.model.network import build_network, embedding_function
from msim_tf.model.params import TRAIN_PRESETS, NetworkParams, TrainParams
from msim_tf.params import FeatureParams
from tools.corpus.command import run

# Names of network parameters in versions that msim 0.1 exported; None for one that follows from others now.
_RENAMED = {"direct_paths": "time_averaged_heads", "embedding_size": None}


_TOLERANCE = 1e-5  # embeddings are layer-normalised; sums in another order differ by some 1e-6


def network_of_export(version: Path) -> tuple[keras.Model, NetworkParams]:
    """The network of an exported version, with its weights.

    Raises:
        InputError: if a weight of it is not in the version's checkpoint.
    """
    value = load_description(version)
    stored = {_RENAMED.get(name, name): own for name, own in value["network"].items()}
    stored.pop(None, None)
    mean, variance = _mel_statistics(version)
    network = dataclasses.replace(NetworkParams.from_json(stored), mel_mean=mean, mel_variance=variance)
    model = build_network(network, FeatureParams.from_json(value["feature_params"]))
    assign_exported_weights(model, version)
    return model, network


def _mel_statistics(version: Path) -> tuple[float, float]:
    """Mean and variance of the training split's mel-spectrograms, the two constants that the graph has outside of its
    functions; msim.json of versions before 4 has the presets' instead.
    """
    saved = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    scalars = {
        node.name: float(values.ravel()[0])
        for node in graph.node
        if node.op == "Const" and (values := tf.make_ndarray(node.attr["value"].tensor)).size == 1
        if values.dtype == np.float32
    }
    # Every call takes the mean first.
    for node in graph.node:
        captured = [scalars[name] for name in node.input if name in scalars]
        if node.op == "StatefulPartitionedCall" and len(captured) == 2:
            return captured[0], captured[1]
    raise InputError(f"{version}: its graph does not hold the statistics of its inputs")


def word_head_of_export(version: Path, network: NetworkParams) -> DescriptionHeads:
    """The head of an exported version that says words, with its weights, and how well it does.

    Raises:
        InputError: if the version says no words.
    """
    description = load_description(version).get("description") or {"classes": {}}
    words = {name: tuple(own) for name, own in description["classes"].items() if name in TAG_DIMENSION_NAMES}
    if not words:
        raise InputError(f"{version}: it says no words that could be kept; leave out --keep-words")
    head = build_word_head(len(tag_columns(network)), words)
    assign_exported_weights(head, version)
    return DescriptionHeads(words, {WORDS: head}, {WORDS: description["held_out"].get(WORDS, {})})


def add_heads(version: Path, store: FeatureStore, base: Path, params: TrainParams, *, keep_words: bool = False) -> Path:
    """Trains the heads and exports the network with them.

    Args:
        version: the exported version.
        store: features and labels.
        base: ``saved_models/NAME``, below which the new version appears.
        params: its ``describe_steps``, ``validation`` and ``seed`` are used.
        keep_words: whether the version's own head for words stays as it is.

    Returns:
        The new version directory.

    Raises:
        InputError: if the store has other features or teaches nothing, or the network is not read back as it was.
    """
    metadata = load_metadata(version)
    metadata.validate_features(store.params, store.path)
    model, network = network_of_export(version)
    _compare(version, model)
    params = dataclasses.replace(params, network=network)
    labels = encode(store.labels, store.identifiers, network.dimensions, teacher=store.teacher)
    parts = training_rows(
        store.identifiers, store.labels.groups, validation=params.validation, seed=params.seed, split=None
    )
    if keep_words:
        kept = word_head_of_export(version, network)
        training_part, held_out = (TrackPart(store, labels, parts[name]) for name in ("train", "validation"))
        exact = train_tempo_and_key(model, training_part, held_out, params)
        heads = DescriptionHeads(kept.words, kept.models | exact.models, kept.held_out | exact.held_out)
    else:
        heads = train_heads_to_describe(model, store, labels, parts, params)
    if not heads.models:
        raise InputError(f"{store.path}: its labels teach no words, tempo or key")
    training: dict[str, Any] = dict(metadata.training)
    training["description"] = {
        "network of version": metadata.directory.name,
        "steps": params.describe_steps,
        "tracks": {name: len(rows) for name, rows in parts.items()},
    }
    made = export_model(model, network, metadata.features, base, training=training, heads=heads)
    for name, figures in heads.held_out.items():
        print(name, figures)
    return made


def _compare(version: Path, model: keras.Model) -> None:
    """Refuses a network that does not embed as its version does."""
    metadata = load_metadata(version)
    rng = np.random.default_rng(0)
    shapes = metadata.features.input_shapes
    inputs = {name: rng.random((4, *shapes[name])).astype(np.float32) for name in metadata.inputs}
    with Servable.load(version) as servable:
        expected = servable.run("serving_default", inputs)["embedding"]
    difference = float(np.abs(expected - embedding_function(model)(inputs)).max())
    if not difference <= _TOLERANCE:
        raise InputError(f"{version}: its network, built again, embeds differently, by {difference}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", type=Path, help="directory of the exported version")
    parser.add_argument("store", type=Path, help="feature store with labels")
    parser.add_argument("base", type=Path, help="saved_models/NAME, where the next version appears")
    parser.add_argument("--keep-words", action="store_true", help="only tempo and key learn; words stay as they are")
    parser.add_argument("--steps", type=int, default=TRAIN_PRESETS["open6"].describe_steps, help="batches of each head")
    arguments = parser.parse_args()
    params = dataclasses.replace(TRAIN_PRESETS["open6"], describe_steps=arguments.steps)
    store = FeatureStore(arguments.store)
    print(add_heads(arguments.version, store, arguments.base, params, keep_words=arguments.keep_words))
    return 0


if __name__ == "__main__":
    run(main)
