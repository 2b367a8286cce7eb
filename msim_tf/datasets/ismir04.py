"""ISMIR 2004 genre contest: six classes, artists where ``tracklist.csv`` names them, and the contest's three parts.

Read are ``training``, ``development`` and ``evaluation``, each with a ``tracklist.csv`` of ``class, artist, album,
title, track number, path``; without those tables, the folders of the classes. The contest merged jazz with blues,
metal with punk, rock with pop; nobody says which of the two a track is, so the merged class is the label.

Release: layout seen in the data set's README; ``tracklist.csv`` only read about.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msim_tf.datasets.collection import Collection, ReadOptions
from msim_tf.datasets.tables import find_files, read_rows

_CLASSES = ("classical", "electronic", "jazz_blues", "metal_punk", "rock_pop", "world")
_PARTS = {"training": "train", "development": "validation", "evaluation": "test"}


def read_ismir04(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Labels of every track that has audio."""
    collection.split_source = "the parts of the ISMIR 2004 contest"
    tables = find_files(root, "tracklist.csv")
    if not tables:
        collection.notes.append("no tracklist.csv, so classes are those of the folders and no artist is known")
    for path, kind, artist, part in _listed(tables) if tables else _in_folders(collection.tracks.identifiers):
        track = collection.track_of(path, paths=(path, f"{kind}/{path}"))
        if not track:
            continue
        collection.add(track, "genre", kind.lower())
        collection.add(track, "artist", artist)
        if part:
            collection.put(track, part)


def _listed(tables: list[Path]) -> Iterator[tuple[str, str, str, str]]:
    """(path, class, artist, part) of each row of the tables."""
    for table in tables:
        # The folder that a table lies in names the part; its columns: class, artist, album, title, number, path.
        part = next((part for name, part in _PARTS.items() if name in table.as_posix().lower()), "")
        for _, row in read_rows(table):
            cells = [cell.strip() for cell in row]
            if len(cells) >= 6 and cells[0].lower() != "class":
                yield cells[5], cells[0], cells[1], part


def _in_folders(tracks: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    """(path, class, "", part) of each track below a class's folder."""
    for path in tracks:
        folders = [folder.lower() for folder in PurePosixPath(path).parts[:-1]]
        kind = next((folder for folder in folders if folder in _CLASSES), "")
        if kind:
            yield path, kind, "", next((_PARTS[folder] for folder in folders if folder in _PARTS), "")
