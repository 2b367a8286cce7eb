"""The index against plain dictionaries; its files have tests of their own."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from indexed import contents, some

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.search.index import Index

META = {"model": "toy", "version": "3", "digest": "0123456789abcdef"}


def unit(vectors, layout):
    """The oracle of what is stored: each subspace divided by its length, in float64."""
    vectors = np.array(vectors, np.float64)
    for part in layout.slices.values():
        for row in vectors:
            row[part] /= np.sqrt(np.dot(row[part], row[part]))
    return vectors


def test_stored_vectors_are_unit_to_float16(index, embeddings):
    expected = unit(embeddings.embeddings, embeddings.layout)
    stored = index.vectors(embeddings.identifiers)
    # Rounding to float16 is 2**-11 relative; making unit again at most doubles it.
    np.testing.assert_allclose(stored, expected, atol=2**-10)
    for part in embeddings.layout.slices.values():
        np.testing.assert_allclose(np.linalg.norm(stored[:, part], axis=1), 1, atol=1e-6)


def test_saved_and_opened_is_the_same(index, metadata, tmp_path):
    index.save(tmp_path / "library")
    opened = Index.open(tmp_path / "library")
    assert contents(opened) == contents(index)
    assert opened.source == index.source and opened.source.digest == META["digest"]
    assert {name: value for name, value in metadata.items() if value} == {
        name: opened.metadata(name) for name in opened.identifiers if opened.metadata(name)
    }
    assert isinstance(opened.rows.file.vectors.base, np.memmap) and opened.rows.fresh == ()


def test_nothing_is_pickled(index, tmp_path):
    index.save(tmp_path / "library")
    kinds = {file.suffix for file in (tmp_path / "library").rglob("*") if file.is_file()}
    assert kinds == {".db", ".f16", ".crc"}
    # Any SQLite reads the database, and NumPy the vectors without a header.
    database = sqlite3.connect(tmp_path / "library" / "library.db")
    kinds = {kind for (kind,) in database.execute("SELECT DISTINCT typeof(metadata) FROM tracks")}
    assert kinds == {"text"}
    stored = np.fromfile(next((tmp_path / "library").glob("*.f16")), "<f2").reshape(300, 48)
    assert np.isfinite(stored).all()


def test_a_long_history_ends_as_a_dictionary_does(rng, index, embeddings, tmp_path):
    """Random additions, updates, removals, saves and reopenings; a dict is told the same."""
    expected = dict(contents(index))
    path = tmp_path / "library"
    index.save(path)
    for round_number in range(30):
        deed = rng.integers(5)
        rows = rng.choice(len(embeddings.identifiers), 12, replace=False)
        alive = sorted(expected)
        chosen = [alive[place] for place in rng.choice(len(alive), 9, replace=False)]
        if deed == 0:
            new = some(embeddings, rows, factor=1, prefix=f"round{round_number}/")
            index.add(new, {new.identifiers[0]: {"artist": "new"}})
            fresh = Index.build(new, {new.identifiers[0]: {"artist": "new"}})
            expected.update(contents(fresh))
        elif deed == 1:
            new = replace(some(embeddings, rows[:9]), identifiers=tuple(chosen))
            index.update(new)
            fresh = contents(Index.build(new))
            expected.update({name: (expected[name][0], fresh[name][1]) for name in chosen})
        elif deed == 2:
            index.update_metadata({chosen[0]: {"title": f"{round_number}"}})
            expected[chosen[0]] = ({"title": f"{round_number}"}, expected[chosen[0]][1])
        elif deed == 3:
            index.remove(chosen)
            for name in chosen:
                del expected[name]
        else:
            index.save()
            index = Index.open(path)
        assert len(index) == len(expected) and set(index.identifiers) == set(expected)
    index.save()
    assert contents(Index.open(path)) == expected


@pytest.mark.parametrize(
    "meta, message",
    [
        ({**META, "digest": "feedfeedfeedfeed"}, "digest feedfeedfeedfeed.*expects 0123456789abcdef"),
        ({**META, "version": "4"}, "version 4.*version 3.*embed the library again"),
        ({**META, "model": "other"}, "model other"),
        ({}, "digest unknown"),
    ],
)
def test_vectors_of_another_source_are_refused(index, embeddings, meta, message):
    foreign = replace(some(embeddings, [0], prefix="new/"), meta=meta)
    with pytest.raises(InputError, match=message):
        index.add(foreign)
    with pytest.raises(InputError, match=message):
        index.update(replace(foreign, identifiers=(embeddings.identifiers[0],)))
    assert len(index) == 300


def test_another_layout_is_refused(index, embeddings):
    layout = EmbeddingLayout(DIMENSION_NAMES, (4, 12, 8, 8, 8, 8))
    with pytest.raises(InputError, match="has subspaces"):
        index.add(replace(some(embeddings, [0], prefix="new/"), layout=layout))
    with pytest.raises(InputError, match="no subspaces"):
        Index.build(Embeddings("plain", ("a",), np.ones((1, 6), np.float32)))


def test_wrong_names_and_vectors_are_refused_and_change_nothing(index, embeddings):
    before = contents(index)
    with pytest.raises(InputError, match="already has t0000.ogg"):
        index.add(some(embeddings, [0]))
    with pytest.raises(InputError, match="no track 'T000'; did you mean t0000.ogg"):
        index.remove(["t0001.ogg", "T000"])
    with pytest.raises(InputError, match="no track 'new/t0000.ogg'"):
        index.update(some(embeddings, [0], prefix="new/"))
    with pytest.raises(InputError, match="metadata of nobody"):
        index.add(some(embeddings, [0], prefix="new/"), {"nobody": {}})
    with pytest.raises(InputError, match="metadata of t0001.ogg: tempo 'fast'"):
        index.update_metadata({"t0000.ogg": {}, "t0001.ogg": {"tempo": "fast"}})
    flat = some(embeddings, [0, 1], prefix="new/")
    flat.embeddings[1, embeddings.layout.slices["mood"]] = 0
    with pytest.raises(InputError, match="new/t0001.ogg have no direction in mood"):
        index.add(flat)
    assert contents(index) == before


def test_there_is_no_such_engine(embeddings):
    with pytest.raises(InputError, match="engine 'hnsw'"):
        Index.build(embeddings, engine="hnsw")
