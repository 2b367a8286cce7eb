"""On a genuine standalone cluster: what one machine makes, whoever dies in between."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sabotage import SABOTAGE
from store_contents import contents
from synthetic import SMALL, write_clip
from tiny_model import tiny_model_path

from msim_tf.data import extraction_plan, writer
from msim_tf.embeddings import load_embeddings
from msim_tf.export import embedding
from msim_tf.export.embedder import Embedder
from msim_tf.library.build import update_library
from msim_tf.library.catalog import load_catalog
from msim_tf.library.update_options import UpdateOptions
from tools import spark_cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(spark_cluster.missing()), reason=spark_cluster.missing() or "never"),
]
CLIPS = 12
# msim's own command line, with small features and two files to a job, so that a few files are several jobs.
MSIM = """
import sys
from synthetic import SMALL
from msim_tf.data import extraction_plan
from msim_tf.export import embedding_parts
from msim_tf.params import FEATURE_PRESETS

extraction_plan.CLIPS_PER_SHARD = embedding_parts.TRACKS_PER_JOB = 2
FEATURE_PRESETS["small"] = SMALL
from msim_tf.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Twelve clips; the decoder of one crashes, and one is too short."""
    folder = tmp_path_factory.mktemp("music")
    for number in range(CLIPS):
        write_clip(folder / f"{number:02d}.wav", 2 + number % 2, number)
    write_clip(folder / "04-SIGSEGV.wav", 3, 50)
    write_clip(folder / "07-short.wav", 0.3, 51)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cluster")
    (directory / "sitecustomize.py").write_text(SABOTAGE)
    tests = Path(__file__).parents[1]
    started = spark_cluster.SparkCluster(directory, program=[sys.executable, "-c", MSIM], modules=[tests])
    yield started
    started.close()


@pytest.fixture
def alone(music, tmp_path, monkeypatch):
    """The store that one process makes, with the same decoder."""
    (tmp_path / "decoder").mkdir()
    (tmp_path / "decoder" / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "decoder"))
    monkeypatch.setattr(extraction_plan, "CLIPS_PER_SHARD", 2)
    done = writer.extract_folder(music, tmp_path / "alone", SMALL)
    assert done.clips == CLIPS and len(done.failures) == 2
    return tmp_path / "alone"


def wait_for_a_shard(store, driver):
    """Waits until a first job is finished; returns how many are not."""
    while not list(store.glob("shards/*.json")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    return (CLIPS + 2) // 2 - len(list(store.glob("shards/*.json")))


def test_a_worker_is_killed_and_the_store_is_that_of_one_machine(cluster, music, alone, tmp_path):
    driver = cluster.driver("extract", music, tmp_path / "store", "--features", "small")
    left = wait_for_a_shard(tmp_path / "store", driver)
    cluster.kill_worker(0)
    output, errors = driver.communicate(timeout=900)
    assert left > 2, "the worker was not killed in the middle"
    assert driver.returncode == 1, errors  # two files cannot be used
    assert "12 clips" in output
    assert "left out: 04-SIGSEGV.wav: its decoder crashed (SIGSEGV)" in errors
    assert "left out: 07-short.wav: 0.30 s is shorter than one segment" in errors
    assert contents(tmp_path / "store") == contents(alone)
    cluster.start_worker("worker2")


def test_a_driver_is_killed_and_the_same_command_goes_on(cluster, music, alone, tmp_path):
    store = tmp_path / "store"
    driver = cluster.driver("extract", music, store, "--features", "small")
    assert wait_for_a_shard(store, driver) > 0
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    shutil.copytree(store, tmp_path / "before")
    again = cluster.driver("extract", music, store, "--features", "small")
    output, errors = again.communicate(timeout=900)
    assert again.returncode == 1 and "12 clips" in output, errors
    assert contents(store) == contents(alone)


def test_embeddings_are_those_of_one_machine(cluster, music, tmp_path):
    model = tiny_model_path()
    driver = cluster.driver("embed", music, "--model", model, "--out", tmp_path / "spark.npz")
    output, errors = driver.communicate(timeout=900)
    assert driver.returncode == 1 and "12 tracks" in output, errors
    assert "left out: 04-SIGSEGV.wav: its decoder crashed (SIGSEGV)" in errors
    (tmp_path / "music").mkdir()
    for number in range(CLIPS):
        (tmp_path / "music" / f"{number:02d}.wav").symlink_to(music / f"{number:02d}.wav")
    embedding.embed_source(tmp_path / "music", Embedder(model), tmp_path / "alone.npz")
    spark, alone = load_embeddings(tmp_path / "spark.npz"), load_embeddings(tmp_path / "alone.npz")
    assert spark.identifiers == alone.identifiers and spark.meta == alone.meta
    np.testing.assert_array_equal(spark.embeddings, alone.embeddings)


def test_a_library_is_that_of_one_machine(cluster, music, tmp_path):
    model, library = tiny_model_path(), tmp_path / "library"
    driver = cluster.driver("index", music, library, "--model", model)
    output, errors = driver.communicate(timeout=900)
    assert driver.returncode == 1 and "12 tracks" in output, errors
    assert "left out: 04-SIGSEGV.wav: its decoder crashed (SIGSEGV)" in errors
    embedder = Embedder(model)
    update_library(music, tmp_path / "alone", embedder, UpdateOptions())
    embedder.close()
    spark, alone = (load_catalog(path).open_index() for path in (library, tmp_path / "alone"))
    names = sorted(spark.identifiers)
    # Here nothing sabotages the decoder, so one machine can use the file that crashed it there.
    assert names == sorted({*alone.identifiers} - {"04-SIGSEGV.wav"})
    np.testing.assert_array_equal(spark.vectors(names), alone.vectors(names))
    assert [spark.metadata(name) for name in names] == [alone.metadata(name) for name in names]
