"""Initial weights from an exported model, so that a training continues where another ended.

An export holds its weights in a TensorFlow checkpoint, each under the path that Keras gave it ("genre/kernel").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from msim_tf.errors import InputError


def exported_weights(version: str | Path) -> dict[str, np.ndarray]:
    """The weights of an exported version, by the paths that they had in Keras.

    Args:
        version: ``saved_models/NAME/N``.

    Raises:
        InputError: if it is no exported model, or its checkpoint is damaged.
    """
    # The checkpoint has one tensor per variable under a key of its own; its object graph gives Keras' path of each.
    prefix = Path(version) / "variables" / "variables"
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        weights = {}
        for node in graph.nodes:
            for attribute in node.attributes:
                weights[attribute.full_name] = reader.get_tensor(attribute.checkpoint_key)
        return weights
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise InputError(f"{version}: no exported model, or a damaged one ({str(error).splitlines()[0]})") from error


def assign_exported_weights(model: keras.Model, version: str | Path, *, fresh: tuple[str, ...] = ()) -> None:
    """Gives a network the weights of an exported one of the same shape.

    Args:
        model: the network.
        version: ``saved_models/NAME/N``.
        fresh: layers that an export does not have, as the one that predicts a teacher; they stay as they are.

    Raises:
        InputError: naming a weight that the export lacks or that has another shape there.
    """
    weights = exported_weights(version)
    for weight in model.weights:
        path = weight_path(weight)
        if path.split("/")[0] in fresh:
            continue
        # A network of another width has the same paths, so shapes are compared as well.
        if path not in weights:
            raise InputError(f"{version}: no weight {path}; expected the same network, of the same Keras")
        stored, wanted = weights[path].shape, tuple(weight.shape)
        if stored != wanted:
            raise InputError(f"{version}: {path} is {list(stored)}, this network's is {list(wanted)}")
        weight.assign(weights[path])


def weight_path(weight: Any) -> str:
    """The path of a weight, "genre/kernel"; Keras 2 has it in the name of the variable."""
    return getattr(weight, "path", None) or weight.name.partition(":")[0]
