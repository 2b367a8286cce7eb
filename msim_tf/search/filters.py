"""Which tracks may be found: conditions on their metadata. A track that does not tell what is asked for does not pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from msim_tf.errors import InputError
from msim_tf.names import comparable_artist
from msim_tf.search.segments import Segment
from msim_tf.search.tracks import all_tags, artist_of
from msim_tf.theory import UNKNOWN_KEY, parse_key, within_tempo


@dataclass(frozen=True)
class Filters:
    """Conditions, all of which must hold; case does not matter.

    Attributes:
        bpm: lowest and highest tempo, both included.
        octaves: whether a tempo also passes when doubled or halved any number of times.
        keys: names of keys as ``theory.parse_key`` reads them, e.g. "A minor"; any of them.
        tags: tags, all of them, whatever their dimension.
        artists: any of them.
        years: first and last year, both included.
    """

    bpm: tuple[float, float] | None = None
    octaves: bool = False
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    artists: tuple[str, ...] = ()
    years: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, limits, lowest in (("bpm", self.bpm, 0), ("years", self.years, None)):
            if limits is not None and not (limits[0] <= limits[1] and (lowest is None or limits[0] > lowest)):
                raise InputError(
                    f"{name} {limits}: expected the lower limit first" + (", above 0" if lowest == 0 else "")
                )
        for name in ("keys", "tags", "artists"):
            if isinstance(getattr(self, name), str):
                raise InputError(f"{name} {getattr(self, name)!r}: expected a sequence of texts")
        for key in self.keys:
            parse_key(key)


class FilterColumns:
    """Metadata of whole segments as columns, made at the first filtered query and kept per segment."""

    def __init__(self) -> None:
        self._columns: dict[Segment, dict[str, Any]] = {}

    def allowed(self, segments: tuple[Segment, ...], filters: Filters) -> np.ndarray:
        """Which rows pass.

        Returns:
            [rows] bool.
        """
        known = self._columns
        columns = {segment: known.get(segment) or _columns(segment) for segment in segments}
        self._columns = columns
        return np.concatenate([_passing(columns[segment], filters) for segment in segments])


def _columns(segment: Segment) -> dict[str, Any]:
    rows = len(segment)
    columns: dict[str, Any] = {"tempo": np.full(rows, np.nan), "key": np.full(rows, -1), "year": np.full(rows, -1)}
    postings: dict[str, dict[str, list[int]]] = {"tags": {}, "artists": {}}
    for row in range(rows):
        metadata = segment.metadata[row]
        columns["tempo"][row] = metadata.get("tempo", np.nan)
        columns["key"][row] = parse_key(metadata["key"]) if "key" in metadata else UNKNOWN_KEY
        columns["year"][row] = metadata.get("year", -1)
        for tag in all_tags(metadata):
            postings["tags"].setdefault(tag, []).append(row)
        if artist_of(metadata):
            postings["artists"].setdefault(artist_of(metadata), []).append(row)
    for name, held in postings.items():
        columns[name] = {value: np.array(found, np.int32) for value, found in held.items()}
    return columns


def _passing(columns: dict[str, Any], filters: Filters) -> np.ndarray:
    passing = np.ones(len(columns["tempo"]), bool)
    if filters.bpm:
        passing &= within_tempo(columns["tempo"], *filters.bpm, octaves=filters.octaves)
    if filters.keys:
        passing &= np.isin(columns["key"], [parse_key(key) for key in filters.keys])
    if filters.years:
        passing &= (columns["year"] >= filters.years[0]) & (columns["year"] <= filters.years[1])
    for tag in filters.tags:
        passing &= _any_of(columns["tags"], [tag], len(passing))
    if filters.artists:
        passing &= _any_of(columns["artists"], [comparable_artist(name) for name in filters.artists], len(passing))
    return passing


def _any_of(postings: dict[str, np.ndarray], values: Any, rows: int) -> np.ndarray:
    passing = np.zeros(rows, bool)
    for value in values:
        passing[postings.get(value.casefold(), np.zeros(0, np.int32))] = True
    return passing
