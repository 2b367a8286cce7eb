"""Exact ranking by any weighting of the dimensions.

With every subspace L2-normalised, the distance of a query q to a track x under weights w is

    d(q, x) = sum over dimensions s of w_s * |q_s - x_s|^2,    each |q_s - x_s|^2 = 2 * cosine distance, in [0, 4]

so one set of stored vectors serves every weighting, and each dimension's share of a distance can be shown. Weights are
relative: they are divided by the sum of their magnitudes. 0 switches a dimension off, a negative weight means "unlike".
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.performance import widened

_BLOCK = 4096  # rows whose squares are held


def normalised(embeddings: np.ndarray, layout: EmbeddingLayout) -> np.ndarray:
    """Embeddings with every subspace scaled to length 1 (a subspace of zeros stays zero).

    Args:
        embeddings: [..., size] float.
        layout: the subspaces.

    Returns:
        [..., size] float32.
    """
    # [..., size] -> [..., dimensions]: the length of each subspace, then every coordinate divided by that of its own.
    unit = widened(embeddings)
    lengths = np.sqrt(np.add.reduceat(np.square(unit), _starts(layout), axis=-1))
    lengths[lengths == 0] = 1
    unit /= np.repeat(lengths, layout.widths, axis=-1)
    return unit


def weight_vector(weights: Mapping[str, float] | None, layout: EmbeddingLayout) -> np.ndarray:
    """Weights in the order of the layout, their magnitudes summing to 1; all equal when ``weights`` is empty or None.

    Dimensions that are not named get 0.

    Raises:
        InputError: if a name is not in the layout, a weight is not finite, or all are 0.
    """
    if not weights:
        return np.full(len(layout.names), 1.0 / len(layout.names))
    layout.validate(weights)
    # [dimensions] in the order of the layout; a dimension that is not named is off.
    numbers = [weights.get(name, 0.0) for name in layout.names]
    if not all(abs(number) <= sys.float_info.max for number in numbers) or not any(numbers):
        raise InputError(f"weights {dict(weights)}: expected finite numbers, at least one of them not 0")
    # Scaled by a power of two, which changes no digit: the sum of huge weights would overflow.
    vector = np.array(numbers, np.float64)
    vector = np.ldexp(vector, -np.frexp(np.abs(vector).max())[1])
    return vector / np.abs(vector).sum()


def dimension_distances(query: np.ndarray, candidates: np.ndarray, layout: EmbeddingLayout) -> np.ndarray:
    """Squared distances inside every subspace.

    Args:
        query: [size] float, normalised.
        candidates: [n, size] float, normalised.
        layout: the subspaces.

    Returns:
        [n, dimensions] float64 in [0, 4].
    """
    # A block at a time, because the float64 squares take twice the memory of the candidates.
    distances = np.empty((len(candidates), len(layout.names)))
    for start in range(0, len(candidates), _BLOCK):
        apart = candidates[start : start + _BLOCK] - query
        # [block, size] -> [block, dimensions]: the coordinates of a subspace are neighbours, each is one run of sums.
        squares = np.square(apart, dtype=np.float64)
        distances[start : start + _BLOCK] = np.add.reduceat(squares, _starts(layout), axis=1)
    return distances


@cache
def _starts(layout: EmbeddingLayout) -> np.ndarray:
    """First coordinate of each subspace."""
    return np.cumsum([0, *layout.widths[:-1]])
