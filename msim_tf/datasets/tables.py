"""Tables, lists, JSON and SQLite as other people publish them: any line ends, a byte order mark, Latin-1, cut files;
one line for each fault.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import fnmatch
import io
import itertools
import os
import sqlite3
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msim_tf.errors import InputError
from msim_tf.files import parse_json

# FMA's biographies are longer than csv's own bound.
csv.field_size_limit(2**24)
_BUSY_SECONDS = 2.0
# First bytes of gzip, zip and xz.
_PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"\xfd7zXZ")


def find_files(root: Path, pattern: str, *, levels: int = 5) -> list[Path]:
    """Files below ``root`` whose name fits ``pattern``: the least deep first, then by name, at most ``levels`` deep."""
    paths: list[Path] = []
    for parent, folders, files in os.walk(root):
        paths += [Path(parent, name) for name in fnmatch.filter(files, pattern)]
        if len(Path(parent).relative_to(root).parts) >= levels - 1:
            folders.clear()  # os.walk then goes no deeper here
    return sorted(paths, key=lambda path: (len(path.parts), path))


def find_file(root: Path, pattern: str) -> Path | None:
    """The first of ``find_files``, or None."""
    return next(iter(find_files(root, pattern)), None)


def find_folder(root: Path, name: str, *, levels: int = 3) -> Path | None:
    """The folder called ``name``: ``root`` itself or one below it; None without one."""
    if root.resolve().name == name:
        return root
    for parent, folders, _ in os.walk(root):
        if name in folders:
            return Path(parent, name)
        if len(Path(parent).relative_to(root).parts) >= levels - 1:
            folders.clear()
    return None


def read_text(path: Path) -> str:
    """A text file: UTF-16 or UTF-8 by its byte order mark, else UTF-8, else Latin-1, which every byte is.

    Raises:
        InputError: if it cannot be read, is packed, or has zero bytes (a download that stopped).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if data.startswith(_PACKED):
        raise InputError(f"{path}: is packed; unpack it first")
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        if b"\0" in data:
            raise InputError(f"{path}: not text, it has zero bytes; half a download? fetch it again")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not blank, stripped."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_rows(path: Path, *, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of a delimited table; blank lines are skipped, a quoted cell may hold line ends.

    Raises:
        InputError: if it cannot be read or is no such table.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; half a download? fetch it again") from error


def read_records(
    path: Path, columns: tuple[str, ...], *, delimiter: str = ",", header_rows: int = 1
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a table with a header, as column -> stripped cell.

    Args:
        path: the table.
        columns: those that it must have; the records have all of the table's.
        delimiter: between cells.
        header_rows: how many rows name the columns; names one above the other are joined by dots.

    Raises:
        InputError: if a column is missing, or a row has another number of cells (a cut file).
    """
    # Names one above the other become "group.name"; a level that is blank in a column is left out.
    rows = read_rows(path, delimiter=delimiter)
    levels = [next(rows, (0, []))[1] for _ in range(header_rows)]
    names = (filter(None, map(str.strip, cells)) for cells in itertools.zip_longest(*levels, fillvalue=""))
    header = [".".join(parts) for parts in names]
    missing = [column for column in columns if column not in header]
    if missing:
        where = "header is" if header_rows == 1 else f"{header_rows} header rows name"
        shown = textwrap.shorten(", ".join(header), 80, placeholder=" ...") or "nothing; half a download?"
        raise InputError(f"{path}: no column {', '.join(missing)}; its {where} {shown}")
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: {len(row)} cells, expected {len(header)}; half a download?")
        yield line, {column: cell.strip() for column, cell in zip(header, row)}


def read_json(path: Path) -> Any:
    """A JSON file in any encoding that ``read_text`` knows.

    Raises:
        InputError: if it cannot be read or is not JSON.
    """
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); half a download?") from error


@contextlib.contextmanager
def opened_database(path: Path, tables: Mapping[str, tuple[str, ...]]) -> Iterator[sqlite3.Connection]:
    """Opens a published SQLite database for reading only, and checks its tables.

    Args:
        path: the database.
        tables: table -> columns that it must have.

    Raises:
        InputError: if it is missing, locked, truncated or another database; also for faults met while it is read.
    """
    _validate_length(path)
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
    # Tags in Latin-1 must not end a read of half a million others.
    connection.text_factory = _decoded
    try:
        for table, columns in tables.items():
            present = {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}
            missing = sorted(set(columns) - present)
            if missing:
                raise InputError(f"{path}: no {table}.{missing[0]} in it; another database, or another release")
        yield connection
    except sqlite3.OperationalError as error:
        busy = "locked" in str(error) or "busy" in str(error)
        advice = "another program has it open; close that" if busy else "half a download? fetch it again"
        raise InputError(f"{path}: {error}; {advice}") from error
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: {error}; truncated or no SQLite database, fetch it again") from error
    finally:
        connection.close()


def _validate_length(path: Path) -> None:
    """Checks that a database is as long as its header says: SQLite misses a lost end until it reads there.

    Raises:
        InputError: if it cannot be read, is empty or shorter.
    """
    try:
        with open(path, "rb") as file:
            header, length = file.read(100), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not header:
        raise InputError(f"{path}: empty; half a download? fetch it again")
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise InputError(f"{path}: truncated or no SQLite database; fetch it again")
    # https://www.sqlite.org/fileformat.html, section 1.3: the count of pages holds if two counters agree.
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 2**16 if page_size == 1 else page_size
    pages = int.from_bytes(header[28:32], "big") if header[24:28] == header[92:96] else 0
    if length < pages * page_size:
        raise InputError(f"{path}: truncated, {length} of {pages * page_size} bytes; half a download? fetch it again")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
