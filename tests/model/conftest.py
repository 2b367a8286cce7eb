"""Fixtures of the model's room."""

import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def two_replicas():
    """MirroredStrategy over two logical CPUs. One for all tests of a process: without NCCL every new one numbers its collective operations
    from the same start, and two of different shapes under one number abort each other."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
