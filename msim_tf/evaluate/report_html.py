"""The report as a page: pure functions from what was found to HTML text; every value from data passes ``escape``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from msim_tf.evaluate import plots
from msim_tf.evaluate.disentanglement import Disentanglement
from msim_tf.evaluate.report_style import STYLE
from msim_tf.evaluate.retrieval import NeighbourScore, Retrieval
from msim_tf.evaluate.tables import PAPER_COLUMN, Table, cell_text
from msim_tf.evaluate.triplets import LISTENERS

if TYPE_CHECKING:
    from msim_tf.evaluate.report import Failure, Member, Report

_TEXT = ' class="text"'


def page(report: Report, tables: Mapping[str, Table], failures: tuple[Failure, ...], kiviat: str | None) -> str:
    """The whole page.

    Args:
        report: what was found.
        tables: "table1", "table2_best" where they exist.
        failures: worst first.
        kiviat: the diagram as SVG with text, or None.
    """
    sections = [
        _systems(tables["table1"], _judges(report)) if "table1" in tables else "",
        _dimensions(tables["table2_best"], kiviat) if "table2_best" in tables else "",
        _matrix(report.matrix) if report.matrix else "",
        _retrieval(report.retrieval, report.neighbours),
        _failures(report, failures),
        _section("What these figures do and do not show", _notes(report.notes)) if report.notes else "",
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; media-src *; img-src data:">
<title>{escape(report.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(report.title)}</h1>
{_facts(report.facts)}
{_tiles(report, tables)}
</header>
<main>
{"".join(sections)}
</main>
<footer>The same figures for machines: <a href="report.json">report.json</a>; tables as .md, .csv and .json, figures as .png and .svg beside this page.</footer>
</body>
</html>
"""


def _section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def _facts(facts: Mapping[str, str]) -> str:
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{items}</dl>' if items else ""


def _tile(value: str, *lines: str) -> str:
    return f'<div class="tile"><b>{escape(value)}</b>{"".join(f"<span>{escape(line)}</span>" for line in lines)}</div>'


def _tiles(report: Report, tables: Mapping[str, Table]) -> str:
    tiles = []
    if report.results:
        first = report.results[0]
        interval = first.interval
        spread = f"95 % interval {interval.low:.3f} to {interval.high:.3f}"
        what = "triplet score" if _judges(report) == LISTENERS else "score on label triplets"
        tiles.append(_tile(f"{first.score:.3f}", f"{what} of {first.name}", spread))
        tiles.append(
            _tile(f"{len(first.correct):,}", "triplets scored", f"{first.dropped.count:,} dropped, chance is 0.5")
        )
        tiles += _comparison_tile(tables["table1"])
    if report.matrix:
        sure = sum(leak.sure for leak in report.matrix.leaks)
        tested = len(report.matrix.tested)
        above = tested - len(report.matrix.at_chance)
        leaks = f"{sure} {'leak' if sure == 1 else 'leaks'} beyond uncertainty"
        tiles.append(_tile(f"{above} of {tested}", "subspaces above chance on their label", leaks))
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _comparison_tile(table: Table) -> list[str]:
    row = dict(zip(table.columns, table.rows[0]))
    others = [dict(zip(table.columns, other)) for other in table.rows if other is not table.rows[0]]
    baseline = next((other["system"] for other in others if other["difference"] is None), None)
    if row["difference"] is None or baseline is None:
        return []
    return [_tile(_signed(row["difference"]), f"against {baseline}", f"McNemar p {_p(row['p (McNemar)'])}")]


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _head(names: Iterable[str]) -> str:
    cells = (f'<th scope="col"{_TEXT if name == "label" else ""}>{escape(name)}</th>' for name in names)
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _scroll(table: str) -> str:
    return f'<div class="scroll" tabindex="0">{table}</div>\n'


def _notes(notes: Iterable[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>\n'


def _range(low: float, value: float, high: float) -> str:
    """Interval and point on an axis from 0.3 to 1, with chance marked."""

    def x(score: float) -> str:
        return f"{4 + 162 * (min(max(score, 0.3), 1.0) - 0.3) / 0.7:.1f}"

    return (
        f'<svg class="range" viewBox="0 0 170 18" role="img" aria-label="{value:.3f}, from {low:.3f} to {high:.3f}">'
        f'<line x1="4" x2="166" y1="9" y2="9" stroke="var(--line)"/>'
        f'<line x1="{x(0.5)}" x2="{x(0.5)}" y1="2" y2="16" stroke="var(--muted)" stroke-dasharray="2 2"/>'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="9" y2="9" stroke="var(--accent)" stroke-width="4" stroke-opacity=".4" stroke-linecap="round"/>'
        f'<circle cx="{x(value)}" cy="9" r="4.5" fill="var(--accent)"/></svg>'
    )


def _published(table: Table) -> tuple[str, ...]:
    """The column of the paper's figures, where the table has any."""
    column = table.columns.index(PAPER_COLUMN)
    return (PAPER_COLUMN,) if any(row[column] is not None for row in table.rows) else ()


def _judges(report: Report) -> str:
    """Who decided the triplets, ``LISTENERS`` or ``LABELS``."""
    return report.results[0].triplets.judges


def _systems(table: Table, judges: str) -> str:
    columns = (
        "system",
        "score",
        "from 0.3 to 1",
        "95 % interval",
        "N",
        "difference",
        "p",
        "parameters",
        "training s",
        *_published(table),
    )
    rows = []
    for index, cells in enumerate(table.rows):
        row = dict(zip(table.columns, cells))
        texts = (
            f"{row['score']:.4f}",
            _range(row["low"], row["score"], row["high"]),
            f"{row['low']:.3f} to {row['high']:.3f}",
            cell_text(row["N"]),
            _signed(row["difference"]) if row["difference"] is not None else "baseline",
            _p(row["p (McNemar)"]).removeprefix("= "),
            *(cell_text(row[name]) for name in ("parameters", "training s", *_published(table))),
        )
        body = "".join(f"<td>{text}</td>" for text in texts)
        mark = ' class="strong"' if index == 0 else ""
        rows.append(f'<tr{mark}><th scope="row">{escape(str(row["system"]))}</th>{body}</tr>')
    return _section(
        f"Table 1: which system agrees with the {judges}?",
        _scroll(f"<table>{_head(columns)}<tbody>{''.join(rows)}</tbody></table>"),
        _notes(table.notes),
    )


def _dimensions(table: Table, kiviat: str | None) -> str:
    names = table.columns[: table.columns.index("score")]
    head = "".join(f'<th scope="col" class="mark">{escape(name)}</th>' for name in names)
    head += "".join(
        f'<th scope="col">{escape(name)}</th>' for name in ("score", "95 %", *("paper" for _ in _published(table)))
    )
    rows = "".join(_subset_row(dict(zip(table.columns, cells)), names, _published(table)) for cells in table.rows)
    figure = (
        f"<figure>{_themed(kiviat)}<figcaption>Triplet score of each dimension alone.</figcaption></figure>"
        if kiviat
        else ""
    )
    listing = _scroll(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    hint = '<p class="lead">The best subsets of the six masks, then each dimension alone; all subsets are in table2.csv.</p>'
    body = f'<div class="two">{figure}<div>{listing}</div></div>' if figure else listing
    return _section("Table 2: which dimensions matter?", hint, body, _notes(table.notes))


def _subset_row(row: dict[str, Any], names: tuple[str, ...], published: tuple[str, ...]) -> str:
    marks = "".join(f'<td class="mark">{"●" if row[name] else ""}</td>' for name in names)
    interval = f"<small>{row['low']:.3f}–{row['high']:.3f}</small>"
    paper = "".join(f"<td>{cell_text(row[name])}</td>" for name in published)
    return f"<tr>{marks}<td>{row['score']:.4f}</td><td>{interval}</td>{paper}</tr>"


def _themed(svg: str) -> str:
    """The diagram in the page's colours and font, so that it follows light and dark."""
    svg = svg[svg.index("<svg") :]
    for color, role in ((plots.INK, "--ink"), (plots.MUTED, "--muted"), (plots.GRID, "--grid")):
        svg = svg.replace(color, f"var({role})")
    for number, color in enumerate(plots.SERIES, 1):
        svg = svg.replace(color, f"var(--series-{number})")
    svg = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?px) [^;\"]*", r"font: \1\2 inherit", svg)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)


def _matrix(matrix: Disentanglement) -> str:
    head = "<th></th>" + "".join(f'<th scope="col">{escape(kind)}</th>' for kind in matrix.kinds)
    anchors = "<th></th>" + "".join(f"<th>{cell_text(int(count))} anchors</th>" for count in matrix.anchors)
    rows = []
    for row, name in enumerate(matrix.subspaces):
        cells = "".join(_matrix_cell(matrix, row, column) for column in range(len(matrix.kinds)))
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    filtered = "on: no candidate shares the anchor's artist" if matrix.filtered else "off: artists unknown"
    lead = (
        '<p class="lead">Rows are subspaces, columns the labels they are asked for. A cell is the share of (similar, dissimilar) pairs in the '
        "right order: 0.5 is chance, and the outlined diagonal should hold the highest value of its row.</p>"
    )
    flags = "".join(f'<p class="flag">{escape(leak.line())}</p>' for leak in matrix.leaks if leak.sure)
    unsure = [f"{leak.kind} in the {leak.subspace} subspace" for leak in matrix.leaks if not leak.sure]
    remarks = [f"Artist filter {filtered}.", "Intervals: 95 %, over tracks or artists (infinitesimal jackknife)."]
    if matrix.at_chance:
        remarks.append(f"Not above chance on their own label, beyond uncertainty: {', '.join(matrix.at_chance)}.")
    if unsure:
        remarks.append(
            f"Predicted better than the subspace's own label, but within the uncertainty: {', '.join(unsure)}."
        )
    table = f'<table class="matrix"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody><tfoot><tr>{anchors}</tr></tfoot></table>'
    return _section("Does each subspace hold what it says?", lead, _scroll(table), flags, _notes(remarks))


def _matrix_cell(matrix: Disentanglement, row: int, column: int) -> str:
    value = matrix.accuracy[row, column]
    own = ' class="own"' if matrix.subspaces[row] == matrix.kinds[column] else ""
    if np.isnan(value):
        return f'<td{own} style="--tint: var(--line); --much: 60%">–</td>'
    tint = "cool" if value >= 0.5 else "warm"
    bounds = f"<small>{matrix.low[row, column]:.2f}–{matrix.high[row, column]:.2f}</small>"
    return f'<td{own} style="--tint: var(--{tint}); --much: {abs(value - 0.5) * 130:.0f}%">{value:.2f}{bounds}</td>'


def _retrieval(items: tuple[Retrieval, ...], neighbours: tuple[NeighbourScore, ...]) -> str:
    parts = []
    if items:
        rows = "".join(
            f'<tr><th scope="row">{escape(item.subspace)}</th><td class="text">{escape(item.kind)}</td><td>{item.precision:.3f}</td>'
            f"<td>{item.average_precision:.3f}</td><td>{item.chance:.3f}</td><td>{item.queries:,}</td></tr>"
            for item in items
        )
        head = _head(("subspace", "label", f"precision@{items[0].k}", "mean average precision", "chance", "queries"))
        parts.append(_scroll(f"<table>{head}<tbody>{rows}</tbody></table>"))
    if neighbours:
        parts.append("<h3>Tempo and key read off the nearest neighbour</h3>\n")
        parts.append(_neighbours(neighbours))
    return _section("Retrieval", *parts) if parts else ""


def _neighbours(items: tuple[NeighbourScore, ...]) -> str:
    """One row per subspace, one column per measure; chance, which does not depend on the subspace, below."""
    measures = {item.measure: item for item in items}
    scores = {(item.subspace, item.measure): f"{item.score:.3f}" for item in items}
    subspaces = dict.fromkeys(item.subspace for item in items)
    rows = [(name, [scores.get((name, measure), "–") for measure in measures]) for name in subspaces]
    rows.append(("chance", [f"{item.chance:.3f}" for item in measures.values()]))
    rows.append(("queries", [cell_text(item.queries) for item in measures.values()]))
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    return _scroll(f"<table>{_head(('subspace', *measures))}<tbody>{body}</tbody></table>")


def _failures(report: Report, failures: tuple[Failure, ...]) -> str:
    if not report.results:
        return ""
    judges = _judges(report)
    lead = f"Where the system is most certain and the {judges} disagree. Distances are from the anchor."
    if not failures:
        lead = "None: every triplet is predicted."
    return _section(
        "The worst triplets", f'<p class="lead">{lead}</p>', *(_failure(failure, judges) for failure in failures)
    )


def _failure(failure: Failure, judges: str) -> str:
    agreement = "" if failure.agreement is None else f"<span>{failure.agreement:.0%} of listeners agree</span>"
    members = (
        _member("anchor", failure.anchor, ""),
        _member(f"nearer for {judges}", failure.positive, f"distance {failure.near:.3f}"),
        _member("nearer for the system", failure.negative, f"distance {failure.far:.3f}"),
    )
    return (
        f'<article class="failure"><header><b>{escape(failure.triplet_id)}</b>{agreement}</header>'
        f'<div class="members">{"".join(members)}</div></article>\n'
    )


def _member(role: str, member: Member, distance: str) -> str:
    name = escape(member.identifier)
    sound = ""
    if member.href:
        href = escape(member.href, quote=True)
        name = f'<a href="{href}">{name}</a>'
        sound = f'<audio controls preload="none" src="{href}"></audio>'
    detail = f" · {distance}" if distance else ""
    return f'<div><span class="role">{role}{detail}</span><p>{name}</p>{sound}</div>'
