"""Judgements that are no triplets yet, as triplets with votes: odd one out, ratings, comparisons of pairs, ABX.

One row is one answer of one rater, or a count of answers. Rows about the same comparison are added up, whatever order
their tracks stand in. Columns are found by name and others are ignored; names of raters only say whose ratings belong
together.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.errors import InputError
from msim_tf.evaluate.triplets import Dropped, Triplets

Row = Mapping[str, Any]
Pair = tuple[str, str]
TIE = "tied votes"
NO_VOTES = "no votes"
RATER_COLUMNS = ("rater", "rater_id", "listener", "listener_id", "participant", "user", "worker_id")
ODD_COLUMNS = ("clip1_id", "clip2_id", "clip3_id", "odd")
RATING_COLUMNS = ("query", "candidate", "rating")
PAIR_COLUMNS = ("a", "b", "c", "d", "closer")
ABX_COLUMNS = ("x", "a", "b", "answer")


class Tally:
    """Votes on comparisons: "the first pair is closer than the second", by whichever order they come.

    Args:
        name: of the file, for tables.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._votes: dict[tuple[str, Pair, Pair], float] = defaultdict(float)

    def add(self, question: str, near: Pair, far: Pair, votes: float = 1.0) -> None:
        """Adds votes for ``near`` being closer than ``far``; each pair is (anchor, other)."""
        self._votes[question, near, far] += votes
        self._votes.setdefault((question, far, near), 0.0)

    def triplets(self) -> tuple[Triplets, Dropped]:
        """The comparisons with a majority, in the order of their first votes, and those without one."""
        kept: list[tuple[str, Pair, Pair, float, float]] = []
        reasons: dict[str, tuple[str, ...]] = {}
        done: set[tuple[str, frozenset[Pair]]] = set()
        # Each comparison stands twice, once for either answer: the more votes decide which pair is the near one.
        for question, near, far in list(self._votes):
            if (question, frozenset((near, far))) in done:
                continue
            done.add((question, frozenset((near, far))))
            for_near, for_far = self._votes[question, near, far], self._votes[question, far, near]
            if for_near == for_far:
                reason = TIE if for_near else NO_VOTES
                reasons[reason] = (*reasons.get(reason, ()), question)
            elif for_near > for_far:
                kept.append((question, near, far, for_near, for_far))
            else:
                kept.append((question, far, near, for_far, for_near))

        # Ids of the triplets: the question's, with a number behind where it gave several.
        total, seen = Counter(question for question, *_ in kept), Counter[str]()
        triplet_ids = []
        for question, *_ in kept:
            seen[question] += 1
            triplet_ids.append(f"{question}.{seen[question]}" if total[question] > 1 else question)

        # Their members, and [n, 2] votes for and against.
        votes = np.array([row[3:] for row in kept], np.float64).reshape(-1, 2)
        far_anchor = tuple(far[0] for _, _, far, _, _ in kept)
        anchor = tuple(near[0] for _, near, _, _, _ in kept)
        made = Triplets(
            name=self.name,
            triplet_ids=tuple(triplet_ids),
            anchor=anchor,
            positive=tuple(near[1] for _, near, _, _, _ in kept),
            negative=tuple(far[1] for _, _, far, _, _ in kept),
            agreement=votes[:, 0] / votes.sum(axis=1),
            far_anchor=None if far_anchor == anchor else far_anchor,
            votes=votes,
            questions=tuple(question for question, *_ in kept),
        )
        return made, Dropped(reasons)


def add_odd_one_out(tally: Tally, question: str, clips: Sequence[str], votes: Sequence[float]) -> None:
    """Votes for the odd one of three: whoever names C finds A and B closer than A and C, and closer than B and C.

    The two clips that are alike, by most votes, are the anchors of one triplet each; votes for the third clip of a
    comparison say nothing about it.
    """
    # [3] votes. Whoever names a clip of the near pair instead finds the odd one nearer to the other clip of the pair.
    odd = int(np.argmax(votes))
    first, second = (place for place in range(3) if place != odd)
    for anchor, other in ((first, second), (second, first)):
        near, far = (clips[anchor], clips[other]), (clips[anchor], clips[odd])
        tally.add(question, near, far, votes[odd])
        tally.add(question, far, near, votes[other])


def read_odd_one_out(path: Path, rows: Sequence[Row]) -> tuple[Triplets, Dropped]:
    """One answer per row: three clips and which of them is the odd one, by name or as 1, 2 or 3."""
    # Add up the answers to each question: the same three clips, in whatever order they stand.
    counts: dict[tuple[str, ...], dict[str, float]] = {}
    for number, row in enumerate(rows, 1):
        clips = [text(path, row, column, number) for column in ODD_COLUMNS[:3]]
        odd = text(path, row, "odd", number)
        odd = clips[int(odd) - 1] if odd in ("1", "2", "3") and odd not in clips else odd
        if odd not in clips or len(set(clips)) < 3:
            raise InputError(f"{path}, row {number}: odd is {odd!r}, expected one of three clips {', '.join(clips)}")
        own = counts.setdefault(tuple(sorted(clips)), dict.fromkeys(sorted(clips), 0.0))
        own[odd] += 1

    # A question without a single odd clip says nothing.
    tally = Tally(path.name)
    tied: list[str] = []
    for question, own in enumerate(counts.values(), 1):
        votes = list(own.values())
        if votes.count(max(votes)) > 1:
            tied.append(str(question))
            continue
        add_odd_one_out(tally, str(question), list(own), votes)
    made, dropped = tally.triplets()
    return made, dropped + Dropped({TIE: tuple(tied)} if tied else {})


def read_ratings(path: Path, rows: Sequence[Row]) -> tuple[Triplets, Dropped]:
    """Ratings of candidates for a query, more is more similar: of any two that one rater rated, the higher is nearer.

    Ratings of different raters are not compared, since scales are personal; equal ratings are no vote. A rater who
    rated a candidate several times counts with the mean.
    """
    # (query, rater) -> candidate -> ratings.
    rater = next((column for column in RATER_COLUMNS if column in rows[0]), None)
    ratings: dict[tuple[str, str], dict[str, list[float]]] = {}
    for number, row in enumerate(rows, 1):
        query, candidate = text(path, row, "query", number), text(path, row, "candidate", number)
        who = text(path, row, rater, number) if rater else ""
        own = ratings.setdefault((query, who), {})
        own.setdefault(candidate, []).append(number_in(path, row, "rating", number))

    # Every two candidates of one rater and query are a vote; a comparison of equal ones is counted with none.
    tally = Tally(path.name)
    for (query, _), own in ratings.items():
        means = [(candidate, float(np.mean(values))) for candidate, values in own.items()]
        for place, (first, high) in enumerate(means):
            for second, low in means[place + 1 :]:
                near, far = (first, second) if high >= low else (second, first)
                tally.add(query, (query, near), (query, far), float(high != low))
    return tally.triplets()


def read_pairs(path: Path, rows: Sequence[Row]) -> tuple[Triplets, Dropped]:
    """Comparisons of two pairs: ``closer`` is "ab" or "cd", or ``votes_ab`` and ``votes_cd`` count answers."""
    tally = Tally(path.name)
    for number, row in enumerate(rows, 1):
        a, b, c, d = (text(path, row, column, number) for column in PAIR_COLUMNS[:4])
        first, second = _shared_anchor((a, b), (c, d))
        question = str(row.get("triplet_id") or " ".join(sorted((*first, *second))))
        for_first, for_second = _answers(path, row, number, "closer", ("ab", "cd"))
        tally.add(question, first, second, for_first)
        tally.add(question, second, first, for_second)
    return tally.triplets()


def read_abx(path: Path, rows: Sequence[Row]) -> tuple[Triplets, Dropped]:
    """ABX: is ``x`` more like ``a`` or ``b``? ``answer`` says it, or ``votes_a`` and ``votes_b`` count answers."""
    tally = Tally(path.name)
    for number, row in enumerate(rows, 1):
        x, a, b = (text(path, row, column, number) for column in ABX_COLUMNS[:3])
        for_a, for_b = _answers(path, row, number, "answer", ("a", "b"))
        tally.add(x, (x, a), (x, b), for_a)
        tally.add(x, (x, b), (x, a), for_b)
    return tally.triplets()


def _shared_anchor(first: Pair, second: Pair) -> tuple[Pair, Pair]:
    """The pairs, each in one order whoever wrote it, and with the track that both share as their anchor."""
    shared = set(first) & set(second)
    if len(shared) == 1:
        (anchor,) = shared
        return tuple((anchor, *(set(pair) - {anchor})) for pair in (first, second))  # type: ignore[return-value]
    return tuple(sorted(first)), tuple(sorted(second))  # type: ignore[return-value]


def _answers(path: Path, row: Row, number: int, column: str, words: tuple[str, str]) -> tuple[float, float]:
    """Votes for the first and the second: counts, or one answer in words."""
    columns = [f"votes_{word}" for word in words]
    if all(name in row for name in columns):
        votes = [number_in(path, row, name, number) for name in columns]
        if min(votes) < 0:
            raise InputError(f"{path}, row {number}: {min(votes)} votes, expected 0 or more")
        return votes[0], votes[1]
    answer = text(path, row, column, number).lower()
    if answer not in words:
        raise InputError(f"{path}, row {number}: {column} is {answer!r}, expected {' or '.join(words)}")
    return float(answer == words[0]), float(answer == words[1])


def text(path: Path, row: Row, column: str, number: int, *, unit: str = "row") -> str:
    """A cell that must not be blank; messages count by ``unit``."""
    value = row.get(column)
    if value is None or not str(value).strip():
        raise InputError(f"{path}, {unit} {number}: {column} is empty")
    return str(value).strip()


def number_in(path: Path, row: Row, column: str, number: int, *, unit: str = "row") -> float:
    """A cell that must be a finite number; messages count by ``unit``."""
    try:
        value = float(row[column])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"{path}, {unit} {number}: {column} is {row.get(column)!r}, expected a number") from None
    if not math.isfinite(value):
        raise InputError(f"{path}, {unit} {number}: {column} is {row[column]!r}, expected a number")
    return value


# The columns that give a form away -> its reader; the first that fits reads the file.
READERS: tuple[tuple[tuple[str, ...], Callable[[Path, Sequence[Row]], tuple[Triplets, Dropped]]], ...] = (
    (ODD_COLUMNS, read_odd_one_out),
    (RATING_COLUMNS, read_ratings),
    (PAIR_COLUMNS, read_pairs),
    ((*PAIR_COLUMNS[:4], "votes_ab", "votes_cd"), read_pairs),
    (ABX_COLUMNS, read_abx),
    ((*ABX_COLUMNS[:3], "votes_a", "votes_b"), read_abx),
)
