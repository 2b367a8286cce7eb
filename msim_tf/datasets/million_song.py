"""Million Song Dataset with Last.FM's tags: the paper's own data.

Read are ``lastfm_tags.db`` (SQLite: ``tids(tid)``, ``tags(tag)``, ``tid_tag(tid, tag, val)``, the last by row numbers
of the others) or the release of one JSON file per track (``lastfm_train/A/B/C/TR*.json``, weights as text),
``track_metadata.db`` (``songs``) for artist, year and 7digital's number, and published splits: Choi's lists of ids,
or Lee's pickles. Audio is found by the track's id or by 7digital's number.

Release: layouts seen in the authors' demo code, in Choi's and Lee's repositories and in a listing; the databases only
read about.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from msim_tf.datasets.collection import NO_AUDIO, Collection, ReadOptions, era_of_year
from msim_tf.datasets.tables import find_file, find_folder, opened_database, read_json, read_lines
from msim_tf.errors import InputError
from msim_tf.labels import taxonomy

_TAG_TABLES = {"tids": ("tid",), "tags": ("tag",), "tid_tag": ("tid", "tag", "val")}
_SONG_TABLES = {"songs": ("track_id", "artist_id", "artist_name", "year")}
_CHOI = {"train": "train_x_msd_id.txt", "validation": "valid_x_msd_id.txt", "test": "test_x_msd_id.txt"}
_LEE_TRAINING = 201_680  # of Lee's 213,454 in filtered_list_train.cP; the rest is validation
_JSON_FOLDERS = {"lastfm_train": "train", "lastfm_test": "test", "lastfm_subset": "train"}


@dataclass(frozen=True)
class _Song:
    artist: str
    year: int
    preview: str  # 7digital's number, "" where unknown


def read_million_song(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Labels in genre, mood, instrument and era from tags of a weight above the threshold; artists; the split."""
    songs = dict(_songs(find_file(root, "track_metadata.db"), collection))
    tracks: dict[str, str] = {}

    def track_of(track_id: str) -> str:
        if track_id not in tracks:
            preview = songs[track_id].preview if track_id in songs else ""
            stems = (track_id, *((f"{preview}.clip", preview) if preview else ()))
            tracks[track_id] = collection.track_of(track_id, stems=stems, fault=False)
        return tracks[track_id]

    database = find_file(root, "lastfm_tags.db")
    folders = {folder: find_folder(root, folder) for folder in _JSON_FOLDERS}
    if database:
        for track_id, tag in _tags_of_database(database, options.threshold):
            _add_tag(collection, track_of(track_id), tag)
    else:
        for folder in filter(None, folders.values()):
            _read_json_release(folder, collection, track_of, options)
    for track_id, song in songs.items():
        track = track_of(track_id)
        if track:
            collection.add(track, "artist", song.artist)
            if options.era_from_year and not collection.has(track, "era"):
                collection.add(track, "era", era_of_year(song.year))
    if not songs:
        collection.notes.append("no track_metadata.db, so artists are known from JSON files only, and years are not")
    for part, track_id in _published_split(root, collection, folders):
        track = track_of(track_id)
        if track:
            collection.put(track, part)
        else:
            collection.faults.add(NO_AUDIO)


def _add_tag(collection: Collection, track: str, tag: str) -> None:
    dimension = taxonomy.dimension_of(tag)
    if track and dimension:
        collection.add(track, dimension, tag)


def _songs(path: Path | None, collection: Collection) -> Iterator[tuple[str, _Song]]:
    """Songs whose audio is here, by the track's id or 7digital's number."""
    if path is None:
        return
    stems = {PurePosixPath(name).stem.removesuffix(".clip") for name in collection.tracks.identifiers}
    with opened_database(path, _SONG_TABLES) as database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(songs)")}
        number = "track_7digitalid" if "track_7digitalid" in columns else "0"
        rows = database.execute(f"SELECT track_id, artist_id, artist_name, year, {number} FROM songs ORDER BY track_id")
        for track_id, artist_id, artist_name, year, preview in rows:
            preview = str(preview) if preview and int(preview) > 0 else ""
            if track_id in stems or preview in stems:
                yield track_id, _Song(artist_id or artist_name or "", int(year or 0), preview)


def _tags_of_database(path: Path, threshold: float) -> Iterator[tuple[str, str]]:
    """(track id, tag) for the tags that the taxonomy knows and whose weight is above the threshold."""
    with opened_database(path, _TAG_TABLES) as database:
        tags = {row: tag for row, tag in database.execute("SELECT rowid, tag FROM tags") if taxonomy.dimension_of(tag)}
        database.execute("CREATE TEMP TABLE wanted (tag INTEGER PRIMARY KEY)")
        database.executemany("INSERT INTO wanted VALUES (?)", ((row,) for row in tags))
        rows = database.execute(
            "SELECT tids.tid, tid_tag.tag FROM wanted JOIN tid_tag ON tid_tag.tag = wanted.tag "
            "JOIN tids ON tids.rowid = tid_tag.tid WHERE tid_tag.val > ?",
            (threshold,),
        )
        for track_id, tag in rows:
            yield track_id, tags[tag]


def _read_json_release(folder: Path, collection: Collection, track_of: Any, options: ReadOptions) -> None:
    """Files of tracks whose audio is here; one that is cut is counted and named."""
    for path in sorted(folder.rglob("TR*.json")):
        track = track_of(path.stem)
        if not track:
            continue
        try:
            value = read_json(path)
            tags = [(str(tag), float(weight)) for tag, weight in value["tags"]]
        except (InputError, KeyError, TypeError, ValueError):
            collection.leave_out("unreadable JSON", path.stem)
            continue
        for tag, weight in tags:
            if weight > options.threshold:
                _add_tag(collection, track, tag)
        if not collection.has_artist(track):
            collection.add(track, "artist", str(value.get("artist") or ""))


def _published_split(root: Path, collection: Collection, folders: dict[str, Path | None]) -> Iterator[tuple[str, str]]:
    """(part, track id) of the best split that lies there: Lee's, Choi's, or that of the JSON release."""
    training, test = (find_file(root, f"filtered_list_{part}.cP") for part in ("train", "test"))
    lists = {part: find_file(root, name) for part, name in _CHOI.items()}
    if training and test:
        collection.split_source = "Lee's filtered lists of the Million Song Dataset"
        ids = _pickled_ids(training)
        yield from (("train", track_id) for track_id in ids[:_LEE_TRAINING])
        yield from (("validation", track_id) for track_id in ids[_LEE_TRAINING:])
        yield from (("test", track_id) for track_id in _pickled_ids(test))
    elif all(lists.values()):
        collection.split_source = "Choi's split of the Million Song Dataset"
        for part, path in lists.items():
            if path:
                yield from ((part, track_id) for track_id in read_lines(path))
    else:
        collection.split_source = "Last.FM's own division into training and test"
        for name, folder in folders.items():
            if folder:
                yield from ((_JSON_FOLDERS[name], path.stem) for path in folder.rglob("TR*.json"))


class _PlainUnpickler(pickle.Unpickler):
    """Lists of text and nothing else: a pickle from the net must not run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _pickled_ids(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            value: Iterable[str | bytes] = _PlainUnpickler(file, encoding="latin1").load()
        return [track_id.decode() if isinstance(track_id, bytes) else str(track_id) for track_id in value]
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: not a pickled list of track ids ({error})") from error
