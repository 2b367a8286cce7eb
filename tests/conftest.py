"""What every test shares: quiet TensorFlow, two logical CPUs (set before the first operation), small parameters, a seed."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import pytest
import tensorflow as tf

# MirroredStrategy over two logical CPUs makes distribution testable without a GPU.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()],
)

MUSIC = Path(__file__).parent / "data" / "music"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def music() -> Path:
    """The folder of real excerpts that ships with the repository."""
    return MUSIC
