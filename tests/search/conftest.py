"""A small library: clustered subspaces, and metadata in most tracks."""

import numpy as np
import pytest

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 48)
META = {"model": "toy", "version": "3", "digest": "0123456789abcdef"}
KEYS = ("C major", "A minor", "Bb major", "F# minor", "A# major")


def make_embeddings(rng, count, *, prefix="t", layout=LAYOUT, meta=META):
    """Vectors around eight centres in every subspace."""
    vectors = np.empty((count, layout.size), np.float32)
    for part in layout.slices.values():
        centres = rng.normal(size=(8, part.stop - part.start))
        vectors[:, part] = centres[rng.integers(0, 8, count)] + 0.6 * rng.normal(size=(count, part.stop - part.start))
    return Embeddings("toy vectors", tuple(f"{prefix}{i:04d}.ogg" for i in range(count)), vectors, layout, meta)


def make_metadata(rng, identifiers):
    """Artist, album, tempo, key, year and tags; every fifth track tells nothing."""
    metadata = {}
    for place, identifier in enumerate(identifiers):
        if place % 5 == 4:
            continue
        metadata[identifier] = {
            "artist": f"Artist {place % 7}",
            "album": f"Album {place % 3}",
            "title": f"Title {place}",
            "tempo": float(rng.integers(50, 200)),
            "key": KEYS[place % len(KEYS)],
            "year": 1960 + place % 60,
            "genre": ["rock", "Jazz"][: 1 + place % 2],
            "mood": ["calm"] if place % 3 else ["happy", "acoustic"],
        }
    return metadata


@pytest.fixture
def embeddings(rng):
    return make_embeddings(rng, 300)


@pytest.fixture
def metadata(rng, embeddings):
    return make_metadata(rng, embeddings.identifiers)


@pytest.fixture
def index(embeddings, metadata):
    from msim_tf.search.index import Index

    return Index.build(embeddings, metadata)
