"""Beatport's previews, which three data sets annotate: one key or none, and what Beatport says of each track.

A file of several keys or of none does not say which one key a track has: that track is unknown.
"""

from __future__ import annotations

import re
from pathlib import Path

from msim_tf.datasets.collection import Collection
from msim_tf.datasets.mirdata_loaders import mirdata_value
from msim_tf.datasets.tables import read_text

_NO_KEYS = ("x", "-", "unknown", "atonal", "multiple")
_METADATA_FOLDERS = ("meta", "new_annotations", "original_metadata")


def add_key(collection: Collection, track: str, item: str, keys: list[str]) -> None:
    """Adds the key of a track if ``keys`` is one key; else notes that ``item`` has no single one."""
    names = [key.strip() for key in keys if key.strip()]
    if len(names) != 1 or names[0].lower() in _NO_KEYS:
        collection.leave_out("no single key", item, fault=False)
        return
    # GiantSteps+ adds a comment after the mode.
    collection.add(track, "key", re.split(r"[\t;,(]", names[0])[0])


def add_genre_file(collection: Collection, track: str, path: Path) -> None:
    """Adds the genre that is the whole text of ``path``, if that file is there."""
    if path.is_file():
        collection.add(track, "genre", read_text(path).strip())


def metadata_path(root: Path, stem: str) -> Path | None:
    """Beatport's description of a track: named like it, or by its number; None without one."""
    names = (f"{stem}.json", f"{stem.partition(' ')[0]}.json")
    paths = [root / folder / name for folder in _METADATA_FOLDERS for name in names]
    return next((path for path in paths if path.is_file()), None)


def add_metadata(collection: Collection, track: str, module: str, path: Path | None) -> None:
    """Adds artists and genres of Beatport's description, as mirdata's ``module`` reads it; nothing for None."""
    if path is None:
        return
    for artist in mirdata_value(collection, module, "load_artist", path) or []:
        collection.add(track, "artist", artist)
    genres = mirdata_value(collection, module, "load_genre", path) or {}
    for genre in (*genres.get("genres", ()), *genres.get("sub_genres", ())):
        collection.add(track, "genre", genre)
