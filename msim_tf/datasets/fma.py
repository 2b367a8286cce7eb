"""FMA: genres with all their parents, era by the year of the album, artists, and the published split.

Read are ``tracks.csv``, whose columns have two header rows (group and name) and a third that names the index, and
``genres.csv`` (``genre_id, #tracks, parent, title, top_level``). Audio is ``fma_small/000/000002.mp3`` and so on; the
folder's name says which tracks a copy should hold.

Release: columns seen in the authors' code and in public code that reads them; the files only read about (Defferrard
et al., ISMIR 2017).
"""

from __future__ import annotations

from pathlib import Path

from msim_tf.datasets.collection import Collection, ReadOptions, era_of_year
from msim_tf.datasets.tables import find_file, find_folder, read_records
from msim_tf.errors import InputError
from msim_tf.files import parse_json

_SIZES = ("small", "medium", "large", "full")
_PARTS = {"training": "train", "validation": "validation", "test": "test"}
_COLUMNS = ("track_id", "track.genres", "track.genre_top", "album.date_released", "artist.id", "artist.name")
_SPLIT_COLUMNS = ("set.subset", "set.split")


def read_fma(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Labels of every track that has audio."""
    table, genre_table = find_file(root, "tracks.csv"), find_file(root, "genres.csv")
    if table is None or genre_table is None:
        raise InputError(f"{root}: no {'genres' if table else 'tracks'}.csv below it; unpack fma_metadata.zip there")
    genres = _genres(genre_table)
    # FMA's sizes contain each other: the largest that lies here says which tracks should be here.
    sizes = [size for size in _SIZES if find_folder(root, f"fma_{size}")]
    largest = max(map(_SIZES.index, sizes)) if sizes else -1
    collection.split_source = "FMA's training, validation and test"
    for line, row in read_records(table, (*_COLUMNS, *_SPLIT_COLUMNS), header_rows=3):
        if not row["track_id"].isdecimal():
            raise InputError(f"{table}, line {line}: track_id is {row['track_id']!r}, expected a number")
        number = f"{int(row['track_id']):06d}"
        path = f"{number[:3]}/{number}.mp3"
        # tracks.csv describes the largest collection; what a smaller one never contained is not missing.
        belongs = row["set.subset"] in _SIZES and _SIZES.index(row["set.subset"]) <= largest
        if not belongs and not collection.tracks.at(path):
            continue
        if not (track := collection.track_of(number, paths=(path,), fault=belongs)):
            continue
        for title in _titles(row, genres, f"{table}, line {line}"):
            collection.add(track, "genre", title)
        year = row["album.date_released"][:4]
        collection.add(track, "era", era_of_year(int(year)) if year.isdecimal() else "")
        collection.add(track, "artist", row["artist.id"] or row["artist.name"])
        if row["set.split"] in _PARTS:
            collection.put(track, _PARTS[row["set.split"]])


def _genres(path: Path) -> dict[int, tuple[int, str]]:
    """Genre -> (parent or 0, title)."""
    genres = {}
    for line, row in read_records(path, ("genre_id", "parent", "title")):
        if not row["genre_id"].isdecimal() or not row["parent"].isdecimal():
            raise InputError(f"{path}, line {line}: genre {row['genre_id']!r} of {row['parent']!r}, expected numbers")
        genres[int(row["genre_id"])] = int(row["parent"]), row["title"]
    return genres


def _titles(row: dict[str, str], genres: dict[int, tuple[int, str]], where: str) -> set[str]:
    """Titles of a track's genres and of everything above them."""
    try:
        waiting = [int(genre) for genre in parse_json(row["track.genres"] or "[]")]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: genres are {row['track.genres']!r}, expected a list of numbers") from error
    # Up the tree from each genre; ``seen`` ends it where a table runs in a circle.
    seen: set[int] = set()
    while waiting:
        genre = waiting.pop()
        if genre in genres and genre not in seen:
            seen.add(genre)
            waiting.append(genres[genre][0])
    return {genres[genre][1] for genre in seen} | {row["track.genre_top"]} - {""}
