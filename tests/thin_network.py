"""A network that is built and traced in a fraction of the time: one convolution in the place of each Inception block.

It is for tests of what is done with a network: training loops, exports, libraries. Inputs, outputs, layouts, heads and
losses are the real ones. The paper's own network is tested in test_network, test_export and test_shipped_model, and
learns in test_training.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import keras
import pytest

from msim_tf.model import network
from msim_tf.model.params import NETWORK_PRESETS

# The smallest with all three inputs in which one dimension is a mask on the whole and two are heads.
MASK_AND_HEADS = dataclasses.replace(
    NETWORK_PRESETS["multi384"],
    dimensions=("genre", "tempo", "key"),
    width=0.03,
    subspace_width=4,
    time_averaged_heads=True,
)

inception_block = network._inception_block


def _thin_block(x, name, width, *, strides=(2, 2)):
    return keras.layers.Conv2D(
        network.filters(256, width), 3, strides=strides, padding="same", activation="elu", name=f"{name}_3x3"
    )(x)


@contextlib.contextmanager
def thin_blocks() -> Iterator[None]:
    """Networks that are built within have thin blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "_inception_block", _thin_block)
        yield
