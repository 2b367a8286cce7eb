"""The body of a REST predict request and of its answer: TensorFlow Serving's row and columnar formats.

Pure functions, no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from msim_tf.export import error_texts as texts
from msim_tf.export.signatures import Signature, TensorInfo
from msim_tf.export.status import ServingError
from msim_tf.serving.json_parser import parse_json
from msim_tf.serving.json_tensors import is_binary, json_rows, json_to_array, json_type, json_value, quoted, to_json


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        ServingError: INVALID_ARGUMENT if it is empty, no JSON, or no object.
    """
    if not body:
        raise texts.EMPTY_BODY.error()
    value = parse_json(body)
    if not isinstance(value, dict):
        raise texts.NOT_AN_OBJECT.error(value=quoted(value))
    return value


def signature_name(body: Mapping[str, Any]) -> str:
    """The signature asked for; "" means the default.

    Raises:
        ServingError: INVALID_ARGUMENT if it is no string.
    """
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise texts.BAD_SIGNATURE_NAME.error(value=quoted(body))
    return name


def check_examples(body: Mapping[str, Any]) -> None:
    """Checks the body of a classify or regress request as far as the real server does before it looks for the model.

    Raises:
        ServingError: INVALID_ARGUMENT if there are no examples.
    """
    if "examples" not in body:
        raise texts.NO_EXAMPLES.error(value=quoted(body))
    examples = body["examples"]
    if not isinstance(examples, list):
        raise texts.EXAMPLES_NOT_A_LIST.error(value=quoted(body))
    if not examples:
        raise texts.EMPTY_EXAMPLES.error(value=quoted(body))
    for example in examples:
        if not isinstance(example, dict):
            raise texts.EXAMPLE_NOT_AN_OBJECT.error(actual=json_type(example))


def request_inputs(body: Mapping[str, Any], signature: Signature) -> tuple[dict[str, np.ndarray], bool]:
    """The input arrays of a predict request.

    Returns:
        Arrays by name, and whether the request (so the answer too) is in row format.

    Raises:
        ServingError: with the real server's text.
    """
    # Row format has the key "instances", columnar format "inputs"; a request has one of them.
    if "instances" not in body:
        if "inputs" not in body:
            raise texts.NEITHER_KEY.error()
        return _columns(body["inputs"], signature.inputs), False
    if "inputs" in body:
        raise texts.BOTH_KEYS.error(value=quoted(body))
    instances = body["instances"]
    if not isinstance(instances, list):
        raise texts.INSTANCES_NOT_A_LIST.error(value=quoted(body))
    if not instances:
        raise texts.NO_INSTANCES.error(value=quoted(body))
    return _rows(instances, signature.inputs), True


def _columns(value: Any, inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """Arrays of the columnar format: values by name, or the bare value of a single input."""
    if isinstance(value, dict) and not is_binary(value):
        missing = next((name for name in inputs if name not in value), None)
        if missing is not None:
            raise texts.MISSING_NAMED_INPUT.error(name=missing)
        return {name: json_to_array(value[name], info, name) for name, info in inputs.items()}
    if len(inputs) > 1:
        raise texts.PLAIN_INPUTS.error()
    return {name: json_to_array(value, info, name) for name, info in inputs.items()}


def _rows(instances: list[Any], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """Arrays of the row format, batched along a new first axis."""
    if len(inputs) > 1 and not isinstance(instances[0], dict):
        raise texts.PLAIN_INSTANCES.error()
    # All rows are objects of every input, or all are bare values of the only one.
    named = _is_named(instances[0])
    for position, row in enumerate(instances):
        if named != _is_named(row):
            expected, actual = ("object", "list") if named else ("value/list", "object")
            raise texts.MIXED_INSTANCES.error(expected=expected, actual=actual, position=position)
        if named and set(row) != set(inputs):
            unknown = next((name for name in row if name not in inputs), None)
            if unknown is not None:
                raise _bad_row(position, f" key: {unknown}", texts.UNKNOWN_NAMED_INPUT.format(name=unknown))
            raise texts.WRONG_KEYS.error(position=position, value=quoted(row), expected=",".join(sorted(inputs)))
    return {
        name: _batched([row[name] if named else row for row in instances], info, name, named=named)
        for name, info in inputs.items()
    }


def _is_named(row: Any) -> bool:
    return isinstance(row, dict) and not is_binary(row)


def _bad_row(position: int, key: str, message: str, code: str = "INVALID_ARGUMENT") -> ServingError:
    return texts.BAD_INSTANCE.error(position=position, key=key, code=code, message=message)


def _batched(rows: list[Any], info: TensorInfo, name: str, *, named: bool) -> np.ndarray:
    """[rows, ...] one input; converted in bulk, row by row only to find what is wrong."""
    try:
        return json_to_array(rows, info, name)
    except ServingError as whole:
        error = whole
    # The whole does not convert: the first row that is at fault, or that differs from the first one, is named.
    key = f" key: {name}" if named else ""
    first = None
    for position, row in enumerate(rows):
        try:
            array = json_to_array(row, info, name)
        except ServingError as fault:
            raise _bad_row(position, key, fault.message, fault.code) from None
        first = array if first is None else first
        if array.size != first.size:
            raise _bad_row(position, key, texts.WRONG_SIZE.format(expected=first.size, actual=array.size))
        if array.shape != first.shape:
            raise _bad_row(position, key, texts.WRONG_SHAPE.format(expected=_shape(first), actual=_shape(array)))
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
    # Each output gives one value to each row, so all need a first axis, and of one length.
    size = None
    for name, array in outputs.items():
        if not array.ndim:
            raise texts.NO_ROWS.error(name=name)
        if size not in (None, len(array)):
            raise texts.UNEQUAL_ROWS.error(name=name, actual=len(array), expected=size)
        size = len(array)
    rows = zip(*(json_rows(array, as_bytes=_is_bytes(name)) for name, array in outputs.items()))
    lines = b",\n        ".join(to_json(_unnamed(dict(zip(outputs, row)))) for row in rows)
    return b'{\n    "predictions": [' + lines + b"\n    ]\n}"


def _is_bytes(name: str) -> bool:
    return name.endswith("_bytes")


def _unnamed(values: Mapping[str, Any]) -> Any:
    """Values by name; the bare value of a single one."""
    return values if len(values) > 1 else next(iter(values.values()))
