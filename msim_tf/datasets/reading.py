"""From a data set's own files to labels in our words: one function over all readers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from msim_tf.audio.scan import scan_folder
from msim_tf.datasets.ballroom import read_ballroom
from msim_tf.datasets.beatport import read_beatport
from msim_tf.datasets.collection import Collection, DatasetLabels, ReadOptions, TrackNames, unusable_audio
from msim_tf.datasets.fma import read_fma
from msim_tf.datasets.giantsteps import read_giantsteps_key, read_giantsteps_tempo
from msim_tf.datasets.gtzan import read_gtzan
from msim_tf.datasets.ismir04 import read_ismir04
from msim_tf.datasets.jamendo import read_jamendo
from msim_tf.datasets.magnatagatune import read_magnatagatune
from msim_tf.datasets.million_song import read_million_song
from msim_tf.datasets.recognition import validate_root
from msim_tf.errors import InputError
from msim_tf.labels.splits import without_shared_artists

READERS: dict[str, Callable[[Path, Collection, ReadOptions], None]] = {
    "msd": read_million_song,
    "magnatagatune": read_magnatagatune,
    "jamendo": read_jamendo,
    "fma": read_fma,
    "gtzan": read_gtzan,
    "ismir04": read_ismir04,
    "ballroom": read_ballroom,
    "giantsteps-key": read_giantsteps_key,
    "giantsteps-tempo": read_giantsteps_tempo,
    "beatport": read_beatport,
}


def read_dataset(
    name: str, root: Path, tracks: TrackNames, *, options: ReadOptions | None = None, by_artist: bool = True
) -> DatasetLabels:
    """Labels, artists and split of the data set called ``name``.

    Args:
        name: see ``catalogue``.
        root: the folder that its files lie below, in the layout of its publisher.
        tracks: which tracks there are, under the names that the labels shall have.
        options: where the data set leaves a choice.
        by_artist: leave tracks out of the published training part whose artist is heard in validation or test.

    Raises:
        InputError: if there is no such data set, another lies at ``root``, a file is broken, or no track gets a label.
    """
    validate_root(root, name)
    if name not in READERS:
        raise InputError(
            f"{name} has judgements and no labels; give its file to msim evaluate triplets, "
            "and label the tracks it names with msim dataset labels msd"
        )
    collection = Collection(tracks)
    READERS[name](root, collection, options or ReadOptions())
    # Not a single label: the audio has other names, or the tables are of something else.
    dataset = collection.result()
    if not dataset.labels.values:
        why = "; ".join(f"{len(items)} {reason}" for reason, items in dataset.left_out.items())
        raise InputError(
            f"{root}: no track of {name} gets a label among {len(tracks.identifiers)} "
            f"({why or 'nothing in its tables'}); are the names of the audio those of the publisher?"
        )
    if dataset.split is None or not by_artist:
        return dataset
    # Published splits often cut through artists; what that would give away leaves the earlier part.
    split, lost = without_shared_artists(dataset.split, dataset.labels.groups)
    shared = {f"artist of a later part, left out of {part}": items for part, items in lost.items()}
    return dataclasses.replace(dataset, split=split, left_out={**dataset.left_out, **shared})


def tracks_below(folder: Path) -> TrackNames:
    """Tracks named by their paths below ``folder``; files that are no audio by their first bytes are known as unusable.

    Raises:
        InputError: if the folder cannot be read or holds no sound file.
    """
    scan = scan_folder(folder)
    reasons = {name: unusable_audio(scan.root / name) for name in scan.files}
    unusable = {**scan.failures, **{name: reason for name, reason in reasons.items() if reason}}
    return TrackNames(dict.fromkeys((*scan.files, *scan.failures)), unusable)
