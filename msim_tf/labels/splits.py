"""A published split of a data set: which tracks are for training, validation and test, as a file of ours.

``msim dataset labels --split`` writes it, ``msim train --split`` and ``msim evaluate table1 --split`` obey it. A track
is in one part at most, and tracks of no part take part in nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msim_tf.checksums import load_checked_json, save_checked_json
from msim_tf.errors import InputError
from msim_tf.labels.encoding import groups_of, split_by_group

FORMAT = "msim-split"
FORMAT_VERSION = 1
_CHECKED = "checked"
PARTS: tuple[str, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Tracks of each part.

    Attributes:
        source: where the split was published.
        parts: "train", "validation", "test" -> identifiers, sorted; a part may be empty.
    """

    source: str
    parts: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part, tracks in self.parts.items():
            if part not in PARTS:
                raise InputError(f"split {self.source}: part {part!r}, expected one of {', '.join(PARTS)}")
            for track in tracks:
                if seen.setdefault(track, part) != part:
                    raise InputError(f"split {self.source}: {track} is in {seen[track]} and in {part}")

    def rows(self, identifiers: Sequence[str]) -> dict[str, np.ndarray]:
        """Indices into ``identifiers`` of each part, sorted int64; tracks that ``identifiers`` lacks are skipped."""
        row_of = {identifier: row for row, identifier in enumerate(identifiers)}
        rows = {part: [row_of[track] for track in self.parts.get(part, ()) if track in row_of] for part in PARTS}
        return {part: np.array(sorted(numbers), np.int64) for part, numbers in rows.items()}


def without_shared_artists(split: Split, groups: Mapping[str, str]) -> tuple[Split, dict[str, tuple[str, ...]]]:
    """Leaves out of training what would give a later part away: tracks of an artist who also plays there.

    The test part stays whole; validation loses artists of the test part, training those of both. A track without a
    known artist counts as its parent folder's only where ``groups`` names it, so unknown artists never cost a track.

    Args:
        split: as published.
        groups: identifier -> artist, or several (``tables.joined_groups``).

    Returns:
        The split by artist, and what each part lost.
    """
    # From the last part to the first: what a part keeps bars its artists from all earlier ones.
    kept: dict[str, tuple[str, ...]] = {}
    lost: dict[str, tuple[str, ...]] = {}
    barred: set[str] = set()
    for part in reversed(PARTS):
        tracks = split.parts.get(part, ())
        clash = {track for track in tracks if track in groups and barred.intersection(groups_of(track, groups))}
        kept[part] = tuple(track for track in tracks if track not in clash)
        if clash:
            lost[part] = tuple(sorted(clash))
        barred.update(name for track in kept[part] if track in groups for name in groups_of(track, groups))
    return Split(split.source, {part: kept[part] for part in PARTS}), lost


def training_rows(
    identifiers: Sequence[str],
    groups: Mapping[str, str],
    *,
    validation: float,
    seed: int,
    split: Split | None = None,
) -> dict[str, np.ndarray]:
    """Which tracks a training learns from, which choose its epoch, and which it must not hear.

    Args:
        identifiers: the tracks of a store.
        groups: identifier -> artist, see ``encoding.split_by_group``.
        validation: share that is held out, by whole artists, where no published validation part is among the tracks.
        seed: of that choice.
        split: a published split; None divides all tracks by artist.

    Returns:
        "train", "validation", "test" -> sorted int64 indices into ``identifiers``.
    """
    if split is None:
        return split_by_group(identifiers, groups, validation=validation, seed=seed)
    # A published validation part is used as it is; without one, part of the training tracks is held out by artist.
    rows = split.rows(identifiers)
    if len(rows["validation"]) or not len(rows["train"]):
        return rows
    # Indices into the training part, turned back into indices into all tracks.
    own = split_by_group([identifiers[row] for row in rows["train"]], groups, validation=validation, seed=seed)
    return {**rows, "train": rows["train"][own["train"]], "validation": rows["train"][own["validation"]]}


def make_split(source: str, parts: Mapping[str, Iterable[str]]) -> Split:
    """A split of sorted tracks, each once, with every part named."""
    return Split(source, {part: tuple(sorted(set(parts.get(part, ())))) for part in PARTS})


def save_split(path: str | Path, split: Split) -> None:
    """Writes a split as JSON with its checksum, atomically."""
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, _CHECKED: True, "source": split.source}
    save_checked_json(path, {**header, **{part: list(split.parts.get(part, ())) for part in PARTS}})


def load_split(path: str | Path) -> Split:
    """Reads what ``save_split`` wrote.

    Raises:
        InputError: if it is missing, damaged, no split, or puts a track into two parts.
    """
    # Splits written by hand or by version 0.1 have no checksum, and do not claim one.
    cure = "write it again, or take 'checksum' and 'checked' away if you have edited it"
    what = "a split (msim dataset labels --split writes one)"
    value = load_checked_json(path, what, cure=cure, header=(FORMAT, FORMAT_VERSION), optional_without=_CHECKED)
    parts = {part: value.get(part, []) for part in PARTS}
    for part, tracks in parts.items():
        if not isinstance(tracks, list) or not all(isinstance(track, str) for track in tracks):
            raise InputError(f"{path}: part {part!r} is not a list of tracks")
    try:
        return Split(str(value.get("source", Path(path).stem)), {part: tuple(tracks) for part, tracks in parts.items()})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
