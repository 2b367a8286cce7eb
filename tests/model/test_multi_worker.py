"""Two processes train as two replicas of one; a killed host stops the other, and both resume to the same weights."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from train_on_host import Watch, params

from msim_tf.errors import InputError
from msim_tf.model import multi_worker
from msim_tf.model.run import load_run
from msim_tf.model.training import train

pytestmark = pytest.mark.usefixtures("thin_blocks")

TRIED = keras.__version__.rpartition(".")[0] in multi_worker.TRIED_KERAS
several_hosts = pytest.mark.skipif(not TRIED, reason=f"several hosts were not tried with Keras {keras.__version__}")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start_hosts(store, folder, *, heads=False, kill_at=-1):
    """Two processes; the second kills itself after the batch ``kill_at``."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    processes = []
    for index in range(2):
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        arguments = [store.path, folder / "run", folder / f"weights{index}.npz", "heads" if heads else "no"]
        command = [sys.executable, str(Path(__file__).with_name("train_on_host.py")), *map(str, arguments)]
        command.append(str(kill_at if index == 1 else -1))
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return processes


def finish(processes):
    errors = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)


def weights(path):
    with np.load(path) as file:
        return list(file.values())


def history(run):
    with open(run / "history.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_same(store, folder, two_replicas, *, heads):
    """Weights, losses and metrics of the hosts are those of two replicas in this process."""
    watch = Watch()
    expected = train(store, folder / "mirrored", params(heads), strategy=two_replicas, callbacks=[watch])
    for index in range(2):
        for ours, theirs in zip(weights(folder / f"weights{index}.npz"), watch.weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for ours, theirs in zip(history(folder / "run"), history(expected.path), strict=True):
        assert set(ours) == set(theirs) and "val_loss" in ours
        # Of the share of active triplets the mined negatives decide, which rounding may swap.
        smooth = [name for name in theirs if not name.endswith("active_triplets")]
        assert len(smooth) > len(theirs) / 2
        for name in smooth:
            assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
    run = load_run(folder / "run")
    assert run.summary["val_loss"] == pytest.approx(expected.summary["val_loss"], abs=1e-5)
    assert run.model_path.exists() and not (run.path / "backup").exists()


@pytest.mark.slow
@several_hosts
def test_two_hosts_train_as_two_replicas(labelled_store, tmp_path, two_replicas):
    finish(start_hosts(labelled_store, tmp_path, heads=True))
    assert_same(labelled_store, tmp_path, two_replicas, heads=True)
    # One set of event files: the second host has written nothing.
    assert len(list((tmp_path / "run" / "tensorboard" / "train").glob("events*"))) <= 2


@pytest.mark.slow
@several_hosts
def test_a_killed_host_stops_the_other_and_both_resume(labelled_store, tmp_path, two_replicas):
    chief, worker = start_hosts(labelled_store, tmp_path, kill_at=4)
    worker.communicate(timeout=900)
    began = time.monotonic()
    error = chief.communicate(timeout=180)[1]
    assert worker.returncode == -9 and chief.returncode not in (0, None), error
    assert "another host of this training stopped or cannot be reached" in error, error
    assert time.monotonic() - began < 180
    assert len(history(tmp_path / "run")) == 1 and not load_run(tmp_path / "run").summary
    finish(start_hosts(labelled_store, tmp_path))
    assert [int(row["epoch"]) for row in history(tmp_path / "run")] == [0, 1, 2]
    assert_same(labelled_store, tmp_path, two_replicas, heads=False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "TF_CONFIG is malformed"),
        ("[]", "TF_CONFIG is malformed"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "TF_CONFIG is malformed"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker"}}', "TF_CONFIG is malformed"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}', "TF_CONFIG names ps, worker: expected 'worker'"),
    ],
)
def test_a_malformed_configuration_is_one_line(config, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match=message) as error:
        multi_worker.hosts_of_environment()
    assert "\n" not in str(error.value)


def test_hosts_are_numbered_with_the_chief_first():
    cluster = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    for task, place in (({"type": "chief", "index": 0}, 0), ({"type": "worker", "index": 1}, 2)):
        assert multi_worker._cluster(json.dumps({"cluster": cluster, "task": task})) == (3, place)
    assert multi_worker._cluster("") == (1, 0)
    assert multi_worker._cluster('{"cluster": {"worker": ["a:1"]}}') == (1, 0)


def test_other_versions_of_keras_are_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    monkeypatch.setattr(multi_worker, "TRIED_KERAS", ("3.0",))
    with pytest.raises(
        InputError, match=r"was tried with Keras 3\.0, this is Keras .*: install one of those, or unset"
    ):
        multi_worker.hosts_of_environment()
