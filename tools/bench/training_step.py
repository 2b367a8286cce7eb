"""The network compiled as training does, with batches of plausible noise: what two sections measure."""

from __future__ import annotations

from typing import Any


def compiled_network(width: float, *, mixed: bool = False) -> Any:
    """The paper's network at ``width``, compiled with its losses and metrics; mixed
    precision as training's on this machine.
    """
    import dataclasses

    import keras

    from msim_tf.model.losses import ConditionalTripletLoss, loss_weights
    from msim_tf.model.metrics import triplet_metrics
    from msim_tf.model.network import build_network
    from msim_tf.model.params import NETWORK_PRESETS
    from msim_tf.params import FEATURE_PRESETS

    network = dataclasses.replace(NETWORK_PRESETS["multi384"], width=width)
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if mixed else "float32")
    try:
        model = build_network(network, FEATURE_PRESETS["paper"])
        weights = loss_weights(network.dimensions)
        model.compile(
            optimizer=keras.optimizers.Adam(1e-5),
            loss={name: ConditionalTripletLoss() for name in weights},
            loss_weights=weights,
            metrics={name: triplet_metrics() for name in weights},
            jit_compile=False,
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return model


def noise_batch(batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and relations of ``batch`` segments, as tensors."""
    import numpy as np
    import tensorflow as tf

    from msim_tf.dimensions import DIMENSION_NAMES
    from msim_tf.params import FEATURE_PRESETS

    rng = np.random.default_rng(0)
    shapes = FEATURE_PRESETS["paper"].input_shapes
    inputs = {
        name: tf.constant(rng.uniform(0, 1, (batch, *shape)).astype(np.float16)) for name, shape in shapes.items()
    }
    relation = rng.choice([-1, 0, 1], (batch, batch)).astype(np.int8)
    relation = np.triu(relation, 1) + np.triu(relation, 1).T
    return inputs, {name: tf.constant(relation) for name in DIMENSION_NAMES}
