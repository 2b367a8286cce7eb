"""How far apart the tracks of a library are in each dimension: what a distance is measured against when it is drawn."""

from __future__ import annotations

import numpy as np

from msim_tf.search.index import Index

STEPS = 20
_MOST_TRACKS = 1000
_MOST_PAIRS = 16  # of each of these tracks with others


def distance_scale(index: Index) -> dict[str, list[float]]:
    """Dimension -> ``STEPS`` + 1 ascending distances of two tracks, unweighted, 0 to 4.

    Below the i-th of them lie (i / STEPS)² of all pairs. The steps are finer where distances are small, because there
    are the hits. Of a large library it is an estimate from some 16,000 pairs, the same at every call.

    Args:
        index: of the library.

    Returns:
        One list for each dimension; an empty dictionary where there are no two tracks.
    """
    names = sorted(index.identifiers)
    if len(names) < 2:
        return {}
    # Not in the order of their paths, where tracks of one album are neighbours.
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(names))[:_MOST_TRACKS]
    vectors = index.vectors([names[place] for place in chosen])
    # Each track with the next ones, round in a circle: every pair at most twice.
    shifts = range(1, min(_MOST_PAIRS, len(vectors) // 2) + 1)
    shares = (np.arange(STEPS + 1) / STEPS) ** 2
    scale = {}
    for name, part in index.source.layout.slices.items():
        own = vectors[:, part]
        # |a - b|² of unit vectors.
        distances = np.concatenate([2 - 2 * (own * np.roll(own, shift, axis=0)).sum(1) for shift in shifts])
        scale[name] = np.quantile(np.clip(distances, 0, 4), shares).round(4).tolist()
    return scale
