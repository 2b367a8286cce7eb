"""How a track is held in Milvus, and filters in its language.

id           sha256 of the identifier: any text is safe in it, and it is the primary key
vector       [size] float32, every subspace of length 1
identifier   the identifier itself
artist       in one case, "" where unknown
album        see ``tracks.album_of``
tempo        beats per minute, -1 where unknown
key          see ``theory.parse_key``, -1 where unknown
year         -1 where unknown
tags         every tag whatever its dimension, in one case
metadata     all of it, as JSON
stamp        changes when the vector or the metadata does
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from msim_tf.errors import InputError
from msim_tf.names import comparable_artist
from msim_tf.search.filters import Filters
from msim_tf.search.tracks import album_of, all_tags, artist_of
from msim_tf.theory import TEMPO_RANGE, UNKNOWN_KEY, parse_key

_LONGEST = 500  # characters of an artist, album or tag, at most four bytes each; longer ones are cut, in filters too
_MOST_TAGS = 1000

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})

# Field -> Milvus' type and its options, beside the primary key and the vector.
SCALARS: dict[str, tuple[str, dict[str, int]]] = {
    "identifier": ("VARCHAR", {"max_length": 16384}),
    "artist": ("VARCHAR", {"max_length": 4 * _LONGEST}),
    "album": ("VARCHAR", {"max_length": 8 * _LONGEST}),
    "tempo": ("DOUBLE", {}),
    "key": ("INT64", {}),
    "year": ("INT64", {}),
    "tags": ("ARRAY", {"max_capacity": _MOST_TAGS, "max_length": 4 * _LONGEST}),
    "metadata": ("JSON", {}),
    "stamp": ("VARCHAR", {"max_length": 64}),
}


def track_id(identifier: str) -> str:
    """The primary key of a track: 64 hex digits."""
    return hashlib.sha256(identifier.encode("utf-8", "surrogateescape")).hexdigest()


def track_entity(identifier: str, vector: np.ndarray, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A track as Milvus holds it.

    Args:
        identifier: the track.
        vector: [size] float32, every subspace of length 1.
        metadata: canonical, see ``tracks``.

    Raises:
        InputError: if its name is not UTF-8, or it has more tags than a field holds.
    """
    try:
        identifier.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"track {identifier!r}: Milvus holds only names that are valid UTF-8; rename the file"
        ) from None
    tags = sorted({tag[:_LONGEST] for tag in all_tags(metadata)})
    if len(tags) > _MOST_TAGS:
        raise InputError(f"track {identifier!r} has {len(tags)} tags, in Milvus {_MOST_TAGS} are the most")
    text = json.dumps(metadata, sort_keys=True)
    return {
        "id": track_id(identifier),
        "vector": vector,
        "identifier": identifier,
        "artist": artist_of(metadata)[:_LONGEST],
        "album": album_of(metadata)[: 2 * _LONGEST],
        "tempo": float(metadata.get("tempo", -1)),
        "key": parse_key(metadata["key"]) if "key" in metadata else UNKNOWN_KEY,
        "year": metadata.get("year", -1),
        "tags": tags,
        "metadata": dict(metadata),
        "stamp": hashlib.sha256(vector.astype("<f4").tobytes() + text.encode()).hexdigest(),
    }


def filter_expression(filters: Filters | None, exclude: Iterable[str] = ()) -> str:
    """What may be found, in Milvus' language; "" for everything.

    Args:
        filters: conditions on metadata; they mean what they mean in ``filters``.
        exclude: tracks not to be found.
    """
    filters = filters or Filters()
    conditions = []
    if filters.bpm:
        conditions.append(_tempo_condition(*filters.bpm, octaves=filters.octaves))
    if filters.keys:
        conditions.append(f"key in {sorted({parse_key(key) for key in filters.keys})}")
    if filters.years:
        # An unknown year is stored as -1, and passes no condition.
        conditions.append(f"year >= {max(filters.years[0], 0)} and year <= {filters.years[1]}")
    if filters.tags:
        conditions.append(f"array_contains_all(tags, {_texts(filters.tags)})")
    if filters.artists:
        artists = [comparable_artist(artist) for artist in filters.artists if artist]
        conditions.append(f"artist in {_texts(artists)}" if artists else 'id == ""')
    if filters.tracks is not None:
        conditions.append(f"id in {json.dumps(sorted(map(track_id, filters.tracks)))}")
    ids = sorted(track_id(identifier) for identifier in exclude)
    if ids:
        conditions.append(f"id not in {json.dumps(ids)}")
    return " and ".join(f"({condition})" for condition in conditions)


def _tempo_condition(lowest: float, highest: float, *, octaves: bool) -> str:
    if octaves and highest >= 2 * lowest:
        return "tempo > 0"
    # The octaves that bring every possible tempo into the limits.
    # lowest * 2**k <= tempo <= highest * 2**k for some whole k; the lower limit a hair lower, for its rounding.
    slowest, fastest = TEMPO_RANGE
    first, last = (
        (math.floor(math.log2(slowest / highest)), math.ceil(math.log2(fastest / lowest))) if octaves else (0, 0)
    )
    ranges = [
        f"(tempo >= {lowest * 2.0**power * (1 - 1e-12):.17g} and tempo <= {highest * 2.0**power:.17g})"
        for power in range(first, last + 1)
    ]
    return " or ".join(ranges)


def _texts(values: Iterable[str]) -> str:
    """A list of texts in one case."""
    return "[" + ", ".join(f'"{value.casefold()[:_LONGEST].translate(_ESCAPES)}"' for value in values) + "]"
