"""JSON read as TensorFlow Serving's parser, RapidJSON, reads it.

RapidJSON differs from Python's parsers: of equal keys the first counts, text after the first value is
ignored, NaN, Inf and Infinity are numbers, bytes in strings may be any, and a number beyond double is
an error. Three ways lead to the same value:

1. orjson, for nearly every request. It refuses whatever RapidJSON reads differently, except equal keys, which are
counted. 2. Python's ``json``, for what orjson refuses: NaN, equal keys, text that follows, bytes that are not UTF-8. 3.
``_Parser``, one value at a time, for everything else: it knows RapidJSON's rules and its texts with their offsets.

The third takes about a microsecond per byte, so a long body that only it could read is refused
with Python's idea of where the fault is.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any

import numpy as np
import orjson

from msim_tf.export import error_texts as texts
from msim_tf.export.status import ServingError

_MOST_SLOW_BYTES = 8 * 2**20
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
# What may be a number beyond double: an exponent of three digits, or a very long number.
_EXTREME_NUMBER = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{300}")
# RapidJSON stops at the first NUL as at the end of the text.
_BLANK = re.compile(rb"[ \t\r\n]*")
_NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]*)?")
_LITERALS = (
    (b"null", None),
    (b"true", True),
    (b"false", False),
    (b"NaN", math.nan),
    (b"Infinity", math.inf),
    (b"Inf", math.inf),
    (b"-NaN", math.nan),
    (b"-Infinity", -math.inf),
    (b"-Inf", -math.inf),
)
_WORDS = (b"null", b"true", b"false", b"NaN", b"Infinity")
_PLAIN_CHARACTERS = re.compile(rb'[^"\\\x00-\x1f]*')
_ESCAPES = {
    ord('"'): b'"',
    ord("\\"): b"\\",
    ord("/"): b"/",
    ord("b"): b"\b",
    ord("f"): b"\f",
    ord("n"): b"\n",
    ord("r"): b"\r",
    ord("t"): b"\t",
}


def parse_json(text: bytes) -> Any:
    """The first JSON value in ``text``.

    Args:
        text: UTF-8; bytes in strings that are none become half surrogate pairs, as
            Python's "surrogateescape" makes them.

    Returns:
        Python's value; integers beyond 64 bits are floats.

    Raises:
        ServingError: INVALID_ARGUMENT with RapidJSON's text and the offset.
    """
    # The fast way, for nearly every request.
    try:
        value = orjson.loads(text)
        if not _may_repeat_keys(text, value):
            return value
    except orjson.JSONDecodeError:
        pass
    # Python's parser, except for half a surrogate pair, which it accepts and RapidJSON does not.
    if not _SURROGATE_ESCAPE.search(text):
        try:
            decoder = _CHECKING_DECODER if _EXTREME_NUMBER.search(text) else _DECODER
            return decoder.raw_decode(text.decode("utf-8", "surrogateescape").lstrip(" \t\r\n"))[0]
        except (ValueError, RecursionError) as error:
            if len(text) > _MOST_SLOW_BYTES:
                offset = getattr(error, "pos", 0)
                raise texts.PARSE_ERROR.error(reason=texts.INVALID_VALUE, offset=offset) from None
    return _Parser(text).document()


def _may_repeat_keys(text: bytes, value: Any) -> bool:
    """Whether an object could hold a key twice: as many members as colons means that none does."""
    if type(value) is not dict:
        return False
    # Nearly always all objects are the request, its inputs, and its rows; then lists of numbers need not be walked.
    rows = value.get("instances")
    objects = [value, *(member for member in value.values() if type(member) is dict)]
    objects += [row for row in rows if type(row) is dict] if type(rows) is list else []
    # NumPy compares eight times as fast as bytes.count.
    characters = np.frombuffer(text, np.uint8)
    if np.count_nonzero(characters == ord("{")) != len(objects):
        objects = _all_objects(value)
    return bool(np.count_nonzero(characters == ord(":")) != sum(map(len, objects)))


def _all_objects(value: Any) -> list[dict[str, Any]]:
    """Every object in ``value``; one that the walk misses only leads to the slower parser."""
    objects = []
    remaining = [value]
    while remaining:
        item = remaining.pop()
        if type(item) is dict:
            objects.append(item)
            remaining.extend(member for member in item.values() if type(member) in (dict, list))
        # Lists that begin with a number or text hold no objects in a valid request.
        elif item and type(item[0]) in (dict, list):
            remaining.extend(element for element in item if type(element) in (dict, list))
    return objects


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, member in pairs:
        result.setdefault(key, member)
    return result


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too big")
    return value


def _integer(text: str) -> int | float:
    return _sized_integer(int(text)) if len(text) < 25 else _finite(text)


def _sized_integer(value: int) -> int | float:
    """RapidJSON keeps integers of 64 bits, signed or not; larger ones become doubles."""
    return value if -(2**63) <= value < 2**64 else float(value)


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeated_keys)
_CHECKING_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeated_keys, parse_float=_finite, parse_int=_integer)


class _Parser:
    """RapidJSON's grammar, without recursion: text nested any number of levels deep needs no stack."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        # A byte order mark of UTF-8 is skipped; offsets count it.
        self._position = 3 if text.startswith(b"\xef\xbb\xbf") else 0

    def document(self) -> Any:
        """The first value; what follows it is not looked at.

        Raises:
            ServingError: as ``parse_json``.
        """
        self._skip_blanks()
        if not self._peek():
            raise self._fault(texts.EMPTY_DOCUMENT)
        # Open containers, outermost first, each with the key that its next member gets (None in a list).
        containers: list[tuple[dict[str, Any] | list[Any], str | None]] = []
        while True:
            value = self._value()
            if isinstance(value, (dict, list)) and not self._closes_at_once(value):
                containers.append((value, self._key() if isinstance(value, dict) else None))
                continue
            # A whole value: put it into its container, and close as many of those as end here.
            while containers:
                container, key = containers.pop()
                if isinstance(container, dict):
                    container.setdefault(key, value)  # type: ignore[arg-type]
                else:
                    container.append(value)
                if self._goes_on(container):
                    containers.append((container, self._key() if isinstance(container, dict) else None))
                    break
                value = container
            else:
                return value

    def _value(self) -> Any:
        """A value; of an object or list only its opening bracket."""
        first = self._peek()
        if first == b"{":
            self._position += 1
            return {}
        if first == b"[":
            self._position += 1
            return []
        if first == b'"':
            return self._string()
        # Words, and the numbers that are words.
        for literal, value in _LITERALS:
            if self._text.startswith(literal, self._position):
                self._position += len(literal)
                return value
        # The offset of a misspelt word is the first byte that is wrong.
        for word in _WORDS:
            if first and word.startswith(first):
                self._position += len(os.path.commonprefix([word, self._text[self._position : self._position + 8]]))
                raise self._fault(texts.INVALID_VALUE)
        return self._number()

    def _closes_at_once(self, container: dict[str, Any] | list[Any]) -> bool:
        self._skip_blanks()
        closes = self._peek() == (b"}" if isinstance(container, dict) else b"]")
        self._position += closes
        return closes

    def _goes_on(self, container: dict[str, Any] | list[Any]) -> bool:
        """Whether a comma follows; if not, the container must end here."""
        self._skip_blanks()
        following = self._peek()
        is_object = isinstance(container, dict)
        if following not in (b",", b"}" if is_object else b"]"):
            raise self._fault(texts.MISSING_COMMA_IN_OBJECT if is_object else texts.MISSING_COMMA_IN_ARRAY)
        self._position += 1
        self._skip_blanks()
        return following == b","

    def _key(self) -> str:
        """A member's name with the colon and the blanks after it."""
        if self._peek() != b'"':
            raise self._fault(texts.MISSING_NAME)
        key = self._string()
        self._skip_blanks()
        if self._peek() != b":":
            raise self._fault(texts.MISSING_COLON)
        self._position += 1
        self._skip_blanks()
        return key

    def _string(self) -> str:
        """A string from its opening to its closing quotation mark."""
        self._position += 1
        parts: list[bytes] = []
        while True:
            match = _PLAIN_CHARACTERS.match(self._text, self._position)
            parts.append(match[0])  # type: ignore[index]
            self._position = match.end()  # type: ignore[union-attr]
            following = self._peek()
            if following == b'"':
                self._position += 1
                return b"".join(parts).decode("utf-8", "surrogateescape")
            if following == b"\\":
                parts.append(self._escape())
            else:
                raise self._fault(texts.BAD_ESCAPE if following else texts.MISSING_QUOTE)

    def _escape(self) -> bytes:
        start = self._position
        escaped = self._text[start + 1 : start + 2]
        self._position += 2
        if escaped and escaped[0] in _ESCAPES:
            return _ESCAPES[escaped[0]]
        if escaped != b"u":
            raise self._fault(texts.BAD_ESCAPE, start)
        point = self._hex4(start)
        # A character beyond 16 bits is written as a surrogate pair, so its second half must follow.
        if 0xD800 <= point <= 0xDBFF:
            if self._text[self._position : self._position + 2] != b"\\u":
                raise self._fault(texts.BAD_SURROGATE_PAIR, start)
            self._position += 2
            low = self._hex4(start)
            if not 0xDC00 <= low <= 0xDFFF:
                raise self._fault(texts.BAD_SURROGATE_PAIR, start)
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)
        # The second half of a pair alone is kept, as RapidJSON keeps it.
        return chr(point).encode("utf-8", "surrogatepass")

    def _hex4(self, start: int) -> int:
        digits = self._text[self._position : self._position + 4]
        if not re.fullmatch(rb"[0-9a-fA-F]{4}", digits):
            raise self._fault(texts.BAD_HEX_ESCAPE, start)
        self._position += 4
        return int(digits, 16)

    def _number(self) -> int | float:
        start = self._position
        match = _NUMBER.match(self._text, start)
        if not match:
            self._position += self._peek() == b"-"
            raise self._fault(texts.INVALID_VALUE)
        whole, fraction, exponent = match.groups()
        if fraction == b".":
            raise self._fault(texts.MISSING_FRACTION, match.end(2))
        if exponent and not exponent[-1:].isdigit():
            raise self._fault(texts.MISSING_EXPONENT, match.end())
        self._position = match.end()
        # Only a whole number of fewer digits can be one of 64 bits; all others are doubles.
        if not fraction and not exponent and len(whole) < 25:
            return _sized_integer(int(match[0]))
        value = float(match[0])
        if math.isinf(value):
            raise self._fault(texts.NUMBER_TOO_BIG, start)
        return value

    def _peek(self) -> bytes:
        """The next byte; empty at the end and at a NUL."""
        return self._text[self._position : self._position + 1].strip(b"\0")

    def _skip_blanks(self) -> None:
        self._position = _BLANK.match(self._text, self._position).end()  # type: ignore[union-attr]

    def _fault(self, reason: str, offset: int | None = None) -> ServingError:
        return texts.PARSE_ERROR.error(reason=reason, offset=self._position if offset is None else offset)
