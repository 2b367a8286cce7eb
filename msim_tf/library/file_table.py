"""What a library remembers of each file of its folder: size, time and hash when it was read, and why it cannot be used.

Changes belong to the transaction of the library's index, see ``Index.begin``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msim_tf.audio.scan import FileState
from msim_tf.database import Database
from msim_tf.names import storable
from msim_tf.search.schema import read_name, stored_name

_NEVER_READ = FileState(-1, 0)  # of a name that the scan left out


@dataclass(frozen=True)
class FileRecord:
    """One file as it was read.

    Attributes:
        state: its size and time then.
        sha256: of its contents, "" where they were not read.
        failure: why it cannot be used, "" if it can.
        notes: what is wrong with it though it is used, e.g. "damaged: 93 % of 215 s decodes".
    """

    state: FileState = _NEVER_READ
    sha256: str = ""
    failure: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For ``msim index --failures --json``."""
        return {
            "size": self.state.size,
            "modified": self.state.modified,
            "reason": self.failure,
            "notes": list(self.notes),
        }


_SELECT = "SELECT identifier, size, modified, sha256, failure, notes FROM files"


class FileTable:
    """The records of a library's files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def records(self) -> dict[str, FileRecord]:
        """All of them."""
        return {read_name(name): _record(*columns) for name, *columns in self._database.execute(_SELECT)}

    def record(self, name: str) -> FileRecord:
        """That of one file; of one that was never read, where there is none."""
        rows = self._database.execute(f"{_SELECT} WHERE identifier = ?", (stored_name(name),))
        return _record(*rows[0][1:]) if rows else FileRecord()

    def put(self, records: Mapping[str, FileRecord]) -> None:
        """Adds or replaces records."""
        self._database.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    stored_name(name),
                    record.state.size,
                    record.state.modified,
                    record.sha256,
                    storable(record.failure) or None,
                    json.dumps(record.notes),
                )
                for name, record in records.items()
            ],
        )

    def forget(self, names: Iterable[str]) -> None:
        """Removes records."""
        self._database.executemany("DELETE FROM files WHERE identifier = ?", [(stored_name(name),) for name in names])


def _record(size: int, modified: int, sha256: str, failure: str | None, notes: str) -> FileRecord:
    return FileRecord(FileState(size, modified), sha256, failure or "", tuple(json.loads(notes)))
