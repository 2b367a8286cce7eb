"""Ballroom: dances by folder as genres, without Sturm's repetitions, and the tempo that people set.

Read are ``ChaChaCha/*.wav`` and so on, and ``*.bpm`` files, those by mirdata's loader.

Release: layout seen by listing.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from msim_tf.datasets.collection import Collection, ReadOptions
from msim_tf.datasets.mirdata_loaders import mirdata_value
from msim_tf.datasets.repetitions import unrepeated_track
from msim_tf.datasets.tables import find_files

_DANCES = ("chachacha", "jive", "quickstep", "rumba", "samba", "tango", "viennesewaltz", "waltz")
_CLIPS = 698


def read_ballroom(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Labels of every clip that has audio and repeats no other."""
    tempi = {path.stem: path for path in find_files(root, "*.bpm", levels=6)}
    # The data set has no list of its clips: they are what lies in a dance's folder or has a tempo.
    stems = {name: PurePosixPath(name).stem for name in collection.tracks.identifiers}
    clips = sorted({stem for name, stem in stems.items() if _dance(name) or stem in tempi})
    # Clips with audio, then those that have only a tempo, so that these are named as missing.
    for item in dict.fromkeys((*clips, *sorted(tempi))):
        track = unrepeated_track(collection, "ballroom", item)
        if not track:
            continue
        collection.add(track, "genre", _dance(track))
        if item in tempi:
            tempo = mirdata_value(collection, "ballroom", "load_tempo", tempi[item])
            collection.add(track, "tempo", "" if tempo is None else str(tempo))
    if len(clips) < _CLIPS and not tempi:
        collection.notes.append(f"{len(clips)} of {_CLIPS} clips are here, and no .bpm files: no tempo")


def _dance(track: str) -> str:
    """The dance of a track by its folder, the kinds of rumba as one; "" for another folder."""
    folder = PurePosixPath(track).parent.name.lower().partition("-")[0]
    return folder if folder in _DANCES else ""
