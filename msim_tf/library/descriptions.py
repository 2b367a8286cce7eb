"""What a model says of a track, among what a library knows of it.

A field that the file's tags or an annotation fill is left to them. What the model fills in besides is named in the
field "described", so that a better source can replace it later:

    described    {"fields": [names], "musical": bool, "words": {dimension: {word: probability}},
                  "tempo": [{"bpm", "probability"}], "key": [{"key", "probability"}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msim_tf.export.description import Description

DESCRIBED = "described"
_KEPT = 0.1  # probability from which a word is remembered; a model has some dozens, most of them unlikely


def with_description(metadata: Mapping[str, Any], description: Description | None) -> dict[str, Any]:
    """A track's metadata with what the model says where nobody else says anything."""
    plain = without_description(metadata)
    if description is None:
        return plain
    # The year in a file's tags is better than a guessed decade.
    better = {*plain, *(["era"] if "year" in plain else [])}
    filled = {name: value for name, value in description.metadata().items() if name not in better}
    details = description.to_json()
    details["words"] = {
        name: {word: probability for word, probability in words.items() if probability >= _KEPT}
        for name, words in details["words"].items()
    }
    return {**plain, **filled, DESCRIBED: {"fields": sorted(filled), **details}}


def without_description(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A track's metadata without anything that a model said."""
    fields = {DESCRIBED, *metadata.get(DESCRIBED, {}).get("fields", ())}
    return {name: value for name, value in metadata.items() if name not in fields}


def annotated(metadata: Mapping[str, Any], annotations: Mapping[str, Any]) -> dict[str, Any]:
    """A track's metadata with the annotations' tempo and key, and no others but what the model says of the track."""
    details = metadata.get(DESCRIBED)
    kept = {name: value for name, value in without_description(metadata).items() if name not in ("tempo", "key")}
    result = {**kept, **annotations}
    if details is None:
        return result
    # What the model says of tempo and key gives way to the annotations; its other fields stay described.
    still_described = {name: metadata[name] for name in details["fields"] if name not in result}
    return {**result, **still_described, DESCRIBED: {**details, "fields": sorted(still_described)}}
