"""Why a search has no hits, in one line that says which filter leaves nothing and what to do."""

from __future__ import annotations

from collections.abc import Iterable

from msim_tf.search.filters import OPEN_BPM, Filters
from msim_tf.search.index import Index
from msim_tf.search.query import allowed_rows
from msim_tf.theory import TEMPO_RANGE, key_name

# Field -> a filter that every track with this field passes, and what to do where no track has it.
_ANY_KEY = tuple(key_name(number) for number in range(24))
_FIELDS = {
    "tempo": (Filters(bpm=TEMPO_RANGE), "msim index --annotate estimates tempo and key"),
    "key": (Filters(keys=_ANY_KEY), "msim index --annotate estimates tempo and key"),
    "year": (Filters(years=(0, 9999)), "years come from the tags of the files"),
}


def why_nothing(index: Index, filters: Filters | None, exclude: Iterable[str] = ()) -> str:
    """Why no track may be found; "" if one may.

    Args:
        index: the index that was searched.
        filters: those of the search.
        exclude: tracks that are not to be found, e.g. the query's own.
    """
    if not len(index):
        return "the library is empty: put music into its folder and run msim index"
    if allowed_rows(index, filters, exclude).any():
        return ""
    if filters is None or _count(index, filters):
        return "no track is left but those of the query"
    conditions = _conditions(filters)
    # Fields that no track has; any other reason would mislead.
    fields = dict.fromkeys(field for field, _, _ in conditions if field in _FIELDS)
    absent = [field for field in fields if not _count(index, _FIELDS[field][0])]
    if absent:
        return "; ".join(f"no track of this library has a {field}: {_FIELDS[field][1]}" for field in absent)
    # Each condition alone: name those that nothing passes, or else how many pass each, for only together they fail.
    counts = [(text, _count(index, condition)) for _, text, condition in conditions]
    failing = [text for text, count in counts if not count]
    if failing:
        return "; ".join(f"no track of this library has {text}" for text in failing)
    passing = ", ".join(f"{count:,} {'has' if count == 1 else 'have'} {text}" for text, count in counts)
    return f"no track passes all filters: {passing}"


def _count(index: Index, filters: Filters) -> int:
    return int(allowed_rows(index, filters).sum())


def _conditions(filters: Filters) -> list[tuple[str, str, Filters]]:
    """Each condition alone: the field it is about, what a track that passes has, and its filter."""
    conditions = []
    if filters.bpm:
        # Only the limits that somebody set are named.
        low, high = filters.bpm
        if low <= OPEN_BPM[0]:
            limits = f"up to {high:g}"
        else:
            limits = f"from {low:g}" if high >= OPEN_BPM[1] else f"from {low:g} to {high:g}"
        bpm = Filters(bpm=filters.bpm, octaves=filters.octaves)
        conditions.append(("tempo", f"a tempo {limits} bpm", bpm))
    if filters.keys:
        conditions.append(("key", f"the key {' or '.join(filters.keys)}", Filters(keys=filters.keys)))
    if filters.years:
        first, last = filters.years
        conditions.append(("year", f"a year from {first} to {last}", Filters(years=filters.years)))
    if filters.artists:
        conditions.append(("artist", f"the artist {' or '.join(filters.artists)}", Filters(artists=filters.artists)))
    conditions += [("tag", f"the tag {tag!r}", Filters(tags=(tag,))) for tag in filters.tags]
    if filters.tracks is not None:
        conditions.append(("track", "one of the names that are asked for", Filters(tracks=filters.tracks)))
    return conditions
