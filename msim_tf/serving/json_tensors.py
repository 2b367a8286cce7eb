"""Tensors as the JSON of TensorFlow Serving's REST API, both ways, and the real server's words for what is wrong with a request.

Numbers are converted in bulk: a request is flattened level by level and becomes one NumPy array; only a faulty one is searched value by
value, to say where the fault lies. Text is read and written by orjson; where it cannot, NaN and infinities, by Python's ``json``, whose literals
are the real server's.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from msim_tf.export.protocol import DTYPE_OF_NUMBER
from msim_tf.export.signatures import TensorInfo
from msim_tf.export.status import ServingError

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
_FLOATS = ("float32", "float64")
# Error texts quote the faulty value; nobody reads more of it than this.
_QUOTED_CHARACTERS = 4096


def invalid(message: str) -> ServingError:
    """An INVALID_ARGUMENT error."""
    return ServingError("INVALID_ARGUMENT", message)


def quoted(value: Any) -> str:
    """``value`` as the real server quotes it in errors: JSON with four spaces, cut when long."""
    parts: list[str] = []
    length = 0
    for part in json.JSONEncoder(indent=4, ensure_ascii=False).iterencode(value):
        parts.append(part)
        length += len(part)
        if length > _QUOTED_CHARACTERS:
            return "".join(parts)[:_QUOTED_CHARACTERS] + "..."
    return "".join(parts)


def to_json(value: Any) -> bytes:
    """JSON of nested dicts and lists whose leaves may be from ``json_value``."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def from_json(text: bytes) -> Any:
    """The value of JSON text, NaN and infinities included.

    Raises:
        ValueError: ``json.JSONDecodeError`` if it is no JSON.
        RecursionError: if it is nested too deep.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # json reads what orjson does not, such as NaN, or says where the fault is
        return json.loads(text)


def json_value(array: np.ndarray, *, as_bytes: bool = False) -> Any:
    """What ``to_json`` writes as nested lists (a bare value for rank 0).

    Args:
        array: any shape; finite floats are written with as few digits as bring the same number back.
        as_bytes: write strings as ``{"b64": ...}``, which carries any bytes.

    Raises:
        ServingError: INVALID_ARGUMENT for bytes that are no UTF-8, unless ``as_bytes``.
    """
    if array.dtype.kind in "OSU":
        return _strings_to_json(array, as_bytes).tolist()
    if array.dtype.kind not in "fiub" or array.dtype.kind == "f" and not np.isfinite(array).all():
        return orjson.Fragment(json.dumps(array.tolist()))  # orjson knows no bfloat16 and would write null for NaN
    dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    return np.asarray(array, dtype, order="C")[()]


def json_rows(array: np.ndarray, *, as_bytes: bool = False) -> Sequence[Any]:
    """The ``json_value`` of each row of an array of rank 1 or more."""
    whole = json_value(array, as_bytes=as_bytes)
    if isinstance(whole, orjson.Fragment):  # text of the whole array cannot be divided
        return [json_value(np.asarray(row), as_bytes=as_bytes) for row in array]
    return list(whole)


def _strings_to_json(array: np.ndarray, as_bytes: bool) -> np.ndarray:
    result = np.empty(array.size, object)
    for i, value in enumerate(array.ravel().tolist()):
        data = value.encode() if isinstance(value, str) else value
        result[i] = {"b64": base64.b64encode(data).decode()} if as_bytes else _text(data)
    return result.reshape(array.shape)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise invalid('a string is not UTF-8; the name of a binary output must end in "_bytes"') from None


def json_to_array(value: Any, info: TensorInfo) -> np.ndarray:
    """An array from a JSON value or nested lists, strictly of the input's type.

    Args:
        value: parsed JSON.
        info: the input; only its type matters, its shape is not checked (as in the real server).

    Raises:
        ServingError: INVALID_ARGUMENT or UNIMPLEMENTED with the real server's text.
    """
    shape, leaves = _flattened(value)
    if leaves is None or not _are_of_type(leaves, info):
        raise _fault(value, 0, shape, info) or invalid("Encountered list at unexpected level")
    if info.dtype == "object":
        flat = np.empty(len(leaves), object)
        flat[:] = [_bytes(leaf) for leaf in leaves]
        return flat.reshape(shape)
    with np.errstate(over="ignore"):  # 1e39 is Infinity in float32
        return np.array(leaves, info.dtype).reshape(shape)


def _flattened(value: Any) -> tuple[tuple[int, ...], list[Any] | None]:
    """The shape by the first element of each level, and all leaves, or None if the nesting is not regular."""
    shape: list[int] = []
    level: list[Any] = [value]
    first = value
    while isinstance(first, list):
        if set(map(type, level)) != {list} or set(map(len, level)) != {len(first)}:
            return _first_shape(value), None
        shape.append(len(first))
        level = list(chain.from_iterable(level))
        first = level[0] if level else None
    return tuple(shape), level


def _first_shape(value: Any) -> tuple[int, ...]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _are_of_type(leaves: Sequence[Any], info: TensorInfo) -> bool:
    types = set(map(type, leaves))
    if info.dtype in _FLOATS:
        return types <= {int, float}
    if info.dtype in _INTEGERS:
        return types <= {int} and (not leaves or _in_range(min(leaves), info) and _in_range(max(leaves), info))
    if info.dtype == "bool":
        return types <= {bool}
    return info.dtype == "object" and types <= {str, dict} and (dict not in types or all(map(is_binary, leaves)))


def _in_range(value: int, info: TensorInfo) -> bool:
    limits = np.iinfo(info.dtype)
    return bool(limits.min <= value <= limits.max)


def is_binary(value: Any) -> bool:
    """Whether a JSON value is text or the object ``{"b64": text}``."""
    return isinstance(value, str) or (
        isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)
    )


def _bytes(leaf: str | Mapping[str, str]) -> bytes:
    if isinstance(leaf, str):
        return _utf8(leaf)
    text = leaf["b64"].rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None


def _fault(value: Any, level: int, shape: Sequence[int], info: TensorInfo) -> ServingError | None:
    """The first fault in reading order, in the real server's words."""
    if not isinstance(value, list):
        if level != len(shape):
            return invalid(
                f"JSON Value: {quoted(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
            )
        return _leaf_fault(value, info)
    if level >= len(shape):
        return invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        return invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    return next(filter(None, (_fault(item, level + 1, shape, info) for item in value)), None)


def _leaf_fault(value: Any, info: TensorInfo) -> ServingError | None:
    dtype = DTYPE_OF_NUMBER.get(info.number)
    name = dtype.name if dtype else f"data type {info.number}"
    if info.dtype not in (*_INTEGERS, *_FLOATS, "bool", "object"):
        return ServingError("UNIMPLEMENTED", f"Conversion of JSON Value: {quoted(value)} to type: {name}")
    if _are_of_type([value], info):
        return None
    if info.dtype == "object" and isinstance(value, dict):
        return invalid(f"JSON Value: {quoted(value)} not formatted correctly for base64 data")
    return invalid(f"JSON Value: {quoted(value)} Type: {_json_type(value)} is not of expected type: {name}")


def _json_type(value: Any) -> str:
    names = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number", type(None): "Null"}
    return str(value) if isinstance(value, bool) else names[type(value)]
