"""Which tag belongs to which dimension, and its one spelling: the table in ``taxonomy.json``.

The table holds two lists. The *tags* are those of the paper, the 50 most frequent ones of Last.FM. The *additional*
words are what teachers trained on other people's tags say besides; spellings and synonyms of both lead to one word.

Neither is a limit: values that the table does not list are kept, stripped and lower-cased, so that users train on their
own labels; only a bare ``tag`` row (no dimension named) needs the tags of the paper.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.errors import InputError
from msim_tf.files import load_json, validate_format

_PATH = Path(__file__).with_name("taxonomy.json")

# Values of "instrument" for what is no music. They need not be denied: whatever is not labelled so is something else.
NOT_MUSIC = ("speech", "noise")


def tags(dimension: str) -> tuple[str, ...]:
    """The paper's tags of a dimension, most frequent first; none for a dimension that the table does not list.

    Raises:
        InputError: if ``dimension`` has no tags.
    """
    return _listed("dimensions", dimension)


def words(dimension: str) -> tuple[str, ...]:
    """All words of a dimension: the paper's tags, then the additional ones.

    Raises:
        InputError: if ``dimension`` has no tags.
    """
    return tags(dimension) + _listed("additional", dimension)


def dimension_of(tag: str) -> str | None:
    """The dimension of one of the paper's tags, in any spelling; ``None`` for another one."""
    entry = _spellings().get(_folded(tag))
    return entry[0] if entry else None


def resolve(tag: str) -> tuple[str, str] | None:
    """The dimension and the one word of a tag, the paper's or an additional one, in any spelling.

    Synonyms resolve to the same word: "woman" and "Female Vocal" to ("instrument", "female vocalists").

    Returns:
        (dimension, word); ``None`` for a tag that the table does not list.
    """
    return _all_spellings().get(_folded(tag))


def canonical(dimension: str, value: str) -> str:
    """The one spelling of a tag.

    Case, hyphens, underscores and repeated spaces do not matter for listed tags.

    Args:
        dimension: one of ``TAG_DIMENSION_NAMES``.
        value: a tag as a user wrote it.

    Returns:
        The table's word for a tag that the table lists in this dimension; else the value, stripped and lower-cased.

    Raises:
        InputError: if ``dimension`` has no tags or the value is blank.
    """
    tags(dimension)  # refuses a dimension without tags
    if not value.strip():
        raise InputError(f"a blank value in dimension {dimension!r}")
    own_dimension, word = resolve(value) or (None, "")
    return word if own_dimension == dimension else value.strip().lower()


def _listed(which: str, dimension: str) -> tuple[str, ...]:
    if dimension not in TAG_DIMENSION_NAMES:
        raise InputError(f"dimension {dimension!r} has no tags, expected one of {', '.join(TAG_DIMENSION_NAMES)}")
    return tuple(_table()[which].get(dimension, ()))


def _folded(text: str) -> str:
    """A tag without what spelling varies in: case, hyphens, underscores, repeated spaces."""
    return " ".join(text.casefold().replace("-", " ").replace("_", " ").split())


@functools.cache
def _table() -> dict[str, Any]:
    table = load_json(_PATH, "the tag taxonomy of this package")
    validate_format(table, _PATH, name="msim-taxonomy", version=1)
    return table


@functools.cache
def _spellings() -> Mapping[str, tuple[str, str]]:
    """Folded spelling -> (dimension, tag), of the paper's tags."""
    spellings = {_folded(tag): (name, tag) for name in TAG_DIMENSION_NAMES for tag in tags(name)}
    aliases = {_folded(alias): spellings[_folded(tag)] for alias, tag in _table()["aliases"].items()}
    return aliases | spellings


@functools.cache
def _all_spellings() -> Mapping[str, tuple[str, str]]:
    """Folded spelling -> (dimension, word); the paper's tags come before additional words and their synonyms."""
    spellings = {_folded(word): (name, word) for name in TAG_DIMENSION_NAMES for word in words(name)}
    aliases = {_folded(alias): spellings[_folded(word)] for alias, word in _table()["additional_aliases"].items()}
    return {**aliases, **spellings, **_spellings()}
