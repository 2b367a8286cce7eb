"""The FAISS engine for some 50,000 tracks and more: every row is scored from 4-bit codes in registers, the best are rescored exactly.

Product quantisation with two coordinates per code; subspaces of odd width get a zero coordinate, so no code straddles two of them and a
dimension that weighs nothing adds no noise. Scoring everything keeps recall under skewed weights, where partitioned and graph indexes, built
for one fixed distance, collapse. How many rows to rescore is measured on the library (``calibration``).

``faiss`` (faiss-cpu) is imported only here, and only when it is used.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.files import atomic_file
from msim_tf.search.calibration import Calibration, calibrate
from msim_tf.search.engines import ExactEngine, smallest, weighted_distances
from msim_tf.search.ranking import normalised
from msim_tf.search.segments import Rows

_TRAINED_ON = 2**16
_FEWEST_ROWS = 1000  # 16 centroids per code need some rows
_SCANNED = 5000  # filtered down to so few rows, reading them all is as fast


def import_faiss() -> ModuleType:
    """The ``faiss`` module.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise InputError(
            "the faiss engine needs faiss: pip install 'msim-tf[faiss]', or use the exact engine, which works at any size"
        ) from None
    return faiss


def faiss_installed() -> bool:
    """Whether ``faiss`` can be imported, without importing it."""
    return importlib.util.find_spec("faiss") is not None


class FaissEngine:
    """Codes of all rows, and how deep to look into their order."""

    name = "faiss"

    def __init__(self, layout: EmbeddingLayout, codes: Any, calibration: Calibration) -> None:
        self._layout = layout
        self._codes = codes
        self._exact = ExactEngine(layout)
        self.calibration = calibration

    @classmethod
    def build(cls, rows: Rows, layout: EmbeddingLayout, *, seed: int = 0) -> FaissEngine:
        """Trains the codes on the library, encodes all of it, and calibrates the depth.

        Raises:
            InputError: if faiss is not installed or the library is too small to train on.
        """
        faiss = import_faiss()
        if len(rows) < _FEWEST_ROWS:
            raise InputError(
                f"the faiss engine needs at least {_FEWEST_ROWS} tracks, there are {len(rows)}; use the exact engine"
            )
        size = _padded(np.zeros((1, layout.size), np.float32), layout).shape[1]
        codes = faiss.index_factory(size, f"PQ{size // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(seed).choice(len(rows), min(_TRAINED_ON, len(rows)), replace=False)
        codes.train(_padded(normalised(rows.take(np.sort(sample)), layout), layout))
        _encode(codes, rows, layout)
        calibration = calibrate(rows, layout, lambda queries, depth: _order(codes, queries, depth, layout), seed=seed)
        return cls(layout, codes, calibration)

    def top(
        self, rows: Rows, query: np.ndarray, weights: np.ndarray, count: int, *, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """See ``Engine.top``; finds them with the recall of ``calibration``."""
        _encode(self._codes, rows, self._layout)
        near = self._proposed(rows, query, weights, count, allowed)
        if near is None:
            return self._exact.top(rows, query, weights, count, allowed=allowed)
        return near[smallest(self._rescored(rows, near, query, weights), count)]

    def _proposed(
        self, rows: Rows, query: np.ndarray, weights: np.ndarray, count: int, allowed: np.ndarray | None
    ) -> np.ndarray | None:
        """Rows to rescore; None where a scan of everything would be as fast."""
        wanted = self.calibration.depth(weights, count)
        number = len(rows) if allowed is None else int(np.count_nonzero(allowed))
        if allowed is not None and number <= max(_SCANNED, wanted):
            return np.flatnonzero(allowed)
        weighted = query * np.repeat(weights, self._layout.widths).astype(np.float32)
        depth = int(wanted * len(rows) / number)
        while depth <= len(rows) // 4:
            near = _order(self._codes, weighted[None], depth, self._layout)[0]
            near = near if allowed is None else near[allowed[near]]
            if len(near) >= wanted:
                return near
            depth *= 2
        return None

    def _rescored(self, rows: Rows, near: np.ndarray, query: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted distances of ``near`` up to a constant; only the dimensions that weigh are read."""
        distances = np.zeros(len(near), np.float32)
        for index, (name, part) in enumerate(self._layout.slices.items()):
            if weights[index]:
                alone = EmbeddingLayout((name,), (self._layout.widths[index],))
                distances += weighted_distances(rows.take(near, part), query[part], weights[index : index + 1], alone)
        return distances

    def forget(self) -> None:
        """See ``Engine.forget``; the trained centroids stay."""
        self._codes.reset()
        self._exact.forget()

    def to_json(self) -> dict[str, Any]:
        """See ``Engine.to_json``."""
        return {"name": self.name, "calibration": self.calibration.to_json()}

    def save_codes(self, path: Path, rows: Rows) -> None:
        """Writes centroids and codes of all rows, atomically."""
        _encode(self._codes, rows, self._layout)
        with atomic_file(path) as file:
            file.write(import_faiss().serialize_index(self._codes).tobytes())

    @classmethod
    def open(cls, path: Path, layout: EmbeddingLayout, calibration: Calibration, *, rows: int) -> FaissEngine:
        """Reads what ``save_codes`` wrote.

        Raises:
            InputError: if faiss is not installed, or the file is not the codes of ``rows`` rows of this layout.
        """
        faiss = import_faiss()
        try:
            codes = faiss.read_index(str(path))
        except RuntimeError as error:
            reason = str(error).split("Error: ")[-1].strip()
            raise InputError(f"{path}: not readable as codes ({reason}); build the engine again") from None
        size = _padded(np.zeros((1, layout.size), np.float32), layout).shape[1]
        if codes.d != size or codes.ntotal != rows:
            raise InputError(
                f"{path}: codes of {codes.ntotal} rows and {codes.d} coordinates, expected {rows} and {size}; build the engine again"
            )
        return cls(layout, codes, calibration)


def _padded(vectors: np.ndarray, layout: EmbeddingLayout) -> np.ndarray:
    """Every subspace at an even number of coordinates: [n, padded size] float32."""
    if not any(width % 2 for width in layout.widths):
        return np.ascontiguousarray(vectors, np.float32)
    columns = [np.pad(vectors[:, part], ((0, 0), (0, (part.stop - part.start) % 2))) for part in layout.slices.values()]
    return np.ascontiguousarray(np.concatenate(columns, axis=1), np.float32)


def _encode(codes: Any, rows: Rows, layout: EmbeddingLayout) -> None:
    """Adds the rows that have no code yet."""
    if codes.ntotal < len(rows):
        for _, block in rows.blocks(codes.ntotal):
            codes.add(_padded(normalised(block, layout), layout))


def _order(codes: Any, queries: np.ndarray, depth: int, layout: EmbeddingLayout) -> np.ndarray:
    _, found = codes.search(_padded(queries, layout), depth)
    return found[:, found[0] >= 0] if len(found) == 1 else found
