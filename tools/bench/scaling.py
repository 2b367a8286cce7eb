"""Scaling: what extraction, a training epoch's data, indexing and a query cost against the
number of tracks, and how their memory grows.

The tracks are simulated, the code and the sizes are real: short sound files linked under many names, a
store whose shards are links to one shard of real excerpts, drawn vectors. Each size runs in a process of
its own, whose peak memory is told; the processes take turns. The exponent is the slope of log time over log
number, round by round: 1 is proportional. What costs the same for every track however many there are
(decoding, the network) is the business of other sections.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench import frame, stages

_PROPORTIONAL = 1.1  # most that an exponent may be
_FLAT = 1.1  # most that peak memory may grow from the least size to the greatest


@dataclass(frozen=True)
class Sizes:
    """Numbers of tracks.

    Attributes:
        files: to extract.
        tracks: of stores and indexes.
        rounds: how often each is measured.
    """

    files: tuple[int, ...]
    tracks: tuple[int, ...]
    rounds: int


QUICK = Sizes(files=(100, 300, 1000), tracks=(1000, 3000, 10_000), rounds=2)
FULL = Sizes(files=(1000, 10_000, 100_000), tracks=(1000, 10_000, 100_000), rounds=3)


def run(options: frame.Options) -> list[frame.Figure]:
    """The section."""
    return measured(options, QUICK if options.quick else FULL)


def measured(options: frame.Options, sizes: Sizes) -> list[frame.Figure]:
    """All figures of the given sizes."""
    scratch = Path(options.scratch)
    source = str(scratch / "source")
    files = {size: (source, str(scratch / f"files{size}"), size) for size in sizes.files}
    stores = {size: (source, str(scratch / f"store{size}"), size) for size in sizes.tracks}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        process.submit(stages.make_sources, options.music, source).result()
        for arguments in stores.values():
            process.submit(stages.make_store, *arguments).result()
    figures = stage("extract", "file", stages.extract, files, sizes.rounds, warm=stages.load_tensorflow, flat=True)
    figures += stage("open store", "track", stages.prepare, stores, sizes.rounds, warm=stages.load_tensorflow)
    figures += stage("epoch's batches", "track", stages.epoch, stores, sizes.rounds, warm=stages.prepare)
    if not options.quick:
        figures += stage("train, until the first step", "track", stages.train, stores, 1)
    indexes = {size: (str(scratch / f"index{size}"), size, options.embeddings) for size in sizes.tracks}
    figures += stage("index", "track", stages.index, indexes, sizes.rounds)
    for engine in stages.engines():
        asked = {size: (*arguments, engine) for size, arguments in indexes.items()}
        figures += stage(f"query, {engine}", "", stages.query, asked, 3 * sizes.rounds, warm=stages.query)
    return figures


def stage(
    name: str,
    item: str,
    work: Callable[..., float],
    arguments: Mapping[int, tuple[Any, ...]],
    rounds: int,
    *,
    warm: Callable[..., object] | None = None,
    flat: bool = False,
) -> list[frame.Figure]:
    """Runs ``work`` at every size, in a process for each, by turns.

    Args:
        name: what to call it.
        item: what its cost is told per; "" for the cost as it is.
        work: takes the arguments of a size, returns the seconds that count.
        arguments: size -> what ``work`` takes.
        rounds: how often.
        warm: called before with the same arguments, not counted.
        flat: whether memory is meant to stay as it is.

    Returns:
        Exponent, cost at each size, and peak memory.
    """
    seconds: dict[int, list[float]] = {size: [] for size in arguments}
    with ExitStack() as stack:
        context = multiprocessing.get_context("spawn")
        processes = {size: stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for size in arguments}
        if warm:
            for size, process in processes.items():
                process.submit(warm, *arguments[size]).result()
        for _ in range(rounds):
            for size, process in processes.items():
                seconds[size].append(process.submit(work, *arguments[size]).result())
        memory = [process.submit(stages.memory).result() for process in processes.values()]
    return figures_of(name, item, seconds, memory, flat=flat)


def figures_of(
    name: str,
    item: str,
    seconds: Mapping[int, Sequence[float]],
    memory: Sequence[tuple[int, int]],
    *,
    flat: bool = False,
) -> list[frame.Figure]:
    """Figures of a stage from its seconds per round, and its bytes (peak, own) in ascending order of the sizes."""
    sizes = sorted(seconds)
    rounds = zip(*(seconds[size] for size in sizes), strict=True)
    note = f"of time over {', '.join(f'{size:,}' for size in sizes)} tracks; 1 is proportional"
    figures = [
        frame.spread(
            f"{name}, exponent",
            [slope(sizes, round_) for round_ in rounds],
            unit="",
            bar=_PROPORTIONAL,
            at_most=True,
            note=note,
        )
    ]
    for size in sizes:
        values = [1000 * value / (size if item else 1) for value in seconds[size]]
        figures.append(frame.spread(f"{name}, {size:,}", values, unit=f"ms/{item}" if item else "ms"))
    kinds = ("peak memory", "own memory at the end")
    for kind, values, bar in zip(kinds, zip(*memory), (_FLAT if flat else None, None)):
        each = (values[-1] - values[0]) / (sizes[-1] - sizes[0]) / 2**10
        least, most = values[0] / 2**20, values[-1] / 2**20
        note = f"{least:,.0f} MB at {sizes[0]:,}, {most:,.0f} MB at {sizes[-1]:,}: {each:.2f} kB per track"
        figures.append(frame.spread(f"{name}, {kind}, most / least", [most / least], bar=bar, at_most=True, note=note))
    return figures


def slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The exponent e of the power law size ** e that fits best, by least squares of the logarithms."""
    x = [math.log(size) for size in sizes]
    y = [math.log(value) for value in seconds]
    return statistics.linear_regression(x, y).slope
