"""Work in threads, with results in the order of the items; counting what is finished."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

READ_AHEAD = 2  # threads of an extraction that runs ahead of a model; more would only take its cores


def in_order(work: Callable[[Item], Outcome], items: Iterable[Item], workers: int) -> Iterator[tuple[Item, Outcome]]:
    """Runs ``work`` in threads and yields (item, outcome) in the order of the items.

    At most ``2 * workers`` items are under way.
    """
    waiting: deque[tuple[Item, Future[Outcome]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= 2 * workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        # Where the caller stops early, work that has not begun is not done.
        finally:
            for _, future in waiting:
                future.cancel()


def counted(progress: Callable[[int, int], None], done: int, total: int) -> Callable[[object], None]:
    """A function to be called with each thing that is finished; reports ``done`` of ``total`` at once, then one more.

    Args:
        progress: called with (done, total).
        done: things that were finished before.
        total: things in all.
    """
    progress(done, total)
    numbers = itertools.count(done + 1)
    return lambda finished: progress(next(numbers), total)
