"""Table 1 (systems side by side) and Table 2 (all subsets of the dimensions), as Markdown, CSV and JSON.

Every score stands beside its N and its interval over whole queries, every difference beside its interval. The paper's
published figures appear only in a column that says so, and only beside triplets of listeners: they were measured on
other triplets or other training data, and are a reference, not a target.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate.agreement import MOST_QUERIES, query_groups, query_interval
from msim_tf.evaluate.statistics import Interval, paired_bootstrap
from msim_tf.evaluate.triplet_scores import TripletResult, triplet_outcomes, triplet_rows
from msim_tf.evaluate.triplets import LISTENERS, Triplets, scorable
from msim_tf.files import atomic_file, save_json

# Paper, Tables 1 and 2: N = 426 Dim-Sim triplets at >= 90 % agreement, models trained on the Million Song Dataset.
PAPER_N = 426
PAPER_TABLE1: dict[str, float] = {
    "baseline": 0.8192,
    "openl3": 0.7958,
    "multi4": 0.8286,
    "single258": 0.7934,
    "single384": 0.8169,
    "multi384": 0.8380,
}
PAPER_TABLE2: dict[tuple[str, ...], float] = {
    ("genre", "mood", "instrument", "era", "tempo", "key"): 0.8380,
    ("genre", "mood", "instrument", "era", "key"): 0.8286,
    ("genre", "instrument", "era", "tempo"): 0.8286,
    ("genre", "mood", "instrument", "era", "tempo"): 0.8263,
    ("genre", "mood", "era", "tempo", "key"): 0.8263,
    ("genre", "mood", "instrument", "era"): 0.8263,
    ("genre",): 0.7535,
    ("mood",): 0.7535,
    ("instrument",): 0.6901,
    ("era",): 0.7559,
    ("tempo",): 0.5798,
    ("key",): 0.6362,
}
PAPER_DIMENSIONS = max(PAPER_TABLE2, key=len)
PAPER_COLUMN = f"paper, N = {PAPER_N}"


@dataclass(frozen=True)
class Table:
    """A table before it has a form.

    Attributes:
        title: its caption.
        columns: headings.
        rows: cells: text, numbers, or None where there is nothing to say.
        notes: what a reader must know to trust it, below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise InputError(f"table {self.title!r}: a row does not have {len(self.columns)} cells")

    def markdown(self) -> str:
        """The table as GitHub Markdown."""
        # Columns with any text stand to the left, numbers to the right.
        numbers = range(len(self.columns))
        textual = [any(isinstance(row[number], str) for row in self.rows) for number in numbers]
        lines = [self.columns, ["---" if text else "---:" for text in textual]]
        lines += [[cell_text(cell) for cell in row] for row in self.rows]
        body = "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)
        notes = "".join(f"\n- {_escaped(note)}" for note in self.notes)
        return f"**{self.title}**\n\n{body}\n" + (f"{notes}\n" if notes else "")

    def csv(self) -> str:
        """The table as CSV, numbers unrounded."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return buffer.getvalue()

    def to_json(self) -> dict[str, Any]:
        """The table as a JSON object, one record per row."""
        return {
            "title": self.title,
            "rows": [dict(zip(self.columns, row)) for row in self.rows],
            "notes": list(self.notes),
        }


def _escaped(cell: str) -> str:
    """A cell in which nothing is Markdown's or HTML's."""
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def cell_text(cell: Any) -> str:
    """A cell as people read it: scores with four decimals, large numbers with separators, nothing as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "✓" if cell else ""
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.4f}"
    return str(cell)


def save_table(table: Table, folder: str | Path, stem: str) -> tuple[Path, ...]:
    """Writes ``stem``.md, .csv and .json into ``folder``; returns their paths."""
    folder = Path(folder)
    # Markdown to read, CSV to compute with, JSON to keep: the same cells, only the first of them rounded.
    paths = tuple(folder / f"{stem}{suffix}" for suffix in (".md", ".csv", ".json"))
    for path, text in zip(paths, (table.markdown(), table.csv())):
        with atomic_file(path, "w") as file:
            file.write(text)
    save_json(paths[2], table.to_json())
    return paths


@dataclass(frozen=True)
class SystemFacts:
    """What Table 1 says about a system besides its score; None where unknown or not applicable.

    Attributes:
        dimensions: number of subspaces.
        inputs: "mel", or "multi" for mel, tempogram and CENS, or anything that names an external system's input.
        size: length of the vectors.
        parameters: trainable parameters.
        training_seconds: wall time of training.
    """

    dimensions: int | None = None
    inputs: str | None = None
    size: int | None = None
    parameters: int | None = None
    training_seconds: float | None = None


def system_facts(system: Embeddings) -> SystemFacts:
    """What a system's vectors and their file tell about it."""
    parameters, seconds = system.meta.get("parameters"), system.meta.get("training_seconds")
    return SystemFacts(
        dimensions=len(system.layout.names) if system.layout else None,
        inputs=str(system.meta["inputs"]) if "inputs" in system.meta else None,
        size=system.embeddings.shape[1],
        parameters=None if parameters is None else int(parameters),
        training_seconds=None if seconds is None else float(seconds),
    )


TABLE1_COLUMNS = (
    "system",
    "dimensions",
    "inputs",
    "size",
    "score",
    "low",
    "high",
    "correct",
    "N",
    "difference",
    "difference low",
    "difference high",
    "parameters",
    "training s",
    PAPER_COLUMN,
)


def table1(results: Sequence[TripletResult], *, baseline: str, facts: Mapping[str, SystemFacts] | None = None) -> Table:
    """Systems on the same triplets, each paired against the baseline.

    Args:
        results: from one call of ``score_systems``, in the order of the rows.
        baseline: name of the system the others are compared with.
        facts: name -> what is known of the system.

    Raises:
        InputError: if the baseline is not among the results, or they are of different triplets.
    """
    # Differences are paired, so every result must be of the very same triplets.
    named = {result.name: result for result in results}
    if baseline not in named:
        raise InputError(f"baseline {baseline!r} is not among the systems {', '.join(named)}")
    reference = named[baseline]
    if any(result.triplets.triplet_ids != reference.triplets.triplet_ids for result in results):
        raise InputError(
            "the systems were scored on different triplets; score them together so that they can be paired"
        )

    # One row per system; what is said of a difference holds because all were scored on these triplets.
    rows = tuple(_table1_row(result, reference, (facts or {}).get(result.name, SystemFacts())) for result in results)
    notes = (
        f"{reference.triplets.name}, {', '.join(reference.triplets.filters) or 'no filter'}; {reference.metric} "
        "distance; a tie counts as wrong.",
        *reference.dropped.lines(shown=10),
        "low, high: 95 % interval of the score over whole queries, because triplets that share their anchor are not "
        "independent.",
        f"difference: score minus that of {baseline}, with the paired bootstrap's 95 % interval over whole queries "
        f"(over triplets where there are more than {MOST_QUERIES:,} queries).",
        *_paper_note(
            reference.triplets,
            "models trained on the Million Song Dataset, on other triplets than these unless these are the same "
            f"{PAPER_N}; not comparable otherwise.",
        ),
    )
    return Table("Table 1: triplet prediction", TABLE1_COLUMNS, rows, notes)


def _paper_note(triplets: Triplets, what: str) -> tuple[str, ...]:
    """What the paper's column means; nothing beside label triplets, where that column is empty."""
    if triplets.judges != LISTENERS:
        return ()
    return (f"{PAPER_COLUMN}: a reference, not a result of this run; published for {what}",)


def _table1_row(result: TripletResult, reference: TripletResult, facts: SystemFacts) -> tuple[Any, ...]:
    interval = result.interval
    # The baseline is not compared with itself.
    comparison: tuple[Any, ...] = (None, None, None)
    if result is not reference:
        difference = paired_bootstrap(result.correct, reference.correct, groups=query_groups(reference.triplets))
        comparison = (difference.difference, difference.interval.low, difference.interval.high)
    return (
        result.name,
        facts.dimensions,
        facts.inputs,
        facts.size,
        result.score,
        interval.low,
        interval.high,
        int(result.correct.sum()),
        len(result.correct),
        *comparison,
        facts.parameters,
        facts.training_seconds,
        PAPER_TABLE1.get(result.name.lower()) if result.triplets.judges == LISTENERS else None,
    )


@dataclass(frozen=True, eq=False)
class SubsetScores:
    """Triplet score of every non-empty subset of the dimensions.

    Attributes:
        layout: the subspaces.
        subsets: [s] names active in each, largest first.
        correct: [s] triplets predicted.
        intervals: [s] 95 % intervals of the scores over whole queries.
        total: triplets scored.
        triplets: those scored.
    """

    layout: EmbeddingLayout
    subsets: tuple[tuple[str, ...], ...]
    correct: np.ndarray
    intervals: tuple[Interval, ...]
    total: int
    triplets: Triplets

    def score(self, names: Sequence[str]) -> float:
        """Score with only ``names`` active."""
        return float(self.correct[self.subsets.index(tuple(names))]) / self.total

    @property
    def singles(self) -> dict[str, float]:
        """Score of each dimension alone (paper, Figure 2)."""
        return {name: self.score((name,)) for name in self.layout.names}


def subset_weights(layout: EmbeddingLayout) -> tuple[tuple[tuple[str, ...], ...], np.ndarray]:
    """All non-empty subsets, and their masks over the dimensions: [s, d] of zeros and ones."""
    subsets = tuple(layout.subsets())
    return subsets, np.array([[float(name in subset) for name in layout.names] for subset in subsets])


def subset_scores(triplets: Triplets, system: Embeddings, *, metric: str = "euclidean") -> SubsetScores:
    """All 63 subsets of six masks from one look at the vectors (paper, section 4.3).

    Squared distances add up over disjoint subspaces, so a mask is a row of zeros and ones over per-dimension distances.

    Raises:
        InputError: if the system has no subspaces, or no triplet is left.
    """
    if system.layout is None:
        raise InputError(f"{system.name} has no subspaces, so there are no subsets to compare")
    kept, dropped = scorable(triplets, system.identifiers)
    if not len(kept):
        raise InputError(f"{triplets.name}: no triplet is left to score; {'; '.join(dropped.lines(shown=10))}")
    # [s, d] masks x [d, n] distances -> [s, n] outcomes; then [s] counts and intervals over queries.
    subsets, weights = subset_weights(system.layout)
    outcomes = triplet_outcomes(system, triplet_rows(kept, system), weights, metric=metric)
    intervals = tuple(query_interval(own, kept) for own in outcomes)
    return SubsetScores(system.layout, subsets, outcomes.sum(axis=1), intervals, len(kept), kept)


def table2(scores: SubsetScores, *, best: int | None = None) -> Table:
    """Subsets by score, then the single dimensions in their order (the paper's two halves).

    Args:
        scores: from ``subset_scores``.
        best: how many of the best subsets to list; None lists all.
    """
    # Rows: the best subsets, then those single dimensions that are not among them.
    names = scores.layout.names
    order = np.argsort(-scores.correct, kind="stable")[:best]
    singles = [scores.subsets.index((name,)) for name in names]
    listed = [*order, *(row for row in singles if row not in order)]

    # The paper's figure stands beside a subset only if dimensions and judges are the paper's.
    comparable = names == PAPER_DIMENSIONS and scores.triplets.judges == LISTENERS
    rows = []
    for row in listed:
        # A tick per active dimension, then the score; counts are kept whole, so that N can be checked.
        subset, correct = scores.subsets[row], int(scores.correct[row])
        interval = scores.intervals[row]
        marks = tuple(name in subset for name in names)
        published = PAPER_TABLE2.get(subset) if comparable else None
        rows.append((*marks, correct / scores.total, interval.low, interval.high, correct, scores.total, published))
    notes = (
        f"{scores.triplets.name}, {', '.join(scores.triplets.filters) or 'no filter'}.",
        "low, high: 95 % interval over whole queries. The best of many subsets on the same triplets is an optimistic "
        "figure: choose subsets on other data.",
        *_paper_note(
            scores.triplets, "multi384 trained on the Million Song Dataset; the paper lists twelve of the subsets."
        ),
    )
    return Table(
        "Table 2: subsets of the dimensions",
        (*names, "score", "low", "high", "correct", "N", PAPER_COLUMN),
        tuple(rows),
        notes,
    )
