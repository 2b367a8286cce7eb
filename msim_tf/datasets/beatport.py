"""Beatport key: keys that people set for previews, and what Beatport says of them. All of it is a test set.

Read are ``keys/*.txt`` (several keys between bars, "X" for none) and ``meta/*.json``.

Release: seen by one track's files in mirdata's tests.
"""

from __future__ import annotations

from pathlib import Path

from msim_tf.datasets.collection import Collection, ReadOptions
from msim_tf.datasets.mirdata_loaders import mirdata_value
from msim_tf.datasets.previews import add_key, add_metadata, metadata_path
from msim_tf.datasets.tables import find_files


def read_beatport(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Key of each preview that has one, and what Beatport says of genre, tempo and artists."""
    collection.split_source = "Beatport key: all is test"
    for path in (path for path in find_files(root, "*.txt") if path.parent.name == "keys"):
        track = collection.track_of(path.stem, stems=(path.stem,))
        if not track:
            continue
        collection.put(track, "test")
        # People set the keys; genre, artists and tempo are the shop's own.
        keys = mirdata_value(collection, "beatport_key", "load_key", path)
        add_key(collection, track, path.stem, keys or [])
        metadata = metadata_path(root, path.stem)
        add_metadata(collection, track, "beatport_key", metadata)
        if metadata:
            tempo = mirdata_value(collection, "beatport_key", "load_tempo", metadata)
            collection.add(track, "tempo", str(tempo) if tempo else "")
