"""``track_metadata.db`` of the Million Song Dataset: artist, year and 7digital's number of each song."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from msim_tf.datasets.collection import TrackNames
from msim_tf.datasets.tables import opened_database

_TABLES = {"songs": ("track_id", "artist_id", "artist_name", "year")}


@dataclass(frozen=True)
class Song:
    """One song.

    Attributes:
        artist: the artist's id, else its name; "" where unknown.
        year: of release; 0 where unknown.
        preview: 7digital's number of its preview; "" where unknown.
    """

    artist: str
    year: int
    preview: str


def songs_with_audio(path: Path, tracks: TrackNames) -> dict[str, Song]:
    """Track id -> song for those whose audio is here, by the track's id or 7digital's number.

    Raises:
        InputError: if the database is locked, truncated or another one.
    """
    stems = {PurePosixPath(name).stem.removesuffix(".clip") for name in tracks.identifiers}
    songs = {}
    with opened_database(path, _TABLES) as database:
        # The database as first published has no numbers of 7digital.
        columns = {row[1] for row in database.execute("PRAGMA table_info(songs)")}
        number = "track_7digitalid" if "track_7digitalid" in columns else "0"
        # SQLite stores text in a column of numbers as it is; cast, it is 0 and so unknown.
        rows = database.execute(
            "SELECT track_id, artist_id, artist_name, CAST(year AS INTEGER), "
            f"CAST({number} AS INTEGER) FROM songs ORDER BY track_id"
        )
        for track_id, artist_id, artist_name, year, preview in rows:
            preview = str(preview) if preview and preview > 0 else ""
            if track_id in stems or preview in stems:
                songs[track_id] = Song(str(artist_id or artist_name or ""), year or 0, preview)
    return songs
