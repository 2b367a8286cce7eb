"""When are two tracks similar in one dimension? Pure functions from labels to relation matrices.

Every relation is an int8 matrix: +1 similar, -1 dissimilar, 0 unknown. A track without a label is unknown to all
others: neither positive nor negative. Tempo similarity is not transitive, so relations are matrices and never class
ids. A track is similar to itself; a caller whose rows and columns are the same clips clears the diagonal.

Keys and tempi are numbers as in ``msim_tf.theory``.
"""

from __future__ import annotations

import numpy as np

from msim_tf import dimensions
from msim_tf.errors import InputError
from msim_tf.theory import KEY_RELATIONS, TEMPO_MARGIN, parallel_key, relative_key, similar_tempo


def tag_relation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Similar if they share a tag, dissimilar if both are tagged and share none.

    Args:
        a: [n, tags] bool.
        b: [m, tags] bool, same tags.

    Returns:
        [n, m] int8.
    """
    # [n, tags] @ [tags, m] -> [n, m]: do they share a tag? A product of floats is much faster than one of booleans.
    shared = a.astype(np.float32) @ b.astype(np.float32).T > 0
    return _relation(shared, np.asarray(a.any(axis=1)), np.asarray(b.any(axis=1)))


def tempo_relation(a: np.ndarray, b: np.ndarray, *, margin: float = TEMPO_MARGIN) -> np.ndarray:
    """Similar if ``similar_tempo``.

    Args:
        a: [n] bpm; what is not a positive number is unknown.
        b: [m] bpm.
        margin: in bpm, >= 0.

    Returns:
        [n, m] int8.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    # [n, 1] against [m] -> [n, m]; where a tempo is unknown any number will do, for the pair becomes 0 below.
    labelled_a, labelled_b = np.isfinite(a) & (a > 0), np.isfinite(b) & (b > 0)
    similar = similar_tempo(np.where(labelled_a, a, 1.0)[:, None], np.where(labelled_b, b, 1.0), margin=margin)
    return _relation(similar, labelled_a, labelled_b)


def key_relation(a: np.ndarray, b: np.ndarray, *, relation: str = "parallel") -> np.ndarray:
    """Similar if the keys are equal or related.

    Args:
        a: [n] int, 0..23 or -1.
        b: [m] int.
        relation: "parallel" (C major and C minor), "relative" (C major and A minor) or "both".

    Returns:
        [n, m] int8.

    Raises:
        InputError: if ``relation`` is none of these.
    """
    if relation not in KEY_RELATIONS:
        raise InputError(f"key relation {relation!r}: expected one of {', '.join(KEY_RELATIONS)}")
    # [n, 1] against [1, m] -> [n, m]: equal, or equal to the parallel or relative key of the row's.
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    similar = a[:, None] == b[None, :]
    if relation in ("parallel", "both"):
        similar |= parallel_key(a)[:, None] == b[None, :]
    if relation in ("relative", "both"):
        similar |= relative_key(a)[:, None] == b[None, :]
    return _relation(similar, a >= 0, b >= 0)


_by_key = key_relation  # ``relation`` has an option of the same name


def relation(name: str, a: np.ndarray, b: np.ndarray, *, key_relation: str = "parallel") -> np.ndarray:
    """The relation of the dimension called ``name``, by its kind.

    Args:
        name: one of ``dimensions.DIMENSION_NAMES``.
        a: labels of the rows, as the function of this kind takes them.
        b: labels of the columns.
        key_relation: which keys count as related, see ``key_relation``.

    Returns:
        [n, m] int8.
    """
    kind = dimensions.dimension(name).kind
    if kind == "tag":
        return tag_relation(a, b)
    if kind == "tempo":
        return tempo_relation(a, b)
    return _by_key(a, b, relation=key_relation)


def _relation(similar: np.ndarray, labelled_a: np.ndarray, labelled_b: np.ndarray) -> np.ndarray:
    """+1 or -1 where both tracks are labelled, else 0: [n, m] int8 from [n, m], [n] and [m] bool."""
    signs = np.where(similar, np.int8(1), np.int8(-1))
    related: np.ndarray = np.where(labelled_a[:, None] & labelled_b[None, :], signs, np.int8(0))
    return related
