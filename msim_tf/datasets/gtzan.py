"""GTZAN: ten genres by folder, without Sturm's repetitions; tempo and the fault-filtered split where they lie there.

Read are names such as ``blues.00000.wav``, ``gtzan_tempo_beat``'s ``gtzan_blues_00000.bpm``, and the lists
``train_filtered.txt``, ``valid_filtered.txt`` and ``test_filtered.txt``.

Release: layout seen by listing.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from msim_tf.datasets.collection import Collection, ReadOptions
from msim_tf.datasets.repetitions import unrepeated_track
from msim_tf.datasets.tables import find_file, find_files, read_lines, read_text

_GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
_LISTS = {"train": "train_filtered.txt", "validation": "valid_filtered.txt", "test": "test_filtered.txt"}


def read_gtzan(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Labels of every excerpt that has audio and repeats no other."""
    # "gtzan_blues_00000.bpm" belongs to "blues.00000"; the lists name "blues/blues.00000.wav".
    tempi = {path.stem.removeprefix("gtzan_").replace("_", "."): path for path in find_files(root, "gtzan_*.bpm")}
    lists = {part: find_file(root, name) for part, name in _LISTS.items()}
    part_of = {PurePosixPath(line).stem: part for part, path in lists.items() if path for line in read_lines(path)}
    collection.split_source = "GTZAN's fault-filtered lists (Kereliuk et al., 2015)"
    collection.notes.append("GTZAN names no artists; of its splits only the fault-filtered one keeps them apart")

    for item in (f"{genre}.{number:05d}" for genre in _GENRES for number in range(100)):
        track = unrepeated_track(collection, "gtzan", item)
        if not track:
            continue
        collection.add(track, "genre", item.partition(".")[0])
        if item in tempi:
            collection.add(track, "tempo", read_text(tempi[item]).strip())
        if item in part_of:
            collection.put(track, part_of[item])
