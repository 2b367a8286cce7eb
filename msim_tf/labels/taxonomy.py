"""Which tag belongs to which dimension, and its one spelling: the table in ``taxonomy.json``.

The table holds the tags of the paper. It is not a limit: values that it does not know are kept, stripped and
lower-cased, so that users train on their own labels; only a bare ``tag`` row (no dimension named) needs the table.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.errors import InputError
from msim_tf.files import load_json, validate_format

_PATH = Path(__file__).with_name("taxonomy.json")


def tags(dimension: str) -> tuple[str, ...]:
    """The known tags of a dimension, most frequent first; none for a dimension that the table does not list.

    Raises:
        InputError: if ``dimension`` has no tags.
    """
    if dimension not in TAG_DIMENSION_NAMES:
        raise InputError(f"dimension {dimension!r} has no tags, expected one of {', '.join(TAG_DIMENSION_NAMES)}")
    return tuple(_table()["dimensions"].get(dimension, ()))


def dimension_of(tag: str) -> str | None:
    """The dimension of a known tag, in any spelling; ``None`` for an unknown one."""
    entry = _spellings().get(_folded(tag))
    return entry[0] if entry else None


def canonical(dimension: str, value: str) -> str:
    """The one spelling of a tag.

    Case, hyphens, underscores and repeated spaces do not matter for known tags.

    Args:
        dimension: one of ``TAG_DIMENSION_NAMES``.
        value: a tag as a user wrote it.

    Returns:
        The table's spelling for a tag that the table knows in this dimension; else the value, stripped and lower-cased.

    Raises:
        InputError: if ``dimension`` has no tags or the value is blank.
    """
    known = tags(dimension)
    if not value.strip():
        raise InputError(f"a blank value in dimension {dimension!r}")
    entry = _spellings().get(_folded(value))
    return entry[1] if entry and entry[1] in known else value.strip().lower()


def _folded(text: str) -> str:
    return " ".join(text.casefold().replace("-", " ").replace("_", " ").split())


@functools.cache
def _table() -> dict[str, Any]:
    table = load_json(_PATH, "the tag taxonomy of this package")
    validate_format(table, _PATH, name="msim-taxonomy", version=1)
    return table


@functools.cache
def _spellings() -> dict[str, tuple[str, str]]:
    """Folded spelling -> (dimension, canonical tag)."""
    spellings = {_folded(tag): (name, tag) for name in TAG_DIMENSION_NAMES for tag in tags(name)}
    aliases = {_folded(alias): spellings[_folded(tag)] for alias, tag in _table()["aliases"].items()}
    return aliases | spellings
