"""Versions of one song among hits: the same recording in another file, or another cut of it under the same name.

Two tracks are versions of each other if their vectors nearly coincide, or if both name the same artist and title (as
``names`` compares them) and their vectors are near. The name alone does not suffice: an artist may open every album
with another "Intro". The distance is the mean over all dimensions of the squared distance between unit vectors, in
[0, 4]; the weights of a query have no say in it, for tracks that are near in one dimension are no versions.

Measured with open6 on the 35 excerpts of tests/data/music that are not silent: an MP3 of a file is at most 0.0017 away
from it (median 0.0005), the same cut 0.7 s later 0.014 (median), Vorbis of the lowest quality 0.026, and the nearest
two different songs 0.26. ``SAME_RECORDING`` lies between, at a thirteenth of the last: rather two hits of one song
than two songs in one hit. A file at half the level is 0.055 away (median): a hit of its own, unless both files name the
same song, for which the bound is ``_SAME_NAME`` times as wide and still less than between different songs. A live
version that sounds unlike the record is a hit of its own. A model that tells songs less far apart has smaller bounds,
see ``Versions``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.names import comparable
from msim_tf.search.tracks import artist_of

SAME_RECORDING = 0.02
# The mean distance of two of the excerpts is 1.6, 80 times the bound; this share of it holds for other models.
_SHARE_OF_SPREAD = 1 / 80
_SAME_NAME = 10.0
_ROUNDING = 1e-3  # what half precision and a lossless copy differ by, and less than any other encoding


class Versions:
    """Finds versions among some tracks.

    Attributes:
        bound: distance below which two tracks are the same recording.

    Args:
        vectors: [n, size] float32, normalised.
        metadata: of each of the n.
        layout: the subspaces.
    """

    def __init__(self, vectors: np.ndarray, metadata: Sequence[Mapping[str, Any]], layout: EmbeddingLayout) -> None:
        self._vectors = vectors
        self._dimensions = len(layout.names)
        self._songs = [song_of(facts) for facts in metadata]
        # The mean distance of two unit vectors is 2 - 2 |their mean|^2.
        middle = vectors.mean(0, dtype=np.float64) if len(vectors) else np.zeros(layout.size)
        spread = 2 - 2 * float(middle @ middle) / self._dimensions
        self.bound = min(max(spread * _SHARE_OF_SPREAD, _ROUNDING), SAME_RECORDING)

    def original(self, place: int, chosen: Sequence[int]) -> int | None:
        """The first of the ``chosen`` places that ``place`` is a version of; None if it is of none."""
        if not chosen:
            return None
        # [chosen] mean over the dimensions of the squared distances to this track.
        distances = np.square(self._vectors[chosen] - self._vectors[place]).sum(1) / self._dimensions
        song = self._songs[place]
        same = distances < self.bound
        if song:
            same_name = np.array([self._songs[other] == song for other in chosen])
            same |= same_name & (distances < _SAME_NAME * self.bound)
        return chosen[int(np.argmax(same))] if same.any() else None


def song_of(metadata: Mapping[str, Any]) -> str:
    """Artist and title, comparable; "" where one is unknown."""
    artist, title = artist_of(metadata), comparable(metadata.get("title", ""))
    return f"{artist}\n{title}" if artist and title else ""
