"""A library on disk: the index of the tracks in a folder of music, and what ties the two together.

    library.db            tracks, the state of each file, failures, settings; see ``search.schema``
    vectors-000001.f16    the vectors, see ``search.index``
    annotations.db        tempo and key by madmom, if they were asked for
    .lock                 held by the one process that writes

Identifiers are POSIX paths relative to the music folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.files import exclusive
from msim_tf.search.index import Index
from msim_tf.search.index_directory import foreign_names, refuse_old_format
from msim_tf.search.schema import DATABASE, SCHEMA
from msim_tf.search.track_table import TrackTable

CATALOG = "catalog"  # the name of the setting


@dataclass(frozen=True)
class Catalog:
    """What a library is of.

    Attributes:
        path: the library's directory.
        name: what people call it.
        music: the folder of music, absolute; None for a library of imported vectors.
        model: the directory of the model that embedded it, as a hint for queries by audio
            file; the index holds which model it was.
    """

    path: Path
    name: str
    music: Path | None
    model: str = ""

    @property
    def annotations_path(self) -> Path:
        """Where tempo and key are kept."""
        return self.path / "annotations.db"

    def open_index(self) -> Index:
        """Opens the index.

        Raises:
            InputError: if it is damaged.
        """
        return Index.open(self.path)

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever the library was written: a cheap look for readers that stay open."""
        status = (self.path / DATABASE).stat()
        return status.st_mtime_ns, status.st_ino, status.st_size

    def to_json(self) -> dict[str, Any]:
        """What is stored of it."""
        return {"name": self.name, "music": str(self.music) if self.music else None, "model": self.model}


def is_library(path: str | Path) -> bool:
    """Whether ``path`` is a library's directory; one whose making was interrupted before anything was saved is not."""
    database = Path(path) / DATABASE
    return database.is_file() and database.stat().st_size > 0


def is_embeddings(path: str | Path) -> bool:
    """Whether ``path`` is a file of embeddings, of which a library can be made."""
    return Path(path).suffix == ".npz" and Path(path).is_file()


def load_catalog(path: str | Path) -> Catalog:
    """Reads what a library is of.

    Raises:
        InputError: if there is none, it is damaged, or of a format that this release does not read.
    """
    path = Path(path)
    refuse_old_format(path)
    if is_embeddings(path):
        raise InputError(f"{path}: embeddings, not a library; make one of them: msim import {path} LIBRARY")
    with Database(path / DATABASE, SCHEMA) as database:
        value = TrackTable(database).setting(CATALOG) or {"name": path.name, "music": None, "model": ""}
    try:
        music = Path(value["music"]) if value["music"] else None
        return Catalog(path, str(value["name"]), music, str(value["model"]))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path / DATABASE}: damaged (no usable catalog: {error!r}); {SCHEMA.remake}") from None


def save_library(index: Index, catalog: Catalog) -> None:
    """Writes an index that is in memory as a library.

    Raises:
        InputError: if something is there already, or another process is writing.
    """
    if is_library(catalog.path):
        raise InputError(f"{catalog.path} is a library already; give another directory or remove it first")
    with writing(catalog.path):
        index.table.set_setting(CATALOG, catalog.to_json())
        index.save(catalog.path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Keeps a second writer out of a library. Where none comes to be, nothing is left behind.

    Raises:
        InputError: if another process is writing, or something else is there.
    """
    made = not path.exists()
    if not made and not path.is_dir():
        raise InputError(f"{path}: exists and is not a library; give an empty or new directory")
    refuse_old_format(path)
    if not is_library(path) and foreign_names(path):
        raise InputError(f"{path}: exists and is not a library; give an empty or new directory")
    # The lock file and what else was begun go again where no library has come to be, the directory only if made here.
    try:
        with exclusive(path, "indexing into this library"):
            try:
                yield
            finally:
                if not is_library(path):
                    for entry in path.iterdir():
                        entry.unlink()
    finally:
        if made and path.is_dir() and not any(path.iterdir()):
            path.rmdir()
