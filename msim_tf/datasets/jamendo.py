"""MTG-Jamendo: tags of genre, instrument, mood and theme, artists, and one of five published splits.

Read are ``data/autotagging.tsv`` or, where a copy has only those, the files of the subsets: ``TRACK_ID ARTIST_ID
ALBUM_ID PATH DURATION`` and then any number of tags ``category---tag``, all separated by tabs. Splits are
``data/splits/split-N/autotagging-train.tsv`` and so on. The smaller audio has ``.low.mp3`` for ``.mp3``. Tags are
written together ("alternativerock"); those that the taxonomy knows get its spelling, and ``genre---80s`` is an era.

Release: files seen by listing, a split file read (Bogdanov et al., ICML 2019 workshop).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from msim_tf.datasets.collection import Collection, ReadOptions
from msim_tf.datasets.jamendo_files import is_whole, jamendo_split, jamendo_tables
from msim_tf.datasets.tables import read_rows
from msim_tf.errors import InputError
from msim_tf.labels import taxonomy

_DIMENSIONS = {"genre": "genre", "instrument": "instrument", "mood/theme": "mood"}


def read_jamendo(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Labels of every track that has audio."""
    tracks: dict[str, str] = {}
    tables = jamendo_tables(root)
    for table in tables:
        listed: set[str] = set()
        for line, row in read_rows(table, delimiter="\t"):
            if row[0] == "TRACK_ID":
                continue
            if len(row) < 6 or not row[0].startswith("track_"):
                raise InputError(f"{table}, line {line}: {len(row)} cells, the first {row[0]!r}; half a download?")
            track_id, artist, _, audio = (cell.strip() for cell in row[:4])
            # The files of the subsets overlap; inside one file a track stands once.
            if track_id in listed or track_id not in tracks:
                low = str(PurePosixPath(audio).with_suffix(".low.mp3"))
                tracks[track_id] = collection.track_of(track_id, paths=(audio, low)) or tracks.get(track_id, "")
            listed.add(track_id)
            if tracks[track_id]:
                collection.add(tracks[track_id], "artist", artist)
                for tag in row[5:]:
                    _add_tag(collection, tracks[track_id], tag.strip())

    # The split lists have the table's columns; only the id of each row is read.
    source, lists = jamendo_split(root, options.split_number)
    if not lists:
        collection.notes.append(source)
    collection.split_source = source
    for part, file in lists.items():
        for _, row in read_rows(file, delimiter="\t"):
            if tracks.get(row[0]):
                collection.put(tracks[row[0]], part)
            elif row[0].startswith("track_") and row[0] not in tracks and is_whole(tables):
                collection.leave_out("in the split and not in the table; half a download?", row[0])


def _add_tag(collection: Collection, track: str, text: str) -> None:
    """Adds one tag as the table writes it, "category---tag"."""
    category, dashes, tag = text.partition("---")
    if not text:
        return
    if not dashes or category not in _DIMENSIONS:
        collection.leave_out(f"tag {text!r} of no known category", track)
        return
    # "genre---80s" is an era; "alternativerock" is written together, and gets the spelling of the paper's tag.
    dimension = _DIMENSIONS[category]
    if taxonomy.dimension_of(tag) == "era":
        dimension = "era"
    together = {spelling.replace(" ", "").lower(): spelling for spelling in taxonomy.tags(dimension)}
    collection.add(track, dimension, together.get(tag.lower(), tag))
