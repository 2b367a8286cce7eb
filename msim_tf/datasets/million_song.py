"""Million Song Dataset with Last.FM's tags: the paper's own data.

Read are Last.FM's tags (``lastfm``), artists and years (``million_song_metadata``) and published splits
(``million_song_splits``). Audio is found by the track's id or by 7digital's number.

Release: layouts seen in the authors' demo code, in Choi's and Lee's repositories and in a listing; the databases only
read about.
"""

from __future__ import annotations

from pathlib import Path

from msim_tf.datasets.collection import NO_AUDIO, Collection, ReadOptions, era_of_year
from msim_tf.datasets.lastfm import json_files, read_track_tags, tags_of_database
from msim_tf.datasets.million_song_metadata import songs_with_audio
from msim_tf.datasets.million_song_splits import million_song_split
from msim_tf.datasets.tables import find_file
from msim_tf.labels import taxonomy


def read_million_song(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Labels in genre, mood, instrument and era from tags of a weight above the threshold; artists; the split."""
    metadata = find_file(root, "track_metadata.db")
    songs = songs_with_audio(metadata, collection.tracks) if metadata else {}
    tracks: dict[str, str] = {}

    # Asked for by several tables, but looked up and counted as missing once.
    def track_of(track_id: str) -> str:
        if track_id not in tracks:
            preview = songs[track_id].preview if track_id in songs else ""
            stems = (track_id, *((f"{preview}.clip", preview) if preview else ()))
            tracks[track_id] = collection.track_of(track_id, stems=stems, fault=False)
        return tracks[track_id]

    # Tags: the database if it lies there, else the JSON files of tracks that have audio.
    database = find_file(root, "lastfm_tags.db")
    if database:
        for track_id, tag in tags_of_database(database, options.threshold):
            _add_tag(collection, track_of(track_id), tag)
    for path in () if database else [path for _, path in json_files(root) if track_of(path.stem)]:
        tags = read_track_tags(path)
        if tags is None:
            collection.leave_out("unreadable JSON", path.stem)
            continue
        for tag in [tag for tag, weight in tags.weights.items() if weight > options.threshold]:
            _add_tag(collection, track_of(path.stem), tag)
        if path.stem not in songs:
            collection.add(track_of(path.stem), "artist", tags.artist)

    # Artists, and years where no tag is an era.
    for track_id, song in songs.items():
        track = track_of(track_id)
        if track:
            collection.add(track, "artist", song.artist)
            if options.era_from_year and not collection.has(track, "era"):
                collection.add(track, "era", era_of_year(song.year))
    if not songs:
        collection.notes.append("no track_metadata.db, so artists are known from JSON files only, and years are not")

    # A track of the published split should be here; one that merely has tags need not.
    collection.split_source, split = million_song_split(root)
    for part, track_id in split:
        track = track_of(track_id)
        if track:
            collection.put(track, part)
        else:
            collection.faults.add(NO_AUDIO)


def _add_tag(collection: Collection, track: str, tag: str) -> None:
    dimension = taxonomy.dimension_of(tag)
    if track and dimension:
        collection.add(track, dimension, tag)
