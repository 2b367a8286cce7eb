"""SQLite databases of ours: made, recognised, verified, brought to this release's format, changed in transactions.

A file tells in its header what it is: ``application_id`` is the kind of database, ``user_version`` the version of its
format. The last eight bytes of every page are a checksum that SQLite's checksum VFS
(https://sqlite.org/cksumvfs.html, shipped by apsw) writes, and verifies whenever it reads the page. So a flipped byte
is an error, never a wrong answer, and costs nothing measurable.

Changes go through a rollback journal: a process that is killed at any moment leaves the last transaction whole or
undone, and a closed database is one file. Every fault of the file or the disk becomes one ``InputError``; wrong SQL
keeps its traceback.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import apsw
import apsw.sqlite_extra

from msim_tf.errors import InputError
from msim_tf.names import printable

_CHECKSUM_VFS = "cksmvfs"
_CHECKSUM_BYTES = 8  # of every page
_BUSY_MILLISECONDS = 20_000  # how long to wait for another process's transaction
_Self = TypeVar("_Self", bound="Database")
_DAMAGED = (apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_SHORT_READ)


@dataclass(frozen=True)
class Schema:
    """One kind of database.

    Attributes:
        what: what error texts call it, e.g. "a library".
        remake: how to make it anew, e.g. "make it again with msim index".
        application_id: the four bytes that mark its files.
        statements: the SQL that makes its tables in the newest format.
        migrations: the SQL that leads from format 1 to 2, from 2 to 3, and so on.
    """

    what: str
    remake: str
    application_id: int
    statements: str
    migrations: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """The newest format, which this release reads and writes."""
        return len(self.migrations) + 1


class Database:
    """An open database. Threads may share it; their transactions take turns.

    Attributes:
        path: the file.
        schema: its kind.
    """

    def __init__(
        self, path: str | Path | None, schema: Schema, *, create: bool = False, writable: bool = False
    ) -> None:
        """Opens a database.

        Args:
            path: the file; None for a new one in memory.
            schema: what it must be.
            create: make it where there is none, or only an empty file, which a killed process may leave.
            writable: whether statements may change it; implied by ``create``.

        Raises:
            InputError: if it is missing, damaged, locked, something else, or of a
                format that this release does not read.
        """
        self.path, self.schema = Path(path or ":memory:"), schema
        self._writable = path is None or create or writable
        self._lock = threading.RLock()
        self._depth = 0  # of transactions
        if path is None:
            self._connection = apsw.Connection(":memory:")
            self._create()
            return
        try:
            str(self.path.absolute()).encode()
        except UnicodeEncodeError:
            raise InputError(f"{printable(str(path))}: its name is not valid UTF-8; rename the folder") from None
        missing = not self.path.exists() or self.path.stat().st_size == 0
        if missing and not create:
            raise InputError(f"{self.path} not found; expected the database of {schema.what}")
        _register_checksums()
        with self._one_line_errors():
            flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
            self._connection = apsw.Connection(str(self.path.absolute()), flags, _CHECKSUM_VFS)
        # A database that is refused is closed again, whatever the reason.
        try:
            with self._one_line_errors():
                self._prepare(create)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, create: bool) -> None:
        """Sets the connection up, makes the tables of a new database, and refuses one that is not what it should be."""
        connection = self._connection
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        # EXTRA syncs the directory, too. The cache is in kibibytes: pages that many statements look at are read once.
        connection.execute("PRAGMA foreign_keys = ON; PRAGMA synchronous = EXTRA; PRAGMA cache_size = -32768")
        if create:
            connection.reserve_bytes(reserve=_CHECKSUM_BYTES)  # without effect on a database that has pages
        connection.execute("BEGIN")
        # The first read also undoes what a killed process left half done.
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
        missing_bytes = connection.pragma("page_count") * connection.pragma("page_size") - self.path.stat().st_size
        connection.execute("COMMIT")
        if missing_bytes > 0:
            raise self._damage(f"truncated by {missing_bytes} bytes")
        if not tables and create:
            self._create()
        if connection.reserve_bytes(reserve=-1) != _CHECKSUM_BYTES:
            raise self._damage("its pages carry no checksums")
        if connection.pragma("application_id") != self.schema.application_id:
            raise InputError(f"{self.path}: a database, but not that of {self.schema.what}")
        self._migrate()
        if not self._writable:
            connection.execute("PRAGMA query_only = ON")

    def _create(self) -> None:
        self._connection.execute("PRAGMA foreign_keys = ON")
        with self.transaction():
            self._connection.execute(self.schema.statements)
            self._connection.pragma("application_id", self.schema.application_id)
            self._connection.pragma("user_version", self.schema.version)

    def _migrate(self) -> None:
        """Brings an older format up to date; a newer one, or one of no known version, is refused."""
        version = self._connection.pragma("user_version")
        if not 1 <= version <= self.schema.version:
            raise InputError(
                f"{self.path}: format version {version}, this release reads {self.schema.version}; {self.schema.remake}"
            )
        if version < self.schema.version:
            with self.transaction():
                for statements in self.schema.migrations[version - 1 :]:
                    self._connection.execute(statements)
                self._connection.pragma("user_version", self.schema.version)

    @contextmanager
    def transaction(self, *, read: bool = False) -> Iterator[None]:
        """Commits what happens inside, all or nothing. One inside another is part of the outer one.

        Args:
            read: nothing is changed inside: the block sees one unchanging state and does not wait for writers. So it
                is always in a database that was opened to be read.

        Raises:
            InputError: if another process writes for longer than 20 seconds, the disk is full or read-only, or the file
                is damaged.
        """
        with self._lock, self._one_line_errors():
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE" if self._writable and not read else "BEGIN")
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._connection.execute("COMMIT")
            except BaseException:
                if self._depth == 1 and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def execute(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple]:
        """Runs one statement and returns all of its rows."""
        with self._lock, self._one_line_errors():
            return self._connection.execute(sql, tuple(bindings)).fetchall()

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Runs one statement for each row of bindings, in one transaction."""
        with self.transaction():
            self._connection.executemany(sql, rows)

    def value(self, sql: str, bindings: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None where there is no row."""
        rows = self.execute(sql, bindings)
        return rows[0][0] if rows else None

    @property
    def revision(self) -> int:
        """Another number whenever something else than this object has changed the database; cheap to look at."""
        with self._lock, self._one_line_errors():
            return int(self._connection.pragma("data_version"))

    def check(self) -> list[str]:
        """Reads every page, verifies its checksum and SQLite's own structure, and returns the faults, one line each."""
        try:
            report = "\n".join(str(row[0]) for row in self.execute("PRAGMA integrity_check(20)"))
        except InputError as error:
            return [str(error)]
        faults = [line for line in report.splitlines() if not line.startswith("***")]  # "*** in database main ***"
        return [] if faults == ["ok"] else [str(self._damage(f"{faults[0]}; {len(faults)} faults"))]

    def close(self) -> None:
        """Closes the file; may be called twice."""
        with self._lock:
            self._connection.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damage(self, detail: str) -> InputError:
        return InputError(f"{self.path}: damaged ({detail}); restore it from a copy, or {self.schema.remake}")

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turns what can be wrong with a file or a disk into an ``InputError``."""
        try:
            yield
        except (apsw.BusyError, apsw.LockedError):
            raise InputError(f"{self.path}: another process is writing to it; try again when it has ended") from None
        except apsw.NotADBError:
            raise self._damage("not an SQLite database") from None
        except apsw.CorruptError as error:
            raise self._damage(str(error)) from None
        except apsw.FullError:
            raise InputError(f"{self.path}: the disk is full; make room and repeat") from None
        except apsw.ReadOnlyError:
            raise InputError(f"{self.path}: cannot be written, the file or the disk is read-only") from None
        except (apsw.CantOpenError, apsw.PermissionsError):
            raise InputError(f"{self.path}: cannot be opened; see to the permissions of it and its folder") from None
        except apsw.IOError as error:
            if error.extendedresult in _DAMAGED:  # type: ignore[attr-defined]
                raise self._damage("a page is cut off or does not match its checksum") from None
            raise InputError(f"{self.path}: reading or writing failed ({error}); see to the disk") from None


@cache
def _register_checksums() -> None:
    """Makes the checksum VFS known to SQLite, once per process."""
    with apsw.Connection(":memory:") as loader:
        apsw.sqlite_extra.load(loader, "cksumvfs")
