"""One report of an evaluation: ``report.html`` for people, ``report.json`` for machines, tables and figures as files.

The page is self-contained: no script, no external host; only the audio players of the worst triplets point at files.
Everything that came from data (identifiers, names, notes) is escaped, and a link is made only to a file or to http(s).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from msim_tf.evaluate import plots
from msim_tf.evaluate.agreement import clustered_intervals, query_groups
from msim_tf.evaluate.disentanglement import Disentanglement
from msim_tf.evaluate.report_page import render_page
from msim_tf.evaluate.retrieval import NeighbourScore, Retrieval
from msim_tf.evaluate.statistics import Difference, paired_bootstrap
from msim_tf.evaluate.tables import SubsetScores, SystemFacts, Table, save_table, table1, table2
from msim_tf.evaluate.triplet_scores import TripletResult
from msim_tf.files import atomic_file, save_json

_BEST_SUBSETS = 6


@dataclass(frozen=True)
class Member:
    """One track or clip of a failed triplet; ``href`` is its audio, relative to the page, or None."""

    identifier: str
    href: str | None


@dataclass(frozen=True)
class Failure:
    """A triplet that a system gets wrong.

    Attributes:
        triplet_id: its id.
        anchor: the query.
        positive: what listeners found nearer.
        negative: what the system finds nearer.
        near: distance anchor to positive.
        far: distance anchor to negative, not above ``near``.
        agreement: share of listeners, None where unknown.
    """

    triplet_id: str
    anchor: Member
    positive: Member
    negative: Member
    near: float
    far: float
    agreement: float | None


@dataclass(frozen=True, eq=False)
class Report:
    """What a report is made of; parts that are None or empty are left out.

    Attributes:
        title: heading.
        facts: what was evaluated, on what, with which versions: shown as given.
        results: systems on the same triplets (``score_systems``); the first is the subject of headline and failures.
        baseline: name of the system that Table 1 pairs the others with; None takes the last.
        systems: name -> what Table 1 says besides the score.
        subsets: of the subject (``subset_scores``), for Table 2 and the Kiviat diagram.
        matrix: of the subject (``disentanglement``).
        retrieval: of the subject.
        neighbours: of the subject.
        audio: identifier -> path or URL of its sound, for the links.
        notes: what a reader must know, at the end.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    results: tuple[TripletResult, ...] = ()
    baseline: str | None = None
    systems: Mapping[str, SystemFacts] = field(default_factory=dict)
    subsets: SubsetScores | None = None
    matrix: Disentanglement | None = None
    retrieval: tuple[Retrieval, ...] = ()
    neighbours: tuple[NeighbourScore, ...] = ()
    audio: Mapping[str, str | Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def audio_href(target: str | Path | None, folder: Path) -> str | None:
    """A safe link to sound: a quoted path relative to ``folder``, or an http(s) address; None for anything else."""
    if target is None:
        return None
    text = str(target)
    if re.match(r"(?i)https?://", text):
        return text
    # A scheme of two or more letters: "javascript:", "data:"; one letter is a drive.
    if isinstance(target, str) and re.match(r"(?i)[a-z][a-z0-9+.-]+:", text):
        return None
    # "./" keeps a name with a colon from being read as a scheme.
    return quote("./" + os.path.relpath(text, folder).replace(os.sep, "/"))


def worst_triplets(
    result: TripletResult, folder: str | Path, *, audio: Mapping[str, str | Path] | None = None, count: int = 10
) -> tuple[Failure, ...]:
    """The failures with the largest margin relative to the distances, worst first.

    Args:
        result: of one system.
        folder: where the page will be, for relative links.
        audio: identifier (of the track or the clip) -> path or URL.
        count: at most so many.
    """
    folder = Path(folder)
    audio = audio or {}
    # [n] (near - far) / (near + far), so that triplets of distant tracks do not come first for that alone.
    total = result.near + result.far
    margin = np.divide(result.near - result.far, total, out=np.zeros_like(total), where=total > 0)
    wrong = np.flatnonzero(~result.correct)
    order = wrong[np.argsort(-margin[wrong], kind="stable")][:count]

    # Each failed triplet with links to what its listeners heard.
    triplets = result.triplets
    failures = []
    for row in map(int, order):
        starts = None if triplets.starts is None else triplets.starts[row]
        members = []
        for place, name in enumerate((triplets.anchor[row], triplets.positive[row], triplets.negative[row])):
            # Sound of the clip itself, else of its track, opened at the clip (a media fragment, #t=start,end).
            href = audio_href(audio.get(name), folder)
            if href is None and starts is not None:
                href = audio_href(audio.get(name.rsplit("@", 1)[0]), folder)
            if href and starts is not None and triplets.clip_seconds:
                href += f"#t={starts[place]:g},{starts[place] + triplets.clip_seconds:g}"
            members.append(Member(name, href))
        agreement = float(triplets.agreement[row])
        failures.append(
            Failure(
                triplets.triplet_ids[row],
                anchor=members[0],
                positive=members[1],
                negative=members[2],
                near=float(result.near[row]),
                far=float(result.far[row]),
                agreement=None if np.isnan(agreement) else agreement,
            )
        )
    return tuple(failures)


def report_json(report: Report, tables: Mapping[str, Table], failures: tuple[Failure, ...]) -> dict[str, Any]:
    """Everything the page says, for machines."""
    # Score of each system with its intervals over queries and clips, and what could not be scored.
    systems = []
    for result in report.results:
        clustered = clustered_intervals(result.correct, result.triplets)
        systems.append(
            {
                "name": result.name,
                "metric": result.metric,
                "triplets": result.triplets.name,
                "filters": list(result.triplets.filters),
                "N": len(result.correct),
                "correct": int(result.correct.sum()),
                "score": result.score,
                "queries": clustered.queries,
                "queries95": [clustered.query.low, clustered.query.high],
                "clips95": [clustered.clip.low, clustered.clip.high],
                "dropped": {reason: list(ids) for reason, ids in result.dropped.reasons.items()},
                "missing": list(result.dropped.missing),
            }
        )
    return {
        "format": "msim-evaluation",
        "format_version": 1,
        "title": report.title,
        "facts": dict(report.facts),
        "systems": systems,
        "tables": {name: table.to_json() for name, table in tables.items()},
        "single_dimensions": report.subsets.singles if report.subsets else None,
        "disentanglement": report.matrix.to_json() if report.matrix else None,
        "retrieval": [item.to_json() for item in report.retrieval],
        "neighbours": [item.to_json() for item in report.neighbours],
        "worst_triplets": [asdict(failure) for failure in failures],
        "notes": list(report.notes),
    }


def write_report(report: Report, out_dir: str | Path) -> Path:
    """Writes the page, its JSON, the tables (md, csv, json) and the figures (png, svg) into ``out_dir``.

    Returns:
        The path of ``report.html``.
    """
    folder = Path(out_dir)
    tables = {}
    if report.results:
        baseline = report.baseline or report.results[-1].name
        tables["table1"] = table1(report.results, baseline=baseline, facts=report.systems)
    if report.subsets:
        tables["table2"] = table2(report.subsets)
        tables["table2_best"] = table2(report.subsets, best=_BEST_SUBSETS)
    for name, table in tables.items():
        save_table(table, folder, name)

    # The polygon of a Kiviat diagram needs three corners.
    figures = {}
    if report.subsets and len(report.subsets.layout.names) >= 3:
        subject = report.results[0].name if report.results else "triplet score"
        figures["kiviat"] = plots.kiviat({subject: report.subsets.singles})
    if report.matrix:
        figures["matrix"] = plots.heat_map(report.matrix)
    # Figures as files, and once more as SVG with text for the page, where they take its font and colours.
    inline = {}
    for name, figure in figures.items():
        for suffix, content in ((".png", plots.png(figure)), (".svg", plots.svg(figure))):
            with atomic_file(folder / f"{name}{suffix}") as file:
                file.write(content)
        inline[name] = plots.svg(figure, text=True, salt=name).decode()

    # The JSON says all that the page says; the page is written last, so that what it links to is there.
    failures = worst_triplets(report.results[0], folder, audio=report.audio) if report.results else ()
    save_json(folder / "report.json", report_json(report, tables, failures))
    with atomic_file(folder / "report.html", "w") as file:
        judges = report.results[0].triplets.judges if report.results else ""
        file.write(
            render_page(
                tables,
                inline.get("kiviat"),
                report=report,
                failures=failures,
                judges=judges,
                intervals=[clustered_intervals(result.correct, result.triplets) for result in report.results],
                differences=_differences(report),
            )
        )
    return folder / "report.html"


def _differences(report: Report) -> dict[str, Difference]:
    """Each system against the baseline, by name; the bootstrap draws whole queries, as their triplets are dependent."""
    # The baseline is the one that was named, or the last: the reports of a store list their own baselines last.
    named = {result.name: result for result in report.results}
    baseline = named.pop(report.baseline or report.results[-1].name) if report.results else None
    if baseline is None:
        return {}
    groups = query_groups(baseline.triplets)
    return {name: paired_bootstrap(result.correct, baseline.correct, groups=groups) for name, result in named.items()}
