"""The body of a REST predict request and of its answer: TensorFlow Serving's row and columnar formats. Pure functions, no HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from msim_tf.export.signatures import Signature, TensorInfo
from msim_tf.export.status import ServingError
from msim_tf.serving.json_tensors import (
    from_json,
    invalid,
    is_binary,
    json_rows,
    json_to_array,
    json_value,
    quoted,
    to_json,
)

# What Python's parser says, in the words of the real server's.
_PARSE_ERRORS = {
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Expecting ',' delimiter": "Missing a comma or ] after an array element.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Extra data": "The document root must not be followed by other values.",
}


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        ServingError: INVALID_ARGUMENT if it is empty, no JSON, or no object.
    """
    if not body.strip():
        raise invalid("JSON Parse error: The document is empty")
    try:
        value = from_json(body)
    except json.JSONDecodeError as error:
        text = _PARSE_ERRORS.get(error.msg, "Invalid value.")
        raise invalid(f"JSON Parse error: {text} at offset: {error.pos}") from None
    except (RecursionError, ValueError):  # nested too deep, a number of thousands of digits, or no UTF-8
        raise invalid("JSON Parse error: Terminate parsing due to Handler error. at offset: 0") from None
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {quoted(value)} Is not object")
    return value


def signature_name(body: Mapping[str, Any]) -> str:
    """The signature asked for; "" means the default.

    Raises:
        ServingError: INVALID_ARGUMENT if it is no string.
    """
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {quoted(body)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def request_inputs(body: Mapping[str, Any], signature: Signature) -> tuple[dict[str, np.ndarray], bool]:
    """The input arrays of a predict request.

    Returns:
        Arrays by name, and whether the request (so the answer too) is in row format.

    Raises:
        ServingError: with the real server's text.
    """
    if "instances" not in body:
        if "inputs" not in body:
            raise invalid("Missing 'inputs' or 'instances' key")
        return _columns(body["inputs"], signature.inputs), False
    if "inputs" in body:
        raise _bad_body(body, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    instances = body["instances"]
    if not isinstance(instances, list):
        raise _bad_body(body, "Excepting 'instances' to be an list/array")
    if not instances:
        raise _bad_body(body, "No values in 'instances' array")
    return _rows(instances, signature.inputs), True


def _bad_body(body: Mapping[str, Any], text: str) -> ServingError:
    return invalid(f"JSON Value: {quoted(body)} {text}")


def _columns(value: Any, inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """Arrays of the columnar format: values by name, or the bare value of a single input."""
    if isinstance(value, dict) and not is_binary(value):
        missing = next((name for name in inputs if name not in value), None)
        if missing is not None:
            raise invalid(f"Missing named input: {missing} in 'inputs' object.")
        return {name: json_to_array(value[name], info) for name, info in inputs.items()}
    if len(inputs) > 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
        )
    return {name: json_to_array(value, info) for name, info in inputs.items()}


def _rows(instances: list[Any], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """Arrays of the row format, batched along a new first axis."""
    if len(inputs) > 1 and not isinstance(instances[0], dict):
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
        )
    named = _is_named(instances[0])
    for position, row in enumerate(instances):
        if named != _is_named(row):
            expected, got = ("object", "list") if named else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {got} at item {position} of input list")
        if named and set(row) != set(inputs):
            raise _wrong_keys(position, row, inputs)
    return {
        name: _batched([row[name] if named else row for row in instances], info, f" key: {name}" if named else "")
        for name, info in inputs.items()
    }


def _is_named(row: Any) -> bool:
    return isinstance(row, dict) and not is_binary(row)


def _wrong_keys(position: int, row: Mapping[str, Any], inputs: Mapping[str, TensorInfo]) -> ServingError:
    unknown = next((name for name in row if name not in inputs), None)
    if unknown is not None:
        return _bad_row(position, f" key: {unknown}", f"JSON object: does not have named input: {unknown}")
    return invalid(
        f"Failed to process element: {position} of 'instances' list. JSON object: {quoted(row)} "
        f"keys must be equal to: {','.join(sorted(inputs))}"
    )


def _bad_row(position: int, key: str, text: str, code: str = "INVALID_ARGUMENT") -> ServingError:
    return invalid(f"Failed to process element: {position}{key} of 'instances' list. Error: {code}: {text}")


def _batched(rows: list[Any], info: TensorInfo, key: str) -> np.ndarray:
    """[rows, ...] one input; converted in bulk, row by row only to find what is wrong."""
    try:
        return json_to_array(rows, info)
    except ServingError as whole:
        error = whole
    first = None
    for position, row in enumerate(rows):
        try:
            array = json_to_array(row, info)
        except ServingError as fault:
            raise _bad_row(position, key, fault.message, fault.code) from None
        first = array if first is None else first
        if array.size != first.size:
            raise _bad_row(position, key, f"Expecting tensor size: {first.size} but got: {array.size}")
        if array.shape != first.shape:
            raise _bad_row(position, key, f"Expecting shape {_shape(first)} but got: {_shape(array)}")
    raise error


def _shape(array: np.ndarray) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def response_body(outputs: Mapping[str, np.ndarray], *, row_format: bool) -> bytes:
    """The JSON of a predict answer: a single output stands without its name, each row on one line.

    Raises:
        ServingError: INVALID_ARGUMENT if the row format is asked of outputs that have no common first dimension.
    """
    if not row_format:
        columns = {name: json_value(array, as_bytes=_is_bytes(name)) for name, array in outputs.items()}
        return b'{\n    "outputs": ' + to_json(_unnamed(columns)) + b"\n}"
    _validate_rows(outputs)
    rows = zip(*(json_rows(array, as_bytes=_is_bytes(name)) for name, array in outputs.items()))
    lines = b",\n        ".join(to_json(_unnamed(dict(zip(outputs, row)))) for row in rows)
    return b'{\n    "predictions": [' + lines + b"\n    ]\n}"


def _is_bytes(name: str) -> bool:
    return name.endswith("_bytes")


def _unnamed(values: Mapping[str, Any]) -> Any:
    """Values by name; the bare value of a single one."""
    return values if len(values) > 1 else next(iter(values.values()))


def _validate_rows(outputs: Mapping[str, np.ndarray]) -> None:
    size = None
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if size not in (None, len(array)):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}")
        size = len(array)
