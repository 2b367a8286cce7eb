"""Short codes of all rows that FAISS scores in registers (PQ FastScan, 4 bits per code; Andre et al., VLDB 2015): of
whole vectors, and of every subspace alone.

Codes of whole vectors are small, and no code straddles two subspaces, so a dimension that weighs nothing adds no noise.
Each subspace is turned to its principal axes first, and these are dealt out to the codes so that all have like shares
of the variance: half as many codes then order as well as twice as many of neighbouring coordinates. Where one dimension
alone weighs, its part of such a code is all there is, and it is coarse. So every subspace has finer codes of its own
too, one per coordinate after a random rotation, which makes the coordinates alike; they are a sixth of what would be
read otherwise.

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
from msim_tf.search.threads import cores

_PART_ROWS = 2**18  # scanned in half a millisecond: what handing a part to another core costs is little beside it
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
            "the faiss engine needs faiss: pip install 'msim-tf[faiss]', or use the exact engine, which works at any "
            "size"
        ) from None
    return faiss


def faiss_installed() -> bool:
    """Whether ``faiss`` can be imported, without importing it."""
    return importlib.util.find_spec("faiss") is not None


class CodedRows:
    """Rows as codes of one kind, in FAISS indexes of 262,144 rows each: the cores share a query of a large library.

    Args:
        parts: FAISS indexes that were trained as one, at least one; rows are numbered through them.
    """

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(part.ntotal for part in self.parts)

    def add(self, vectors: np.ndarray) -> None:
        """Encodes further rows."""
        while len(vectors):
            # The last part is full: begin another that was trained alike, of no rows yet.
            if self.parts[-1].ntotal >= _PART_ROWS:
                part = import_faiss().clone_index(self.parts[0])
                part.reset()
                self.parts.append(part)
            room = _PART_ROWS - self.parts[-1].ntotal
            self.parts[-1].add(np.ascontiguousarray(vectors[:room]))
            vectors = vectors[room:]

    def reset(self) -> None:
        """Forgets all rows; what was trained stays."""
        del self.parts[1:]
        self.parts[0].reset()

    def order(self, query: np.ndarray, depth: int) -> np.ndarray:
        """Rows by inner product with ``query``, best first; at most ``depth``."""
        if len(self.parts) == 1:
            return _best_rows(self.parts[0], query, depth)[1]
        # Each part numbers its rows from 0: the row at which it begins is added.
        firsts = np.cumsum([0, *(part.ntotal for part in self.parts[:-1])])
        candidates = list(cores().map(lambda part: _best_rows(part, query, depth), self.parts))

        # [parts * depth] candidates -> [depth]: the best of all parts; a stable sort keeps ties in the order of rows.
        scores = np.concatenate([scores for scores, _ in candidates])
        rows = np.concatenate([first + rows for first, (_, rows) in zip(firsts, candidates)])
        return rows[np.argsort(-scores, kind="stable")[:depth]]


def _best_rows(index: Any, query: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows, best first, at most ``depth`` of each."""
    with _one_thread():
        scores, rows = index.search(query[None], depth)
    # FAISS takes and gives one line per query: [1, depth] -> [depth].
    scores, rows = scores[0], rows[0]
    if len(rows) and rows[-1] < 0:  # there are fewer
        return scores[rows >= 0], rows[rows >= 0]
    return scores, rows


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of the first so many rows, growing in place.

    Attributes:
        layout: the subspaces.
        whole: of whole vectors.
        alone: of each subspace.
    """

    layout: EmbeddingLayout
    whole: CodedRows
    alone: tuple[CodedRows, ...]

    def __len__(self) -> int:
        return len(self.whole)

    def add(self, unit: np.ndarray) -> None:
        """Encodes further rows, [n, size] float32, subspaces of length 1."""
        self.whole.add(unit)
        for rows, part in zip(self.alone, self.layout.slices.values()):
            rows.add(unit[:, part])

    def order(self, weighted: np.ndarray, depth: int) -> np.ndarray:
        """Rows by inner product with a weighted query [size] float32, best first; at most ``depth``."""
        return self.whole.order(weighted, depth)

    def order_alone(self, weighted: np.ndarray, depth: int) -> np.ndarray:
        """The same for a query of which only one subspace is not 0."""
        for rows, part in zip(self.alone, self.layout.slices.values()):
            if weighted[part].any():
                return rows.order(weighted[part], depth)
        return np.arange(min(depth, len(self)))  # a query of zeros is equally near to all

    def reset(self) -> None:
        """Forgets all rows; what was trained stays."""
        for rows in (self.whole, *self.alone):
            rows.reset()

    def save(self, path: Path) -> None:
        """Writes what was trained and all codes, atomically."""
        faiss = import_faiss()
        serialised = {}
        for name, rows in zip(_names(self.layout), (self.whole, *self.alone)):
            for number, part in enumerate(rows.parts):
                serialised[_in_file(name, number)] = faiss.serialize_index(part)
        with atomic_file(path) as file:
            np.savez(file, **serialised)


def _names(layout: EmbeddingLayout) -> tuple[str, ...]:
    """Of the coded rows in the file."""
    return ("whole", *layout.names)


def _in_file(name: str, number: int) -> str:
    """Name of a part in the file."""
    return f"{name} {number}" if number else name


def load_codes(path: Path, layout: EmbeddingLayout) -> Codes:
    """Reads what ``Codes.save`` wrote.

    Raises:
        InputError: if faiss is not installed, or the file is cut short or of another layout.
    """
    import_faiss()
    again = "build the engine again"
    try:
        with np.load(path, allow_pickle=False) as file:
            whole, *alone = (_parts(file, name) for name in _names(layout))
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, RuntimeError) as error:
        reason = str(error).split("Error: ")[-1].strip()
        raise InputError(f"{path}: not readable as codes ({reason}); {again}") from None
    # Every part must code as many coordinates as the vectors, or its subspace, have; all must hold the same rows.
    expected = (layout.size, *layout.widths)
    widths = tuple(rows.parts[0].d for rows in (whole, *alone))
    wrong = [part.d for rows, size in zip((whole, *alone), expected) for part in rows.parts if part.d != size]
    if wrong or any(len(rows) != len(whole) for rows in alone):
        raise InputError(f"{path}: codes of {widths} coordinates, expected {expected}; {again}")
    return Codes(layout, whole, tuple(alone))


def _parts(file: Any, name: str) -> CodedRows:
    """The coded rows that ``Codes.save`` wrote under a name: "tempo", "tempo 1", "tempo 2" and so on."""
    faiss, parts = import_faiss(), [file[name]]
    while _in_file(name, len(parts)) in file:
        parts.append(file[_in_file(name, len(parts))])
    return CodedRows([faiss.deserialize_index(part) for part in parts])


def train_codes(sample: np.ndarray, layout: EmbeddingLayout, *, coordinates: int, seed: int = 0) -> Codes:
    """Codes of no rows yet.

    Args:
        sample: [n, size] float32, rows to train on, subspaces of length 1.
        layout: the subspaces.
        coordinates: that share a code of whole vectors.
        seed: of the random rotations.
    """
    rng = np.random.default_rng(seed)
    whole = CodedRows([_trained(balanced_axes(sample, layout, coordinates), coordinates, sample)])
    alone = []
    for part, width in zip(layout.slices.values(), layout.widths):
        # The Q of a Gaussian matrix is a random rotation: [width, width], uniform but for signs.
        rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
        alone.append(CodedRows([_trained(rotation, 1, np.ascontiguousarray(sample[:, part]))]))
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
        # [width] variances, ascending, and [width, width] axes as columns; np.cov of one coordinate is a plain number.
        variances, axes = np.linalg.eigh(np.cov(sample[:, part], rowvar=False).reshape(width, width))
        # [padded width, size], padded to whole groups: each axis becomes a row at its place.
        block = np.zeros((-(-width // coordinates) * coordinates, layout.size))
        for place, axis in zip(_dealt(variances, coordinates), reversed(range(width))):
            block[place, part] = axes[:, axis]
        blocks.append(block)
    return np.concatenate(blocks)


def _dealt(variances: np.ndarray, coordinates: int) -> list[int]:
    """Place of each axis, that of the greatest variance first.

    Args:
        variances: [axes], ascending.
        coordinates: places in a group.
    """
    # Sums of logarithms stand for products. Tiny variances are raised, or one of them would outweigh all others.
    gains = np.log(np.maximum(variances[::-1], 1e-6 * max(variances[-1], 1e-30)))
    gains = gains - gains[-1] + 1e-3  # above 0, so that every axis counts

    # Eigenvalue allocation (Ge et al.): the next axis goes to the group of the least product that has a place left.
    groups = -(-len(gains) // coordinates)
    total, filled, places = np.zeros(groups), np.zeros(groups, int), []
    for gain in gains:
        group = int(np.argmin(np.where(filled < coordinates, total, np.inf)))
        places.append(group * coordinates + int(filled[group]))
        total[group] += gain
        filled[group] += 1
    return places


def _trained(axes: np.ndarray, coordinates: int, sample: np.ndarray) -> Any:
    """A FAISS index that projects vectors on ``axes`` and codes so many ``coordinates`` at a time, of no rows yet.

    Args:
        axes: [padded size, size], as ``balanced_axes`` orders them.
        coordinates: per code of 4 bits.
        sample: [n, size] float32, to train its centroids on.
    """
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """One query is too little to share: OpenMP's threads would only wait for each other.

    Holds for the calling thread.
    """
    faiss = import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
