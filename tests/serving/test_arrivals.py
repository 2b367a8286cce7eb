"""gRPC requests that begin and send no message: they end, and others are served meanwhile."""

import threading
import time

import grpc
import numpy as np
import pytest
from toy_model import publish

from msim_tf.serving.client import GrpcClient
from msim_tf.serving.server import ServerOptions, running_server

PREDICT = "/tensorflow.serving.PredictionService/Predict"
THREADS, SECONDS = 2, 8.0


@pytest.fixture(scope="module")
def address(toy_version, tmp_path_factory):
    """A server of eight gRPC requests, two of which run at the same time; messages must arrive within eight seconds."""
    base = tmp_path_factory.mktemp("served")
    publish(toy_version, base, "1")
    options = ServerOptions(grpc_port=0, rest_port=0, grpc_threads=THREADS, body_seconds=SECONDS)
    with running_server({"m": base}, options) as addresses:
        yield addresses.grpc


@pytest.fixture
def stalled(address):
    """Begins a request on a connection of its own and sends no message; returns its future."""
    closing, channels = threading.Event(), []

    def begin():
        def nothing():
            closing.wait(60)
            yield from ()

        channel = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        )
        channels.append(channel)
        return channel.stream_unary(PREDICT).future(nothing())

    yield begin
    closing.set()
    for channel in channels:
        channel.close()


def test_more_stalled_requests_than_threads_do_not_keep_others_out(address, stalled):
    # Four may be awaited: each further one waits here until another has given way, before that would be late itself. A
    # burst of more than eight would be turned away.
    futures, awaited, end = [], 2 * THREADS, time.monotonic() + SECONDS
    for count in range(1, 5 * THREADS + 1):
        futures.append(stalled())
        while sum(future.done() for future in futures) < count - awaited:
            assert time.monotonic() < end, "none gave way"
            time.sleep(0.01)
    with GrpcClient(address) as client:
        outputs = client.predict("m", {"x": np.ones((1, 3), np.float32)}, timeout=30)
    assert outputs["y"].shape == (1, 2)
    for future in futures:
        # Given up for another one, the last four too late.
        with pytest.raises(grpc.RpcError):
            future.result(timeout=30)
        assert future.code() is grpc.StatusCode.CANCELLED


def test_a_request_without_a_message_is_refused(address):
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(PREDICT)(iter(()), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "The request holds no message"
