"""FMA: genres with all their parents, era by the year of the album, artists, and the published split.

Read are ``tracks.csv``, whose columns have two header rows (group and name) and a third that names the index, and
``genres.csv`` (``genre_id, #tracks, parent, title, top_level``). Audio is ``fma_small/000/000002.mp3`` and so on; the
folder's name says which tracks a copy should hold.

Release: columns seen in the authors' code and in public code that reads them; the files only read about (Defferrard
et al., ISMIR 2017).
"""

from __future__ import annotations

import json
from pathlib import Path

from msim_tf.datasets.collection import Collection, ReadOptions, era_of_year
from msim_tf.datasets.tables import find_file, find_folder, read_records, read_rows
from msim_tf.errors import InputError

_SIZES = ("small", "medium", "large", "full")
_PARTS = {"training": "train", "validation": "validation", "test": "test"}
_COLUMNS = {
    "genres": ("track", "genres"),
    "top": ("track", "genre_top"),
    "released": ("album", "date_released"),
    "artist": ("artist", "id"),
    "artist_name": ("artist", "name"),
    "subset": ("set", "subset"),
    "split": ("set", "split"),
}


def read_fma(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Labels of every track that has audio."""
    table, genre_table = find_file(root, "tracks.csv"), find_file(root, "genres.csv")
    if table is None or genre_table is None:
        name = "genres.csv" if table else "tracks.csv"
        raise InputError(f"{root}: no {name} below it; unpack fma_metadata.zip there")
    genres = _genres(genre_table)
    sizes = [size for size in _SIZES if find_folder(root, f"fma_{size}")]
    expected = max(map(_SIZES.index, sizes)) if sizes else -1
    rows = read_rows(table)
    columns, width = _columns(table, [next(rows, (0, []))[1] for _ in range(3)])
    collection.split_source = "FMA's training, validation and test"
    for line, row in rows:
        if len(row) != width or not row[0].strip().isdigit():
            raise InputError(f"{table}, line {line}: {len(row)} cells, expected {width}; half a download?")
        cells = {name: row[column].strip() for name, column in columns.items()}
        number = f"{int(row[0]):06d}"
        path = f"{number[:3]}/{number}.mp3"
        belongs = cells["subset"] in _SIZES and _SIZES.index(cells["subset"]) <= expected
        # tracks.csv describes the largest collection; what a smaller one never held is not missing.
        if not belongs and not collection.tracks.at(path):
            continue
        track = collection.track_of(number, paths=(path,), fault=belongs)
        if not track:
            continue
        for title in _titles(cells, genres, f"{table}, line {line}"):
            collection.add(track, "genre", title)
        collection.add(track, "era", era_of_year(int(cells["released"][:4])) if cells["released"][:4].isdigit() else "")
        collection.add(track, "artist", cells["artist"] or cells["artist_name"])
        if cells["split"] in _PARTS:
            collection.put(track, _PARTS[cells["split"]])


def _columns(table: Path, header: list[list[str]]) -> tuple[dict[str, int], int]:
    groups, names, index = ([cell.strip() for cell in row] for row in header)
    present = {pair: column for column, pair in enumerate(zip(groups, names))}
    missing = [pair for pair in _COLUMNS.values() if pair not in present]
    if missing or index[:1] != ["track_id"]:
        what = f"no column {'.'.join(missing[0])}" if missing else "no third header row that begins with track_id"
        raise InputError(f"{table}: {what}; expected FMA's tracks.csv with its three header rows")
    return {name: present[pair] for name, pair in _COLUMNS.items()}, len(groups)


def _genres(path: Path) -> dict[int, tuple[int, str]]:
    """Genre -> (parent or 0, title)."""
    records = read_records(path, ("genre_id", "parent", "title"))
    try:
        return {int(row["genre_id"]): (int(row["parent"]), row["title"]) for _, row in records}
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected numbers of genres") from error


def _titles(cells: dict[str, str], genres: dict[int, tuple[int, str]], where: str) -> set[str]:
    """Titles of a track's genres and of everything above them."""
    try:
        waiting = [int(genre) for genre in json.loads(cells["genres"] or "[]")]
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: genres are {cells['genres']!r}, expected a list of numbers") from error
    seen: set[int] = set()
    while waiting:
        genre = waiting.pop()
        if genre in genres and genre not in seen:
            seen.add(genre)
            waiting.append(genres[genre][0])
    return {genres[genre][1] for genre in seen} | ({cells["top"]} if cells["top"] else set())
