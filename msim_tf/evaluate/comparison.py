"""Several systems on the same triplets, as files: Table 1, every two systems, Table 2 and Kiviat diagram."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from msim_tf.embeddings import Embeddings
from msim_tf.evaluate import plots
from msim_tf.evaluate.agreement import MOST_QUERIES, query_groups
from msim_tf.evaluate.statistics import mcnemar, paired_bootstrap
from msim_tf.evaluate.tables import SystemFacts, Table, save_table, subset_scores, table1, table2
from msim_tf.evaluate.triplet_scores import TripletResult
from msim_tf.evaluate.triplets import LABELS
from msim_tf.files import atomic_file

LABEL_NOTE = (
    "Label triplets are made from labels and are not human similarity: the score tells how well the labels are "
    "predicted."
)
PAIR_COLUMNS = (
    "first",
    "second",
    "difference",
    "low",
    "high",
    "p (bootstrap)",
    "first only",
    "second only",
    "p (McNemar)",
    "N",
)


def pairs_table(results: Sequence[TripletResult]) -> Table:
    """McNemar's test and the paired bootstrap between any two systems that were scored together."""
    rows = []
    for first, second in itertools.combinations(results, 2):
        # The bootstrap draws whole queries; McNemar's test counts triplets as if they were independent.
        drawn = paired_bootstrap(first.correct, second.correct, groups=query_groups(first.triplets), resamples=2_000)
        test = mcnemar(first.correct, second.correct)
        rows.append(
            (
                first.name,
                second.name,
                drawn.difference,
                drawn.interval.low,
                drawn.interval.high,
                drawn.p_value,
                test.first_only,
                test.second_only,
                test.p_value,
                len(first.correct),
            )
        )
    notes = (
        "difference: score of the first minus score of the second; low, high and p: 95 % interval of the paired "
        "bootstrap over whole anchors "
        f"(over triplets where there are more than {MOST_QUERIES:,} anchors).",
        "first only, second only: triplets that one of the two predicts; p (McNemar): exact, two-sided, not "
        "corrected for the number of pairs. It counts triplets; where they share tracks it is too small.",
    )
    return Table("Every two systems on the same triplets", PAIR_COLUMNS, tuple(rows), notes)


def write_comparison(
    out: str | Path,
    results: Sequence[TripletResult],
    systems: Sequence[Embeddings],
    *,
    baseline: str,
    facts: Mapping[str, SystemFacts],
    notes: Sequence[str] = (),
) -> Table:
    """Writes ``table1``, ``pairs``, and for each system with subspaces ``table2_NAME`` and ``kiviat_NAME``.

    Args:
        out: the folder.
        results: from ``score_systems``.
        systems: those that were scored.
        baseline: which one Table 1 compares the others with.
        facts: name -> what Table 1 says besides the score.
        notes: further notes under Table 1.

    Returns:
        Table 1.
    """
    # Label triplets carry their warning into whatever the table is pasted into.
    out = Path(out)
    table = table1(results, baseline=baseline, facts=facts)
    warning = (LABEL_NOTE,) if results[0].triplets.judges == LABELS else ()
    table = replace(table, notes=(*warning, *table.notes, *notes))
    save_table(table, out, "table1")
    if len(results) > 1:
        save_table(pairs_table(results), out, "pairs")

    # Table 2 of each system with subspaces and, of three subspaces or more, the diagram.
    for system in systems:
        if system.layout is None or len(system.layout.names) < 2:
            continue
        scores = subset_scores(results[0].triplets, system, metric=results[0].metric)
        stem = re.sub(r"[^\w.-]+", "_", system.name)
        save_table(table2(scores), out, f"table2_{stem}")
        if len(scores.layout.names) < 3:
            continue
        figure = plots.kiviat({system.name: scores.singles})
        for suffix, content in ((".png", plots.png(figure)), (".svg", plots.svg(figure))):
            with atomic_file(out / f"kiviat_{stem}{suffix}") as file:
                file.write(content)
    return table
