"""The report as a page: Jinja templates in ``templates/``, one per section.

Every value from data is escaped by the templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from msim_tf.evaluate import plots
from msim_tf.evaluate.tables import PAPER_COLUMN, Table, cell_text


def render_page(tables: Mapping[str, Table], kiviat: str | None, **values: Any) -> str:
    """The whole page.

    Args:
        tables: "table1", "table2_best" where they exist.
        kiviat: the diagram as SVG with text, or None.
        values: what else the templates name: ``report``, ``failures`` (worst first), ``judges`` (who decided the
            triplets), ``intervals`` of the systems' scores and ``differences`` from the baseline, both by query.
    """
    # Templates escape every value and refuse names that they are not given.
    environment = Environment(
        loader=PackageLoader("msim_tf.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"axis": _axis, "cell": cell_text, "signed": _signed}
    environment.globals["macros"] = environment.get_template("macros.html").module

    # The column of the paper's figures is shown only where the table has any.
    published = {}
    for name, table in tables.items():
        column = table.columns.index(PAPER_COLUMN)
        published[name] = (PAPER_COLUMN,) if any(row[column] is not None for row in table.rows) else ()
    return environment.get_template("report.html").render(
        tables=tables,
        published=published,
        kiviat=themed(kiviat) if kiviat else None,
        **values,
    )


def _axis(score: float) -> str:
    """Where a score stands on the axis of ``macros.range``: 0.3 to 1 on 4 to 166 units."""
    return f"{4 + 162 * (min(max(score, 0.3), 1.0) - 0.3) / 0.7:.1f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def themed(svg: str) -> Markup:
    """A figure of ours in the page's colours and font, so that it follows light and dark."""
    # Without the XML header; the colours that we drew with become the page's own.
    svg = svg[svg.index("<svg") :]
    for color, role in ((plots.INK, "--ink"), (plots.MUTED, "--muted"), (plots.GRID, "--grid")):
        svg = svg.replace(color, f"var({role})")
    for number, color in enumerate(plots.SERIES, 1):
        svg = svg.replace(color, f"var(--series-{number})")
    svg = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?px) [^;\"]*", r"font: \1\2 inherit", svg)
    # Matplotlib has escaped the texts in it.
    return Markup(re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S))
