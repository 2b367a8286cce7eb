"""Conditions on the metadata of tracks. Tracks that lack the field are excluded."""

from __future__ import annotations

from dataclasses import dataclass

from msim_tf.errors import InputError
from msim_tf.theory import parse_key

OPEN_BPM = (1.0, 1000.0)  # limits at or beyond which a range of tempi is open to that side
_FARTHEST_YEAR = 10**6  # a database has no number of hundreds of digits
_MOST_TAGS = 100  # a condition each, of which a statement holds so many


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
        tracks: identifiers, any of them; None for every track.
    """

    bpm: tuple[float, float] | None = None
    octaves: bool = False
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    artists: tuple[str, ...] = ()
    years: tuple[int, int] | None = None
    tracks: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for name, limits, lowest in (("bpm", self.bpm, 0), ("years", self.years, None)):
            if limits is not None and not (limits[0] <= limits[1] and (lowest is None or limits[0] > lowest)):
                raise InputError(
                    f"{name} {limits}: expected the lower limit first" + (", above 0" if lowest == 0 else "")
                )
        if self.years is not None and not all(abs(year) <= _FARTHEST_YEAR for year in self.years):
            raise InputError("years: expected numbers as of a calendar, e.g. 1970 and 1979")
        # A text is a sequence of texts, too: each of its letters would be taken for a condition.
        for name in ("keys", "tags", "artists"):
            if isinstance(getattr(self, name), str):
                raise InputError(f"{name} {getattr(self, name)!r}: expected a sequence of texts")
        for key in self.keys:  # refuses what is not the name of a key
            parse_key(key)
        if len(self.tags) > _MOST_TAGS:
            raise InputError(f"{len(self.tags)} tags that a track must have: expected at most {_MOST_TAGS}")
