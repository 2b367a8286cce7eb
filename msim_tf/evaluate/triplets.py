"""Judgements of people as data: who was compared with whom, which are kept, and what must be embedded to score them.

A triplet is (anchor, positive, negative): listeners found the positive nearer to the anchor. A comparison of two pairs
("a and b are closer than c and d") is the same with another anchor of the far pair, so every published form of
judgement becomes triplets. Conventions: identifiers are text; a *clip* of a track has the identifier
``<track>@<start in seconds>``, so both readings of Dim-Sim (exact 3 s clips, whole-track mean) are the same computation
on other identifiers. A triplet that cannot be scored is never an error: it is dropped, counted, and its reason kept.

Does not read files (``triplet_files``, ``judgement_files``) and does not compute distances (``triplet_scores``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np

from msim_tf.errors import InputError

LISTENERS, LABELS = "listeners", "labels"


@dataclass(frozen=True)
class Clip:
    """What must be embedded for one member of a triplet: ``seconds`` of ``track`` from ``start`` (None: all of it)."""

    identifier: str
    track: str
    start: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Dropped:
    """What was left out and why.

    Attributes:
        reasons: reason -> ids of the triplets dropped for it.
        missing: identifiers without a vector, each once.
    """

    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def __add__(self, other: Dropped) -> Dropped:
        reasons = dict(self.reasons)
        for reason, triplet_ids in other.reasons.items():
            reasons[reason] = reasons.get(reason, ()) + tuple(triplet_ids)
        return Dropped(reasons, tuple(dict.fromkeys(self.missing + other.missing)))

    @property
    def count(self) -> int:
        """Triplets dropped, all reasons together."""
        return sum(len(triplet_ids) for triplet_ids in self.reasons.values())

    def lines(self, *, shown: int | None = None) -> list[str]:
        """One line per reason with its count; then the identifiers without a vector: all, or the first ``shown``."""
        lines = [f"dropped {len(ids)}: {reason}" for reason, ids in self.reasons.items() if ids]
        if self.missing:
            more = "" if shown is None or len(self.missing) <= shown else " ..."
            lines.append(f"{len(self.missing)} without a vector: {' '.join(self.missing[:shown])}{more}")
        return lines


@dataclass(frozen=True, eq=False)
class Triplets:
    """Triplets in the order of their file.

    Attributes:
        name: where they are from, for tables.
        triplet_ids: [n], unique.
        anchor: [n] identifiers.
        positive: [n] identifiers, what most listeners found nearer to the anchor.
        negative: [n] identifiers.
        agreement: [n] float, share of the votes for the positive, in (0.5, 1]; NaN where only the outcome is known.
        starts: [n, 3] seconds of anchor, positive, negative in their tracks, or None.
        clip_seconds: length of the clips that listeners heard, or None.
        exact_clips: whether the identifiers are those of clips (``clip_reading``) rather than of tracks.
        filters: what was applied so far, for the tables.
        paths: identifier -> path of its sound as the file tells it (MagnaTagATune), where it does.
        far_anchor: [n] identifiers that the negatives are compared with, where these are not the anchors; None in
            triplets.
        votes: [n, 2] for the positive and for the negative, or None where the file tells only outcomes.
        questions: [n] what was asked at once, as one odd one out of three gives two triplets; None if each is its own.
        judges: who found the positive nearer: ``LISTENERS``, or ``LABELS`` for what ``label_triplets`` makes.
    """

    name: str
    triplet_ids: tuple[str, ...]
    anchor: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    agreement: np.ndarray
    starts: np.ndarray | None = None
    clip_seconds: float | None = None
    exact_clips: bool = False
    filters: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    judges: str = LISTENERS
    far_anchor: tuple[str, ...] | None = None
    votes: np.ndarray | None = None
    questions: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.triplet_ids)

    def take(self, keep: np.ndarray, *, note: str | None = None) -> Triplets:
        """The triplets at ``keep`` ([n] bool), remembering ``note`` among the filters."""
        rows = np.flatnonzero(keep)
        return replace(
            self,
            triplet_ids=tuple(self.triplet_ids[row] for row in rows),
            anchor=tuple(self.anchor[row] for row in rows),
            positive=tuple(self.positive[row] for row in rows),
            negative=tuple(self.negative[row] for row in rows),
            agreement=self.agreement[rows],
            starts=None if self.starts is None else self.starts[rows],
            far_anchor=None if self.far_anchor is None else tuple(self.far_anchor[row] for row in rows),
            votes=None if self.votes is None else self.votes[rows],
            questions=None if self.questions is None else tuple(self.questions[row] for row in rows),
            filters=self.filters + ((note,) if note else ()),
        )

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Every identifier that occurs, once."""
        return tuple(dict.fromkeys(self.anchor + self.positive + self.negative + (self.far_anchor or ())))

    @property
    def members(self) -> tuple[tuple[str, str, str, str], ...]:
        """[n] anchor, positive, anchor of the far pair, negative."""
        return tuple(zip(self.anchor, self.positive, self.far_anchor or self.anchor, self.negative))

    @property
    def queries(self) -> tuple[str, ...]:
        """[n] what is not independent of each other: triplets of one question, else of one anchor."""
        return self.questions or self.anchor

    def clips(self) -> tuple[Clip, ...]:
        """What must be embedded to score these triplets: each track or, after ``clip_reading``, each clip, once."""
        if self.starts is None or not self.exact_clips:
            return tuple(Clip(identifier, identifier) for identifier in self.identifiers)
        # [n, 3] starts, column by column; one clip may be a member of many triplets.
        clips: dict[str, Clip] = {}
        for column, names in enumerate((self.anchor, self.positive, self.negative)):
            for name, start in zip(names, self.starts[:, column]):
                track = name.removesuffix(clip_suffix(float(start)))
                clips[name] = Clip(name, track, float(start), self.clip_seconds)
        return tuple(clips.values())


def clip_suffix(start: float) -> str:
    """What turns a track's identifier into the identifier of its clip at ``start`` seconds: ``@12.5``."""
    return f"@{start:.3f}".rstrip("0").rstrip(".")


def clip_reading(triplets: Triplets) -> Triplets:
    """The same triplets about their exact clips: every identifier becomes ``<track>@<start>``.

    Raises:
        InputError: if the file told no starts.
    """
    if triplets.starts is None:
        raise InputError(f"{triplets.name}: no start columns, so there are no clips to compare; use whole tracks")
    if triplets.exact_clips:
        return triplets
    # [n] rows of three suffixes, in the order anchor, positive, negative.
    suffixes = [[clip_suffix(float(start)) for start in row] for row in triplets.starts]
    return replace(
        triplets,
        anchor=tuple(name + row[0] for name, row in zip(triplets.anchor, suffixes)),
        positive=tuple(name + row[1] for name, row in zip(triplets.positive, suffixes)),
        negative=tuple(name + row[2] for name, row in zip(triplets.negative, suffixes)),
        exact_clips=True,
        filters=(*triplets.filters, "exact clips"),
    )


def matched(
    names: Iterable[str], identifiers: Sequence[str], *, paths: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Which of the ``identifiers`` each name means: itself, its path in the file, or the one ``<name>.<suffix>``.

    Dim-Sim says ``TRABC``, a folder of sound has ``TRABC.mp3`` (perhaps in a subfolder); where two files would fit,
    neither does.

    Args:
        names: as in the triplets.
        identifiers: as in an embeddings file or a folder.
        paths: see ``Triplets``.

    Returns:
        name -> identifier, for the names that have one.
    """
    # Every identifier by the name of its file without folders and suffix; two of one stem fit nobody.
    exact = set(identifiers)
    stems: dict[str, set[str]] = {}
    for identifier in identifiers:
        stems.setdefault(PurePosixPath(identifier).stem, set()).add(identifier)
    matches = {}
    for name in names:
        path = (paths or {}).get(name)
        candidates = stems.get(name, set())
        if name in exact:
            matches[name] = name
        elif path in exact:
            matches[name] = str(path)
        elif len(candidates) == 1:
            (matches[name],) = candidates
    return matches


def agreeing(triplets: Triplets, threshold: float) -> tuple[Triplets, Dropped]:
    """Keeps triplets on which at least ``threshold`` of the listeners agree (paper, section 4.1: 0.9).

    A file that tells only outcomes (Dim-Sim "clean") has no agreement left to filter by and passes whole.

    Raises:
        InputError: if the threshold is not in [0.5, 1].
    """
    if not 0.5 <= threshold <= 1:
        raise InputError(f"agreement threshold is {threshold}, expected a share in [0.5, 1]")
    # [n] bool: unknown agreement passes, and a share such as 9/10 must pass 0.9 whatever its rounding.
    keep = np.isnan(triplets.agreement) | (triplets.agreement >= threshold - 1e-9)
    reason = f"agreement below {threshold:.0%}"
    note = f"agreement >= {threshold:.0%}"
    if len(triplets) and np.isnan(triplets.agreement).all():
        note = "as published (the file tells outcomes, not votes)"
    return triplets.take(keep, note=note), _dropped(triplets, {reason: ~keep})


def scorable(triplets: Triplets, identifiers: Iterable[str]) -> tuple[Triplets, Dropped]:
    """Keeps comparisons of two different pairs, of two different tracks each, that all have a vector.

    Args:
        triplets: any reading.
        identifiers: what has a vector.
    """
    # [n] masks of what cannot be scored; each triplet is dropped for one reason.
    embedded = set(identifiers)
    twice = np.array([_is_degenerate(*member) for member in triplets.members], bool)
    without = np.array([not embedded.issuperset(member) for member in triplets.members], bool) & ~twice
    missing = tuple(identifier for identifier in triplets.identifiers if identifier not in embedded)
    dropped = _dropped(triplets, {"same track twice": twice, "audio or vector missing": without})
    return triplets.take(~twice & ~without), replace(dropped, missing=missing)


def _is_degenerate(anchor: str, positive: str, far_anchor: str, negative: str) -> bool:
    """Whether a pair is a track with itself, or both pairs are the same."""
    return anchor == positive or far_anchor == negative or {anchor, positive} == {far_anchor, negative}


def _dropped(triplets: Triplets, masks: Mapping[str, np.ndarray]) -> Dropped:
    """The triplets that each mask, [n] bool, drops for its reason."""
    ids = {reason: tuple(triplets.triplet_ids[row] for row in np.flatnonzero(mask)) for reason, mask in masks.items()}
    return Dropped({reason: names for reason, names in ids.items() if names})
