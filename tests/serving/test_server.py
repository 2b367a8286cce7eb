"""The whole server: start and its errors, hot reload under load, several models, signals."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from toy_model import ANY_PORTS, publish

from msim_tf.errors import InputError
from msim_tf.export.status import ServingError
from msim_tf.serving.client import GrpcClient
from msim_tf.serving.rest_client import RestClient
from msim_tf.serving.server import running_server, serve

X = {"x": np.zeros((1, 3), np.float32)}


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "30 s"
        time.sleep(0.02)


def states(client):
    return {status.version: status.state for status in client.status("m")}


def bias(client):
    return float(client.predict("m", X)["y"][0, 0])


def test_hot_reload_loses_no_request(tmp_path, toy_version, biased_version):
    publish(toy_version, tmp_path, "1")
    seen, stop = [], threading.Event()
    with running_server({"m": tmp_path}, ANY_PORTS) as addresses:
        with GrpcClient(addresses.grpc) as by_grpc, RestClient(addresses.rest) as by_rest:
            assert bias(by_grpc) == bias(by_rest) == 0

            def ask():
                while not stop.is_set():
                    seen.append(bias(by_grpc))

            asking = threading.Thread(target=ask)
            asking.start()
            published = publish(biased_version, tmp_path, "2")
            wait_for(lambda: states(by_rest) == {2: "AVAILABLE", 1: "END"})
            assert bias(by_rest) == 100
            wait_for(lambda: seen[-1] == 100)
            published.rename(tmp_path / "gone")
            wait_for(lambda: states(by_rest) == {2: "END", 1: "AVAILABLE"})
            wait_for(lambda: seen[-1] == 0)
            stop.set()
            asking.join()
            assert bias(by_rest) == 0
    assert set(seen) == {0.0, 100.0}
    changes = sum(a != b for a, b in zip(seen, seen[1:], strict=False))
    assert changes == 2


def test_a_broken_version_keeps_the_old_one_serving(tmp_path, toy_version):
    publish(toy_version, tmp_path, "1")
    with running_server({"m": tmp_path}, ANY_PORTS) as addresses, RestClient(addresses.rest) as client:
        (tmp_path / "3").mkdir()
        wait_for(lambda: states(client) == {3: "END", 1: "AVAILABLE"})
        status = client.status("m")[0]
        assert status.code == "NOT_FOUND" and "not a SavedModel" in status.message
        assert bias(client) == 0
        for path in (tmp_path / "3", tmp_path / "1"):
            path.rename(tmp_path / f"gone-{path.name}")
        wait_for(lambda: set(states(client).values()) == {"END"})
        assert client.status("m")[0].code == "NOT_FOUND"  # kept after its removal
        with pytest.raises(ServingError, match=r"NOT_FOUND: Servable not found for request: Latest\(m\)"):
            bias(client)


def test_clients_wait_for_a_server_that_starts_later(tmp_path, toy_version):
    publish(toy_version, tmp_path, "1")
    ports = []
    for _ in range(2):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
    clients = [GrpcClient(f"127.0.0.1:{ports[0]}"), RestClient(f"127.0.0.1:{ports[1]}")]
    ready = []
    threads = [threading.Thread(target=lambda c=c: (c.wait_until_ready("m", 60), ready.append(c))) for c in clients]
    for thread in threads:
        thread.start()
    with running_server({"m": tmp_path}, dataclasses.replace(ANY_PORTS, grpc_port=ports[0], rest_port=ports[1])):
        for thread in threads:
            thread.join()
        assert len(ready) == 2 and [bias(client) for client in clients] == [0, 0]
    for client in clients:
        client.close()


def test_several_models(tmp_path, toy_version, biased_version):
    for name, version in (("a", toy_version), ("b", biased_version)):
        (tmp_path / name).mkdir()
        publish(version, tmp_path / name, "1")
    with running_server({"a": tmp_path / "a", "b": tmp_path / "b"}, ANY_PORTS) as addresses:
        with GrpcClient(addresses.grpc) as client:
            assert [client.predict(name, X)["y"][0, 0] for name in ("a", "b")] == [0, 100]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda base, version: base.rmdir(), "not found; expected a directory with versions"),
        (lambda base, version: None, "has no version directory .* export a model there first"),
        (lambda base, version: (base / "saved_model.pb").touch(), "did you mean its parent"),
        (lambda base, version: (base / "1").mkdir(), "version 1 cannot be loaded: .*not a SavedModel"),
    ],
)
def test_a_model_that_cannot_be_served_is_told_in_one_line(tmp_path, toy_version, prepare, message):
    base = tmp_path / "model"
    base.mkdir()
    prepare(base, toy_version)
    with pytest.raises(InputError, match=message) as caught, running_server({"m": base}, ANY_PORTS):
        pass
    assert str(base) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_models_and_labels(toy_version):
    with pytest.raises(InputError, match="no model to serve"), running_server({}, ANY_PORTS):
        pass
    options = dataclasses.replace(ANY_PORTS, labels={"x": {"stable": 1}})
    with (
        pytest.raises(InputError, match="labels for x, which is not served"),
        running_server({"m": toy_version}, options),
    ):
        pass


@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_a_port_in_use_is_told(tmp_path, toy_version, api):
    publish(toy_version, tmp_path, "1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        options = dataclasses.replace(ANY_PORTS, **{f"{api}_port": listener.getsockname()[1]})
        with (
            pytest.raises(InputError, match="port 127.0.0.1:.* cannot be had: in use"),
            running_server({"m": tmp_path}, options),
        ):
            pass


def test_two_servers_do_not_share_a_port(tmp_path, toy_version):
    publish(toy_version, tmp_path, "1")
    with running_server({"m": tmp_path}, ANY_PORTS) as addresses:
        for field, address in (("grpc_port", addresses.grpc), ("rest_port", addresses.rest)):
            options = dataclasses.replace(ANY_PORTS, **{field: int(address.rsplit(":", 1)[1])})
            with pytest.raises(InputError, match="cannot be had"), running_server({"m": tmp_path}, options):
                pass


def test_a_host_of_another_machine_is_told(tmp_path, toy_version):
    publish(toy_version, tmp_path, "1")
    options = dataclasses.replace(ANY_PORTS, host="192.0.2.1")
    with pytest.raises(InputError, match="192.0.2.1:0 cannot be had"), running_server({"m": tmp_path}, options):
        pass


def test_a_server_can_be_started_again_on_its_ports(tmp_path, toy_version):
    publish(toy_version, tmp_path, "1")
    options = ANY_PORTS
    for _ in range(2):
        with running_server({"m": tmp_path}, options) as addresses, RestClient(addresses.rest) as client:
            assert bias(client) == 0
            ports = [int(address.rsplit(":", 1)[1]) for address in (addresses.grpc, addresses.rest)]
            options = dataclasses.replace(ANY_PORTS, grpc_port=ports[0], rest_port=ports[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_in_order(tmp_path, toy_version, number):
    publish(toy_version, tmp_path, "1")
    before, seen = signal.getsignal(number), []

    def on_start(addresses):
        with RestClient(addresses.rest) as client:
            seen.extend([bias(client), addresses])
        os.kill(os.getpid(), number)

    serve({"m": tmp_path}, ANY_PORTS, on_start=on_start)
    assert seen[0] == 0 and signal.getsignal(number) is before
    with RestClient(seen[1].rest) as client, pytest.raises(ServingError, match="UNAVAILABLE"):
        client.status("m")


SERVE = """
import sys
from msim_tf.serving.server import ServerOptions, serve
options = ServerOptions(grpc_port=0, rest_port=0)
serve({"m": sys.argv[1]}, options, on_start=lambda addresses: print(addresses.rest, flush=True))
print("stopped")
"""


def test_a_process_that_serves_ends_with_success(tmp_path, toy_version):
    publish(toy_version, tmp_path, "1")
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    with process, RestClient(process.stdout.readline().strip()) as client:
        assert bias(client) == 0
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(30) == 0
