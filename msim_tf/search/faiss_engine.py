"""The FAISS engine, for some 50,000 tracks and more: short codes score every row, stored vectors rescore the best.

Scoring everything keeps recall under skewed weights, where partitioned and graph indexes, built for one fixed distance,
collapse. How many rows to rescore is measured on the library (``calibration``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.performance import widened
from msim_tf.search.calibration import ALONE, Calibration, calibrate
from msim_tf.search.engines import STORED_MARGIN, ExactEngine, opposed, smallest, weighing_spans
from msim_tf.search.faiss_codes import CODES_VERSION, Codes, import_faiss, load_codes, train_codes
from msim_tf.search.ranking import normalised
from msim_tf.search.vectors import Rows

_TRAINED_ON = 2**14
_FEWEST_ROWS = 1000  # 16 centroids per code need some rows
_SCANNED = 5000  # filtered down to so few rows, reading them all is as fast
_COORDINATES = (4, 2)  # per code: the first that need not look deep
_DEEP = 512


class FaissEngine:
    """Codes of all rows, and how deep to look into their order."""

    name = "faiss"

    def __init__(self, codes: Codes, calibration: Calibration) -> None:
        self._layout = codes.layout
        self._codes = codes
        self._exact = ExactEngine(codes.layout)
        self.calibration = calibration

    @classmethod
    def build(cls, rows: Rows, layout: EmbeddingLayout, *, seed: int = 0) -> FaissEngine:
        """Trains the codes on the library, encodes all of it, and calibrates the depth.

        Raises:
            InputError: if faiss is not installed or the library is too small to train on.
        """
        import_faiss()
        if len(rows) < _FEWEST_ROWS:
            raise InputError(
                f"the faiss engine needs at least {_FEWEST_ROWS} tracks, there are {len(rows)}; use the exact engine"
            )
        # [trained on, size] a random sample of unit vectors, read in the order of the file.
        chosen = np.random.default_rng(seed).choice(len(rows), min(_TRAINED_ON, len(rows)), replace=False)
        sample = normalised(rows.take(np.sort(chosen)), layout)
        # Short codes first; codes of half as many coordinates, twice as long, only if these must look too deep.
        for coordinates in _COORDINATES:
            codes = train_codes(sample, layout, coordinates=coordinates, seed=seed)
            _encode(codes, rows)
            calibration = calibrate(rows, layout, codes.order, alone=codes.order_alone, seed=seed)
            if max(calibration.depths["uniform"], calibration.depths["dirichlet"]) <= min(_DEEP, len(rows) // 8):
                break
        return cls(codes, calibration)

    def top(
        self, rows: Rows, query: np.ndarray, weights: np.ndarray, count: int, *, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """See ``Engine.top``; finds them with the recall of ``calibration``."""
        _encode(self._codes, rows)
        weighted = opposed(query, weights, self._layout)
        near = self._proposed(rows, weighted, weights, count, allowed)
        if near is None:
            return self._exact.top(rows, query, weights, count, allowed=allowed)

        # Rescore from the stored vectors: [proposed] sums of -2 * w_s * <q_s, x_s>, coordinates that weigh only.
        distances = np.zeros(len(near), np.float32)
        for span in weighing_spans(weights, self._layout):
            # Not by BLAS: for some hundred rows it wakes threads, which then wait in a loop on the core that shares the
            # next query.
            distances += np.einsum("ij,j->i", widened(rows.take(near, span)), weighted[span])
        return near[smallest(distances, count, margin=STORED_MARGIN)]

    def _proposed(
        self, rows: Rows, weighted: np.ndarray, weights: np.ndarray, count: int, allowed: np.ndarray | None
    ) -> np.ndarray | None:
        """Rows to rescore; None where a scan of everything would be as fast."""
        # A single dimension has finer codes of its own, and they need less depth.
        alone = ALONE in self.calibration.depths and np.count_nonzero(weights) == 1 and weights.max() > 0
        order = self._codes.order_alone if alone else self._codes.order
        wanted = self.calibration.depth(weights, count, alone=alone)

        # Few rows pass the filters: they are rescored one and all, and no code is looked at.
        number = len(rows) if allowed is None else int(np.count_nonzero(allowed))
        if allowed is not None and number <= max(_SCANNED, wanted):
            return np.flatnonzero(allowed)

        # The codes know no filters: look as much deeper as rows are left out, and twice that as long as too few pass.
        depth = int(wanted * len(rows) / number)
        while depth <= len(rows) // 4:
            near = order(-weighted, depth)
            near = near if allowed is None else near[allowed[near]]
            if len(near) >= wanted:
                return near
            depth *= 2
        return None

    def forget(self) -> None:
        """See ``Engine.forget``; the trained centroids stay."""
        self._codes.reset()
        self._exact.forget()

    def to_json(self) -> dict[str, Any]:
        """See ``Engine.to_json``."""
        return {"name": self.name, "codes_version": CODES_VERSION, "calibration": self.calibration.to_json()}

    def save_codes(self, path: Path, rows: Rows) -> None:
        """Writes centroids and codes of all rows, atomically."""
        _encode(self._codes, rows)
        self._codes.save(path)

    @classmethod
    def open(cls, path: Path, layout: EmbeddingLayout, calibration: Calibration, *, rows: int) -> FaissEngine:
        """Reads what ``save_codes`` wrote.

        Raises:
            InputError: if faiss is not installed, or the file is not the codes of ``rows`` rows of this layout.
        """
        codes = load_codes(path, layout)
        if len(codes) != rows:
            raise InputError(f"{path}: codes of {len(codes)} rows, expected {rows}; build the engine again")
        return cls(codes, calibration)


def _encode(codes: Codes, rows: Rows) -> None:
    """Adds the rows that have no code yet."""
    if len(codes) < len(rows):
        for _, block in rows.blocks(len(codes)):
            codes.add(normalised(block, codes.layout))
