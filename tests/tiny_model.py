"""One tiny exported model for all tests that need a genuine one."""

import dataclasses
from pathlib import Path

from shared import made_once
from synthetic import SMALL


def tiny_model_path() -> Path:
    """saved_models/tiny with one version: the network at its smallest."""
    return made_once("tiny", _export)


def _export(base: Path) -> None:
    import keras

    from msim_tf.export.export import export_model
    from msim_tf.model.network import build_network
    from msim_tf.model.params import NETWORK_PRESETS

    keras.utils.set_random_seed(7)  # the same weights, whichever test asks first
    network = dataclasses.replace(NETWORK_PRESETS["single384"], width=0.03, subspace_width=4)
    export_model(build_network(network, SMALL), network, SMALL, base, training={})
