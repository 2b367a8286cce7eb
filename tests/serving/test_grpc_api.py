"""The gRPC services, asked with the genuine stubs: codes and texts by the table measured on the real server."""

import resource

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


@pytest.fixture(scope="module")
def channel(toy_server):
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(toy_server.grpc, options=options) as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def request(name="m", signature="", output_filter=(), version=None, label=None, **inputs):
    result = predict_pb2.PredictRequest(output_filter=output_filter)
    result.model_spec.name = name
    result.model_spec.signature_name = signature
    if version is not None:
        result.model_spec.version.value = version
    if label is not None:
        result.model_spec.version_label = label
    for key, value in inputs.items():
        result.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return result


def failure(call, message, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=60, **options)
    return caught.value.code().name, caught.value.details()


X = np.ones((1, 3), np.float32)


def test_predict(prediction, toy_weights):
    response = prediction.Predict(request(x=X), timeout=60)
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["y"]), X @ toy_weights, rtol=1e-6)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 2, "serving_default")
    assert len(response.outputs["y"].float_val) == 2 and not response.outputs["y"].tensor_content


def test_versions_labels_and_filters(prediction):
    assert prediction.Predict(request(version=2, x=X), timeout=60).model_spec.version.value == 2
    assert prediction.Predict(request(label="stable", x=X), timeout=60).model_spec.version.value == 2
    x = np.arange(3, dtype=np.float32)
    assert list(prediction.Predict(request(signature="total", output_filter=["sum"], x=x), timeout=60).outputs) == [
        "sum"
    ]


MISSING = (
    "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value provided. "
    "Inputs expected to be in the request {z}, or default input alias set: "
)
SIZES = "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}."


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (request(""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (request("none"), "NOT_FOUND", "Servable not found for request: Latest(none)"),
        (request(version=9), "NOT_FOUND", "Servable not found for request: Specific(m, 9)"),
        (request(label="none"), "INVALID_ARGUMENT", "Unrecognized servable version label: none"),
        (request(signature="nope", x=X), "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
        (request(z=X), "INVALID_ARGUMENT", MISSING),
        (request(signature="two", a=X[0]), "INVALID_ARGUMENT", SIZES),
        (request(x=X.astype(float)), "INVALID_ARGUMENT", "Expects arg[0] to be float but double is provided"),
        (request(output_filter=["nah"], x=X), "INVALID_ARGUMENT",
         "output tensor alias not found in signature: nah Outputs expected to be in the set {y}."),
        (request(output_filter=["y", "y"], x=X), "INVALID_ARGUMENT", "duplicate output tensor alias: y"),
    ],
)  # fmt: skip
def test_errors_of_predict(prediction, message, code, text):
    assert failure(prediction.Predict, message) == (code, text)


def test_bad_tensors(prediction):
    message = request(x=X)
    message.inputs["x"].tensor_content = b"abc"
    assert failure(prediction.Predict, message) == ("INVALID_ARGUMENT", "tensor parsing error: x")
    message = request(x=X)
    message.inputs["x"].tensor_shape.dim[0].size = -1
    assert failure(prediction.Predict, message) == ("INVALID_ARGUMENT", "tensor parsing error: x")


@pytest.mark.parametrize("size", [250_001, 2**40, 2**62])
@pytest.mark.parametrize("dtype", [types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE, types_pb2.DT_STRING])
def test_a_tensor_that_declares_more_than_it_sends_is_refused_before_it_is_made(prediction, size, dtype):
    bomb = request()
    bomb.inputs["x"].dtype = dtype
    bomb.inputs["x"].tensor_shape.dim.add(size=size)
    bomb.inputs["x"].float_val.append(1)
    assert bomb.ByteSize() < 64
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert failure(prediction.Predict, bomb)[0] == "RESOURCE_EXHAUSTED"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_the_rules_of_typed_values(prediction):
    """Of more values than elements the first count, of fewer the last is repeated, and unknown_rank means nothing."""
    message = request(signature="same")
    proto = message.inputs["x"]
    proto.dtype = types_pb2.DT_FLOAT
    proto.float_val.extend([1, 2, 3])
    for size, expected in ((2, [1, 2]), (3, [1, 2, 3]), (5, [1, 2, 3, 3, 3])):
        del proto.tensor_shape.dim[:]
        proto.tensor_shape.dim.add(size=size)
        assert tf.make_ndarray(prediction.Predict(message, timeout=60).outputs["y"]).tolist() == expected
    proto.tensor_shape.unknown_rank = True
    assert tf.make_ndarray(prediction.Predict(message, timeout=60).outputs["y"]).tolist() == expected


def test_a_message_that_is_no_protobuf_does_not_end_the_server(channel, prediction):
    raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert failure(raw, b"\xff\xff\xff\xff")[0] == "INTERNAL"
    assert prediction.Predict(request(x=X), timeout=60).outputs


def test_a_message_over_the_limit_is_refused(prediction):
    assert failure(prediction.Predict, request(x=np.zeros(1_000_001, np.float32)))[0] == "RESOURCE_EXHAUSTED"


def test_long_error_messages_are_cut(prediction):
    code, text = failure(prediction.Predict, request(signature="n" * 5000))
    assert (
        code == "FAILED_PRECONDITION" and text.endswith("nnn...TRUNCATED") and len(text) == 1024 + len("...TRUNCATED")
    )


def test_the_deadline_ends_the_run(prediction):
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request(signature="endless", x=np.float32(0)), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert prediction.Predict(request(x=X), timeout=60).outputs


def test_status(model):
    message = get_model_status_pb2.GetModelStatusRequest()
    assert failure(model.GetModelStatus, message) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    message.model_spec.name = "m"
    (status,) = model.GetModelStatus(message, timeout=60).model_version_status
    assert (status.version, status.state) == (2, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert (status.status.error_code, status.status.error_message) == (0, "")
    message.model_spec.version.value = 9
    assert failure(model.GetModelStatus, message) == ("NOT_FOUND", "Could not find version 9 of model m")
    message.model_spec.name = "none"
    message.model_spec.ClearField("version")
    assert failure(model.GetModelStatus, message) == ("NOT_FOUND", "Could not find any versions of model none")


def test_metadata(prediction, toy_version):
    message = get_model_metadata_pb2.GetModelMetadataRequest()
    assert failure(prediction.GetModelMetadata, message) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    message.model_spec.name = "m"
    text = "GetModelMetadataRequest must specify at least one metadata_field"
    assert failure(prediction.GetModelMetadata, message) == ("INVALID_ARGUMENT", text)
    message.metadata_field.append("foo")
    assert failure(prediction.GetModelMetadata, message) == ("INVALID_ARGUMENT", "Metadata field foo is not supported")
    message.metadata_field[:] = ["signature_def"]
    response = prediction.GetModelMetadata(message, timeout=60)
    assert response.model_spec.version.value == 2
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    saved = saved_model_pb2.SavedModel.FromString((toy_version / "saved_model.pb").read_bytes())
    assert dict(signatures.signature_def) == dict(saved.meta_graphs[0].signature_def)


def test_other_methods(prediction, model):
    for method, message, kind in (
        (prediction.Classify, classification_pb2.ClassificationRequest(), "classification"),
        (prediction.Regress, regression_pb2.RegressionRequest(), "regression"),
    ):
        message.model_spec.name = "m"
        code, text = failure(method, message)
        assert code == "INVALID_ARGUMENT" and text.startswith(f"No {kind} inputs found in SignatureDef: ")
    assert failure(prediction.MultiInference, inference_pb2.MultiInferenceRequest())[0] == "UNIMPLEMENTED"
    assert failure(model.HandleReloadConfigRequest, model_management_pb2.ReloadConfigRequest())[0] == "UNIMPLEMENTED"
