"""Short codes of all rows that FAISS scores in registers (PQ FastScan, 4 bits per code): of whole vectors, and of every subspace alone.

Codes of whole vectors are small, and no code straddles two subspaces, so a dimension that weighs nothing adds no noise. Each subspace is turned
to its principal axes first, and these are dealt out to the codes so that all have like shares of the variance: half as many codes then order as
well as twice as many of neighbouring coordinates. Where one dimension alone weighs, its part of such a code is all there is, and it is coarse.
So every subspace has finer codes of its own too, one per coordinate after a random rotation, which makes the coordinates alike; they are a sixth
of what would be read otherwise.

``faiss`` (faiss-cpu) is imported only here, and only when it is used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import BadZipFile

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.files import atomic_file

CODES_VERSION = 2  # of the file; 1 held codes of whole vectors only, as FAISS writes them


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


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of the first so many rows, growing in place.

    Attributes:
        layout: the subspaces.
        whole: FAISS index of whole vectors.
        alone: FAISS index of each subspace.
    """

    layout: EmbeddingLayout
    whole: Any
    alone: tuple[Any, ...]

    def __len__(self) -> int:
        return int(self.whole.ntotal)

    def add(self, unit: np.ndarray) -> None:
        """Encodes further rows, [n, size] float32, subspaces of length 1."""
        self.whole.add(unit)
        for index, part in zip(self.alone, self.layout.slices.values()):
            index.add(np.ascontiguousarray(unit[:, part]))

    def order(self, weighted: np.ndarray, depth: int) -> np.ndarray:
        """Rows by inner product with a weighted query [size] float32, best first; at most ``depth``."""
        return _order(self.whole, weighted, depth)

    def order_alone(self, weighted: np.ndarray, depth: int) -> np.ndarray:
        """The same for a query of which only one subspace is not 0."""
        for index, part in zip(self.alone, self.layout.slices.values()):
            if weighted[part].any():
                return _order(index, weighted[part], depth)
        return np.arange(min(depth, len(self)))  # a query of zeros is equally near to all

    def reset(self) -> None:
        """Forgets all rows; what was trained stays."""
        for index in (self.whole, *self.alone):
            index.reset()

    def save(self, path: Path) -> None:
        """Writes what was trained and all codes, atomically."""
        faiss, indexes = import_faiss(), (self.whole, *self.alone)
        serialised = {name: faiss.serialize_index(index) for name, index in zip(_names(self.layout), indexes)}
        with atomic_file(path) as file:
            np.savez(file, **serialised)


def _names(layout: EmbeddingLayout) -> tuple[str, ...]:
    """Of the indexes in the file."""
    return ("whole", *layout.names)


def load_codes(path: Path, layout: EmbeddingLayout) -> Codes:
    """Reads what ``Codes.save`` wrote.

    Raises:
        InputError: if faiss is not installed, or the file is cut short or of another layout.
    """
    faiss, again = import_faiss(), "build the engine again"
    try:
        with np.load(path, allow_pickle=False) as file:
            whole, *alone = (faiss.deserialize_index(file[name]) for name in _names(layout))
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, RuntimeError) as error:
        reason = str(error).split("Error: ")[-1].strip()
        raise InputError(f"{path}: not readable as codes ({reason}); {again}") from None
    found = (whole.d, *(index.d for index in alone))
    if found != (layout.size, *layout.widths) or any(index.ntotal != whole.ntotal for index in alone):
        raise InputError(f"{path}: codes of {found} coordinates, expected {(layout.size, *layout.widths)}; {again}")
    return Codes(layout, whole, tuple(alone))


def train_codes(sample: np.ndarray, layout: EmbeddingLayout, *, coordinates: int, seed: int = 0) -> Codes:
    """Codes of no rows yet.

    Args:
        sample: [n, size] float32, rows to train on, subspaces of length 1.
        layout: the subspaces.
        coordinates: that share a code of whole vectors.
        seed: of the random rotations.
    """
    rng = np.random.default_rng(seed)
    whole = _trained(balanced_axes(sample, layout, coordinates), coordinates, sample)
    alone = []
    for part, width in zip(layout.slices.values(), layout.widths):
        rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
        alone.append(_trained(rotation, 1, np.ascontiguousarray(sample[:, part])))
    return Codes(layout, whole, tuple(alone))


def balanced_axes(sample: np.ndarray, layout: EmbeddingLayout, coordinates: int) -> np.ndarray:
    """Principal axes of every subspace, dealt out to groups of ``coordinates`` so that products of variances are alike.

    That is the eigenvalue allocation of optimised product quantisation (Ge et al., CVPR 2013), inside each subspace.

    Args:
        sample: [n, size] float32.
        layout: the subspaces.
        coordinates: in a group.

    Returns:
        [padded size, size] float64; rows are axes, group by group; rows of zeros fill up a subspace's last group.
    """
    blocks = []
    for part, width in zip(layout.slices.values(), layout.widths):
        variances, axes = np.linalg.eigh(np.cov(sample[:, part], rowvar=False).reshape(width, width))
        block = np.zeros((-(-width // coordinates) * coordinates, layout.size))
        for place, axis in zip(_dealt(variances, coordinates), reversed(range(width))):
            block[place, part] = axes[:, axis]
        blocks.append(block)
    return np.concatenate(blocks)


def _dealt(variances: np.ndarray, coordinates: int) -> list[int]:
    """Place of each axis, the widest first."""
    gains = np.log(np.maximum(variances[::-1], 1e-6 * max(variances[-1], 1e-30)))
    gains = gains - gains[-1] + 1e-3  # above 0, so that every axis counts
    groups = -(-len(gains) // coordinates)
    total, held, places = np.zeros(groups), np.zeros(groups, int), []
    for gain in gains:
        group = int(np.argmin(np.where(held < coordinates, total, np.inf)))
        places.append(group * coordinates + int(held[group]))
        total[group] += gain
        held[group] += 1
    return places


def _trained(axes: np.ndarray, coordinates: int, sample: np.ndarray) -> Any:
    faiss = import_faiss()
    padded, size = axes.shape
    turn = faiss.LinearTransform(size, padded, False)
    faiss.copy_array_to_vector(axes.astype(np.float32).ravel(), turn.A)
    turn.is_trained = True
    index = faiss.IndexPreTransform(
        turn, faiss.IndexPQFastScan(padded, padded // coordinates, 4, faiss.METRIC_INNER_PRODUCT)
    )
    index.train(sample)
    return index


def _order(index: Any, query: np.ndarray, depth: int) -> np.ndarray:
    with _one_thread():
        found = index.search(query[None], depth)[1][0]
    return found if not len(found) or found[-1] >= 0 else found[found >= 0]


@contextmanager
def _one_thread() -> Iterator[None]:
    """One query is too little to share: OpenMP's threads would only wait for each other. Holds for the calling thread."""
    faiss = import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
