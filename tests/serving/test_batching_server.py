"""Requests that are joined on the real ``Servable`` and through the real server: the oracle is the same model without batching."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from toy_model import ANY_PORTS, publish

from msim_tf.export.servable import Servable
from msim_tf.export.status import ServingError
from msim_tf.serving.batching import BatchingOptions, BatchingServable
from msim_tf.serving.client import GrpcClient, RestClient
from msim_tf.serving.server import running_server


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "30 s"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def servables(toy_version):
    """The toy model twice: with batching, in which every request waits for others, and without."""
    joined = BatchingServable(Servable.load(toy_version), BatchingOptions(16, 5_000))
    with Servable.load(toy_version) as alone:
        yield joined, alone
    joined.close()


def together(servable, requests):
    """The answer or error of every (signature, feeds, output filter), all asked at the same time."""
    barrier = threading.Barrier(len(requests))

    def ask(request):
        barrier.wait()
        try:
            return servable.run(*request)
        except ServingError as error:
            return str(error)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, requests))


def mixed(n, fill):
    return {
        "a": np.full((n, 2), fill, np.float32),
        "n": np.arange(n, dtype=np.int32),
        "s": np.array([b"\xff%d" % fill, *[b"long text"] * (n - 1)], object),
        "b": np.arange(n) % 2 == 0,
    }


def test_every_kind_of_request_is_answered_as_it_is_alone(servables):
    rng = np.random.default_rng(0)
    requests = [("", {"x": rng.normal(size=(n, 3)).astype(np.float32)}, ()) for n in (1, 2, 5, 1, 20)]
    requests += [("mixed", mixed(n, n), names) for n in (1, 3) for names in ((), ("n",), ("nothing",), ("n", "n"))]
    requests += [("same", {"x": np.float32(n)}, ()) for n in range(3)]  # of unknown rank
    requests += [("uneven", {"x": np.float32([n, n + 1])}, ()) for n in range(3)]  # outputs of another length
    requests += [("total", {"x": np.float32([n, n + 1])}, ()) for n in range(3)]  # and of none
    requests += [("", {"x": np.ones((1, 4), np.float32)}, ()), ("", {"x": np.ones((1, 3))}, ())]  # shape, type
    requests += [("", {"z": np.ones((1, 3), np.float32)}, ()), ("nothing", {}, ()), ("", {}, ())]
    requests += [("two", {"a": np.float32([1, 2]), "b": np.float32([3])}, ())]  # rows that differ
    requests += [("", {"x": np.ones((0, 3), np.float32)}, ()), ("", {"x": np.float32(1)}, ())]
    joined, alone = servables
    for got, request in zip(together(joined, requests), requests, strict=True):
        try:
            expected = alone.run(*request)
        except ServingError as error:
            assert got == str(error)
            continue
        assert list(got) == list(expected)
        for name in got:
            assert got[name].dtype == expected[name].dtype and got[name].shape == expected[name].shape
            if got[name].dtype == object:
                assert got[name].tolist() == expected[name].tolist()
            else:
                np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=1e-6)


def test_a_server_with_batching_runs_less_often_and_answers_the_same(tmp_path, toy_version, toy_weights, monkeypatch):
    publish(toy_version, tmp_path, "1")
    runs, run = [], Servable.run

    def counted(self, signature, feeds, *arguments, **options):
        runs.append(len(feeds["x"]))
        return run(self, signature, feeds, *arguments, **options)

    monkeypatch.setattr(Servable, "run", counted)
    # Every batch waits until it is full: 32 requests of two rows are eight runs, whatever the order in which they come.
    batching = BatchingOptions(max_batch_size=8, batch_timeout_micros=20_000_000)
    options = dataclasses.replace(ANY_PORTS, batching=batching)
    xs = np.random.default_rng(1).normal(size=(32, 2, 3)).astype(np.float32)
    with running_server({"m": tmp_path}, options) as addresses, ThreadPoolExecutor(32) as pool:
        with GrpcClient(addresses.grpc) as by_grpc, RestClient(addresses.rest) as by_rest:
            runs.clear()
            clients = [by_grpc, by_rest] * 16
            answers = list(pool.map(lambda client, x: client.predict("m", {"x": x}, timeout=60)["y"], clients, xs))
            np.testing.assert_allclose(answers, xs @ toy_weights, rtol=1e-6, atol=1e-6)
            assert runs == [8] * 8
            for client in (by_grpc, by_rest):
                with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
                    client.predict("m", {"x": xs[0]}, timeout=0.2)


def test_a_new_version_takes_over_between_batches(tmp_path, toy_version, biased_version):
    publish(toy_version, tmp_path, "1")
    options = dataclasses.replace(ANY_PORTS, batching=BatchingOptions(batch_timeout_micros=1000))
    zero, stop = {"x": np.zeros((1, 3), np.float32)}, threading.Event()
    with running_server({"m": tmp_path}, options) as addresses, GrpcClient(addresses.grpc) as client:

        def asked(_):
            seen = []
            while not stop.is_set():
                seen.append(float(client.predict("m", zero, timeout=30)["y"][0, 0]))
            return seen

        with ThreadPoolExecutor(4) as pool:
            asking = pool.map(asked, range(4))
            publish(biased_version, tmp_path, "2")
            try:
                until(lambda: {s.version: s.state for s in client.status("m")} == {2: "AVAILABLE", 1: "END"})
            finally:
                stop.set()
            seen = list(asking)
        assert client.predict("m", zero)["y"][0, 0] == 100
    assert all(values == sorted(values) and set(values) <= {0.0, 100.0} for values in seen)
