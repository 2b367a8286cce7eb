"""Beatport's previews with keys or tempi set by people: GiantSteps key and tempo, and the Beatport key dataset. All
of them are test sets.

Read are ``annotations/key/*.LOFI.key`` (a key in words) or GiantSteps+' ``keys_gs+/*.txt``;
``annotations_v2/jams/*.jams`` (several tempi with their confidence) or ``annotations/tempo/*.LOFI.bpm``; Beatport's
``keys/*.txt`` (several keys between bars, "X" for none) and ``meta/*.json``. A file of several keys or of none says
nothing of one key: that track is unknown.

Releases: GiantSteps seen by listing (GitHub, as of 2018) with single files read; Beatport and GiantSteps+ by one
track's files in mirdata's tests.
"""

from __future__ import annotations

import re
from pathlib import Path

from msim_tf.datasets.collection import Collection, ReadOptions
from msim_tf.datasets.mirdata_loaders import mirdata_value
from msim_tf.datasets.tables import find_files, find_folder, read_text

_NO_ONE_KEY = "no single key"
_NO_TEMPO = "no tempo"


def read_giantsteps_key(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Key of each preview; genre from the files beside; artists where GiantSteps+' metadata lie there."""
    collection.split_source = "GiantSteps key: all is test"
    plain = [path for path in find_files(root, "*.LOFI.key") if path.parent.name != "giantsteps"]
    plus = [path for path in find_files(root, "*.txt") if path.parent.name.startswith("keys")]
    for path in plain or plus:
        track = collection.track_of(path.stem, stems=(path.stem,))
        if not track:
            continue
        collection.put(track, "test")
        key = mirdata_value(collection, "giantsteps_key", "load_key", path)
        _add_key(collection, track, path.stem, [key] if key else [])
        _add_genre_file(collection, track, path.parents[1] / "genre" / f"{path.stem}.genre")
        _add_metadata(collection, track, "giantsteps_key", _metadata(root, path.stem))


def read_giantsteps_tempo(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Tempo of each preview: the one of most votes in the second version of the annotations, where that lies there."""
    collection.split_source = "GiantSteps tempo: all is test"
    voted = [path for path in find_files(root, "*.jams") if "annotations_v2" in path.parts]
    first = find_files(root, "*.LOFI.bpm")
    first = [path for path in first if path.parent.name == "tempo" and "annotations_v2" not in path.parts]
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
            collection.leave_out(_NO_TEMPO, path.stem, fault=False)
        if genres:
            _add_genre_file(collection, track, genres / f"{path.stem}.genre")


def read_beatport(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Key of each preview that has one, and what Beatport says of genre, tempo and artists."""
    collection.split_source = "Beatport key: all is test"
    for path in (path for path in find_files(root, "*.txt") if path.parent.name == "keys"):
        track = collection.track_of(path.stem, stems=(path.stem,))
        if not track:
            continue
        collection.put(track, "test")
        keys = mirdata_value(collection, "beatport_key", "load_key", path)
        _add_key(collection, track, path.stem, keys or [])
        metadata = _metadata(root, path.stem)
        _add_metadata(collection, track, "beatport_key", metadata)
        if metadata:
            tempo = mirdata_value(collection, "beatport_key", "load_tempo", metadata)
            collection.add(track, "tempo", str(tempo) if tempo else "")


def _add_key(collection: Collection, track: str, item: str, keys: list[str]) -> None:
    names = [key.strip() for key in keys if key.strip()]
    if len(names) != 1 or names[0].lower() in ("x", "-", "unknown", "atonal", "multiple"):
        collection.leave_out(_NO_ONE_KEY, item, fault=False)
        return
    # GiantSteps+ adds a comment after the mode.
    collection.add(track, "key", re.split(r"[\t;,(]", names[0])[0])


def _most_voted(collection: Collection, path: Path) -> str:
    tempo = mirdata_value(collection, "giantsteps_tempo", "load_tempo", path)
    if tempo is None or not len(tempo.value):
        return ""
    best = max(range(len(tempo.value)), key=lambda place: tempo.confidence[place])
    return str(float(tempo.value[best])) if tempo.value[best] > 0 else ""


def _add_genre_file(collection: Collection, track: str, path: Path) -> None:
    if path.is_file():
        collection.add(track, "genre", read_text(path).strip())


def _metadata(root: Path, stem: str) -> Path | None:
    """Beatport's description of a track: named like it, or by its number."""
    number = stem.partition(" ")[0]
    for folder in ("meta", "new_annotations", "original_metadata"):
        for name in (f"{stem}.json", f"{number}.json"):
            if (root / folder / name).is_file():
                return root / folder / name
    return None


def _add_metadata(collection: Collection, track: str, module: str, path: Path | None) -> None:
    if path is None:
        return
    for artist in mirdata_value(collection, module, "load_artist", path) or []:
        collection.add(track, "artist", artist)
    genres = mirdata_value(collection, module, "load_genre", path) or {}
    for genre in (*genres.get("genres", ()), *genres.get("sub_genres", ())):
        collection.add(track, "genre", genre)
