"""What ``msim evaluate`` prints: scores with their intervals, the human ceiling, differences, what subspaces hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from msim_tf.embeddings import Embeddings
    from msim_tf.evaluate.tables import Table
    from msim_tf.evaluate.triplet_scores import TripletResult
    from msim_tf.evaluate.triplets import Dropped, Triplets


def print_clustered(before: str, values: Any, triplets: Triplets) -> None:
    """The intervals of a mean over triplets, by whole queries and by whole clips.

    Args:
        before: what the line begins with.
        values: [triplets] outcomes.
        triplets: in the same order.
    """
    from msim_tf.evaluate.agreement import clustered_intervals

    intervals = clustered_intervals(values, triplets)
    query, clip = intervals.query, intervals.clip
    click.echo(
        f"{before}95 % {query.low:.4f} to {query.high:.4f} over {intervals.queries} queries, "
        f"{clip.low:.4f} to {clip.high:.4f} over {intervals.clips} clips"
    )


def print_dimensions(result: TripletResult, system: Embeddings) -> None:
    """Every dimension alone and the best subset, each with its intervals; --out has all subsets."""
    from msim_tf.evaluate.tables import subset_weights
    from msim_tf.evaluate.triplet_scores import triplet_outcomes, triplet_rows

    assert system.layout is not None
    # [subsets, triplets]: all subsets are scored at once, then those of one dimension are picked.
    subsets, weights = subset_weights(system.layout)
    outcomes = triplet_outcomes(system, triplet_rows(result.triplets, system), weights, metric=result.metric)
    for name in system.layout.names:
        own = outcomes[subsets.index((name,))]
        print_clustered(f"  {name:<11}{own.mean():.4f}  ", own, result.triplets)
    best = int(outcomes.sum(axis=1).argmax())
    click.echo(
        f"  best of {len(subsets)} subsets, so optimistic: {'+'.join(subsets[best])} {outcomes[best].mean():.4f}"
    )


def print_ceiling(triplets: Triplets) -> None:
    """How well a held-out rater agrees with the others; systems cannot be expected to do better."""
    from msim_tf.evaluate.agreement import human_ceiling

    ceiling = human_ceiling(triplets)
    if ceiling is None:
        click.echo("human ceiling: unknown, the file has no two votes on a triplet")
        return
    click.echo(
        f"human ceiling: {ceiling.score:.4f} (95 % {ceiling.interval.low:.4f} to {ceiling.interval.high:.4f} over "
        "queries): "
        f"a rater against the majority of the others on the same triplets, {ceiling.total} of them with two votes or "
        "more"
    )


def print_dropped(dropped: Dropped) -> None:
    """What of a file of judgements was left out, and why."""
    for line in dropped.lines():
        click.echo(line)


def print_pairs(table: Table) -> None:
    """The difference of every two systems, with its interval."""
    for row in table.rows:
        pair: Mapping[str, Any] = dict(zip(table.columns, row))
        click.echo(
            f"{pair['first']} against {pair['second']}: {pair['difference']:+.4f} "
            f"(95 % {pair['low']:+.4f} to {pair['high']:+.4f} over queries, bootstrap p {pair['p (bootstrap)']:.4f}); "
            f"alone right on {pair['first only']} and {pair['second only']} triplets"
        )


def print_matrix(matrix: Any) -> None:
    """Each subspace on its own label, and what it holds besides."""
    own: Sequence[str] = [name for name in matrix.subspaces if name in matrix.kinds]
    for name in own:
        row, column = matrix.subspaces.index(name), matrix.kinds.index(name)
        if not matrix.anchors[column]:
            click.echo(f"  {name:<11}not tested: too few labels")
            continue
        low, high = matrix.low[row, column], matrix.high[row, column]
        click.echo(
            f"  {name:<11}{matrix.accuracy[row, column]:.3f} on its own label (95 % {low:.3f} to {high:.3f}, "
            f"{matrix.anchors[column]} anchors)"
        )
    for leak in matrix.leaks:
        if leak.sure:
            click.echo(f"  {leak.line()}")
