"""GiantSteps key and tempo: Beatport's previews with keys or tempi set by people. Both are test sets.

Read are ``annotations/key/*.LOFI.key`` (a key in words) or GiantSteps+' ``keys_gs+/*.txt``;
``annotations_v2/jams/*.jams`` (several tempi with their confidence) or ``annotations/tempo/*.LOFI.bpm``.

Releases: seen by listing (GitHub, as of 2018) with single files read; GiantSteps+ by one track's files in mirdata's
tests.
"""

from __future__ import annotations

from pathlib import Path

from msim_tf.datasets.collection import Collection, ReadOptions
from msim_tf.datasets.mirdata_loaders import mirdata_value
from msim_tf.datasets.previews import add_genre_file, add_key, add_metadata, metadata_path
from msim_tf.datasets.tables import find_files, find_folder, read_text


def read_giantsteps_key(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Key of each preview; genre from the files beside; artists where GiantSteps+' metadata lie there."""
    collection.split_source = "GiantSteps key: all is test"
    # The first release has one .key file per track; GiantSteps+ has .txt files in "keys_gs+".
    plain = [path for path in find_files(root, "*.LOFI.key") if path.parent.name != "giantsteps"]
    plus = [path for path in find_files(root, "*.txt") if path.parent.name.startswith("keys")]
    for path in plain or plus:
        track = collection.track_of(path.stem, stems=(path.stem,))
        if not track:
            continue
        collection.put(track, "test")
        key = mirdata_value(collection, "giantsteps_key", "load_key", path)
        add_key(collection, track, path.stem, [key] if key else [])
        add_genre_file(collection, track, path.parents[1] / "genre" / f"{path.stem}.genre")
        add_metadata(collection, track, "giantsteps_key", metadata_path(root, path.stem))


def read_giantsteps_tempo(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Tempo of each preview: the one of most votes in the second version of the annotations, where that lies there."""
    collection.split_source = "GiantSteps tempo: all is test"
    # Version 2 holds the answers of many listeners, version 1 a single tempo, which is used only without the other.
    voted = [path for path in find_files(root, "*.jams") if "annotations_v2" in path.parts]
    first = [path for path in find_files(root, "*.LOFI.bpm") if path.parent.name == "tempo"]
    first = [path for path in first if "annotations_v2" not in path.parts]
    genres = find_folder(root, "genre")
    for path in voted or first:
        track = collection.track_of(path.stem, stems=(path.stem,))
        if not track:
            continue
        collection.put(track, "test")
        bpm = _most_voted(collection, path) if voted else read_text(path).strip()
        if bpm:
            collection.add(track, "tempo", bpm)
        else:
            collection.leave_out("no tempo", path.stem, fault=False)
        if genres:
            add_genre_file(collection, track, genres / f"{path.stem}.genre")


def _most_voted(collection: Collection, path: Path) -> str:
    """The tempo of highest confidence in a JAMS file; "" for none."""
    tempo = mirdata_value(collection, "giantsteps_tempo", "load_tempo", path)
    if tempo is None or not len(tempo.value):
        return ""
    best = max(range(len(tempo.value)), key=lambda place: tempo.confidence[place])
    return str(float(tempo.value[best])) if tempo.value[best] > 0 else ""
