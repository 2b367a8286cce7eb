"""Hits that are not ten times the same: limits per artist and album, maximal marginal relevance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.search.ranking import dimension_distances


@dataclass(frozen=True)
class Diversity:
    """How different the hits should be from each other.

    Attributes:
        per_artist: most hits of one artist; None is no limit. Tracks of unknown artist are not limited.
        per_album: most hits of one album.
        relevance: lambda of maximal marginal relevance in (0, 1]: 1 looks only at the query, less also away from hits
            already chosen.
        versions: whether versions of one song (see ``versions``) are one hit.
    """

    per_artist: int | None = None
    per_album: int | None = None
    relevance: float = 1.0
    versions: bool = False

    def __post_init__(self) -> None:
        for name in ("per_artist", "per_album"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise InputError(f"{name} is {limit}, expected at least 1")
        if not 0 < self.relevance <= 1:
            raise InputError(f"relevance is {self.relevance}, expected above 0 and at most 1")


class Limits:
    """Counts what was chosen, and tells what may still be."""

    def __init__(self, diversity: Diversity) -> None:
        self._limits = {"artist": diversity.per_artist, "album": diversity.per_album}
        self._chosen: Counter[tuple[str, str]] = Counter()

    def accept(self, artist: str, album: str) -> bool:
        """Counts one more of this artist and album, unless that passes a limit; "" is unknown and always within."""
        # Nothing is counted unless both groups have room: a refused track must not use up a place of its artist.
        groups = [(kind, value) for kind, value in (("artist", artist), ("album", album)) if value]
        limits = [self._limits[kind] for kind, _ in groups]
        if any(limit is not None and self._chosen[key] >= limit for key, limit in zip(groups, limits)):
            return False
        self._chosen.update(groups)
        return True


def marginal_order(
    distances: np.ndarray,
    vectors: np.ndarray,
    weights: np.ndarray,
    layout: EmbeddingLayout,
    *,
    relevance: float,
    k: int,
    accept: Callable[[int], bool] = lambda _: True,
) -> list[int]:
    """Order of maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) with distances for similarities.

    Each place goes to the candidate with the least relevance * distance to the query - (1 - relevance) * distance to
    the nearest chosen one; the first place to the nearest. Between candidates the magnitudes of the weights count, for
    "unlike the query" does not mean "like each other". Ties go to the candidate that is earlier in ``distances``.

    Args:
        distances: [n] to the query, ascending.
        vectors: [n, size] float32, normalised.
        weights: [dimensions].
        layout: the subspaces.
        relevance: in (0, 1].
        k: how many.
        accept: asked once for each position in its turn; what it refuses is passed over.

    Returns:
        At most ``k`` positions.
    """
    nearest = np.zeros(len(distances))  # to the chosen ones; equal for all before the first
    left = np.ones(len(distances), bool)
    chosen: list[int] = []
    while len(chosen) < k and left.any():
        # [n] lambda * distance to the query - (1 - lambda) * distance to the nearest chosen one, rounded so that equal
        # costs tie whatever rounding their sums met.
        cost = np.where(left, np.round(relevance * distances - (1 - relevance) * nearest, 9), np.inf)
        pick = int(np.argmin(cost))
        left[pick] = False
        if not accept(pick):
            continue
        # [n] weighted distances of all to the new one; the nearest chosen one of each is then updated, not sought anew.
        if relevance < 1:
            apart = dimension_distances(vectors[pick], vectors, layout) @ np.abs(weights)
            nearest = np.minimum(nearest, apart) if chosen else apart
        chosen.append(pick)
    return chosen
