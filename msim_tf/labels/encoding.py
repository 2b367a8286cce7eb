"""Labels as arrays, and splits by artist.

The label tables themselves (``Labels``, CSV, JAMS) are offered here too. Splits never cut through a group, because a
model that has heard an artist recognises the artist.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

import msim_tf.dimensions as dims
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.labels import relations, taxonomy
from msim_tf.labels.jams import read_labels_jams
from msim_tf.labels.passages import Passages, RegressionTargets, regression_targets
from msim_tf.labels.tables import Labels, divided_groups, read_labels_csv, write_labels_csv
from msim_tf.labels.teacher import TeacherTags, teacher_tags
from msim_tf.theory import UNKNOWN_KEY, parse_key

__all__ = [
    "EncodedLabels",
    "Labels",
    "encode",
    "groups_of",
    "read_labels_csv",
    "read_labels_jams",
    "split_by_group",
    "validate_tracks",
    "write_labels_csv",
]


def validate_tracks(labels: Labels, identifiers: Iterable[str], *, table: str | Path, tracks_of: str | Path) -> None:
    """Refuses labels for tracks that do not exist.

    Args:
        labels: the table.
        identifiers: the tracks there are.
        table: where the labels come from, for the error text.
        tracks_of: where the tracks are, for the error text.

    Raises:
        InputError: naming up to three of them and how many there are.
    """
    unknown = sorted(set(labels.identifiers) - set(identifiers))
    if unknown:
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise InputError(
            f"{table}: labels for {len(unknown)} track{'s' * (len(unknown) > 1)} ({shown}) that "
            f"{'are' if len(unknown) > 1 else 'is'} not in {tracks_of}; "
            "a track is named by its path relative to the music folder"
        )


@dataclass(frozen=True)
class EncodedLabels:
    """Labels as arrays, one row per track.

    Attributes:
        identifiers: the tracks, in the order of the rows.
        arrays: dimension -> [n, vocabulary] bool for tags, [n] float32 bpm (NaN unknown) for tempo, [n] int8 (-1
            unknown) for key.
        vocabularies: tag dimension -> its values, in the order of the columns.
        teacher: tag dimension -> another model's opinion, which counts for pairs that are not both labelled.
        regression: all that a teacher says of each track, to be predicted; None if not asked for.
    """

    identifiers: tuple[str, ...]
    arrays: dict[str, np.ndarray]
    vocabularies: dict[str, tuple[str, ...]]
    teacher: dict[str, TeacherTags] = field(default_factory=dict)
    regression: RegressionTargets | None = None

    def labelled(self, dimension: str) -> np.ndarray:
        """[n] bool: which tracks have a label in ``dimension``, or a teacher's scores."""
        array = self._array(dimension)
        kind = dims.dimension(dimension).kind
        if kind == "tag":
            labelled = np.asarray(array.any(axis=1))
            return labelled | self.teacher[dimension].known() if dimension in self.teacher else labelled
        return ~np.isnan(array) if kind == "tempo" else array >= 0  # keys count from 0, -1 is unknown

    def relation(
        self, dimension: str, rows: np.ndarray, columns: np.ndarray, *, key_relation: str = "parallel"
    ) -> np.ndarray:
        """How the tracks ``rows`` are related to the tracks ``columns``.

        Args:
            dimension: one that was encoded.
            rows: [r] int indices of tracks.
            columns: [c] int indices of tracks.
            key_relation: see ``relations.key_relation``.

        Returns:
            [r, c] int8: +1 similar, -1 dissimilar, 0 unknown; a track is similar to itself.
        """
        # [r, c]: labels decide; where they say nothing of a pair, a teacher may.
        array = self._array(dimension)
        labelled = relations.relation(dimension, array[rows], array[columns], key_relation=key_relation)
        if dimension not in self.teacher:
            return labelled
        return np.where(labelled == 0, self.teacher[dimension].relation(rows, columns), labelled)

    def take(self, indices: np.ndarray) -> EncodedLabels:
        """The rows ``indices``, with the same vocabularies and calibration."""
        arrays = {name: array[indices] for name, array in self.arrays.items()}
        teacher = {name: tags.take(indices) for name, tags in self.teacher.items()}
        identifiers = tuple(self.identifiers[index] for index in indices)
        regression = self.regression.take(indices) if self.regression else None
        return EncodedLabels(identifiers, arrays, self.vocabularies, teacher, regression)

    def _array(self, dimension: str) -> np.ndarray:
        if dimension not in self.arrays:
            raise InputError(f"dimension {dimension!r} was not encoded, only {', '.join(self.arrays)}")
        return self.arrays[dimension]


def encode(
    labels: Labels,
    identifiers: Iterable[str],
    dimensions: Iterable[str],
    *,
    teacher: Embeddings | None = None,
    regression: Passages | None = None,
) -> EncodedLabels:
    """Labels of ``identifiers`` in ``dimensions`` as arrays.

    The vocabulary of a tag dimension is what these tracks hold: the taxonomy's tags in its order, then others by name.

    Args:
        labels: the table.
        identifiers: the tracks.
        dimensions: what of it.
        teacher: another model's scores of tags, calibrated over these tracks; see ``labels.teacher``.
        regression: what a teacher says, all of which is to be predicted, for ``EncodedLabels.regression``.
    """
    tracks, dimensions = tuple(identifiers), tuple(dimensions)
    arrays: dict[str, np.ndarray] = {}
    vocabularies: dict[str, tuple[str, ...]] = {}
    for name in dimensions:
        # One tuple of values per track, () where unknown. Of a tempo or key it becomes one number, [tracks].
        kind = dims.dimension(name).kind
        values = [labels.values.get(track, {}).get(name, ()) for track in tracks]
        if kind == "tag":
            # The tags that occur: those of the taxonomy in its order, then others by name.
            occurring = {tag for own in values for tag in own}
            listed = [tag for tag in taxonomy.tags(name) if tag in occurring]
            vocabularies[name] = (*listed, *sorted(occurring.difference(listed)))

            # [tracks, vocabulary] bool, True where a track has a tag.
            columns = {tag: column for column, tag in enumerate(vocabularies[name])}
            arrays[name] = np.zeros((len(tracks), len(columns)), bool)
            for row, own in enumerate(values):
                arrays[name][row, [columns[tag] for tag in own]] = True
        elif kind == "tempo":
            arrays[name] = np.array([float(own[0]) if own else math.nan for own in values], np.float32)
        else:
            arrays[name] = np.array([parse_key(own[0]) if own else UNKNOWN_KEY for own in values], np.int8)
    scores = teacher_tags(teacher, tracks, dimensions) if teacher else {}
    targets = regression_targets(regression, tracks) if regression else None
    return EncodedLabels(tracks, arrays, vocabularies, scores, targets)


def split_by_group(
    identifiers: Sequence[str],
    groups: Mapping[str, str],
    *,
    validation: float = 0.1,
    test: float = 0.0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Splits tracks into training, validation and test, whole groups only.

    A track without a group belongs to its parent folder, and at top level to itself. Group names that differ only in
    case are one group. Of all choices of whole groups one of the nearest sizes is taken, at random under ``seed``; a
    wanted part never stays empty. A track of several groups (``labels.joined_groups``) is in the part that holds all of
    them; where they were divided, it is in none. A group that is never alone goes where those go with whom it plays.

    Args:
        identifiers: the tracks.
        groups: identifier -> artist or source.
        validation: share of the tracks that cannot be divided, in [0, 1).
        test: share of the tracks, likewise.
        seed: the same seed and tracks give the same split.

    Returns:
        "train", "validation", "test" -> sorted int64 indices into ``identifiers``; disjoint, together all but the
        tracks of divided groups.

    Raises:
        InputError: if the shares leave nothing to train on, or there are fewer groups than parts.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise InputError(f"split: validation {validation} and test {test} must be >= 0 and leave something to train on")
    # Each track's artists, as units that are divided or stay together; sizes count the tracks of one unit only.
    artists = [groups_of(identifier, groups) for identifier in identifiers]
    whole = _whole_groups(artists)
    units = [{whole[name] for name in names} for names in artists]
    sizes = Counter(unit for own in units for unit in own if len(own) == 1)
    shares = {name: share for name, share in (("validation", validation), ("test", test)) if share > 0}
    if len(sizes) <= len(shares):
        raise InputError(
            f"split: {len(sizes)} group{'s' * (len(sizes) != 1)} of tracks for train, {', '.join(shares)}; "
            "a group is never cut: tell artists apart by 'artist' rows in the label table, or ask for no validation"
        )

    # In turn each part takes those of the shuffled units that come nearest to its share. The rest is to train on.
    names = [str(name) for name in np.random.default_rng(seed).permutation(sorted(sizes))]
    part_of = dict.fromkeys(names, "train")
    for position, (part, share) in enumerate(shares.items()):
        spare = len(shares) - position  # groups that the later parts and training need
        target = share * sum(sizes.values())
        chosen = _nearest_groups([sizes[name] for name in names], target, len(names) - spare)
        part_of |= {names[index]: part for index in chosen}
        names = [name for index, name in enumerate(names) if index not in chosen]

    # A track goes where all of its units went; if they were divided, it is in no part.
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for index, own in enumerate(units):
        parts = {part_of[unit] for unit in own}
        if len(parts) == 1:
            rows[parts.pop()].append(index)
    return {part: np.array(indices, np.int64) for part, indices in rows.items()}


def _whole_groups(artists: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """What each group is divided with: itself or, if it is never alone, a name for it and all with whom it plays."""
    # Disjoint sets: ``parent`` leads from every name to that of its set, and each walk halves the way for the next.
    alone = {names[0] for names in artists if len(names) == 1}
    parent = {name: name for names in artists for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    # The artists of one track fall into one set unless each of them also has tracks of its own.
    for first, *others in artists:
        if not alone.issuperset((first, *others)):
            for other in others:
                parent[root(other)] = root(first)
    return {name: root(name) for name in parent}


def groups_of(identifier: str, groups: Mapping[str, str]) -> tuple[str, ...]:
    """The groups of a track: its artists in one case of letters, else its parent folder, at top level itself."""
    if identifier in groups:
        return divided_groups(groups[identifier].casefold())
    parent = PurePosixPath(identifier).parent
    return (identifier.casefold() if parent == PurePosixPath(".") else parent.as_posix().casefold(),)


def _nearest_groups(sizes: Sequence[int], target: float, most: int) -> set[int]:
    """Which groups (one at least, ``most`` at most) together hold nearest to ``target`` tracks, the first in order."""
    # Subset sums as the bits of one integer; each sum remembers the group that reached it first, so its rest was
    # reached before.
    limit = max(int(2 * target), min(sizes))
    reached, last = 1, dict[int, int]()
    for index, size in enumerate(sizes):
        # A shift adds the size to all sums at once; the mask drops those beyond the limit, twice the target.
        new = (reached << size) & ~reached & ((2 << limit) - 1)
        reached |= new
        while new:
            total = (new & -new).bit_length() - 1
            last[total] = index
            new &= new - 1  # clears the lowest bit that is set
    # Sums by their distance to the target; each is followed back through the groups that made it.
    for total in sorted(last, key=lambda total: (abs(total - target), total)):
        chosen = set[int]()
        while total:
            chosen.add(last[total])
            total -= sizes[last[total]]
        if len(chosen) <= most:
            return chosen
    raise AssertionError("a single group is always a choice")
