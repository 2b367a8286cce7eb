"""JSON as TensorFlow Serving reads it.

Oracles: answers of the servers 2.15.1 and 2.18.1, RapidJSON's grammar, and Python's ``json``.
"""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msim_tf.export.status import ServingError
from msim_tf.serving import json_parser
from msim_tf.serving.json_parser import parse_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": 1, "a": 2}', {"a": 1}),
        (b'{"a": {"b": 1, "b": [2]}, "c": "x:y"}', {"a": {"b": 1}, "c": "x:y"}),
        (b'{"a": [[{"b64": "a", "b64": "b"}]]}', {"a": [[{"b64": "a"}]]}),
        (b'{"a": 1} x', {"a": 1}),
        (b"{}{}", {}),
        (b"{}\0", {}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": [Inf, -Inf, Infinity, -Infinity]}', {"a": [math.inf, -math.inf, math.inf, -math.inf]}),
        (b'{"a": "\xff"}', {"a": "\udcff"}),
        (b'{"a": "\\udc00"}', {"a": b"\xed\xb0\x80".decode("utf-8", "surrogateescape")}),
        (b'{"a": "\\ud83d\\ude00\\u0041\\n"}', {"a": "\U0001f600A\n"}),
        (b'{"a": 18446744073709551615}', {"a": 2**64 - 1}),
        (b'{"a": [1e308, 0.1e309, -0, 1e-400]}', {"a": [1e308, 1e308, 0, 0.0]}),
        (b'{"a": ' + b"9" * 308 + b"}", {"a": 1e308}),
    ],
)
def test_what_only_the_real_server_reads(text, value):
    assert parse_json(text) == value


def test_nan_is_a_number():
    assert math.isnan(parse_json(b'{"a": [NaN]}')["a"][0])


@pytest.mark.parametrize("nested", [64, 300, 1024, 200_000])
def test_lists_may_be_nested_any_number_of_levels_deep(nested):
    value = parse_json(b"[" * nested + b"]" * nested)
    for _ in range(nested - 1):
        (value,) = value
    assert value == []


@pytest.mark.parametrize(
    ("text", "reason", "offset"),
    [
        (b"  ", "The document is empty.", 2),
        (b'{"a": 1e309}', "Number too big to be stored in double.", 6),
        (b'{"a": [0, -1e400]}', "Number too big to be stored in double.", 10),
        (b'{"a": ' + b"9" * 309 + b"}", "Number too big to be stored in double.", 6),
        (b'{"a": ' + b"9" * 400 + b"}", "Number too big to be stored in double.", 6),
        (b'{"a": ' + b"9" * 5000 + b"}", "Number too big to be stored in double.", 6),
        (b'{"a": [NaN, 1e999]}', "Number too big to be stored in double.", 12),
        (b'{"a": 1.}', "Miss fraction part in number.", 8),
        (b'{"a": 1e}', "Miss exponent in number.", 8),
        (b'{"a": .5}', "Invalid value.", 6),
        (b'{"a": +1}', "Invalid value.", 6),
        (b'{"a": nul}', "Invalid value.", 9),
        (b'{"a": 01}', "Missing a comma or '}' after an object member.", 7),
        (b'{"a": 1 "b": 2}', "Missing a comma or '}' after an object member.", 8),
        (b'{"a": [1 2]}', "Missing a comma or ']' after an array element.", 9),
        (b'{"a": [1', "Missing a comma or ']' after an array element.", 8),
        (b'{"a": [1,]}', "Invalid value.", 9),
        (b'{"a": 1,}', "Missing a name for object member.", 8),
        (b"{'a': 1}", "Missing a name for object member.", 1),
        (b'{"a" 1}', "Missing a colon after a name of object member.", 5),
        (b'{"a": "x', "Missing a closing quotation mark in string.", 8),
        (b'{"a": "\x01"}', "Invalid escape character in string.", 7),
        (b'{"a": "\\x"}', "Invalid escape character in string.", 7),
        (b'{"a": "\\u00g0"}', "Incorrect hex digit after \\u escape in string.", 7),
        (b'{"a": "\\ud800"}', "The surrogate pair in string is invalid.", 7),
        ("{}".encode("utf-16"), "Invalid value.", 0),
        ("{}".encode("utf-16-le"), "Missing a name for object member.", 1),
    ],
)
def test_faults_have_the_real_servers_text_and_offset(text, reason, offset):
    with pytest.raises(ServingError) as caught:
        parse_json(text)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.message == f"JSON Parse error: {reason} at offset: {offset}"


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_the_three_ways_read_the_same(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    by_hand = json_parser._Parser(text).document()
    assert by_hand == parse_json(text) == value
    assert json_parser._CHECKING_DECODER.decode(text.decode()) == value


def _by_python(text):
    """Python's value of ``text``; None if it has none that could be sent on (half a
    surrogate pair, a number beyond double).
    """
    try:
        value = json.loads(text.decode())
        json.dumps(value, ensure_ascii=False, allow_nan=b"N" in text or b"I" in text).encode()
    except ValueError:
        return None
    return value


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.binary(max_size=40) | st.text('{}[]",:0123eE.-+ \\uNaInfty\n', max_size=40).map(str.encode))
def test_any_bytes_are_a_value_or_a_fault(text):
    """Nothing but a ``ServingError`` comes out, and what Python's parser reads is read."""
    expected = _by_python(text)
    try:
        value = parse_json(text)
    except ServingError as error:
        assert error.code == "INVALID_ARGUMENT" and expected is None
        return
    if expected is not None and text.count(b":") <= 1:
        assert repr(value) == repr(expected) or value == expected


def test_a_long_body_that_needs_the_slow_parser_is_refused(monkeypatch):
    monkeypatch.setattr(json_parser, "_MOST_SLOW_BYTES", 100)
    with pytest.raises(ServingError, match="Invalid value. at offset: 2"):
        parse_json(b"[" + b"1," * 100 + b"Inf]")
    assert parse_json(b"[" + b"1," * 100 + b"NaN, 1] x")[:2] == [1, 1]
