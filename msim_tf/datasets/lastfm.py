"""Last.FM's tags of the Million Song Dataset: the SQLite release, or the release of one JSON file per track.

``lastfm_tags.db`` has ``tids(tid)``, ``tags(tag)`` and ``tid_tag(tid, tag, val)``, the last by row numbers of the
others. The JSON release is ``lastfm_train/A/B/C/TR*.json`` and so on, with weights as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from msim_tf.datasets.tables import find_folder, opened_database, read_json
from msim_tf.errors import InputError
from msim_tf.labels import taxonomy

_TABLES = {"tids": ("tid",), "tags": ("tag",), "tid_tag": ("tid", "tag", "val")}
_FOLDERS = {"lastfm_train": "train", "lastfm_test": "test", "lastfm_subset": "train"}


@dataclass(frozen=True)
class TrackTags:
    """What one JSON file says of a track.

    Attributes:
        artist: its name; "" where unknown.
        weights: tag -> weight, 0 to 100.
    """

    artist: str
    weights: dict[str, float]


def tags_of_database(path: Path, threshold: float) -> Iterator[tuple[str, str]]:
    """(track id, tag) for the tags that the taxonomy has and whose weight is above the threshold.

    Raises:
        InputError: if the database is locked, truncated or another one.
    """
    with opened_database(path, _TABLES) as database:
        tags = {row: tag for row, tag in database.execute("SELECT rowid, tag FROM tags") if taxonomy.dimension_of(tag)}
        # A join with the tags of the taxonomy leaves eight million of the nine million rows in the database.
        database.execute("CREATE TEMP TABLE wanted (tag INTEGER PRIMARY KEY)")
        database.executemany("INSERT INTO wanted VALUES (?)", ((row,) for row in tags))
        rows = database.execute(
            "SELECT tids.tid, tid_tag.tag FROM wanted JOIN tid_tag ON tid_tag.tag = wanted.tag "
            "JOIN tids ON tids.rowid = tid_tag.tid WHERE CAST(tid_tag.val AS REAL) > ?",
            (threshold,),
        )
        for track_id, tag in rows:
            yield track_id, tags[tag]


def json_files(root: Path) -> Iterator[tuple[str, Path]]:
    """(part, file) of every track of the JSON release below ``root``; a file's stem is its track's id."""
    for name, part in _FOLDERS.items():
        folder = find_folder(root, name)
        if folder:
            yield from ((part, path) for path in sorted(folder.rglob("TR*.json")))


def read_track_tags(path: Path) -> TrackTags | None:
    """Reads one file of the JSON release; None if it is cut or another file."""
    try:
        value = read_json(path)
        weights = {str(tag): float(weight) for tag, weight in value["tags"]}
        return TrackTags(str(value.get("artist") or ""), weights)
    except (InputError, AttributeError, KeyError, TypeError, ValueError):
        return None
