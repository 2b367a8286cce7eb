"""REST bodies: conversion against NumPy and ``json``, error texts against the table measured on the real server."""

import json

import ml_dtypes
import numpy as np
import pytest

from msim_tf.export.protocol import DTYPES
from msim_tf.export.signatures import Signature, TensorInfo
from msim_tf.export.status import ServingError
from msim_tf.serving.json_tensors import from_json, json_to_array, json_value, to_json
from msim_tf.serving.rest_predict import parse_body, request_inputs, response_body, signature_name

NUMBERS = {dtype.name: dtype.number for dtype in DTYPES}


def info(name):
    return TensorInfo(NUMBERS[name], None, "x:0")


def signature(**inputs):
    return Signature({name: info(dtype) for name, dtype in sorted(inputs.items())}, {})


ONE = signature(x="float")
TWO = signature(a="float", b="float")


def test_floats_are_short_and_come_back_exactly(rng):
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    special = np.array([0.0, -0.0, 1e-45, 3.4028235e38], np.float32)
    # NaN has many bit patterns and one literal.
    values = np.concatenate([np.nan_to_num(bits.view(np.float32)), rng.normal(size=1000).astype(np.float32), special])
    back = json_to_array(json.loads(to_json(json_value(values))), info("float"))
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(np.signbit(back), np.signbit(values))


@pytest.mark.parametrize("value", [0.1, 0.2, 1.0, -2.5, 1e-5, 3e10, 123456.0, 0.333333])
def test_numbers_of_up_to_six_digits_are_written_as_such(value):
    assert json.loads(to_json(json_value(np.array([value], np.float32)))) == [value]  # as float64: no digit more


def test_no_float_needs_more_than_nine_digits(rng):
    text = to_json(json_value(rng.normal(size=2000).astype(np.float32))).decode()
    for value in text[1:-1].split(","):
        digits = value.split("e")[0].replace("-", "").replace(".", "").lstrip("0")
        assert len(digits) <= 9


def test_infinities_are_literals():
    assert to_json(json_value(np.array([np.nan, np.inf, -np.inf], np.float32))) == b"[NaN, Infinity, -Infinity]"
    read = json_to_array(from_json(b"[NaN, Infinity, -Infinity, 1e39]"), info("float"))
    np.testing.assert_array_equal(read, np.array([np.nan, np.inf, -np.inf, np.inf], np.float32))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("float", 3, np.float32(3)),
        ("float", [[1, 2.5], [3, 4]], np.array([[1, 2.5], [3, 4]], np.float32)),
        ("double", [0.1], np.array([0.1])),
        ("float", [10**30], np.array([1e30], np.float32)),
        ("int64", [2**63 - 1, -(2**63)], np.array([2**63 - 1, -(2**63)])),
        ("uint8", [], np.zeros(0, np.uint8)),
        ("float", [[], []], np.zeros((2, 0), np.float32)),
        ("bool", [[True], [False]], np.array([[True], [False]])),
        ("string", "ä", np.array("ä".encode(), object)),
        ("string", ["a", {"b64": "/wA="}, {"b64": "/wA"}], np.array([b"a", b"\xff\0", b"\xff\0"], object)),
    ],
)
def test_values_become_arrays(name, value, expected):
    array = json_to_array(value, info(name))
    assert array.dtype == expected.dtype and array.shape == expected.shape
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("float", [1, "a"], 'JSON Value: "a" Type: String is not of expected type: float'),
        ("float", [1, True], "JSON Value: true Type: True is not of expected type: float"),
        ("float", None, "JSON Value: null Type: Null is not of expected type: float"),
        ("int32", [1.5], "JSON Value: 1.5 Type: Number is not of expected type: int32"),
        ("int32", [2**31], f"JSON Value: {2**31} Type: Number is not of expected type: int32"),
        ("bool", [1], "JSON Value: 1 Type: Number is not of expected type: bool"),
        ("string", [1], "JSON Value: 1 Type: Number is not of expected type: string"),
        ("string", [{"b64": "*"}], "Unable to base64 decode"),
        ("string", [{"b64": 1}], 'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data'),
        ("float", [[1, 2], [1]], "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ("float", [1, [2]], "Encountered list at unexpected level: 1 expected < 1"),
        ("float", [[1], 2], "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    ],
)
def test_faults_are_told_in_the_real_servers_words(name, value, message):
    with pytest.raises(ServingError) as caught:
        json_to_array(value, info(name))
    assert (caught.value.code, caught.value.message) == ("INVALID_ARGUMENT", message)


def test_half_precision_is_not_for_rest():
    with pytest.raises(ServingError, match="UNIMPLEMENTED: Conversion of JSON Value: 1.5 to type: half"):
        json_to_array([1.5], info("half"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "JSON Parse error: Missing a name for object member. at offset: 1"),
        (b'{"a" 1}', "JSON Parse error: Missing a colon after a name of object member. at offset: 5"),
        (b'{"a": nope}', "JSON Parse error: Invalid value. at offset: 7"),
        (b"  ", "JSON Parse error: The document is empty. at offset: 2"),
        (b"[1, 2]", "JSON Value: [1, 2] Is not object"),
    ],
)
def test_bodies_that_are_no_request(body, message):
    with pytest.raises(ServingError) as caught:
        parse_body(body)
    assert caught.value.message == message


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a": \xff}', b'{"a": ' + b"9" * 10_000 + b"}"])
def test_bodies_made_to_break_the_parser(body):
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: JSON Parse error"):
        parse_body(body)


def test_signature_names():
    assert signature_name({}) == signature_name({"signature_name": ""}) == ""
    with pytest.raises(ServingError, match="'signature_name' key must be a string value"):
        signature_name({"signature_name": 1})


@pytest.mark.parametrize(
    ("body", "of", "expected", "row_format"),
    [
        ({"instances": [[1, 2], [3, 4]]}, ONE, {"x": [[1, 2], [3, 4]]}, True),
        ({"instances": [1, 2], "ignored": 5}, ONE, {"x": [1, 2]}, True),
        ({"instances": [{"x": [1]}, {"x": [2]}]}, ONE, {"x": [[1], [2]]}, True),
        ({"instances": [{"a": 1, "b": 2}, {"b": 4, "a": 3}]}, TWO, {"a": [1, 3], "b": [2, 4]}, True),
        ({"inputs": 5}, ONE, {"x": 5}, False),
        ({"inputs": {"x": [1, 2]}}, ONE, {"x": [1, 2]}, False),
        ({"inputs": {"a": [1], "b": 2, "extra": "!"}}, TWO, {"a": [1], "b": 2}, False),
        ({"instances": [{"b64": "YQ=="}, "b"]}, signature(s="string"), {"s": [b"a", b"b"]}, True),
        ({"inputs": {"b64": "YQ=="}}, signature(s="string"), {"s": b"a"}, False),
    ],
)
def test_requests_become_inputs(body, of, expected, row_format):
    arrays, rows = request_inputs(body, of)
    assert rows == row_format and {name: array.tolist() for name, array in arrays.items()} == expected


ROW = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: {}"


@pytest.mark.parametrize(
    ("body", "of", "message"),
    [
        ({}, ONE, "Missing 'inputs' or 'instances' key"),
        ({"instances": []}, ONE, "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
        ({"instances": [[1, 2], [3]]}, ONE, ROW.format(1, "Expecting tensor size: 2 but got: 1")),
        ({"instances": [[1, 2], [[3], [4]]]}, ONE, ROW.format(1, "Expecting shape [2] but got: [2,1]")),
        ({"instances": ["a"]}, ONE, ROW.format(0, 'JSON Value: "a" Type: String is not of expected type: float')),
        ({"instances": [{"z": 1}]}, ONE, ROW.format("0 key: z", "JSON object: does not have named input: z")),
        (
            {"instances": [{"a": 1, "b": 2}, {"a": [1], "b": 2}]},
            TWO,
            ROW.format("1 key: a", "Expecting shape [] but got: [1]"),
        ),
        (
            {"instances": [[1]]},
            TWO,
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map",
        ),
        ({"instances": [{"x": 1}, 2]}, ONE, "Expecting object but got list at item 1 of input list"),
        ({"instances": [1, {"x": 2}]}, ONE, "Expecting value/list but got object at item 1 of input list"),
        ({"inputs": {"a": 1}}, TWO, "Missing named input: b in 'inputs' object."),
        ({"inputs": [[1, 2], [3]]}, ONE, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        (
            {"inputs": [1]},
            TWO,
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map",
        ),
    ],
)
def test_wrong_requests_read_as_in_the_real_server(body, of, message):
    with pytest.raises(ServingError) as caught:
        request_inputs(body, of)
    assert (caught.value.code, caught.value.message) == ("INVALID_ARGUMENT", message)


@pytest.mark.parametrize(
    ("body", "end"),
    [
        (
            {"instances": [1], "inputs": 1},
            "} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        ({"instances": 5}, "} Expecting 'instances' to be an list/array"),
    ],
)
def test_wrong_bodies_are_quoted(body, end):
    with pytest.raises(ServingError) as caught:
        request_inputs(body, ONE)
    assert caught.value.message.startswith("JSON Value: {\n    ") and caught.value.message.endswith(end)


def test_a_huge_body_is_not_quoted_whole():
    with pytest.raises(ServingError) as caught:
        request_inputs({"instances": list(range(100_000)), "inputs": 1}, ONE)
    quoted = "".join(f"{number}, " for number in range(100))
    assert caught.value.message.startswith('JSON Value: {\n    "instances": [' + quoted[:200])
    assert len(caught.value.message) < 400


def test_answers_by_row_and_by_column():
    y = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    n = np.array([1, 2])
    assert json.loads(response_body({"y": y}, row_format=True)) == {"predictions": y.tolist()}
    assert json.loads(response_body({"y": y}, row_format=False)) == {"outputs": y.tolist()}
    rows = json.loads(response_body({"y": y, "n": n}, row_format=True))
    assert rows == {"predictions": [{"y": [1.0, 2.0], "n": 1}, {"y": [3.0, 4.0], "n": 2}]}
    assert json.loads(response_body({"y": y, "n": n}, row_format=False)) == {"outputs": {"y": y.tolist(), "n": [1, 2]}}
    strings = {"s": np.array([b"a"], object), "s_bytes": np.array([b"\xff"], object)}
    assert json.loads(response_body(strings, row_format=False)) == {
        "outputs": {"s": ["a"], "s_bytes": [{"b64": "/w=="}]}
    }


def test_rows_keep_what_arrays_are_made_of():
    """Half floats, infinities among numbers, bytes that end in nought, and arrays that are not contiguous."""
    outputs = {
        "half": np.array([0.1, 2], np.float16),
        "infinite": np.array([[np.inf, 0.5], [1, 2]], np.float32),
        "turned": np.arange(4.0).reshape(2, 2).T,
        "swapped": np.array([0.5, 3], ">f4"),
        "brain": np.array([0.5, 3], ml_dtypes.bfloat16),
        "short": np.array([0.1, 0.2], np.float32),
        "x_bytes": np.array([b"a\0", b"\xff"], object),
    }
    for answer in (
        from_json(response_body(outputs, row_format=True))["predictions"],
        [
            dict(zip(outputs, row))
            for row in zip(*from_json(response_body(outputs, row_format=False))["outputs"].values())
        ],
    ):
        assert [np.float16(row["half"]) for row in answer] == outputs["half"].tolist()
        assert [row["infinite"] for row in answer] == outputs["infinite"].tolist()
        assert [row["turned"] for row in answer] == [[0, 2], [1, 3]]
        assert [row["swapped"] for row in answer] == [row["brain"] for row in answer] == [0.5, 3]
        assert [row["short"] for row in answer] == [0.1, 0.2]
        assert [row["x_bytes"] for row in answer] == [{"b64": "YQA="}, {"b64": "/w=="}]


def test_each_row_stands_on_one_line():
    lines = response_body({"y": np.arange(6.0).reshape(3, 2)}, row_format=True).decode().splitlines()
    assert sum("[" in line.replace('"predictions": [', "") for line in lines) == 3


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.float32(1)}, "Tensor name: y has no shape information "),
        ({"a": np.zeros(2), "b": np.zeros(1)}, "Tensor name: b has inconsistent batch size: 1 expecting: 2"),
    ],
)
def test_outputs_without_a_common_batch_have_no_rows(outputs, message):
    outputs = {name: np.asarray(value) for name, value in outputs.items()}
    with pytest.raises(ServingError) as caught:
        response_body(outputs, row_format=True)
    assert caught.value.message == message
    assert "outputs" in json.loads(response_body(outputs, row_format=False))
