"""Distances of a few tracks to all tracks inside one subspace: the matrix, retrieval and neighbours rank by them.

Conventions: small is near; distances that agree to twelve decimals are ties, so the order does not hang on rounding in
a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate.artists import ArtistFilter, Artists

WHOLE = "all"
_BLOCK = 256


def subspace(system: Embeddings, name: str) -> np.ndarray:
    """The coordinates of one dimension, or of all for ``WHOLE``: [n, width] float64.

    Raises:
        InputError: if the embedding has no such dimension.
    """
    if name == WHOLE:
        return system.embeddings.astype(np.float64)
    if system.layout is None or name not in system.layout.names:
        raise InputError(f"{system.name} has no subspace {name!r}")
    return system.embeddings[:, system.layout.slices[name]].astype(np.float64)


def subspace_names(system: Embeddings) -> tuple[str, ...]:
    """The subspaces to report: each dimension, then the whole."""
    return (*(system.layout.names if system.layout else ()), WHOLE)


def distances_from(
    vectors: np.ndarray, anchors: np.ndarray, *, metric: str = "cosine"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Distances of ``anchors`` to every vector, in blocks.

    Args:
        vectors: [n, width] float64.
        anchors: [a] rows.
        metric: "cosine" (what the subspaces are trained with) or "euclidean" (squared).

    Yields:
        [b] anchors and [b, n] distances.

    Raises:
        InputError: if the metric is unknown.
    """
    if metric not in ("cosine", "euclidean"):
        raise InputError(f"metric {metric!r}, expected 'cosine' or 'euclidean'")
    if metric == "cosine":
        # [n, width] unit vectors; one of zeros stays, at distance 1 from all.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    squares = np.einsum("ij,ij->i", vectors, vectors)
    for start in range(0, len(anchors), _BLOCK):
        # [b, width] @ [width, n] -> [b, n]: 1 - cosine, or |x|^2 + |y|^2 - 2 <x, y>.
        block = anchors[start : start + _BLOCK]
        inner = vectors[block] @ vectors.T
        distances = 1.0 - inner if metric == "cosine" else squares[block, None] + squares - 2.0 * inner
        yield block, np.round(distances, 12)


def candidate_mask(anchor: int, artists: ArtistFilter | None, size: int) -> np.ndarray:
    """Who may be retrieved for ``anchor``: not itself nor, with the filter, a track of its artists: [size] bool."""
    if artists is not None:  # a track shares its artist with itself
        return ~artists.shared(anchor)
    mask = np.ones(size, bool)
    mask[anchor] = False
    return mask


def validate_relations(relations: Mapping[str, np.ndarray], groups: Artists | None, size: int) -> ArtistFilter | None:
    """Checks relation matrices and group labels against ``size`` tracks.

    Returns:
        The artist filter; None without labels.

    Raises:
        InputError: naming the matrix, its shape or its values.
    """
    for kind, relation in relations.items():
        if relation.shape != (size, size):
            raise InputError(f"relations of {kind} have shape {relation.shape}, expected ({size}, {size})")
        if not np.isin(relation, (-1, 0, 1)).all():
            raise InputError(f"relations of {kind}: expected only +1 (similar), -1 (dissimilar) and 0 (unknown)")
    return None if groups is None else ArtistFilter.of(groups, size)
