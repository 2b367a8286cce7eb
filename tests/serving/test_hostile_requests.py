"""Whatever a client sends, the server answers with a client's error, logs no traceback, and goes on serving.

The requests come from a seed, which is shown on failure. ``MSIM_FUZZ_SECONDS`` makes it longer, ``MSIM_FUZZ_SEED``
another one.
"""

import json
import logging
import os
import random
import time

import grpc
import httpx
import numpy as np
import pytest
from hostile import grpc_request, http_request, send_grpc, send_http, shown
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import predict_pb2

from msim_tf.serving.client import GrpcClient

SECONDS = float(os.environ.get("MSIM_FUZZ_SECONDS", "6"))
SEED = int(os.environ.get("MSIM_FUZZ_SEED", "0"))
MOST_SECONDS_EACH = 20

# What the server may say: 501 is the real server's answer to unknown methods and to types that JSON cannot carry.
ALLOWED = {200, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 429, 431, 501}
FAULTS_OF_OURS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNAVAILABLE,
}


@pytest.fixture
def no_errors(caplog):
    """Fails the test if anything was logged as an error."""
    with caplog.at_level(logging.ERROR):
        yield
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def check_alive(server):
    with GrpcClient(server.grpc) as client:
        x = np.float32([[1, 0, 0]])
        np.testing.assert_allclose(client.predict("m", {"x": x})["y"], [[1.0, 0.5]], rtol=1e-6)
    answer = httpx.post(f"{server.rest}/v1/models/m:predict", json={"instances": [[1, 0, 0]]}, trust_env=False)
    assert answer.json() == {"predictions": [[1.0, 0.5]]}


def test_rest(toy_server, no_errors):
    draw, deadline, statuses = random.Random(SEED), time.monotonic() + SECONDS, {}
    while time.monotonic() < deadline:
        request = http_request(draw)
        begun = time.monotonic()
        answer = send_http(toy_server.rest, request)
        assert time.monotonic() - begun < MOST_SECONDS_EACH, f"seed {SEED}: {shown(request)}"
        status = int(answer.split(None, 2)[1]) if answer else None
        while status == 100:
            answer = answer.partition(b"\r\n\r\n")[2]
            status = int(answer.split(None, 2)[1]) if answer else None
        assert status in ALLOWED or status is None, f"seed {SEED}: {shown(request)} -> {answer[:300]!r}"
        statuses[status] = statuses.get(status, 0) + 1
    # The requests are nearly right: they reach the model, the parser, and the paths.
    assert statuses.get(400, 0) > 10 and statuses.get(404, 0) > 0, statuses
    check_alive(toy_server)


def test_grpc(toy_server, no_errors):
    draw, deadline, codes = random.Random(SEED), time.monotonic() + SECONDS, {}
    with grpc.insecure_channel(toy_server.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        while time.monotonic() < deadline:
            message = grpc_request(draw)
            method = draw.choice(
                ("PredictionService/Predict",) * 6
                + ("PredictionService/GetModelMetadata", "ModelService/GetModelStatus")
            )
            begun = time.monotonic()
            code = send_grpc(channel, message, method)
            assert time.monotonic() - begun < MOST_SECONDS_EACH, f"seed {SEED}: {shown(message)}"
            if code is grpc.StatusCode.INTERNAL:
                # Only for bytes that are no message at all, as in the real server.
                assert not _is_message(message, method), f"seed {SEED}: {method} {shown(message)}"
            else:
                assert code not in FAULTS_OF_OURS, f"seed {SEED}: {method} {shown(message)} -> {code}"
            codes[code] = codes.get(code, 0) + 1
    assert codes.get(grpc.StatusCode.INVALID_ARGUMENT, 0) > 10, codes
    assert codes.get(grpc.StatusCode.RESOURCE_EXHAUSTED, 0) > 0, codes
    check_alive(toy_server)


def _is_message(data, method):
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

    classes = {
        "PredictionService/Predict": predict_pb2.PredictRequest,
        "PredictionService/GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
        "ModelService/GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
    }
    try:
        classes[method].FromString(data)
    except DecodeError:
        return False
    return True


@pytest.mark.parametrize("nested", [2, 9, 31, 32, 33, 63, 64, 65, 66, 100, 253, 254, 255, 256, 1000])
def test_lists_nested_deep_are_the_clients_fault(toy_server, no_errors, nested):
    deep = "[" * nested + "%s" + "]" * nested
    uneven = "[" * nested + "1" + "]" * (nested - 1) + ", 1]"
    bodies = [
        f'{{"signature_name": "same", "{key}": {value}}}'
        for key in ("inputs", "instances")
        for value in (deep % "1", deep % "", deep % '"text"', deep % '{"x": 1}', uneven)
    ]
    bodies += [f'{{"instances": [{{"x": {deep % "1"}}}]}}', f'{{"signature_name": "wav", "inputs": {deep % "{}"}}}']
    for body in bodies:
        answer = httpx.post(f"{toy_server.rest}/v1/models/m:predict", content=body.encode(), trust_env=False)
        assert answer.status_code in (200, 400), body
        assert answer.json()
    answer = httpx.post(f"{toy_server.rest}/v1/models/m:predict", content=bodies[0].encode(), trust_env=False)
    if nested <= 32:
        assert answer.json() == {"outputs": json.loads(deep % "1")}
    if nested > 64:
        assert (answer.status_code, answer.json()) == (400, {"error": "tensor parsing error: x"})


@pytest.mark.parametrize("rank", [9, 32, 64, 65, 254, 255, 1000])
def test_tensors_of_many_axes_are_the_clients_fault(toy_server, no_errors, rank):
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "m", "same"
    tensor = message.inputs["x"]
    tensor.dtype = types_pb2.DT_FLOAT
    tensor.float_val.append(1.0)
    for _ in range(rank):
        tensor.tensor_shape.dim.add(size=1)
    with grpc.insecure_channel(toy_server.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        code = send_grpc(channel, message.SerializeToString(), "PredictionService/Predict")
    assert code in ((grpc.StatusCode.OK,) if rank <= 32 else (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT))
    if rank > 64:
        assert code is grpc.StatusCode.INVALID_ARGUMENT
