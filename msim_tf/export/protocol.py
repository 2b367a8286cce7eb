"""The protobuf messages of TensorFlow Serving that a client needs, without TensorFlow.

Importing the genuine ``tensorflow_serving`` classes imports all of TensorFlow (seconds, and half a gigabyte). The
messages are written here as tables of field numbers, compatible on the wire, in a *private* descriptor pool: they never
clash with the genuine ones in one process. Enumerations are plain ``int32`` (the same varint); fields that no client
uses are left out, protobuf keeps them as unknown.

``tensor_array`` and the two writers take the genuine ``TensorProto`` as well, since
they only use the names of its fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# A tensor above this cannot have been sent honestly (protobuf stops at 2 GB), only claimed by
# the rule that repeats the last value.
MAX_TENSOR_BYTES = 2**31

_PACKAGE = "msim.wire"

# message: {field: (number, type)}; a type is a scalar, a message of this table,
# "repeated T" or "map T" (from string to T).
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorShapeProto": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "version_number": (3, "int32"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "double_val": (6, "repeated double"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
        "bool_val": (11, "repeated bool"),
        "half_val": (13, "repeated int32"),
        "uint32_val": (16, "repeated uint32"),
        "uint64_val": (17, "repeated uint64"),
    },
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {"name": (1, "string"), "version": (2, "Int64Value"), "signature_name": (3, "string")},
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "map TensorProto"),
        "output_filter": (3, "repeated string"),
    },
    "PredictResponse": {"outputs": (1, "map TensorProto"), "model_spec": (2, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32"), "status": (3, "StatusProto")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "GetModelStatusResponse": {"model_version_status": (1, "repeated ModelVersionStatus")},
    "TensorInfo": {"name": (1, "string"), "dtype": (2, "int32"), "tensor_shape": (3, "TensorShapeProto")},
    "SignatureDef": {"inputs": (1, "map TensorInfo"), "outputs": (2, "map TensorInfo"), "method_name": (3, "string")},
    "SignatureDefMap": {"signature_def": (1, "map SignatureDef")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "repeated string")},
    "GetModelMetadataResponse": {"model_spec": (1, "ModelSpec"), "metadata": (2, "map Any")},
}


@dataclass(frozen=True)
class DType:
    """One element type of tensors.

    Attributes:
        number: ``tensorflow.DataType``.
        name: TensorFlow's short name, e.g. "float"; "DT_" and its capitals are the name in JSON.
        numpy: NumPy's name; strings are arrays of ``object`` that hold bytes.
        field: the typed field of ``TensorProto``.
    """

    number: int
    name: str
    numpy: str
    field: str


DTYPES = (
    DType(1, "float", "float32", "float_val"),
    DType(2, "double", "float64", "double_val"),
    DType(3, "int32", "int32", "int_val"),
    DType(4, "uint8", "uint8", "int_val"),
    DType(5, "int16", "int16", "int_val"),
    DType(6, "int8", "int8", "int_val"),
    DType(7, "string", "object", "string_val"),
    DType(9, "int64", "int64", "int64_val"),
    DType(10, "bool", "bool", "bool_val"),
    DType(17, "uint16", "uint16", "int_val"),
    DType(19, "half", "float16", "half_val"),
    DType(22, "uint32", "uint32", "uint32_val"),
    DType(23, "uint64", "uint64", "uint64_val"),
)
DTYPE_OF_NUMBER = {dtype.number: dtype for dtype in DTYPES}
_DTYPE_OF_NUMPY = {np.dtype(dtype.numpy): dtype for dtype in DTYPES}


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    """Adds a field to ``message``; a map is what protoc makes of it: a repeated nested message marked ``map_entry``."""
    # "map T": a nested message of key and value, of which the field is then a repeated one.
    modifier, _, kind = kind.rpartition(" ")
    if modifier == "map":
        entry = message.nested_type.add(name=name.title().replace("_", "") + "Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, kind)
        kind = f"{message.name}.{entry.name}"

    # Types of the table's own messages begin with a capital, protobuf's scalars with a small letter.
    proto = descriptor_pb2.FieldDescriptorProto
    label = proto.LABEL_REPEATED if modifier else proto.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, label=label)
    if kind[0].isupper():
        field.type = proto.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    else:
        field.type = proto.Type.Value(f"TYPE_{kind.upper()}")


def _message_classes() -> dict[str, Any]:
    """The Python classes of all messages in the table, by name."""
    # The table as the descriptor of one file, as protoc would make it.
    file = descriptor_pb2.FileDescriptorProto(name="msim/wire.proto", package=_PACKAGE, syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind) in fields.items():
            _add_field(message, name, number, kind)

    # A pool of our own, so that nothing else in the process can clash with these names.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    descriptors = {name: pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in _MESSAGES}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in descriptors.items()}


_CLASSES = _message_classes()
TensorProto: Any = _CLASSES["TensorProto"]
PredictRequest: Any = _CLASSES["PredictRequest"]
PredictResponse: Any = _CLASSES["PredictResponse"]
GetModelStatusRequest: Any = _CLASSES["GetModelStatusRequest"]
GetModelStatusResponse: Any = _CLASSES["GetModelStatusResponse"]
GetModelMetadataRequest: Any = _CLASSES["GetModelMetadataRequest"]
GetModelMetadataResponse: Any = _CLASSES["GetModelMetadataResponse"]
SignatureDefMap: Any = _CLASSES["SignatureDefMap"]


def dtype_of(array: np.ndarray) -> DType:
    """The tensor type of an array; text and bytes of any width count as strings.

    Raises:
        ValueError: if tensors of that type cannot be sent.
    """
    if array.dtype.kind in "SU":
        return DTYPE_OF_NUMBER[7]
    dtype = _DTYPE_OF_NUMPY.get(array.dtype.newbyteorder("="))
    if dtype is None:
        raise ValueError(f"arrays of type {array.dtype} cannot be sent; expected one of {[d.numpy for d in DTYPES]}")
    return dtype


def byte_strings(array: np.ndarray) -> list[bytes]:
    """The elements of an array of bytes or text in row-major order; text becomes UTF-8.

    Raises:
        ValueError: if an element is neither.
    """
    values = [value.encode() if isinstance(value, str) else value for value in array.ravel().tolist()]
    if not all(isinstance(value, bytes) for value in values):
        raise ValueError("an array of objects may hold only bytes and text")
    return values


def _write_header(proto: Any, array: np.ndarray) -> DType:
    """Writes type and shape, and gives the type."""
    dtype = dtype_of(array)
    proto.dtype = dtype.number
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    return dtype


def write_tensor(proto: Any, array: np.ndarray) -> None:
    """Fills an empty ``TensorProto`` the short way: raw little-endian content (strings: ``string_val``).

    Args:
        proto: an empty TensorProto, of this module or genuine.
        array: any shape.

    Raises:
        ValueError: if arrays of that type cannot be sent.
    """
    dtype = _write_header(proto, array)
    if dtype.name == "string":
        proto.string_val.extend(byte_strings(array))
    else:
        proto.tensor_content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def write_typed_tensor(proto: Any, array: np.ndarray) -> None:
    """Fills an empty ``TensorProto`` as TensorFlow Serving answers: in the typed fields.

    Arguments as ``write_tensor``.
    """
    dtype = _write_header(proto, array)
    # Half floats travel as the integers of their bits, everything else as numbers.
    if dtype.name == "string":
        values: Any = byte_strings(array)
    else:
        values = (array.view(np.uint16) if dtype.name == "half" else array).ravel().tolist()
    getattr(proto, dtype.field).extend(values)


def tensor_size(proto: Any) -> int:
    """How many elements a ``TensorProto`` declares, however few it holds.

    Raises:
        ValueError: if its shape is none.
    """
    # TensorFlow ignores ``unknown_rank`` in a tensor: its sizes count.
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if min(shape, default=0) < 0:
        raise ValueError(f"{shape} is not the shape of a tensor")
    return math.prod(shape)


def tensor_array(proto: Any, *, max_bytes: int = MAX_TENSOR_BYTES) -> np.ndarray:
    """The array of a ``TensorProto``, from raw content or typed fields.

    TensorFlow's rules: of fewer typed values than elements the last one is repeated, none at all
    means zeros, and of more the first count.

    Args:
        proto: a TensorProto, of this module or genuine.
        max_bytes: a larger array is refused before it is made.

    Returns:
        A writable array; strings as ``object`` holding bytes.

    Raises:
        ValueError: if the type is unknown, the shape is no shape, or values and shape do not fit.
    """
    dtype = DTYPE_OF_NUMBER.get(proto.dtype)
    if dtype is None:
        raise ValueError(f"tensors of data type {proto.dtype} are not supported")
    # The declared size first: by the rule that repeats the last value, a few bytes can claim any number of elements.
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    size = tensor_size(proto)
    if size * np.dtype(dtype.numpy).itemsize > max_bytes:
        raise ValueError(f"a tensor of shape {shape} is larger than {max_bytes} bytes")

    if proto.tensor_content:
        # [number of values] of the raw content, which is little-endian; a writable copy in the machine's own order.
        if dtype.name == "string":
            raise ValueError("strings in tensor_content are not supported")
        little_endian = np.dtype(dtype.numpy).newbyteorder("<")
        if len(proto.tensor_content) % little_endian.itemsize:
            raise ValueError(f"{len(proto.tensor_content)} bytes are no whole number of {dtype.name} values")
        values = np.frombuffer(proto.tensor_content, little_endian).astype(dtype.numpy)
    else:
        # Those of the typed field, ``size`` at most. Half floats come as the integers of their bits.
        bits = np.array(getattr(proto, dtype.field), np.uint16 if dtype.name == "half" else dtype.numpy)
        values = (bits.view(dtype.numpy) if dtype.name == "half" else bits)[:size]

        # -> [size]: what is missing repeats the last value, or is zero where there is none.
        if len(values) < size:
            last = values[-1] if len(values) else (b"" if dtype.name == "string" else 0)
            values = np.concatenate([values, np.full(size - len(values), last, dtype.numpy)])
    if len(values) != size:
        raise ValueError(f"{len(values)} values do not fill a tensor of shape {shape}")
    return values.reshape(shape)
