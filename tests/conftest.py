"""What every test shares: quiet TensorFlow, two logical CPUs (set before the first
operation), small parameters, a seed.
"""

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core of its own; more threads would only contend. Programs that a test starts inherit this.
    for variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    # Two workers that compile librosa's functions at the same time spoil the cache that they would share: numba then
    # loads code that crashes, for good.
    worker = f"msim-numba-{os.getuid()}-{os.environ['PYTEST_XDIST_WORKER']}"
    os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / worker))

import keras
import numpy as np
import pytest
import shared
import tensorflow as tf
from synthetic import SMALL, some_labels, write_clip

# MirroredStrategy over two logical CPUs makes distribution testable without a GPU.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()],
)

MUSIC = Path(__file__).parent / "data" / "music"


def pytest_configure(config):
    """Makes the folder that all processes of the run share; the process that made it removes it."""
    folder = shared.start_run()
    if folder is not None:
        config.add_cleanup(lambda: shared.end_run(folder))


@pytest.fixture(scope="session", autouse=True)
def nobodys_settings(tmp_path_factory):
    """Nobody's own settings, nor the library that they use by default, change what a test sees."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("MSIM_MODEL", "MSIM_LIBRARY", "MSIM_CONFIG"):
            patch.delenv(variable, raising=False)
        for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(variable, str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    """Seeds the initial weights, so that a test that passes once passes always."""
    keras.utils.set_random_seed(7)


@pytest.fixture(scope="module")
def thin_blocks():
    """Networks that a module's tests build are thin; see ``thin_network``."""
    import thin_network

    with thin_network.thin_blocks():
        yield


@pytest.fixture
def inception_blocks(monkeypatch):
    """The paper's blocks, in a module of ``thin_blocks``: for tests whose network has to learn."""
    import thin_network

    from msim_tf.model import network

    monkeypatch.setattr(network, "_inception_block", thin_network.inception_block)


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
def clips_folder():
    """Twelve clips of 2 to 4 s by four artists."""

    def write(folder):
        for i in range(12):
            write_clip(folder / f"artist{i % 4}" / f"{i:02d}.wav", 2 + i % 3, i)

    return shared.made_once("clips", write)


@pytest.fixture(scope="session")
def store(clips_folder):
    """The opened feature store of ``clips_folder``, without labels."""
    from msim_tf.data.store import FeatureStore
    from msim_tf.data.writer import extract_folder

    return FeatureStore(shared.made_once("features", lambda path: extract_folder(clips_folder, path, SMALL)))


@pytest.fixture(scope="session")
def labelled_store(store):
    """A copy of ``store`` with labels in every dimension."""
    from msim_tf.data.store import FeatureStore
    from msim_tf.data.store_database import write_labels

    def label(path):
        shutil.copytree(store.path, path / "features")
        write_labels(path / "features", some_labels(store.identifiers))

    return FeatureStore(shared.made_once("labelled", label) / "features")


@pytest.fixture(scope="session")
def toy_version():
    """A version directory of the toy model, with bias 0."""
    from toy_model import export_toy

    return shared.made_once("toy", export_toy)


@pytest.fixture(scope="session")
def biased_version():
    """The toy model with bias 100."""
    from toy_model import export_toy

    return shared.made_once("toy-biased", lambda path: export_toy(path, 100.0))


@pytest.fixture(scope="session")
def toy_weights():
    """[3, 2] the toy model's weights."""
    from toy_model import WEIGHTS

    return WEIGHTS


@pytest.fixture(scope="session")
def two_replicas():
    """MirroredStrategy over two logical CPUs. One for all tests of a process: without NCCL every new one numbers its
    collective operations from the same start, and two of different shapes under one number abort each other."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
