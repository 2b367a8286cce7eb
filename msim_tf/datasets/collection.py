"""What a reader of a data set fills in: labels by track, artists, the published split, and what was left out with the
reason.

A *track* is a name in our words: a path relative to the music folder, or an identifier of a feature store. An *item*
is the data set's own name for it. Readers ask ``TrackNames`` which track an item is; an item without audio is counted
and named, never invented.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msim_tf.dimensions as dims
from msim_tf.errors import InputError
from msim_tf.labels.splits import PARTS, Split, make_split
from msim_tf.labels.tables import Labels, LabelTable

NO_AUDIO = "no audio"
LISTED_TWICE = "listed twice"
TWO_FILES = "two files of that name"
_HEAD_BYTES = 256


@dataclass(frozen=True)
class ReadOptions:
    """How tags and splits are read, where a data set leaves a choice.

    Attributes:
        threshold: Last.FM's weight of a tag, 0 to 100, above which it counts (Choi: 50).
        era_from_year: take the era from the year where no tag tells it.
        split_number: which of several published splits.
    """

    threshold: float = 50.0
    era_from_year: bool = False
    split_number: int = 0


class TrackNames:
    """Finds tracks by a path as the data set writes it, or by the stem of a file's name.

    Args:
        identifiers: every track there is.
        unusable: those of them whose file is no audio, with the reason.
    """

    def __init__(self, identifiers: Iterable[str], unusable: Mapping[str, str] | None = None) -> None:
        self.identifiers = tuple(identifiers)
        self.unusable = dict(unusable or {})
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for identifier in self.identifiers:
            path = PurePosixPath(identifier)
            self._by_name[path.name].append(identifier)
            self._by_stem[path.stem].append(identifier)

    def at(self, path: str) -> list[str]:
        """Tracks whose path ends in ``path``, or whose whole path is the end of it; usually one, or none."""
        parts = PurePosixPath(path).parts
        tracks = []
        for track in self._by_name.get(parts[-1] if parts else "", ()):
            # The shorter of both paths must be the end of the longer one.
            own = PurePosixPath(track).parts
            length = min(len(own), len(parts))
            if own[-length:] == parts[-length:]:
                tracks.append(track)
        return tracks

    def named(self, stem: str) -> list[str]:
        """Tracks whose file is called ``stem`` and a suffix, in any folder."""
        return list(self._by_stem.get(stem, ()))


@dataclass(frozen=True)
class DatasetLabels:
    """A data set in our words.

    Attributes:
        labels: values and artists of the tracks.
        split: the published split, or None.
        left_out: reason -> items, each in the data set's own name.
        faults: the reasons among them that are faults of this copy, such as missing audio.
        notes: what a user should know, one line each.
    """

    labels: Labels
    split: Split | None
    left_out: dict[str, tuple[str, ...]]
    faults: frozenset[str]
    notes: tuple[str, ...]


@dataclass
class Collection:
    """Labels of a data set under construction.

    Attributes:
        tracks: which tracks there are.
        split_source: where the published split is from; empty without one.
        notes: what a user should know.
        faults: reasons for leaving out that are faults of this copy.
    """

    tracks: TrackNames
    split_source: str = ""
    notes: list[str] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)
    _table: LabelTable = field(default_factory=LabelTable)
    _parts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _items: set[str] = field(default_factory=set)

    def track_of(self, item: str, *, paths: Iterable[str] = (), stems: Iterable[str] = (), fault: bool = True) -> str:
        """The track that ``item`` is, or "" after noting why there is none.

        Args:
            item: the data set's name for it; a second time it is left out as listed twice.
            paths: where its audio should lie, tried in this order.
            stems: what its file may be called without suffix, tried after the paths.
            fault: whether missing audio is a fault of this copy; not where the tables describe more than a copy holds.
        """
        if item in self._items:
            self.leave_out(LISTED_TWICE, item)
            return ""
        self._items.add(item)
        # The first place at which anything lies decides: one file is the track, several are a fault of the copy.
        for tracks in (*map(self.tracks.at, paths), *map(self.tracks.named, stems)):
            reason = self.tracks.unusable.get(tracks[0], "") if len(tracks) == 1 else TWO_FILES
            if tracks and reason:
                self.leave_out(reason, item)
                return ""
            if tracks:
                return tracks[0]
        self.leave_out(NO_AUDIO, item, fault=fault)
        return ""

    def leave_out(self, reason: str, item: str, *, fault: bool = True) -> None:
        """Notes that ``item`` is not labelled, and why."""
        self._left_out[reason].append(item)
        if fault:
            self.faults.add(reason)

    def add(self, track: str, dimension: str, value: str) -> None:
        """Adds a value of a dimension, or an "artist"; one that contradicts or is none is left out and named."""
        if not value.strip():
            return
        try:
            self._table.add(track, dimension, value.strip())
        except InputError as error:
            self.leave_out(f"unusable {dimension} ({error})", track)

    def has(self, track: str, dimension: str) -> bool:
        """Whether the track has a value in ``dimension``."""
        return bool(self._table.values.get(track, {}).get(dimension))

    def put(self, track: str, part: str) -> None:
        """Puts a track into a part of the published split."""
        self._parts[part].add(track)

    def split_contradictions(self) -> None:
        """Leaves tracks that the published lists put into two parts out of all parts."""
        for position, part in enumerate(PARTS):
            for other in PARTS[position + 1 :]:
                for track in sorted(self._parts[part] & self._parts[other]):
                    self.leave_out(f"in the published {part} and {other} parts", track)
                    self._parts[part].discard(track)
                    self._parts[other].discard(track)

    def result(self) -> DatasetLabels:
        """What was read."""
        self.split_contradictions()
        split = make_split(self.split_source, self._parts) if any(self._parts.values()) else None
        # A track with an artist but no value in any dimension counts as without a label.
        labels = self._table.labels()
        labelled = {
            track for track, values in labels.values.items() if any(values.get(name) for name in dims.DIMENSION_NAMES)
        }
        unlabelled = len(set(self.tracks.identifiers) - labelled)
        notes = [*self.notes, *([f"{unlabelled} tracks have no label: unknown, not negative"] if unlabelled else [])]
        left_out = {reason: tuple(items) for reason, items in self._left_out.items() if items}
        return DatasetLabels(labels, split, left_out, frozenset(self.faults), tuple(notes))


def era_of_year(year: int) -> str:
    """The decade of a year as the taxonomy writes it, e.g. "80s", in full before 1950; "" for no year."""
    if not 1900 <= year < 2100:
        return ""
    decade = year // 10 * 10
    return f"{decade}s" if decade < 1950 else f"{decade % 100:02d}s"


def unusable_audio(path: Path) -> str:
    """Why a file that should be audio is none, told from its first bytes; "" where it may be.

    Previews that a shop no longer serves are often saved as the page that says so.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "empty file"
    # HTML, XML, JSON or a line of text that a server sent instead of the file; no sound file begins so.
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<", b"{", b"404", b"not found")):
        return "a web page or message saved as audio"
    if not any(head):
        return "zeros only, as a broken download leaves them"
    return ""
