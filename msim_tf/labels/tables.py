"""Labels of tracks as text, and the table that users write them in (CSV).

A *label* is a tag in its canonical spelling, a tempo in bpm, or the name of a key. No label means unknown, never "no".
The *group* of a track is its artist or source; of several artists, all of them (``joined_groups``).
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msim_tf.dimensions as dims
from msim_tf.errors import InputError
from msim_tf.files import atomic_file
from msim_tf.labels import taxonomy
from msim_tf.names import storable
from msim_tf.theory import key_name, parse_bpm, parse_key

# What a terminal would obey, and the separator of groups; no name or tag holds one. A cell may hold tabs and line ends.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BETWEEN_GROUPS = "\x1f"  # ASCII's "unit separator": no name of an artist holds it


def joined_groups(names: Iterable[str]) -> str:
    """The group of a track of several artists, or of several groups; of one artist, the artist."""
    return _BETWEEN_GROUPS.join(sorted({artist for name in names for artist in divided_groups(name)}))


def divided_groups(group: str) -> tuple[str, ...]:
    """The inverse of ``joined_groups``: the artists of a track, sorted."""
    return tuple(group.split(_BETWEEN_GROUPS))


@dataclass(frozen=True)
class Labels:
    """Labels and groups of tracks.

    Attributes:
        values: identifier -> dimension -> values, sorted, in canonical spelling; tempo and key have one value at most.
        groups: identifier -> artist or source, or several by ``joined_groups``.
    """

    values: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Every track that is mentioned, sorted."""
        return tuple(sorted({*self.values, *self.groups}))

    def merge(self, other: Labels) -> Labels:
        """Both tables in one; where both label a track in a dimension (or give its group), ``other`` wins."""
        values = {
            track: {**self.values.get(track, {}), **other.values.get(track, {})}
            for track in sorted({*self.values, *other.values})
        }
        return Labels(values, {**self.groups, **other.groups})

    def to_json(self) -> dict[str, Any]:
        """The labels as a JSON object."""
        values = {
            track: {name: list(labels) for name, labels in by_dimension.items()}
            for track, by_dimension in self.values.items()
        }
        return {"values": values, "groups": dict(self.groups)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Labels:
        """The inverse of ``to_json``."""
        values = {
            track: {name: tuple(labels) for name, labels in by_dimension.items()}
            for track, by_dimension in value["values"].items()
        }
        return cls(values, dict(value["groups"]))


class LabelTable:
    """Labels under construction: one row at a time, contradictions refused."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.groups: dict[str, set[str]] = defaultdict(set)

    def add(self, track: str, name: str, value: str) -> None:
        """Adds one value; ``name`` is a dimension, "tag" or "artist".

        Raises:
            InputError: if the value is none of that dimension, contradicts another, or has no bytes in UTF-8.
        """
        if storable(value) != value:  # JSON can spell half a character
            raise InputError(f"{track}: {name} {value!r} is not valid Unicode")
        if name == "artist":
            self.groups[track].add(value)
            return
        if name == "tag":
            # Only the taxonomy can tell the dimension of a bare tag.
            dimension = taxonomy.dimension_of(value)
            if dimension is None:
                tags = ", ".join(tag for name in dims.TAG_DIMENSION_NAMES for tag in taxonomy.tags(name))
                raise InputError(
                    f"tag {value!r} is not in the taxonomy; name its dimension instead of 'tag', or use one of {tags}"
                )
            name = dimension
        # Several tags may be true of a track, but only one tempo and one key.
        canonical = canonical_label(name, value)
        present = self.values[track][name]
        if present - {canonical} and name not in dims.TAG_DIMENSION_NAMES:
            raise InputError(f"{track} has two values of {name}, {' and '.join(sorted({*present, canonical}))}")
        present.add(canonical)

    def labels(self) -> Labels:
        """What was added, sorted."""
        values = {
            track: {name: tuple(sorted(own[name])) for name in dims.DIMENSION_NAMES if name in own}
            for track, own in sorted(self.values.items())
        }
        return Labels(values, {track: joined_groups(names) for track, names in sorted(self.groups.items())})


def canonical_label(name: str, value: str) -> str:
    """The canonical text of a value: a known tag's spelling, bpm without needless digits, the name of a key.

    Raises:
        InputError: if the value is no tempo or key, or blank.
    """
    kind = dims.dimension(name).kind
    if kind == "tag":
        return taxonomy.canonical(name, value)
    if kind == "key":
        return key_name(parse_key(value))
    return f"{parse_bpm(value):.10g}"


def read_labels_csv(path: str | Path) -> Labels:
    """Reads a label table: columns ``track``, ``dimension`` and ``value``, found by name, one value per row.

    ``track`` is an identifier (POSIX path relative to the music folder). ``dimension`` is a musical dimension, ``tag``
    (the taxonomy decides which dimension) or ``artist`` (the group for splits; several rows where several play). An
    empty value means unknown and is skipped. UTF-8, with or without a byte order mark.

    Raises:
        InputError: for anything else, naming the file and the line.
    """
    table = LabelTable()
    for line, track, name, value in _csv_rows(path):
        if not value:
            continue
        try:
            table.add(track, name, value)
        except InputError as error:
            raise InputError(f"{path}, line {line}: {error}") from error
    return table.labels()


def _csv_rows(path: str | Path) -> Iterator[tuple[int, str, str, str]]:
    """(line, track, dimension, value) of every row that is not blank."""
    kinds = (*dims.DIMENSION_NAMES, "tag", "artist")
    reader = csv.reader(io.StringIO(_utf8(path), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        wanted = ("track", "dimension", "value")
        if any(header.count(name) != 1 for name in wanted):
            raise InputError(f"{path}, line 1: the header is {','.join(header)!r}, expected track,dimension,value")
        # Columns by name, in any order and among others; a spreadsheet's empty rows are no fault.
        columns = [header.index(name) for name in wanted]
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) <= max(columns):
                raise InputError(f"{path}, line {reader.line_num}: {len(row)} cells, expected {len(header)}")
            if any(_CONTROL.search(cell) for cell in row):
                raise InputError(f"{path}, line {reader.line_num}: a control character in the table; remove it")
            track, name, value = (row[column].strip() for column in columns)
            if not track or not name:
                raise InputError(f"{path}, line {reader.line_num}: the track or the dimension is empty")
            name = name.lower()
            if name not in kinds:
                expected = ", ".join(kinds)
                raise InputError(f"{path}, line {reader.line_num}: dimension {name!r}, expected one of {expected}")
            yield reader.line_num, track, name, value
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def _utf8(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a label table") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The line of the first byte that is wrong, as an editor counts it.
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the table as UTF-8") from error


def write_labels_csv(path: str | Path, labels: Labels) -> None:
    """Writes a label table that ``read_labels_csv`` reads back as the same labels; atomic."""
    with atomic_file(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("track", "dimension", "value"))
        for track in labels.identifiers:
            if track in labels.groups:
                writer.writerows((track, "artist", name) for name in divided_groups(labels.groups[track]))
            for name, values in labels.values.get(track, {}).items():
                writer.writerows((track, name, value) for value in values)
