"""Data sets whose labels are their folders: GTZAN, ISMIR 2004, Ballroom. Known repetitions are left out by a
published list.

``repetitions.json`` holds Sturm's lists: of each group the first excerpt stays. The files of tempo are read by
mirdata where it has a loader.

Releases: layouts seen by listing (GTZAN, Ballroom) or in the data set's README (ISMIR 2004); ``tracklist.csv`` only
read about.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path, PurePosixPath
from typing import Any

from msim_tf.datasets.collection import Collection, ReadOptions
from msim_tf.datasets.mirdata_loaders import mirdata_value
from msim_tf.datasets.tables import find_files, read_lines, read_rows, read_text
from msim_tf.files import load_json, validate_format

_REPETITIONS = Path(__file__).with_name("repetitions.json")
_GTZAN = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
_GTZAN_STEM = re.compile(rf"({'|'.join(_GTZAN)})\.\d{{5}}")
_GTZAN_LISTS = {"train": "train_filtered.txt", "validation": "valid_filtered.txt", "test": "test_filtered.txt"}
_ISMIR04 = ("classical", "electronic", "jazz_blues", "metal_punk", "rock_pop", "world")
_ISMIR04_PARTS = {"training": "train", "development": "validation", "evaluation": "test"}
_DANCES = ("chachacha", "jive", "quickstep", "rumba", "samba", "tango", "viennesewaltz", "waltz")
_BALLROOM_CLIPS = 698


def read_gtzan(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Ten genres; tempo where gtzan_tempo_beat lies there; the fault-filtered split where its lists do."""
    tempi = {path.stem.removeprefix("gtzan_").replace("_", "."): path for path in find_files(root, "gtzan_*.bpm")}
    lists = {part: next(iter(find_files(root, name)), None) for part, name in _GTZAN_LISTS.items()}
    part_of = {PurePosixPath(line).stem: part for part, path in lists.items() if path for line in read_lines(path)}
    collection.split_source = "GTZAN's fault-filtered lists (Kereliuk et al., 2015)"
    collection.notes.append("GTZAN names no artists; of its splits only the fault-filtered one keeps them apart")
    for item in (f"{genre}.{number:05d}" for genre in _GTZAN for number in range(100)):
        track = _whole_track(collection, "gtzan", item)
        if not track:
            continue
        collection.add(track, "genre", item.partition(".")[0])
        if item in tempi:
            collection.add(track, "tempo", read_text(tempi[item]).strip())
        if item in part_of:
            collection.put(track, part_of[item])


def read_ballroom(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Dances as genres, and the tempo that people set."""
    tempi = {path.stem: path for path in find_files(root, "*.bpm", levels=6)}
    stems = sorted(
        {
            PurePosixPath(name).stem
            for name in collection.tracks.identifiers
            if _dance(name) or PurePosixPath(name).stem in tempi
        }
    )
    for item in dict.fromkeys((*stems, *sorted(tempi))):
        track = _whole_track(collection, "ballroom", item)
        if not track:
            continue
        collection.add(track, "genre", _dance(track))
        if item in tempi:
            tempo = mirdata_value(collection, "ballroom", "load_tempo", tempi[item])
            collection.add(track, "tempo", "" if tempo is None else str(tempo))
    if len(stems) < _BALLROOM_CLIPS and not tempi:
        collection.notes.append(f"{len(stems)} of {_BALLROOM_CLIPS} clips are here, and no .bpm files: no tempo")


def read_ismir04(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Six classes of the contest, artists where ``tracklist.csv`` names them, and the contest's three parts."""
    collection.split_source = "the parts of the ISMIR 2004 contest"
    tables = find_files(root, "tracklist.csv")
    for table in tables:
        part = next((part for name, part in _ISMIR04_PARTS.items() if name in table.as_posix().lower()), "")
        for _, row in read_rows(table):
            cells = [cell.strip() for cell in row]
            if len(cells) < 6 or cells[0].lower() == "class":
                continue
            kind, artist, path = cells[0], cells[1], cells[5]
            track = collection.track_of(path, paths=(path, f"{kind}/{path}"))
            if track:
                _add_ismir04(collection, track, kind, artist, part)
    if not tables:
        collection.notes.append("no tracklist.csv, so classes are those of the folders and no artist is known")
        for name in collection.tracks.identifiers:
            folders = [folder.lower() for folder in PurePosixPath(name).parts[:-1]]
            kind = next((folder for folder in folders if folder in _ISMIR04), "")
            part = next((_ISMIR04_PARTS[folder] for folder in folders if folder in _ISMIR04_PARTS), "")
            track = collection.track_of(name, paths=(name,)) if kind else ""
            if track:
                _add_ismir04(collection, track, kind, "", part)


def _add_ismir04(collection: Collection, track: str, kind: str, artist: str, part: str) -> None:
    # The contest merged jazz with blues, metal with punk, rock with pop: nobody says which of the two a track is.
    collection.add(track, "genre", kind.lower())
    collection.add(track, "artist", artist)
    if part:
        collection.put(track, part)


def _whole_track(collection: Collection, name: str, item: str) -> str:
    """The track of an item that is neither a repetition nor damaged."""
    reason = _faulty_items(name).get(item)
    if reason:
        collection.leave_out(reason, item, fault=False)
        return ""
    return collection.track_of(item, stems=(item,))


@functools.cache
def _faulty_items(name: str) -> dict[str, str]:
    """Item -> why the published list leaves it out."""
    table: Any = load_json(_REPETITIONS, "the lists of repetitions of this package")
    validate_format(table, _REPETITIONS, name="msim-repetitions", version=1)
    repeated = {item: "repetition of another excerpt (Sturm)" for group in table[name]["groups"] for item in group[1:]}
    return {**repeated, **{item: f"{fault} (Sturm)" for item, fault in table[name]["damaged"].items()}}


def _dance(track: str) -> str:
    """The dance of a track by its folder, the kinds of rumba as one; "" for another folder."""
    folder = PurePosixPath(track).parent.name.lower().partition("-")[0]
    return folder if folder in _DANCES else ""
