"""The artist filter: which tracks share an artist, and which are independent samples.

Tracks of one artist or album sound alike for reasons that no label tells, so a ranking that may find them flatters
every system (A. Flexer, "A closer look on artist filters for musical genre classification", ISMIR 2007). A track may
have several artists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msim_tf.errors import InputError

# Of each track: its artist, or several; "" or None if unknown.
Artists = Sequence[str | tuple[str, ...] | None] | np.ndarray


@dataclass(frozen=True, eq=False)
class ArtistFilter:
    """Who shares an artist with whom.

    Attributes:
        artists: [entries] int, numbers of artists, track by track.
        starts: [n] int, first entry of each track.
        clusters: [n] int, equal for tracks that share an artist, directly or by way of others: what intervals treat as
            one sample.
    """

    artists: np.ndarray
    starts: np.ndarray
    clusters: np.ndarray

    @classmethod
    def of(cls, groups: Artists, size: int) -> ArtistFilter:
        """The filter of ``size`` tracks; one of unknown artist shares it with nobody.

        Raises:
            InputError: if there are not as many groups as tracks.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if len(groups) != size:
            raise InputError(f"{len(groups)} group labels for {size} tracks")
        # Names of each track's artists; where none is known, one that no artist can have and no other track gets.
        named: list[list[str]] = []
        for row, group in enumerate(groups):
            names = [str(name) for name in (group if isinstance(group, tuple) else (group,)) if name]
            named.append(names or [f"\0{row}"])

        # The artists of all tracks in one list, as numbers, and how many are each track's.
        counts = np.array([len(names) for names in named], np.intp)
        unique, artists = np.unique([name for names in named for name in names], return_inverse=True)

        # Tracks and artists are the nodes of one graph, size + artists of them, with an edge from each track to each of
        # its artists: a component holds all that artists connect.
        artists, rows = artists.ravel(), np.repeat(np.arange(size), counts)
        graph = coo_array((np.ones(len(rows)), (rows, size + artists)), shape=(size + len(unique),) * 2)
        clusters = connected_components(graph, directed=False)[1][:size]
        return cls(artists, np.cumsum(counts) - counts, clusters)

    def shared(self, track: int) -> np.ndarray:
        """Tracks that share an artist with ``track``, itself among them: [n] bool."""
        # [artists] the track's own, marked; [entries] -> [n]: does any entry of a track hit one?
        end = self.starts[track + 1] if track + 1 < len(self.starts) else len(self.artists)
        wanted = np.zeros(self.artists.max() + 1, bool)
        wanted[self.artists[self.starts[track] : end]] = True
        return np.logical_or.reduceat(wanted[self.artists], self.starts)
