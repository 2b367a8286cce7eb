"""Which track of a library a song of a Subsonic server is, and the other way round.

Both know the same files, under other names: the server may number them, hide their paths or invent nicer ones. Songs
match by path where the paths end alike, else by artist, album, title and length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from msim_tf.names import comparable, comparable_artist

_SECONDS = 3.0  # servers round lengths, and decoders disagree about padding
_PATH_NAMES = 3  # artist, album and file: as many last names of two paths must agree, or all there are


class SongMatcher:
    """Finds the track of a library that a Subsonic song is.

    Args:
        tracks: identifier (a path below the music folder) and metadata of every track of the library.
    """

    def __init__(self, tracks: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        self._metadata: dict[str, Mapping[str, Any]] = {}
        self._by_file_name: defaultdict[str, list[str]] = defaultdict(list)
        self._by_title: defaultdict[str, list[str]] = defaultdict(list)
        self._by_artist: defaultdict[str, list[str]] = defaultdict(list)
        self._by_album: defaultdict[str, list[str]] = defaultdict(list)
        for identifier, metadata in tracks:
            self._metadata[identifier] = metadata
            self._by_file_name[_path_names(identifier)[-1]].append(identifier)
            for key, groups in (("title", self._by_title), ("album", self._by_album)):
                if metadata.get(key):
                    groups[comparable(metadata[key])].append(identifier)
            if metadata.get("artist"):
                self._by_artist[comparable_artist(metadata["artist"])].append(identifier)

    def track(self, song: Mapping[str, Any]) -> str | None:
        """The identifier of the track that ``song`` is, None if there is none or more than one could be meant.

        Args:
            song: a ``Child`` of the Subsonic API.
        """
        names = _path_names(str(song.get("path") or ""))
        same_path = [track for track in self._by_file_name.get(names[-1], []) if _end_alike(_path_names(track), names)]
        if len(same_path) == 1:
            return same_path[0]
        # Copies of a song under several paths: the tags may tell which is meant.
        candidates = same_path or self._by_title.get(comparable(str(song.get("title") or "")), [])
        matches = [track for track in candidates if same_song(self._metadata[track], song)]
        return matches[0] if len(matches) == 1 else None

    def tracks_by(self, artist: str) -> list[str]:
        """Identifiers of all tracks of an artist."""
        return self._by_artist.get(comparable_artist(artist), [])

    def tracks_on(self, album: str, artist: str) -> list[str]:
        """Identifiers of all tracks of an album; ``artist`` "" takes those of any artist."""
        return [
            track
            for track in self._by_album.get(comparable(album), [])
            if not artist or comparable_artist(artist) in _artists(self._metadata[track])
        ]

    def metadata(self, track: str) -> Mapping[str, Any]:
        """What the library knows of a track."""
        return self._metadata[track]


def same_song(metadata: Mapping[str, Any], song: Mapping[str, Any]) -> bool:
    """Whether the tags of a track and a Subsonic ``Child`` are those of one recording.

    The titles must be equal, and what both know of artist, album and length must agree. At least one of artist and
    album has to be known to both: a title alone says too little.
    """
    if comparable(metadata.get("title", "")) != comparable(str(song.get("title") or "")):
        return False
    # What only one side knows neither speaks for the song nor against it.
    agreements = []
    if song.get("artist") and _artists(metadata):
        agreements.append(comparable_artist(str(song["artist"])) in _artists(metadata))
    if song.get("album") and metadata.get("album"):
        agreements.append(comparable(str(song["album"])) == comparable(metadata["album"]))
    if not agreements or not all(agreements):
        return False
    seconds, duration = metadata.get("seconds"), song.get("duration")
    return not (seconds and duration) or abs(float(seconds) - float(duration)) <= _SECONDS


def same_file(identifier: str, song: Mapping[str, Any]) -> bool:
    """Whether a track's identifier and the path of a Subsonic ``Child`` end alike."""
    return bool(song.get("path")) and _end_alike(_path_names(identifier), _path_names(str(song["path"])))


def _artists(metadata: Mapping[str, Any]) -> set[str]:
    return {comparable_artist(metadata[key]) for key in ("artist", "album_artist") if metadata.get(key)}


def _path_names(path: str) -> list[str]:
    """The names along a path, compared as names are; never empty."""
    return [comparable(name) for name in path.replace("\\", "/").split("/") if name] or [""]


def _end_alike(first: list[str], second: list[str]) -> bool:
    """Whether the last names of two paths agree: three, or as many as the shorter one has."""
    count = min(len(first), len(second), _PATH_NAMES)
    return first[-count:] == second[-count:]
