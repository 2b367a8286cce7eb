"""A library as the Subsonic proxy asks it: similar tracks, paths, and the tracks it has, always of its newest state."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from msim_tf.library.api_state import LibraryState, LiveLibrary
from msim_tf.search.diversity import Diversity
from msim_tf.search.path import track_path
from msim_tf.search.query import Match, examples_query, search, track_query
from msim_tf.subsonic.matcher import SongMatcher
from msim_tf.subsonic.proxy import SimilarTrack

_PER_ARTIST = 2  # a mix is to lead on from an artist, not to stay there
_GREATEST = 4.0  # distance of opposite unit vectors, whatever the weights


class LibraryRecommender:
    """Recommends tracks of a library.

    Args:
        library: the library.
        weights: by dimension; None weighs all equally.
    """

    def __init__(self, library: LiveLibrary, weights: Mapping[str, float] | None = None) -> None:
        self._library = library
        self._weights = weights
        self._lock = threading.Lock()
        self._matched: tuple[LibraryState, SongMatcher] | None = None

    def matcher(self) -> SongMatcher:
        """The tracks of the library as it is now; made once for each of its states."""
        state = self._library.state()
        with self._lock:
            if self._matched is None or self._matched[0] is not state:
                self._matched = (state, SongMatcher(state.index.all_metadata()))
            return self._matched[1]

    def similar(self, tracks: Sequence[str], count: int) -> list[SimilarTrack]:
        """The tracks nearest to all of ``tracks``, which are not among them, nearest first."""
        index = self._library.state().index
        query = track_query(index, tracks[0]) if len(tracks) == 1 else examples_query(index, tracks)
        diversity = Diversity(per_artist=_PER_ARTIST)
        return _similar(search(index, query, weights=self._weights, k=count, diversity=diversity))

    def path(self, start: str, end: str, count: int) -> list[SimilarTrack]:
        """A path of at most ``count`` tracks from ``start`` to ``end``; each is compared with the one before it."""
        index = self._library.state().index
        return _similar(track_path(index, start, end, length=min(count, len(index)), weights=self._weights))


def _similar(matches: Sequence[Match]) -> list[SimilarTrack]:
    return [SimilarTrack(match.identifier, min(max(1 - match.distance / _GREATEST, 0.0), 1.0)) for match in matches]
