"""Search: all engines side by side, for every kind of weights; milliseconds per query, recall, memory.

Floor: one BLAS product of the weighted query with all vectors, float32, row by row in memory, on all cores. Peer, which
the bars of FAISS are against: that product and the ten best of it, what a user of NumPy would write ("NumPy scan"). The
peer and the engines answer whole queries, ``search.query.search``, as the command line and the server do: weights,
scan, exact ranking, shares of the distance, metadata; "scan alone" is the peer without all that, row numbers and
nothing else. "exact" is this package's engine that scores every row (``ExactEngine``, from float32 copies up to 1 GiB,
else from the float16 map). What is found is compared with the product's own ten best.

Queries are tracks that are not in the library, others in every round, so that no engine finds its rows in
the processor's cache. All have turns of about the same length, after a rest, so FAISS answers fifteen times
as many queries in its turn; what the first of them costs, whose code and codes the scan before it has
driven from the cache, is a figure of its own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tools.bench import frame

_K = 10
_KINDS = ("uniform", "dirichlet", "one-dimension")
_BARS = {100_000: 10.0, 1_000_000: 15.0}  # times the NumPy scan
_RECALL = 0.99
_AT_ONCE = 24  # queries whose scores of everything are held
_FAISS_TURN = 15  # times as many queries as the others
# seconds; threads of BLAS wait in a loop for 0.1 s after their last product, on the core that FAISS would share
_PAUSE = 0.2


def run(options: frame.Options) -> list[frame.Figure]:
    """The section."""
    from tools.bench.vectors import TrackVectors

    vectors = TrackVectors.load(options.embeddings)
    figures = []
    for rows in (20_000, 100_000) if options.quick else (20_000, 100_000, 1_000_000):
        figures += measured(vectors, rows, options)
    return figures


def measured(vectors: Any, rows: int, options: frame.Options) -> list[frame.Figure]:
    """All figures of a library of ``rows`` tracks."""
    import numpy as np

    from msim_tf.search.calibration import sample_weights
    from msim_tf.search.faiss_codes import faiss_installed
    from msim_tf.search.index import Index
    from msim_tf.search.ranking import normalised
    from tools.bench.vectors import write_library

    folder = Path(options.scratch) / str(rows)
    exact = write_library(vectors, rows, folder / "exact")
    indexes, label = {"exact": exact}, f"{rows:,} tracks, "
    figures = []
    if faiss_installed():
        indexes["FAISS"] = Index.open(folder / "exact")
        begun = time.perf_counter()
        indexes["FAISS"].build_engine("faiss")
        note = f"encoded and calibrated; {vectors.kind}"
        figures.append(frame.spread(label + "FAISS built", [time.perf_counter() - begun], unit="s", note=note))
        indexes["FAISS"].save(folder / "FAISS")
    matrix = np.concatenate([normalised(block, vectors.layout) for _, block in exact.rows.blocks()])
    answering = {"NumPy scan": _scanned(exact, matrix), **indexes}
    rng = np.random.default_rng(2)
    asked, compared = (240, 60) if options.quick else (480, 240)
    queries = normalised(vectors.draw(asked, rng), vectors.layout)
    for kind in _KINDS:
        weights = sample_weights(kind, asked, len(vectors.layout.names), rng)
        figures += _timed(answering, matrix, queries, weights, f"{label}{kind}, ", options)
        figures += _recall(answering, matrix, queries[:compared], weights[:compared], f"{label}{kind}, ")
    for name in indexes:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            grown = process.submit(memory, str(folder / name), queries[:6]).result()
        note = "of its own, after some queries; mapped files not counted"
        figures.append(frame.spread(f"{label}{name}, memory", [grown / 2**20], unit="MB", note=note))
    return figures


def _timed(
    indexes: dict[str, Any], matrix: Any, queries: Any, weights: Any, label: str, options: frame.Options
) -> list[frame.Figure]:
    """Milliseconds per query, and the ratios to floor and peer."""
    import numpy as np

    turn = 6 if len(matrix) > 200_000 else 12
    widths = indexes["exact"].source.layout.widths
    weighted = queries * np.repeat(weights, widths, axis=1).astype(np.float32)
    counts = {"product": turn, "scan alone": turn, "NumPy scan": turn, "exact": turn, "FAISS": turn * _FAISS_TURN}
    first: dict[str, list[float]] = {name: [] for name in counts}

    def in_turn(name: str, answer: Callable[[int], object]) -> Callable[[], object]:
        """Asks the next queries at every call."""
        places = itertools.cycle(range(len(queries)))

        def call() -> object:
            begun = time.perf_counter()
            answer(next(places))
            first[name].append(time.perf_counter() - begun)
            return [answer(place) for place in itertools.islice(places, counts[name] - 1)]

        return call

    def asking(name: str, index: Any) -> Callable[[], object]:
        return in_turn(name, lambda place: _answer(index, queries[place], weights[place]))

    calls = {
        "product": in_turn("product", lambda place: matrix @ weighted[place]),
        "scan alone": in_turn("scan alone", lambda place: _scan(matrix, weighted[place])),
        **{name: asking(name, index) for name, index in indexes.items()},
    }
    spent = frame.measure(calls, 3 if options.quick else 7, pause=_PAUSE)
    seconds = {name: [value / counts[name] for value in spent[name]] for name in calls}
    figures = [frame.spread(label + name, [1000 * value for value in seconds[name]], unit="ms") for name in calls]
    figures.append(frame.ratio(label + "exact / product", seconds["exact"], seconds["product"], note="the floor: 1"))
    if "FAISS" in indexes:
        figures += [
            frame.ratio(
                label + "NumPy scan / FAISS", seconds["NumPy scan"], seconds["FAISS"], bar=_BARS.get(len(matrix))
            ),
            frame.ratio(
                label + "scan alone / FAISS", seconds["scan alone"], seconds["FAISS"], note="rows / a whole query"
            ),
            frame.ratio(label + "exact / FAISS", seconds["exact"], seconds["FAISS"]),
            frame.spread(
                label + "FAISS, first query",
                [1000 * value for value in first["FAISS"][1:]],
                unit="ms",
                note="right after a turn of the others",
            ),
        ]
    return figures


class _NumpyScan:
    """The peer as an engine: rows of the ten best."""

    name = "NumPy scan"

    def __init__(self, matrix: Any, widths: tuple[int, ...]) -> None:
        self._matrix = matrix
        self._widths = widths

    def top(self, rows: Any, query: Any, weights: Any, count: int, *, allowed: Any = None) -> Any:
        import numpy as np

        return _scan(self._matrix, query * np.repeat(weights, self._widths).astype(np.float32))

    def forget(self) -> None:
        raise NotImplementedError("the peer's library does not change")

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name}


def _scanned(index: Any, matrix: Any) -> Any:
    """The same library, searched by the peer."""
    return index.with_engine(_NumpyScan(matrix, index.source.layout.widths))


def _scan(matrix: Any, vector: Any) -> Any:
    import numpy as np

    return np.argpartition(matrix @ -vector, _K)[:_K]


def _answer(index: Any, query: Any, weights: Any) -> list[int]:
    """Rows of the tracks that a whole query finds."""
    from msim_tf.search.query import search, vector_query

    chosen = dict(zip(index.source.layout.names, weights.tolist()))
    return [
        int(match.identifier.split()[1]) for match in search(index, vector_query(index, query), weights=chosen, k=_K)
    ]


def _recall(indexes: dict[str, Any], matrix: Any, queries: Any, weights: Any, label: str) -> list[frame.Figure]:
    """Share of the true ten nearest that each engine finds: the mean over the
    queries, the worst and the best of them.
    """
    found = {name: [_answer(index, *asked) for asked in zip(queries, weights)] for name, index in indexes.items()}
    widths = indexes["exact"].source.layout.widths
    shares = {name: recall(rows, matrix, queries, weights, widths) for name, rows in found.items()}
    note = f"mean, worst and best of {len(queries)} queries"
    return [
        frame.Figure(
            f"{label}{name}, recall@{_K}", float(share.mean()), share.min(), share.max(), "share", _RECALL, note=note
        )
        for name, share in shares.items()
    ]


def recall(found: list[list[int]], matrix: Any, queries: Any, weights: Any, widths: tuple[int, ...]) -> Any:
    """Share of the nearest that were found, query by query; a row as near as the last of the
    true ones, within rounding, is one of them.

    Args:
        found: rows that each query found; as many as were asked for.
        matrix: [rows, size] float32, normalised.
        queries: [n, size] float32, normalised.
        weights: [n, dimensions].
        widths: of the subspaces.

    Returns:
        [n] float64 in [0, 1].
    """
    import numpy as np

    shares = []
    weighted = queries * np.repeat(weights, widths, axis=1).astype(np.float32)
    for first in range(0, len(queries), _AT_ONCE):
        for number, scores in enumerate(weighted[first : first + _AT_ONCE] @ matrix.T, first):
            rows = found[number]
            last = np.partition(scores, -len(rows))[-len(rows)]
            shares.append(float((scores[rows] >= last - 1e-6).mean()))
    return np.array(shares)


def memory(path: str, queries: Any) -> int:
    """Bytes of its own that a process needs more once it has opened an index and answered: what
    is mapped from files is not counted.
    """
    import numpy as np

    from msim_tf.search.index import Index
    from tools.bench.stages import own_bytes

    before = own_bytes()
    index = Index.open(path)
    for query in queries:
        _answer(index, query, np.full(len(index.source.layout.names), 1.0))
    return own_bytes() - before
