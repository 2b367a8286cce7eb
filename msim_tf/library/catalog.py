"""A library on disk: a folder of music, the index of its tracks, and what ties the two together.

    library.json        manifest: format, name, the music folder, the number of the index, where its model was
    index-1/            the index (``search.index``); a rebuild writes index-2 beside it and then switches the manifest
    annotations.db      tempo and key by madmom, if they were asked for
    .lock               held by the one process that writes

Identifiers are POSIX paths relative to the music folder. What a track's file was when it was embedded is kept in its metadata as ``file``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msim_tf.errors import InputError
from msim_tf.files import exclusive, load_json, save_json, validate_format
from msim_tf.search.index import Index
from msim_tf.search.index_files import MANIFEST as INDEX_MANIFEST

FORMAT = "msim-library"
FORMAT_VERSION = 1
MANIFEST = "library.json"


@dataclass(frozen=True)
class Catalog:
    """The manifest of a library.

    Attributes:
        path: the library's directory.
        name: what people call it.
        music: the folder of music, absolute.
        number: of the index in use.
        model: the directory of the model that embedded it, as a hint for queries by audio file; the index knows which model it was.
    """

    path: Path
    name: str
    music: Path
    number: int = 1
    model: str = ""

    @property
    def index_path(self) -> Path:
        """The index in use."""
        return self.path / f"index-{self.number}"

    @property
    def annotations_path(self) -> Path:
        """Where tempo and key are kept."""
        return self.path / "annotations.db"

    def following(self) -> Catalog:
        """The same library with the next index."""
        return replace(self, number=self.number + 1)

    def open_index(self) -> Index:
        """Opens the index.

        Raises:
            InputError: if nothing was indexed yet, or the index is damaged.
        """
        if not (self.index_path / INDEX_MANIFEST).exists():
            raise InputError(f"{self.path}: nothing is indexed yet; run msim index again")
        return Index.open(self.index_path)

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever the library was written: a cheap look for readers that stay open."""
        files = [self.path / MANIFEST, load_catalog(self.path).index_path / INDEX_MANIFEST]
        return tuple(value for file in files for value in (file.stat().st_mtime_ns, file.stat().st_ino))


def is_library(path: str | Path) -> bool:
    """Whether ``path`` is a library's directory."""
    return (Path(path) / MANIFEST).exists()


def load_catalog(path: str | Path) -> Catalog:
    """Reads the manifest of a library.

    Raises:
        InputError: if there is none, or of a format that this release does not read.
    """
    path = Path(path)
    value = load_json(path / MANIFEST, "the manifest of a library (msim index makes one)")
    validate_format(value, path / MANIFEST, name=FORMAT, version=FORMAT_VERSION)
    return Catalog(path, value["name"], Path(value["music"]), int(value["number"]), value["model"])


def save_catalog(catalog: Catalog) -> None:
    """Writes the manifest, atomically."""
    value: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "name": catalog.name}
    value |= {"music": str(catalog.music), "number": catalog.number, "model": catalog.model}
    save_json(catalog.path / MANIFEST, value)


def writing(path: Path) -> AbstractContextManager[None]:
    """Keeps a second writer out of a library.

    Raises:
        InputError: if another process is writing.
    """
    return exclusive(path, "indexing into this library")
