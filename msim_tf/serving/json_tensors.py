"""Tensors as the JSON of TensorFlow Serving's REST API, both ways.

Numbers are converted in bulk: a request is flattened level by level and becomes one NumPy array; only a faulty one
is searched value by value, to say where the fault lies. Answers are written by orjson; NaN and infinities by
Python's ``json``, whose literals are the real server's.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from msim_tf.export import error_texts as texts
from msim_tf.export.protocol import DTYPE_OF_NUMBER
from msim_tf.export.signatures import TensorInfo
from msim_tf.export.status import ServingError

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
_FLOATS = ("float32", "float64")
# Error texts quote the faulty value; the real server cuts it here.
_QUOTED_BYTES = 256
_INDENT = "    "
# NumPy's limit; TensorFlow's is 254.
MAX_RANK = 64 if int(np.__version__.split(".")[0]) >= 2 else 32


def quoted(value: Any) -> str:
    """``value`` as the real server quotes it in errors: JSON, objects with four spaces,
    lists on one line, cut when long.
    """
    parts: list[str] = []
    length = 0
    for part in _quoted_parts(value, 0):
        parts.append(part)
        length += len(part)
        if length > _QUOTED_BYTES:
            return "".join(parts)[:_QUOTED_BYTES] + "..."
    return "".join(parts)


def _quoted_parts(value: Any, level: int) -> Iterator[str]:
    """The text of ``value`` piece by piece; the reader stops before deep nesting becomes deep recursion."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield ", " if position else "["
            yield from _quoted_parts(item, level + 1)
        yield "]" if value else "[]"
    elif isinstance(value, dict):
        for position, (key, item) in enumerate(value.items()):
            yield ("," if position else "{") + "\n" + _INDENT * (level + 1)
            yield json.dumps(key[:_QUOTED_BYTES], ensure_ascii=False) + ": "
            yield from _quoted_parts(item, level + 1)
        yield "\n" + _INDENT * level + "}" if value else "{}"
    else:
        yield json.dumps(value[:_QUOTED_BYTES] if isinstance(value, str) else value, ensure_ascii=False)


def to_json(value: Any) -> bytes:
    """JSON of nested dicts and lists whose leaves may be from ``json_value``."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def from_json(text: bytes) -> Any:
    """The value of a server's answer, NaN and infinities included.

    Raises:
        ValueError: ``json.JSONDecodeError`` if it is no JSON.
        RecursionError: if it is nested too deep.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # json reads what orjson does not, such as NaN, or says where the fault is
        return json.loads(text.decode("utf-8", "surrogateescape"))


def json_value(array: np.ndarray, *, as_bytes: bool = False) -> Any:
    """What ``to_json`` writes as nested lists (a bare value for rank 0).

    Args:
        array: any shape; finite floats are written with as few digits as bring the same number back.
        as_bytes: write strings as ``{"b64": ...}``. Without it bytes that are not UTF-8 are
            written as they are, like the real server's.
    """
    if array.dtype.kind in "OSU":
        strings = np.empty(array.size, object)
        for i, value in enumerate(array.ravel().tolist()):
            data = value.encode() if isinstance(value, str) else value
            strings[i] = {"b64": base64.b64encode(data).decode()} if as_bytes else _text(data)
        return strings.reshape(array.shape).tolist()
    if array.dtype.kind not in "fiub" or array.dtype.kind == "f" and not np.isfinite(array).all():
        return orjson.Fragment(json.dumps(array.tolist()))  # orjson knows no bfloat16 and would write null for NaN
    # orjson writes arrays in C order and the machine's byte order; float16 is written by way of float32.
    dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    return np.asarray(array, dtype, order="C")[()]


def json_rows(array: np.ndarray, *, as_bytes: bool = False) -> Sequence[Any]:
    """The ``json_value`` of each row of an array of rank 1 or more."""
    whole = json_value(array, as_bytes=as_bytes)
    if isinstance(whole, orjson.Fragment):  # text of the whole array cannot be divided
        return [json_value(np.asarray(row), as_bytes=as_bytes) for row in array]
    return list(whole)


def _text(data: bytes) -> Any:
    """``data`` as a JSON string; what is not UTF-8 in it is written as it is."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = json.dumps(data.decode("utf-8", "surrogateescape"), ensure_ascii=False)
        return orjson.Fragment(text.encode("utf-8", "surrogateescape"))


def json_to_array(value: Any, info: TensorInfo, name: str = "") -> np.ndarray:
    """An array from a JSON value or nested lists, strictly of the input's type.

    Args:
        value: parsed JSON.
        info: the input; only its type matters, its shape is not checked (as in the real server).
        name: the input's name, for the error of lists nested too deep.

    Raises:
        ServingError: INVALID_ARGUMENT or UNIMPLEMENTED with the real server's text.
    """
    shape, leaves = _flattened(value)
    if len(shape) > MAX_RANK:
        raise texts.BAD_TENSOR.error(name=name)
    if leaves is None or not _are_of_type(leaves, info):
        # The search finds what the bulk conversion saw; were it to find nothing, the request would still be refused.
        raise _fault(value, 0, shape, info) or texts.BAD_TENSOR.error(name=name)
    if info.dtype == "object":
        flat = np.empty(len(leaves), object)
        flat[:] = [_bytes(leaf) for leaf in leaves]
        return flat.reshape(shape)
    with np.errstate(over="ignore"):  # 1e39 is Infinity in float32
        return np.array(leaves, info.dtype).reshape(shape)


def _flattened(value: Any) -> tuple[tuple[int, ...], list[Any] | None]:
    """The shape by the first element of each level, and all leaves, or None if the nesting is not regular."""
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    # Level by level: all values are lists of the first one's length, and their items are the next level.
    level: list[Any] = [value]
    for size in shape:
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            return tuple(shape), None
        level = list(chain.from_iterable(level))
    return tuple(shape), level


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
        return leaf.encode("utf-8", "surrogateescape")
    # Blanks are skipped and the padding may be left out.
    text = "".join(leaf["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise texts.BAD_BASE64.error() from None


def _fault(value: Any, level: int, shape: Sequence[int], info: TensorInfo) -> ServingError | None:
    """The first fault in reading order, in the real server's words."""
    if isinstance(value, list):
        if level >= len(shape):
            return texts.UNEXPECTED_LIST.error(level=level, rank=len(shape))
        if len(value) != shape[level]:
            return texts.UNEXPECTED_SIZE.error(actual=len(value), level=level, expected=shape[level])
        return next(filter(None, (_fault(item, level + 1, shape, info) for item in value)), None)
    if level != len(shape):
        return texts.WRONG_LEVEL.error(value=quoted(value), actual=level + 1, expected=len(shape))
    # A leaf at its level: its type must be the input's.
    dtype = DTYPE_OF_NUMBER.get(info.number)
    expected = dtype.name if dtype else f"data type {info.number}"
    if info.dtype not in (*_INTEGERS, *_FLOATS, "bool", "object"):
        return texts.NO_CONVERSION.error(value=quoted(value), expected=expected)
    if _are_of_type([value], info):
        return None
    if info.dtype == "object" and isinstance(value, dict):
        return texts.NO_BASE64_OBJECT.error(value=quoted(value))
    return texts.WRONG_TYPE.error(value=quoted(value), actual=json_type(value), expected=expected)


def json_type(value: Any) -> str:
    """The real server's name of a JSON value's type; "True" and "False" have types of their own."""
    names = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number", type(None): "Null"}
    return str(value) if isinstance(value, bool) else names[type(value)]
