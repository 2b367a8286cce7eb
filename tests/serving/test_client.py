"""Both clients against the embedded server, and against a real one when the environment names it."""

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from client_checks import check_clients_agree, check_errors_are_told

from msim_tf.errors import InputError
from msim_tf.export.status import ServingError
from msim_tf.serving.client import GrpcClient
from msim_tf.serving.rest_client import RestClient


@pytest.fixture(scope="module")
def clients(toy_server):
    with GrpcClient(toy_server.grpc) as by_grpc, RestClient(toy_server.rest) as by_rest:
        yield {"grpc": by_grpc, "rest": by_rest}


@pytest.fixture(params=["grpc", "rest"])
def client(request, clients):
    return clients[request.param]


# "wav" fails on purpose and "endless" never ends; half precision cannot be sent as JSON.
COMPARED = ["serving_default", "mixed", "two", "same", "doubles", "longs", "uneven", "total"]


def test_clients_agree(clients, rng):
    check_clients_agree(clients["grpc"], clients["rest"], "m", COMPARED, rng)


def test_errors_are_told(client):
    check_errors_are_told(client, "m")


@pytest.mark.skipif("MSIM_SERVING_MODEL" not in os.environ, reason="MSIM_SERVING_{GRPC,REST,MODEL} name no server")
def test_a_given_server_passes_the_same_checks(rng):
    model = os.environ["MSIM_SERVING_MODEL"]
    with (
        GrpcClient(os.environ.get("MSIM_SERVING_GRPC", "127.0.0.1:8500")) as by_grpc,
        RestClient(os.environ.get("MSIM_SERVING_REST", "http://127.0.0.1:8501")) as by_rest,
    ):
        check_clients_agree(by_grpc, by_rest, model, None, rng)
        check_errors_are_told(by_grpc, model)
        check_errors_are_told(by_rest, model)


def test_numbers_equal_numpy(client, rng, toy_weights):
    x = rng.normal(size=(7, 3)).astype(np.float32)
    np.testing.assert_allclose(client.predict("m", {"x": x})["y"], x @ toy_weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("signature", "x"),
    [
        ("same", np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3e38], np.float32)),
        ("same", np.float32(0.1)),
        ("same", np.zeros((2, 0), np.float32)),
        ("longs", np.array([2**53 + 1, -(2**63)])),
    ],
)
def test_special_values_pass_unchanged(client, signature, x):
    y = client.predict("m", {"x": x}, signature=signature)["y"]
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x + (signature == "longs"))


def test_strings_pass_as_bytes(client):
    inputs = {
        "a": np.ones((1, 2), np.float32),
        "n": np.ones(1, np.int32),
        "s": np.array(["ä"]),
        "b": np.array([True]),
    }
    outputs = client.predict("m", inputs, signature="mixed", version=2)
    assert outputs["s"].tolist() == outputs["s_bytes"].tolist() == ["ä".encode()]
    assert outputs["s"].dtype == object


def test_metadata(client):
    metadata = client.metadata("m", version=2)
    assert (metadata.name, metadata.version) == ("m", 2)
    assert metadata.signatures["mixed"].inputs["s"].dtype == "object"
    assert metadata.signatures["wav"].inputs["contents"].shape is None
    assert metadata.signatures["serving_default"].outputs["y"].shape == (None, 2)
    assert metadata.signatures["serving_default"].method_name == "tensorflow/serving/predict"


def test_the_operations_error_arrives(client):
    with pytest.raises(ServingError, match="contents must be scalar") as caught:
        client.predict("m", {"contents": np.array([b"a"])}, signature="wav")
    assert caught.value.code == "INVALID_ARGUMENT"


def test_threads_do_not_mix_their_answers(clients, toy_weights):
    def ask(number):
        client = clients["grpc" if number % 2 else "rest"]
        x = np.full((3, 3), number, np.float32)
        return [client.predict("m" if number % 3 else "other", {"x": x})["y"] for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        for number, results in enumerate(pool.map(ask, range(16))):
            expected = np.full((3, 3), number, np.float32) @ toy_weights
            np.testing.assert_allclose(results, [expected] * 10, rtol=1e-6)


def test_a_request_too_large_is_resource_exhausted(client):
    with pytest.raises(ServingError, match="RESOURCE_EXHAUSTED.*arger"):
        client.predict("m", {"x": np.full(1_000_001, 0.123456, np.float32)}, signature="same")
    assert client.status("m")[0].state == "AVAILABLE"


def test_a_timeout_is_deadline_exceeded(client):
    with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
        client.predict("m", {"x": np.float32(0)}, signature="endless", timeout=0.3)


def test_arrays_that_cannot_be_sent(clients):
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: input x: arrays of type complex128"):
        clients["grpc"].predict("m", {"x": np.array(1j)})


@pytest.fixture
def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("kind", [GrpcClient, RestClient])
def test_a_server_that_is_not_there_is_unavailable(kind, closed_port):
    with kind(f"127.0.0.1:{closed_port}") as client:
        with pytest.raises(ServingError, match=f"UNAVAILABLE: .*{closed_port}"):
            client.status("m", timeout=10)
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED: model m is not ready after 0.3 s: .*UNAVAILABLE"):
            client.wait_until_ready("m", timeout=0.3)


@pytest.mark.parametrize("kind", [GrpcClient, RestClient])
def test_a_closed_client_says_so(kind, toy_server):
    client = kind(toy_server.grpc if kind is GrpcClient else toy_server.rest)
    client.close()
    with pytest.raises(ServingError, match="FAILED_PRECONDITION|UNAVAILABLE"):
        client.status("m")


@pytest.mark.parametrize("address", ["http://127.0.0.1:8500", "localhost"])
def test_wrong_grpc_addresses(address):
    with pytest.raises(InputError, match="expected host:port"):
        GrpcClient(address)


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://a:port"])
def test_wrong_rest_addresses(url):
    with pytest.raises(InputError, match="expected e.g. http://127.0.0.1:8501"):
        RestClient(url)


def test_the_environments_proxy_is_not_used(monkeypatch, toy_server, closed_port):
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with GrpcClient(toy_server.grpc) as by_grpc, RestClient(toy_server.rest) as by_rest:
        assert by_grpc.status("m") == by_rest.status("m")


class _NotServing(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = {"/v1/models/page": (502, b"<html>"), "/v1/models/text": (200, b"hello")}[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def test_another_kind_of_server_is_told_apart():
    server = HTTPServer(("127.0.0.1", 0), _NotServing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with RestClient(f"127.0.0.1:{server.server_port}") as client:
            with pytest.raises(ServingError, match="UNKNOWN: HTTP status 502 for GET http://127.0.0.1"):
                client.status("page")
            with pytest.raises(ServingError, match="INTERNAL: the answer is not JSON"):
                client.status("text")
    finally:
        server.shutdown()
        server.server_close()
