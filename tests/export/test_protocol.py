"""Our protobuf messages against the genuine classes, byte for byte."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from msim_tf.export import protocol

ARRAYS = [
    np.array([[1.5, -2.0, np.nan], [np.inf, 1e-45, 3e38]], np.float32),
    np.array(0.1, np.float64),
    np.array([-(2**31), 2**31 - 1], np.int32),
    np.array([0, 255], np.uint8),
    np.array([[-300]], np.int16),
    np.array([-128, 127], np.int8),
    np.array([-(2**63), 2**63 - 1], np.int64),
    np.array([True, False]),
    np.array([65535], np.uint16),
    np.array([1.0, 65504.0, 6e-8], np.float16),
    np.array([2**32 - 1], np.uint32),
    np.array([2**64 - 1], np.uint64),
    np.array([[b"a\0b", b""], [b"\xff", "ä".encode()]], object),
    np.array(b"scalar", object),
    np.zeros((0, 3), np.float32),
    np.zeros((2, 0), object),
]
ids = [f"{array.dtype}-{array.shape}" for array in ARRAYS]


@pytest.mark.parametrize("array", ARRAYS, ids=ids)
@pytest.mark.parametrize("write", [protocol.write_tensor, protocol.write_typed_tensor])
def test_tensors_cross_to_the_genuine_class_and_back(array, write):
    ours = protocol.TensorProto()
    write(ours, array)
    genuine = tensor_pb2.TensorProto.FromString(ours.SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(genuine), array)
    back = protocol.tensor_array(protocol.TensorProto.FromString(genuine.SerializeToString()))
    assert back.dtype == array.dtype and back.flags.writeable
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("array", ARRAYS, ids=ids)
def test_tensors_that_tensorflow_makes_are_read(array):
    genuine = tf.make_tensor_proto(array, dtype=tf.string if array.dtype == object else None)
    np.testing.assert_array_equal(
        protocol.tensor_array(protocol.TensorProto.FromString(genuine.SerializeToString())), array
    )
    np.testing.assert_array_equal(protocol.tensor_array(genuine), array)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dtype": types_pb2.DT_FLOAT, "float_val": [1.0, 2.0]}, np.array([1, 2, 2, 2], np.float32)),
        ({"dtype": types_pb2.DT_INT64, "int64_val": [7]}, np.array([7, 7, 7, 7], np.int64)),
        ({"dtype": types_pb2.DT_HALF, "half_val": [0x3C00]}, np.ones(4, np.float16)),
        ({"dtype": types_pb2.DT_STRING, "string_val": [b"x"]}, np.array([b"x"] * 4, object)),
        ({"dtype": types_pb2.DT_BOOL}, np.zeros(4, bool)),
    ],
)
def test_the_last_typed_value_is_repeated(fields, expected):
    genuine = tensor_pb2.TensorProto(**fields)
    genuine.tensor_shape.dim.add(size=4)
    np.testing.assert_array_equal(tf.make_ndarray(genuine), expected)
    np.testing.assert_array_equal(protocol.tensor_array(genuine), expected)


def test_of_more_typed_values_the_first_count():
    genuine = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0, 2.0, 3.0])
    genuine.tensor_shape.dim.add(size=2)
    assert protocol.tensor_array(genuine).tolist() == [1, 2]


def test_an_array_over_the_limit_is_not_made():
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        protocol.tensor_array(_tensor([26], float_val=[1]), max_bytes=100)
    assert protocol.tensor_array(_tensor([25], float_val=[1]), max_bytes=100).shape == (25,)


def _tensor(sizes, **fields):
    proto = protocol.TensorProto(dtype=1, **fields)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (_tensor([2], tensor_content=b"\0" * 4), "1 values do not fill"),
        (_tensor([1], tensor_content=b"\0" * 3), "no whole number"),
        (_tensor([-1], float_val=[1]), "not the shape"),
        (_tensor([2**40, 2**40], float_val=[1]), "larger than"),
        (_tensor([2**30], float_val=[1]), "larger than"),
        (protocol.TensorProto(dtype=0), "data type 0 "),
        (protocol.TensorProto(dtype=20), "data type 20 "),
        (protocol.TensorProto(dtype=7, tensor_content=b"a"), "strings in tensor_content"),
    ],
)
def test_tensors_that_are_none_are_refused(proto, text):
    with pytest.raises(ValueError, match=text):
        protocol.tensor_array(proto)


@pytest.mark.parametrize(
    "array", [np.array([1j]), np.array([None]), np.array([{}]), np.array(["2020"], "datetime64[Y]")]
)
def test_arrays_that_cannot_be_sent_are_refused(array):
    with pytest.raises(ValueError, match="cannot be sent|only bytes and text"):
        protocol.write_tensor(protocol.TensorProto(), array)


def test_text_and_other_byte_orders_are_sent_as_what_they_mean():
    proto = protocol.TensorProto()
    protocol.write_tensor(proto, np.array(["ä", "b"]))
    assert list(proto.string_val) == ["ä".encode(), b"b"]
    proto = protocol.TensorProto()
    protocol.write_tensor(proto, np.array([1.0, 2.0], ">f4"))
    np.testing.assert_array_equal(
        tf.make_ndarray(tensor_pb2.TensorProto.FromString(proto.SerializeToString())), [1.0, 2.0]
    )


def test_a_predict_request_has_the_genuine_bytes():
    ours, genuine = protocol.PredictRequest(), predict_pb2.PredictRequest()
    for request in (ours, genuine):
        request.model_spec.name = "m"
        request.model_spec.version.value = 3
        request.model_spec.signature_name = "s"
        request.output_filter.append("y")
        protocol.write_tensor(request.inputs["x"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert ours.SerializeToString(deterministic=True) == genuine.SerializeToString(deterministic=True)
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()) == genuine


def test_answers_of_the_genuine_classes_are_read():
    response = predict_pb2.PredictResponse()
    response.model_spec.version.value = 5
    protocol.write_typed_tensor(response.outputs["y"], np.ones(2, np.float32))
    ours = protocol.PredictResponse.FromString(response.SerializeToString())
    assert ours.model_spec.version.value == 5
    assert ours.SerializeToString(deterministic=True) == response.SerializeToString(deterministic=True)

    status = get_model_status_pb2.GetModelStatusResponse()
    status.model_version_status.add(version=4, state=30).status.error_message = "fine"
    read = protocol.GetModelStatusResponse.FromString(status.SerializeToString()).model_version_status[0]
    assert (read.version, read.state, read.status.error_message) == (4, 30, "fine")

    signatures = get_model_metadata_pb2.SignatureDefMap()
    signatures.signature_def["s"].inputs["x"].dtype = 1
    signatures.signature_def["s"].inputs["x"].tensor_shape.dim.add(size=-1)
    metadata = get_model_metadata_pb2.GetModelMetadataResponse()
    metadata.metadata["signature_def"].Pack(signatures)
    packed = protocol.GetModelMetadataResponse.FromString(metadata.SerializeToString()).metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    read = protocol.SignatureDefMap.FromString(packed.value).signature_def["s"].inputs["x"]
    assert (read.dtype, read.tensor_shape.dim[0].size) == (1, -1)


def test_every_field_number_and_type_is_the_genuine_one():
    from google.protobuf import descriptor_pb2
    from tensorflow.core.framework import tensor_shape_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import model_pb2

    genuine = {
        "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
        "TensorProto": tensor_pb2.TensorProto,
        "ModelSpec": model_pb2.ModelSpec,
        "TensorInfo": meta_graph_pb2.TensorInfo,
        "SignatureDef": meta_graph_pb2.SignatureDef,
        "ModelVersionStatus": get_model_status_pb2.ModelVersionStatus,
        "PredictRequest": predict_pb2.PredictRequest,
        "PredictResponse": predict_pb2.PredictResponse,
        "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
        "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
        "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
    }
    enum, int32 = descriptor_pb2.FieldDescriptorProto.TYPE_ENUM, descriptor_pb2.FieldDescriptorProto.TYPE_INT32
    for name, message in genuine.items():
        for field in protocol._CLASSES[name].DESCRIPTOR.fields:
            expected = message.DESCRIPTOR.fields_by_name[field.name]
            assert field.number == expected.number, f"{name}.{field.name}"
            assert field.type == (int32 if expected.type == enum else expected.type), f"{name}.{field.name}"


def test_the_client_imports_no_tensorflow():
    code = (
        "import sys, msim_tf.serving.client\n"
        "heavy = ('tensorflow', 'keras', 'tensorflow_serving')\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in heavy))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
