"""A small library for the tests of the page: real excerpts, and vectors that are random
and claim to be the tiny model's.
"""

import csv
import json
import shutil

import numpy as np
from tiny_model import tiny_model_path

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>window.owned=1</script>"
TRACKS = 14
MOST_BYTES = 1_000_000  # of an upload


def build_library(music, folder, path):
    """Indexes copies in ``folder`` of the first excerpts of ``music``; the catalogue is in ``path``."""
    from msim_tf.dimensions import EmbeddingLayout
    from msim_tf.embeddings import Embeddings
    from msim_tf.library.catalog import Catalog, save_library
    from msim_tf.search.index import Index

    identifiers = sorted(path.name for path in music.glob("*.ogg"))[:TRACKS]
    for track in identifiers:
        shutil.copyfile(music / track, folder / track)
    export = json.loads((tiny_model_path() / "1/assets.extra/msim.json").read_text(encoding="utf-8"))
    layout = EmbeddingLayout.from_json(export)
    vectors = np.random.default_rng(3).normal(size=(len(identifiers), layout.size)).astype(np.float32)
    meta = {"model": export["name"], "version": "1", "digest": export["digest"]}
    embeddings = Embeddings("excerpts", tuple(identifiers), vectors, layout, meta)
    catalog = Catalog(path, "Test <b>library</b>", folder, str(tiny_model_path()))
    save_library(Index.build(embeddings, _metadata(music, identifiers)), catalog)
    return catalog


def _metadata(music, identifiers):
    """What the excerpts tell, tempo and year by their place, and one title that tries to be markup."""
    with open(music / "ATTRIBUTION.csv", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    metadata = {}
    for place, track in enumerate(identifiers):
        metadata[track] = {
            "artist": rows[track]["artist_tag"] or track.split("__")[0],
            "title": HOSTILE if place == 3 else rows[track]["title_tag"],
            "tempo": 80.0 + 5 * place,
            "year": 1980 + place,
            "genre": ["metal" if place % 3 else "ambient"],
            "key": "A minor" if place % 2 else "C major",
        }
    return metadata
