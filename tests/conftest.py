"""What every test shares: quiet TensorFlow, two logical CPUs (set before the first operation), small parameters, a seed."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
import tensorflow as tf
from synthetic import SMALL, some_labels, write_clip

# MirroredStrategy over two logical CPUs makes distribution testable without a GPU.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()],
)

MUSIC = Path(__file__).parent / "data" / "music"


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    """Seeds the initial weights, so that a test that passes once passes always."""
    keras.utils.set_random_seed(7)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def music() -> Path:
    """The folder of real excerpts that ships with the repository."""
    return MUSIC


@pytest.fixture(scope="session")
def small_params():
    """Small feature parameters: features in milliseconds."""
    return SMALL


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory):
    """Twelve clips of 2 to 4 s by four artists."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(12):
        write_clip(folder / f"artist{i % 4}" / f"{i:02d}.wav", 2 + i % 3, i)
    return folder


@pytest.fixture(scope="session")
def store(clips_folder, tmp_path_factory):
    """The opened feature store of ``clips_folder``, without labels."""
    from msim_tf.data.store import FeatureStore
    from msim_tf.data.writer import extract_folder

    path = tmp_path_factory.mktemp("store") / "features"
    extract_folder(clips_folder, path, SMALL)
    return FeatureStore(path)


@pytest.fixture(scope="session")
def labelled_store(store, tmp_path_factory):
    """A copy of ``store`` with labels in every dimension."""
    import shutil

    from msim_tf.data.store import FeatureStore, write_labels

    path = tmp_path_factory.mktemp("labelled") / "features"
    shutil.copytree(store.path, path)
    write_labels(path, some_labels(store.identifiers))
    return FeatureStore(path)


@pytest.fixture(scope="session")
def two_replicas():
    """MirroredStrategy over two logical CPUs. One for all tests of a process: without NCCL every new one numbers its collective operations
    from the same start, and two of different shapes under one number abort each other."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
