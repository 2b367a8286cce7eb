"""How requests to the library API fail: an HTTP status and one line of text, as ``{"error": text}``."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msim_tf.serving.guard import HttpError as ApiError

__all__ = ["ApiError", "validation_line"]


def validation_line(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first error that pydantic found, in one line that names the field.

    Args:
        errors: as of ``RequestValidationError.errors()``: location, type, message and input of each.

    Returns:
        E.g. "filters.bpm: list should have at least 2 items, not [90]".
    """
    error = errors[0]
    place, *path = error["loc"]
    value = reprlib.repr(error.get("input"))
    if error["type"] == "json_invalid":
        return f"the body is not JSON ({error['ctx']['error']})"
    if error["type"] == "extra_forbidden":
        return f"{_field(place, path[:-1])}: unknown field {path[-1]!r}"
    if error["type"] == "missing":
        return f"{_field(place, path)}: expected, but absent"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{_field(place, path)}: expected an object, not {value}"
    text = error["msg"].replace("Input should be", "expected").replace(" after validation", "").split(", not ")[0]
    return f"{_field(place, path)}: {text[:1].lower()}{text[1:]}, not {value}"


def _field(place: str, path: Iterable[str | int]) -> str:
    """The name of a field, e.g. "query.mix.genre.tracks.0"; of the body itself, "body"."""
    names: list[str] = []
    for part in map(str, path):
        # The kind of a query is named as its only field is, and pydantic names both.
        if not names or part != names[-1]:
            names.append(part if part.isprintable() else repr(part))
    return ".".join(names) or place
