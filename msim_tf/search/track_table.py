"""The tracks of ``library.db``: every statement of SQL about them. A track belongs to a row of the vectors.

Names of arguments: an *identifier* is a track's name, a *row* the number of its vector. Missing tracks keep their row
but are not among the identifiers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.names import comparable_artist
from msim_tf.search.filters import Filters
from msim_tf.search.schema import plain_text, read_name, stored_name
from msim_tf.search.tracks import all_tags, artist_of
from msim_tf.theory import parse_key, within_tempo

_AT_ONCE = 1000  # values in one statement; SQLite takes some 32,000
_SEARCHED = ("title", "artist", "album_artist", "album")
_MOST_WORDS = 200
_LONGEST_WORD = 10_000  # SQLite refuses a pattern of 50,000 bytes; a wildcard is three when it is quoted
_GLOB = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})  # so that these stand for themselves


class TrackTable:
    """Tracks in an open database; changes are on disk when the caller's transaction commits."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def setting(self, name: str) -> Any:
        """What is stored under a name, or None."""
        text = self.database.value("SELECT value FROM settings WHERE name = ?", (name,))
        return None if text is None else json.loads(text)

    def set_setting(self, name: str, value: Any) -> None:
        """Stores a JSON value under a name."""
        self.database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))

    def identifiers(self) -> list[str]:
        """All tracks that are not missing, in the order of their rows."""
        rows = self.database.execute("SELECT identifier FROM tracks WHERE NOT missing ORDER BY row")
        return [read_name(name) for (name,) in rows]

    def missing(self) -> list[str]:
        """Tracks whose file is gone, in the order of their names."""
        rows = self.database.execute("SELECT identifier FROM tracks WHERE missing ORDER BY identifier")
        return [read_name(name) for (name,) in rows]

    def rows(self, identifiers: Sequence[str], *, missing: bool = False) -> dict[str, int]:
        """The rows of those identifiers that there are.

        Args:
            identifiers: any names.
            missing: whether to look among missing tracks, too.
        """
        which = "" if missing else "NOT missing AND"
        row_of: dict[str, int] = {}
        for some in _batches([stored_name(identifier) for identifier in identifiers]):
            sql = f"SELECT identifier, row FROM tracks WHERE {which} identifier IN ({_marks(some)})"
            row_of.update((read_name(name), row) for name, row in self.database.execute(sql, some))
        return row_of

    def hidden(self) -> np.ndarray:
        """Rows that no query may find: [n] int."""
        return np.array([row for (row,) in self.database.execute("SELECT row FROM hidden")], np.intp)

    def used(self) -> np.ndarray:
        """Rows that belong to a track, missing ones included, ascending: [n] int."""
        return np.array([row for (row,) in self.database.execute("SELECT row FROM tracks ORDER BY row")], np.intp)

    def unused(self) -> int:
        """How many hidden rows belong to no track."""
        hidden, missing = (f"SELECT count(*) FROM {what}" for what in ("hidden", "tracks WHERE missing"))
        return int(self.database.value(hidden) - self.database.value(missing))

    def described(self, rows: Sequence[int]) -> dict[int, tuple[str, dict[str, Any]]]:
        """Identifier and metadata of those rows that belong to a track."""
        described = {}
        for some in _batches(rows):
            sql = f"SELECT row, identifier, metadata FROM tracks WHERE row IN ({_marks(some)})"
            for row, name, metadata in self.database.execute(sql, some):
                described[row] = read_name(name), read_metadata(metadata)
        return described

    def metadata(self, identifier: str) -> dict[str, Any] | None:
        """What is known of a track; None if there is none, or it is missing."""
        sql = "SELECT metadata FROM tracks WHERE identifier = ? AND NOT missing"
        text = self.database.value(sql, (stored_name(identifier),))
        return None if text is None else read_metadata(text)

    def all_metadata(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Identifier and metadata of every track that is not missing, in the order of their rows."""
        for name, text in self.database.execute(
            "SELECT identifier, metadata FROM tracks WHERE NOT missing ORDER BY row"
        ):
            yield read_name(name), read_metadata(text)

    def add(self, tracks: Mapping[str, Mapping[str, Any]], first_row: int) -> None:
        """Adds new tracks with consecutive rows.

        Args:
            tracks: identifier -> metadata.
            first_row: the row of the first.
        """
        values = [
            (stored_name(name), row, *_columns(name, metadata))
            for row, (name, metadata) in enumerate(tracks.items(), first_row)
        ]
        self.database.executemany(
            "INSERT INTO tracks (identifier, row, metadata, artist, tempo, key, year, text) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        self._add_tags(tracks)

    def set_metadata(self, tracks: Mapping[str, Mapping[str, Any]]) -> None:
        """Replaces the metadata of tracks that there are."""
        self.database.executemany(
            "DELETE FROM tags WHERE track = (SELECT id FROM tracks WHERE identifier = ?)",
            [(stored_name(name),) for name in tracks],
        )
        self.database.executemany(
            "UPDATE tracks SET metadata = ?, artist = ?, tempo = ?, key = ?, year = ?, text = ? WHERE identifier = ?",
            [(*_columns(name, metadata), stored_name(name)) for name, metadata in tracks.items()],
        )
        self._add_tags(tracks)

    def _add_tags(self, tracks: Mapping[str, Mapping[str, Any]]) -> None:
        rows = []
        for name, metadata in tracks.items():
            # Different tags can become one once they are plain text.
            tags = {plain_text(tag) for tag in all_tags(metadata)}
            rows += [(tag, stored_name(name)) for tag in tags]
        self.database.executemany("INSERT INTO tags SELECT ?, id FROM tracks WHERE identifier = ?", rows)

    def set_rows(self, rows: Mapping[str, int]) -> None:
        """Gives tracks other vectors; their old rows are hidden, and they are missing no longer."""
        # The old rows must be hidden while the tracks still name them.
        names = [(stored_name(name),) for name in rows]
        self.database.executemany("INSERT OR IGNORE INTO hidden SELECT row FROM tracks WHERE identifier = ?", names)
        self.database.executemany(
            "UPDATE tracks SET row = ?, missing = 0 WHERE identifier = ?",
            [(row, stored_name(name)) for name, row in rows.items()],
        )

    def rename(self, names: Mapping[str, str]) -> None:
        """Gives tracks other identifiers.

        Args:
            names: new -> old. A new name may be the old one of another track.
        """
        described = {new: (self.rows([old])[old], self.metadata(old) or {}) for new, old in names.items()}
        # First to names that nothing has, because the names may go round in a circle.
        self.database.executemany(
            "UPDATE tracks SET identifier = ? WHERE row = ?",
            [(f"\0{row}", row) for row, _ in described.values()],
        )
        self.database.executemany(
            "UPDATE tracks SET identifier = ?, text = ? WHERE row = ?",
            [(stored_name(new), searched_text(new, metadata), row) for new, (row, metadata) in described.items()],
        )

    def remove(self, identifiers: Iterable[str]) -> None:
        """Forgets tracks; their rows are hidden."""
        names = [(stored_name(name),) for name in identifiers]
        self.database.executemany("INSERT OR IGNORE INTO hidden SELECT row FROM tracks WHERE identifier = ?", names)
        self.database.executemany("DELETE FROM tracks WHERE identifier = ?", names)

    def set_missing(self, identifiers: Iterable[str], missing: bool) -> None:
        """Hides tracks whose file is gone, or brings them back."""
        names = [(stored_name(name),) for name in identifiers]
        self.database.executemany(f"UPDATE tracks SET missing = {int(missing)} WHERE identifier = ?", names)
        if missing:
            sql = "INSERT OR IGNORE INTO hidden SELECT row FROM tracks WHERE identifier = ?"
        else:
            sql = "DELETE FROM hidden WHERE row = (SELECT row FROM tracks WHERE identifier = ?)"
        self.database.executemany(sql, names)

    def renumber(self, rows: np.ndarray) -> None:
        """Gives the used ``rows``, ascending, the numbers 0, 1, 2 and so on.

        Of the hidden rows only those of missing tracks stay.
        """
        # A row moves to a number that is not greater, and in ascending order that is free.
        moves = [(new, old) for new, old in enumerate(rows.tolist()) if new != old]
        self.database.executemany("UPDATE tracks SET row = ? WHERE row = ?", moves)
        self.database.execute("DELETE FROM hidden")
        self.database.execute("INSERT INTO hidden SELECT row FROM tracks WHERE missing")

    def copy_files(self, other: TrackTable) -> None:
        """Takes over what another library knows of its folder and the files in it."""
        files = other.database.execute("SELECT identifier, size, modified, sha256, failure, notes FROM files")
        self.database.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", files)
        catalog = other.setting("catalog")
        if catalog is not None:
            self.set_setting("catalog", catalog)

    def passing(self, filters: Filters) -> np.ndarray:
        """Rows of the tracks that pass; missing ones may be among them: [n] int.

        Tracks that lack a field that is filtered by are excluded.
        """
        # One condition per filter, all of which must hold; values are bound and never part of the statement.
        conditions: list[str] = []
        values: list[Any] = []
        if filters.bpm:  # the limits follow below: SQLite has no octaves
            conditions.append("tempo IS NOT NULL")
        if filters.keys:
            keys = sorted({parse_key(key) for key in filters.keys})
            values += keys
            conditions.append(f"key IN ({_marks(keys)})")
        if filters.years:
            values += filters.years
            conditions.append("year BETWEEN ? AND ?")
        if filters.artists:
            # As one value, because a statement may have only so many.
            values.append(json.dumps([plain_text(comparable_artist(artist)) for artist in filters.artists]))
            conditions.append("artist IN (SELECT value FROM json_each(?))")
        for tag in dict.fromkeys(plain_text(tag.casefold()) for tag in filters.tags):
            values.append(tag)
            conditions.append("id IN (SELECT track FROM tags WHERE tag = ?)")

        # [n] rows, by a scan of the one index that has every field (see ``schema``).
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"SELECT row, tempo FROM tracks INDEXED BY facts{where}"
        candidates = self.database.execute(sql, values)
        rows = np.array([row for row, _ in candidates], np.intp)
        if filters.bpm:
            tempos = np.array([tempo for _, tempo in candidates], np.float64)
            rows = rows[within_tempo(tempos, *filters.bpm, octaves=filters.octaves)]
        return rows

    def containing(self, text: str) -> list[str]:
        """Identifiers, in their order, of tracks whose title, artist, album or path contains every word of ``text``.

        Raises:
            InputError: if there are more words than a statement holds, or longer ones than a pattern.
        """
        # "*word*" finds a word anywhere; the index of trigrams answers it for words of three characters and more.
        words = [plain_text(word).translate(_GLOB) for word in dict.fromkeys(text.casefold().split())]
        if len(words) > _MOST_WORDS:
            raise InputError(f"a search for {len(words)} words: expected at most {_MOST_WORDS}")
        longest = max(map(len, text.split()), default=0)
        if longest > _LONGEST_WORD:
            raise InputError(f"a search for a word of {longest} characters: expected at most {_LONGEST_WORD}")
        condition = " AND ".join(["words.text GLOB ?"] * len(words)) or "TRUE"
        sql = f"SELECT identifier FROM words JOIN tracks ON tracks.id = words.rowid WHERE {condition} AND NOT missing"
        rows = self.database.execute(sql, [f"*{word}*" for word in words])
        return sorted(read_name(name) for (name,) in rows)


def read_metadata(text: str) -> dict[str, Any]:
    """Metadata from the database's JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # it refuses the half characters that stand for bytes of a name that is not UTF-8
        return json.loads(text)


def searched_text(identifier: str, metadata: Mapping[str, Any]) -> str:
    """What the search box looks at, in one case."""
    return plain_text("\n".join([*(metadata.get(key, "") for key in _SEARCHED), identifier]).casefold())


def _columns(identifier: str, metadata: Mapping[str, Any]) -> tuple[Any, ...]:
    """The columns metadata, artist, tempo, key, year and text of a track."""
    return (
        json.dumps(metadata),
        plain_text(artist_of(metadata)) or None,
        metadata.get("tempo"),
        parse_key(metadata["key"]) if "key" in metadata else None,
        metadata.get("year"),
        searched_text(identifier, metadata),
    )


def _marks(values: Sequence[Any]) -> str:
    """One question mark for each value."""
    return ", ".join("?" * len(values))


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
