"""Triplets made from labels, for a corpus that no listener has compared: anchor, a track like it, a track unlike it.

They are *not* human similarity: a model that predicts them all has learnt the labels. Whatever is made of them says
"label triplets", so that nobody takes their score for one on Dim-Sim. Triplets share tracks and are not independent;
intervals that count triplets are too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from msim_tf.errors import InputError
from msim_tf.evaluate.artists import Artists
from msim_tf.evaluate.distances import candidate_mask, validate_relations
from msim_tf.evaluate.triplets import LABELS, Triplets


def label_triplets(
    identifiers: Sequence[str],
    relations: Mapping[str, np.ndarray],
    *,
    groups: Artists | None = None,
    per_kind: int = 200,
    seed: int = 0,
) -> Triplets:
    """Equally many different triplets for each kind of label that can form any.

    Args:
        identifiers: [n] tracks.
        relations: kind -> [n, n] int8: +1 similar, -1 dissimilar, 0 unknown.
        groups: [n] artists (see ``artists``); tracks that share one with the anchor take no part. None switches this
            filter off.
        per_kind: triplets of each kind; fewer of all where one kind cannot form so many.
        seed: of the draw.

    Returns:
        Triplets with ids such as ``genre-17``; ``filters`` say how many of how many each kind gave.

    Raises:
        InputError: if no kind can form a triplet, or shapes do not fit.
    """
    if per_kind < 1:
        raise InputError(f"{per_kind} label triplets of each kind, expected at least 1")
    # Copies, in which whoever the artist filter bars is of unknown relation to the anchor of the row.
    relations = {kind: np.array(relation) for kind, relation in relations.items()}
    artists = validate_relations(relations, groups, len(identifiers))
    for row in range(len(identifiers)):
        allowed = candidate_mask(row, artists, len(identifiers))
        for relation in relations.values():
            relation[row, ~allowed] = 0

    # An anchor with s similar and d dissimilar tracks forms s * d triplets; all kinds give as many as the poorest can.
    possible = {kind: int(_counts(relation).sum()) for kind, relation in relations.items()}
    possible = {kind: count for kind, count in possible.items() if count}
    if not possible:
        raise InputError(
            f"no triplet can be formed from the labels of these {len(identifiers)} tracks"
            f"{'' if groups is None else ' by different artists'}; label more tracks, or give a file of triplets"
        )
    count = min(per_kind, *possible.values())

    # [kinds * count] rows of anchor, positive and negative: different triplets of a kind, each as likely as any other.
    # A triplet is a number, so none has to be listed: they are numbered anchor by anchor, ``ends`` says which numbers
    # are whose, and inside one anchor the number is near * dissimilar + far.
    rng = np.random.default_rng(seed)
    members: list[tuple[int, int, int]] = []
    for kind in possible:
        relation = relations[kind]
        ends = np.cumsum(_counts(relation))
        for number in np.sort(rng.choice(int(ends[-1]), count, replace=False)):
            row = int(np.searchsorted(ends, number, side="right"))
            similar, dissimilar = np.flatnonzero(relation[row] > 0), np.flatnonzero(relation[row] < 0)
            near, far = divmod(int(number - (ends[row - 1] if row else 0)), dissimilar.size)
            members.append((row, similar[near], dissimilar[far]))

    # Their names, column by column.
    anchor, positive, negative = (tuple(identifiers[row] for row in column) for column in zip(*members))
    shares = ", ".join(f"{kind} {count} of {total:,}" for kind, total in possible.items())
    return Triplets(
        name="label triplets",
        triplet_ids=tuple(f"{kind}-{number}" for kind in possible for number in range(1, count + 1)),
        anchor=anchor,
        positive=positive,
        negative=negative,
        agreement=np.full(len(members), np.nan),
        filters=(f"made from labels ({shares}; seed {seed}), not human similarity",),
        judges=LABELS,
    )


def _counts(relation: np.ndarray) -> np.ndarray:
    """Triplets of each anchor: [n] int64."""
    return (relation > 0).sum(axis=1, dtype=np.int64) * (relation < 0).sum(axis=1, dtype=np.int64)
