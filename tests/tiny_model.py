"""One tiny exported model for all tests of a process that need a genuine one."""

import dataclasses
import functools
import tempfile
from pathlib import Path

from synthetic import SMALL


@functools.cache
def tiny_model_path() -> Path:
    """saved_models/tiny with one version: the network at its smallest."""
    import keras

    from msim_tf.export.export import export_model
    from msim_tf.model.network import build_network
    from msim_tf.model.params import NETWORK_PRESETS

    keras.utils.set_random_seed(7)  # the same weights, whichever test asks first
    network = dataclasses.replace(NETWORK_PRESETS["single384"], width=0.03, embedding_size=24)
    base = Path(_folder().name) / "tiny"
    export_model(build_network(network, SMALL), network, SMALL, base, training={})
    return base


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="msim-test-")  # removed when the process ends
