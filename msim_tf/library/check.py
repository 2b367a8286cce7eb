"""Verifies a library on disk, for ``msim check``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.labels.annotations import ANNOTATIONS
from msim_tf.library.catalog import load_catalog
from msim_tf.library.file_table import FileTable
from msim_tf.search.index import Index
from msim_tf.search.index_directory import REBUILD
from msim_tf.search.schema import DATABASE

_REBUILD = "embed everything again with msim index --rebuild"


def check_library(path: Path) -> list[str]:
    """Reads all of a library: every page of its database, every vector, the codes of its engine.

    Args:
        path: the library's directory.

    Returns:
        One line per fault, with the file and what to do; none if all is well.
    """
    faults = []
    # The library's own index, and that of a rebuild that is under way or was interrupted.
    for name in (DATABASE, REBUILD):
        if (path / name).exists() or name == DATABASE:
            faults += _check_index(path, name)
    annotations = path / "annotations.db"
    if annotations.exists():
        try:
            with Database(annotations, ANNOTATIONS) as database:
                faults += database.check()
        except InputError as error:
            faults.append(str(error))
    return faults


def _check_index(path: Path, name: str) -> list[str]:
    """The faults of an index whose database has this name."""
    try:
        if name == DATABASE:
            load_catalog(path)
        index = Index.open(path, name=name, engine=False)
    except InputError as error:
        return [str(error)]
    # In a damaged database nothing else can be relied on.
    faults = index.table.database.check()
    if not faults:
        faults += _check_vectors(index) + _check_tables(index, path / name)
    index.close()
    try:
        Index.open(path, name=name).close()  # with the codes of its engine
    except InputError as error:
        faults.append(str(error))
    return list(dict.fromkeys(faults))


def _check_vectors(index: Index) -> list[str]:
    """Verifies the checksum of every vector, and that each subspace has length 1."""
    parts = list(index.source.layout.slices.values())
    try:
        for start, block in index.rows.blocks():
            lengths = [np.linalg.norm(block[:, part].astype(np.float32), axis=1) for part in parts]
            # [dimensions, rows]; the tolerance is for half floats.
            wrong = np.flatnonzero(~(np.abs(np.array(lengths) - 1) < 0.01).all(axis=0))
            if wrong.size:
                file = index.rows.file.path if index.rows.file else index.name
                return [f"{file}: the vector of row {start + wrong[0]} does not have length 1; {_REBUILD}"]
    except InputError as error:
        return [str(error)]
    return []


def _check_tables(index: Index, path: Path) -> list[str]:
    """Whether the tables agree with each other and with the number of vectors."""
    faults = []
    # Every row belongs to a track, or is hidden because its track is gone; that of a missing track is both.
    used, hidden = index.table.used(), index.table.hidden()
    if used.size and used[-1] >= len(index.rows):
        faults.append(f"{path}: tracks without a vector; {_REBUILD}")
    if len(index) != len(index.identifiers) or len(np.union1d(used, hidden)) != len(index.rows):
        faults.append(f"{path}: tracks and hidden rows do not add up to the vectors; {_REBUILD}")
    try:
        dict(index.all_metadata())
        FileTable(index.table.database).records()
    except ValueError as error:
        faults.append(f"{path}: unreadable JSON ({error}); {_REBUILD}")
    return faults
