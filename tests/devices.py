"""Strategies over the two logical CPUs that conftest configures."""

import tensorflow as tf


def one_device() -> tf.distribute.Strategy:
    """One of the two, over which MirroredStrategy would else spread."""
    return tf.distribute.MirroredStrategy(["CPU:0"])
