"""The directory of an index: its numbered files, its database while it is being made, the codes of its engine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msim_tf.checksums import file_checksum
from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.files import sync_directory
from msim_tf.search.calibration import Calibration
from msim_tf.search.engines import Engine, ExactEngine
from msim_tf.search.faiss_codes import CODES_VERSION, faiss_installed
from msim_tf.search.faiss_engine import FaissEngine
from msim_tf.search.schema import DATABASE, SCHEMA
from msim_tf.search.source import Source
from msim_tf.search.track_table import TrackTable
from msim_tf.search.vectors import Rows

UNFINISHED = "unfinished.db"  # a library that is being made under this name; nobody looks at it
REBUILD = "rebuild.db"  # one that another model fills, to replace the library when it is whole
_NUMBERED = re.compile(r"(?:vectors|codes)-(\d{6})\.(?:f16|crc|npz)")
_UNCOVERED = 0.05  # share of rows that may lack codes on disk before these are written again


@dataclass(frozen=True)
class Settings:
    """What there is one of in an index.

    Attributes:
        source: of its vectors.
        number: of the file of vectors.
        rows: vectors in it.
        engine: the engine, see ``SavedCodes.setting``.
    """

    source: Source
    number: int
    rows: int
    engine: dict[str, Any]


@dataclass(frozen=True)
class SavedCodes:
    """The engine as it is on disk.

    Attributes:
        setting: its name; for FAISS also the file of its codes, its checksum, the rows it covers, the calibration.
        engine: the engine object that the codes belong to.
    """

    setting: dict[str, Any]
    engine: Engine

    @property
    def name(self) -> str:
        """The file of the codes, "" without."""
        return str(self.setting.get("codes", ""))


def read_settings(table: TrackTable, path: Path) -> Settings:
    """The settings of an index.

    Raises:
        InputError: if something is not as an index writes it.
    """
    try:
        vectors = table.setting("vectors")
        number, rows = int(vectors["number"]), int(vectors["rows"])
        return Settings(Source.from_json(table.setting("source")), number, rows, dict(table.setting("engine")))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged (no usable settings: {error!r}); {SCHEMA.remake}") from None


def prepare_directory(directory: Path) -> int:
    """Makes the directory of an index, or looks at the one that is there; returns the number for its next file.

    Raises:
        InputError: if something else is there.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; an index is a directory, give another name")
    refuse_old_format(directory)
    if not (directory / DATABASE).exists() and (foreign := foreign_names(directory)):
        raise InputError(
            f"{directory} holds something that is not an index ({foreign[0]}); give an empty or new directory"
        )
    directory.mkdir(parents=True, exist_ok=True)
    return next_number(directory, "vectors")


def foreign_names(directory: Path) -> list[str]:
    """What lies in a directory and was not left by an index, whole or killed while it was made."""
    databases = {DATABASE, UNFINISHED, REBUILD}
    names = sorted(entry.name for entry in directory.iterdir()) if directory.exists() else []
    return [
        name
        for name in names
        if name.removesuffix("-journal") not in databases
        and not _NUMBERED.fullmatch(name)
        and not name.startswith((".tmp-", ".lock"))
    ]


def refuse_old_format(directory: Path) -> None:
    """Refuses what version 0.1 wrote.

    Raises:
        InputError: saying how to make it anew.
    """
    for name in ("library.json", "index.json"):
        if (directory / name).exists() and not (directory / DATABASE).exists():
            raise InputError(
                f"{directory}: made by msim 0.1, which this release does not read; remove it and make it anew "
                "with msim index"
            )


def next_number(directory: Path, kind: str) -> int:
    """A number that no file of a kind ("vectors", "codes") in the directory has."""
    matches = [_NUMBERED.fullmatch(entry.name) for entry in directory.glob(f"{kind}-*")]
    return max((int(match[1]) for match in matches if match), default=0) + 1


@contextmanager
def new_database(directory: Path, name: str) -> Iterator[Database]:
    """Makes a database under a temporary name, and gives it its own when the block ends without an exception."""
    # What a killed process left under the temporary name goes first, or SQLite would play its journal back.
    temporary = directory / f".tmp-{name}"
    for leftover in (temporary, temporary.with_name(temporary.name + "-journal")):
        leftover.unlink(missing_ok=True)
    with Database(temporary, SCHEMA, create=True) as database:
        yield database
    _finish(directory / name)
    os.replace(temporary, directory / name)
    sync_directory(directory)


def publish(directory: Path, name: str) -> None:
    """Makes the index whose database has this name the one that is found; it must be closed."""
    _finish(directory / DATABASE)
    os.replace(directory / name, directory / DATABASE)
    sync_directory(directory)


def _finish(path: Path) -> None:
    """Undoes what a killed process left half done in a database that is to be replaced.

    Its journal would spoil the database that takes its name.
    """
    journal = path.with_name(path.name + "-journal")
    if journal.exists() and path.exists():
        Database(path, SCHEMA, writable=True).close()
    journal.unlink(missing_ok=True)


def sweep(directory: Path, number: int, codes: str) -> None:
    """Removes files that earlier saves have replaced, unless a rebuild needs them. Readers keep what they have mapped.

    Args:
        directory: of the index.
        number: of its vectors; files of greater numbers are not its own.
        codes: the file of its codes.
    """
    if (directory / REBUILD).exists():
        return
    for entry in directory.iterdir():
        # Vectors are old below their number; of codes, all but the one file that the settings name.
        match = _NUMBERED.fullmatch(entry.name)
        old = match and (int(match[1]) < number if entry.suffix != ".npz" else entry.name != codes)
        if old or entry.name.startswith(".tmp-"):
            entry.unlink(missing_ok=True)


def open_engine(directory: Path, setting: dict[str, Any], source: Source) -> tuple[Engine, str]:
    """The engine that was saved, or the exact one and a note that says why.

    Raises:
        InputError: if the file of its codes is missing or damaged.
    """
    # Without its codes a library still answers, exactly and more slowly, and says so.
    exact = ExactEngine(source.layout)
    if setting.get("name") != FaissEngine.name:
        return exact, ""
    if not faiss_installed():
        return exact, (
            f"{directory} was built for the faiss engine, which is not installed (pip install 'msim-tf[faiss]'); using "
            "the exact scan"
        )
    if setting.get("codes_version") != CODES_VERSION:
        return exact, (
            f"{directory} has codes of another release, which are not read; using the exact scan until msim index "
            "builds the engine again"
        )
    # Codes that should be there and are damaged are an error: they are compared whole, before FAISS parses them.
    path = directory / setting["codes"]
    again = "run msim index to build the engine again"
    try:
        checksum = file_checksum(path)
    except OSError as error:
        raise InputError(f"{path}: not readable as codes ({error.strerror}); {again}") from None
    if checksum != setting["checksum"]:
        raise InputError(f"{path}: not readable as codes (damaged, its checksum is another); {again}")
    calibration = Calibration.from_json(setting["calibration"])
    return FaissEngine.open(path, source.layout, calibration, rows=setting["covered"]), ""


def save_engine(directory: Path, engine: Engine, rows: Rows, saved: SavedCodes | None) -> SavedCodes:
    """Writes the codes of the engine, unless those on disk cover nearly all rows.

    Args:
        directory: of the index.
        engine: the engine.
        rows: all rows.
        saved: what is on disk.
    """
    if not isinstance(engine, FaissEngine):
        return SavedCodes(engine.to_json(), engine)
    if saved and saved.engine is engine and saved.setting["covered"] >= (1 - _UNCOVERED) * len(rows):
        return saved
    # A new file beside the old one: whoever has that open keeps it, and the settings name the new one at the commit.
    name = f"codes-{next_number(directory, 'codes'):06d}.npz"
    engine.save_codes(directory / name, rows)
    setting = {**engine.to_json(), "codes": name, "covered": len(rows), "checksum": file_checksum(directory / name)}
    return SavedCodes(setting, engine)
