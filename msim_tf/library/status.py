"""What a library has, for ``msim status``."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from msim_tf.library.catalog import load_catalog
from msim_tf.library.file_table import FileTable
from msim_tf.search.index import Index
from msim_tf.search.schema import DATABASE


@dataclass(frozen=True)
class LibraryStatus:
    """A library in numbers.

    Attributes:
        name: what people call it.
        path: its directory.
        music: the folder of music; None for a library of imported vectors.
        tracks: how many a query can find.
        missing: how many are kept though their files are gone.
        failures: how many files of the folder cannot be used.
        model: name and version of the model that embedded it.
        model_path: where that model was; "" where unknown.
        dimensions: of its embedding.
        bytes: on disk, all of its files.
        updated: when it was last written.
    """

    name: str
    path: Path
    music: Path | None
    tracks: int
    missing: int
    failures: int
    model: str
    model_path: str
    dimensions: tuple[str, ...]
    bytes: int
    updated: datetime.datetime


def library_status(path: str | Path) -> LibraryStatus:
    """Looks at a library without reading its vectors.

    Raises:
        InputError: if there is none, or it is damaged.
    """
    catalog = load_catalog(path)
    index = Index.open(catalog.path, engine=False)
    source = index.source
    written = (catalog.path / DATABASE).stat().st_mtime
    return LibraryStatus(
        name=catalog.name,
        path=catalog.path,
        music=catalog.music,
        tracks=len(index),
        missing=len(index.table.missing()),
        failures=sum(bool(record.failure) for record in FileTable(index.table.database).records().values()),
        model=f"{source.model}, version {source.version}" if source.version else source.model,
        model_path=catalog.model,
        dimensions=source.layout.names,
        bytes=sum(file.stat().st_size for file in catalog.path.iterdir() if file.is_file()),
        updated=datetime.datetime.fromtimestamp(written).astimezone(),
    )
