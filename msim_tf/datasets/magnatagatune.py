"""MagnaTagATune: tags of clips in genre, mood and instrument, and artists.

Read are ``annotations_final.csv`` (tabs; ``clip_id``, 188 columns of 0 and 1, ``mp3_path``) and
``clip_info_final.csv`` (tabs; ``artist``). ``magnatagatune_tags.json`` says which tag means what: synonyms are
merged, tempo words, loudness and negations left out, and "no vocals" is a value of its own. The folders 0 to b, c and
d to f are the split of most papers; it is none by artist. ``comparisons_final.csv`` is read by
``evaluate.triplet_files``.

Release: columns and tags seen in public code that reads them; the files only read about (Law et al., ISMIR 2009).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from pathlib import Path

from msim_tf.datasets.collection import Collection, ReadOptions
from msim_tf.datasets.tables import find_file, read_records
from msim_tf.errors import InputError
from msim_tf.files import load_json, validate_format

_TAGS = Path(__file__).with_name("magnatagatune_tags.json")
_SPLIT = {**dict.fromkeys("0123456789ab", "train"), "c": "validation", **dict.fromkeys("def", "test")}


def read_magnatagatune(root: Path, collection: Collection, options: ReadOptions) -> None:
    """Labels of every clip that has audio."""
    annotations = find_file(root, "annotations_final.csv")
    if annotations is None:
        raise InputError(f"{root}: no annotations_final.csv below it; the tags of the clips are in it")
    info = find_file(root, "clip_info_final.csv")
    artists = {}
    if info:
        artists = {
            row["clip_id"]: row["artist"] for _, row in read_records(info, ("clip_id", "artist"), delimiter="\t")
        }
    else:
        collection.notes.append("no clip_info_final.csv, so no artists: a split would cut through them")

    # 188 columns of 0 and 1 per clip, of which the table of meanings keeps those that name a value of ours.
    collection.split_source = "MagnaTagATune's folders 0-b, c, d-f"
    meanings = tag_meanings()
    for line, row in read_records(annotations, ("clip_id", "mp3_path"), delimiter="\t"):
        clip, path = row["clip_id"], row["mp3_path"]
        track = collection.track_of(clip, paths=(path,) if path else ())
        if not track:
            continue
        for tag, values in meanings.items():
            mark = row.get(tag, "0")
            if mark not in ("0", "1"):
                raise InputError(f"{annotations}, line {line}: {tag} is {mark!r}, expected 0 or 1")
            if mark == "1":
                for dimension, value in values:
                    collection.add(track, dimension, value)
        collection.add(track, "artist", artists.get(clip, ""))
        if path[:1] in _SPLIT:
            collection.put(track, _SPLIT[path[:1]])


@functools.cache
def tag_meanings() -> dict[str, tuple[tuple[str, str], ...]]:
    """MagnaTagATune's tag -> (dimension, our value), of which "female opera" has two; other tags are left out."""
    table = load_json(_TAGS, "MagnaTagATune's tags in our words")
    validate_format(table, _TAGS, name="msim-tag-map", version=1)
    # The table lists our value -> their tags; turned round, because each row is read tag by tag.
    meanings: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for dimension, values in table["dimensions"].items():
        for value, tags in values.items():
            for tag in tags:
                meanings[tag].append((dimension, value))
    return {tag: tuple(values) for tag, values in meanings.items()}
