"""Milvus against the exact engine: what is found, filters, pushes, refusals.

By milvus-lite, in files of the test's own.
"""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from msim_tf.cli import cli
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.library.catalog import Catalog, save_library
from msim_tf.search.calibration import sample_weights
from msim_tf.search.diversity import Diversity
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.milvus import MilvusCollection, Pushed, push
from msim_tf.search.milvus_fields import filter_expression, track_id
from msim_tf.search.query import examples_query, mixed_query, search, track_query, vector_query


@pytest.fixture(scope="session")
def milvus():
    reason = "Milvus' client is not installed (extra milvus; it cannot be where TensorFlow 2.15 is)"
    pytest.importorskip("pymilvus", reason=reason, exc_type=ImportError)
    pytest.importorskip("milvus_lite", reason=reason, exc_type=ImportError)


@pytest.fixture
def address(milvus, tmp_path):
    return str(tmp_path / "milvus.db")


@pytest.fixture
def collection(address, index):
    with MilvusCollection.create(address, "tracks", index.source) as made:
        push(index, made, batch=128)
        yield made


def facts(matches):
    return [(match.identifier, match.distance, match.shares, match.distances, match.metadata) for match in matches]


def some_tracks(embeddings, names, **changes):
    rows = [embeddings.identifiers.index(name) for name in names]
    return replace(embeddings, identifiers=tuple(names), embeddings=embeddings.embeddings[rows], **changes)


@pytest.mark.parametrize("kind", ["uniform", "dirichlet", "one-dimension", "signed"])
def test_what_is_found_is_what_the_exact_engine_finds(index, collection, rng, kind):
    names = index.source.layout.names
    for place, weights in enumerate(sample_weights(kind, 6, len(names), rng)):
        track = index.identifiers[11 * place]
        chosen = dict(zip(names, weights))
        expected = search(index, track_query(index, track), weights=chosen, k=12)
        assert facts(collection.search(track_query(collection, track), weights=chosen, k=12)) == facts(expected)


def test_every_kind_of_query(index, collection, rng):
    vector = rng.normal(size=index.source.layout.size)
    first, second = index.identifiers[:2]
    for make, asked in [
        (vector_query, vector),
        (examples_query, [first, second, vector]),
        (mixed_query, {"genre": first, "tempo": second}),
    ]:
        assert facts(collection.search(make(collection, asked))) == facts(search(index, make(index, asked)))
    assert first in collection and "nothing" not in collection and len(collection) == len(index)
    assert collection.metadata(first) == index.metadata(first)
    np.testing.assert_array_equal(collection.vectors([second, first]), index.vectors([second, first]))


FILTERS = [
    Filters(bpm=(100, 120)),
    Filters(bpm=(70.5, 75), octaves=True),
    Filters(bpm=(60, 125), octaves=True),
    Filters(keys=("Bb major", "A minor")),
    Filters(tags=("JAZZ", "acoustic")),
    Filters(artists=("artist 3", "Artist 5", "")),
    Filters(artists=("",)),
    Filters(years=(1970, 1975)),
    Filters(years=(-5, 1965)),
    Filters(tracks=frozenset({"t0003.ogg", "t0007.ogg", "nowhere"})),
    Filters(bpm=(80, 150), keys=("C major", "F# minor"), tags=("calm",), artists=("artist 1", "artist 2")),
]


def test_filters_pass_what_they_pass_in_an_index(index, collection):
    query = track_query(index, index.identifiers[0])
    for filters in FILTERS:
        expected = search(index, query, filters=filters, k=400)
        assert facts(collection.search(query, filters=filters, k=400)) == facts(expected), filters
        assert (len(expected) == 0) == (filters == Filters(artists=("",)))


def test_tempi_at_the_limits_pass(embeddings, address):
    tempi = [99.9, 100, 110, 110.1, 50, 55.05, 200, 27.5, 440]
    names = embeddings.identifiers[: len(tempi)]
    index = Index.build(some_tracks(embeddings, names), {name: {"tempo": t} for name, t in zip(names, tempi)})
    with MilvusCollection.create(address, "tempi", index.source) as made:
        push(index, made)
        for octaves, expected in ((False, {100, 110}), (True, {100, 110, 50, 200, 27.5, 440})):
            actual = made.search(track_query(made, names[0]), filters=Filters(bpm=(100, 110), octaves=octaves))
            assert {match.metadata["tempo"] for match in actual} == expected


def test_ties_are_in_the_order_of_identifiers_however_many(embeddings, address):
    names = [f"t{number:03d}" for number in np.random.default_rng(3).permutation(120)]
    vectors = np.repeat(embeddings.embeddings[:2], [100, 20], axis=0)
    index = Index.build(replace(embeddings, identifiers=tuple(names), embeddings=vectors))
    with MilvusCollection.create(address, "ties", index.source) as made:
        push(index, made)
        query = vector_query(made, embeddings.embeddings[0])
        expected = sorted(names[:100])
        assert [match.identifier for match in made.search(query, k=5)] == expected[:5]
        assert [match.identifier for match in made.search(query, k=99)] == expected[:99]


def test_diversity_is_that_of_an_index(index, collection):
    query = track_query(index, index.identifiers[7])
    for diversity in (Diversity(per_artist=1), Diversity(per_album=2, relevance=0.5)):
        expected = facts(search(index, query, k=15, diversity=diversity))
        assert facts(collection.search(query, k=15, diversity=diversity)) == expected


def test_hostile_names_and_tags_are_text(embeddings, address):
    names = ['a"b.ogg', "a'; drop.ogg", "a\\", 'x" or id != "', "ä ö\n\r\t.ogg", "%_*"]
    vectors = embeddings.embeddings[: len(names)]
    metadata = {name: {"artist": name.upper(), "tags": [name, "all"]} for name in names}
    index = Index.build(replace(embeddings, identifiers=tuple(names), embeddings=vectors), metadata)
    with MilvusCollection.create(address, "hostile", index.source) as made:
        push(index, made)
        for name in names:
            query = track_query(made, name)
            assert name not in {match.identifier for match in made.search(query)} and name in made
            for filters in (Filters(artists=(name,)), Filters(tags=(name, "all"))):
                actual = made.search(vector_query(made, vectors[0]), filters=filters)
                assert [match.identifier for match in actual] == [name]
        index.remove(names[:3])
        assert push(index, made) == Pushed(removed=3, unchanged=3)
        assert [name in made for name in names] == [False] * 3 + [True] * 3


def test_a_push_sends_what_has_changed_and_takes_away_what_has_left(embeddings, metadata, index, address, rng):
    with MilvusCollection.create(address, "tracks", index.source) as made:
        assert push(index, made, batch=70) == Pushed(added=300)
        assert push(index, made, batch=70) == Pushed(unchanged=300)
    names = index.identifiers
    index.remove(names[:10])
    index.update_metadata({names[20]: {"artist": "Somebody else"}})
    moved = some_tracks(embeddings, names[30:32])
    index.update(replace(moved, embeddings=-moved.embeddings))
    index.add(replace(moved, identifiers=("new",), embeddings=moved.embeddings[:1]))
    with MilvusCollection.create(address, "tracks", index.source) as made:
        assert push(index, made) == Pushed(added=1, updated=3, removed=10, unchanged=287)
    with MilvusCollection.open(address, "tracks") as opened:
        assert len(opened) == 291 and names[0] not in opened
        assert opened.metadata(names[20]) == {"artist": "Somebody else"}
        query = vector_query(index, -moved.embeddings[0])
        assert facts(opened.search(query, k=20)) == facts(search(index, query, k=20))


def test_an_interrupted_push_goes_on(index, address):
    class Stop(Exception):
        pass

    def stop(done, total):
        if done >= 200:
            raise Stop

    with MilvusCollection.create(address, "tracks", index.source) as made, pytest.raises(Stop):
        push(index, made, batch=100, progress=stop)
    with MilvusCollection.open(address, "tracks") as made:
        assert push(index, made, batch=100) == Pushed(added=100, unchanged=200)


def test_vectors_of_another_source_are_refused(embeddings, index, collection, address):
    meta = {"model": "toy", "version": "3", "digest": "fedcba9876543210"}
    other = Index.build(replace(embeddings, meta=meta))
    both = "digest fedcba9876543210, collection tracks at .* expects 0123456789abcdef"
    with pytest.raises(InputError, match=both):
        push(other, collection)
    collection.close()
    with pytest.raises(InputError, match=both):
        MilvusCollection.create(address, "tracks", other.source)
    newer = Index.build(replace(embeddings, meta={**embeddings.meta, "version": "4"}))
    with pytest.raises(InputError, match="model toy version 4.* of toy version 3"):
        MilvusCollection.create(address, "tracks", newer.source)


def test_foreign_collections_are_refused(index, address):
    from pymilvus import MilvusClient

    client = MilvusClient(address)
    client.create_collection("foreign", dimension=48)
    client.create_collection("newer", dimension=48)
    client.alter_collection_properties("newer", properties={"msim": '{"format": "msim-milvus", "format_version": 99}'})
    client.close()
    with pytest.raises(InputError, match="collection foreign at .*: not of format 'msim-milvus'"):
        MilvusCollection.open(address, "foreign")
    with pytest.raises(InputError, match="format version 99, this release reads 1"):
        MilvusCollection.create(address, "newer", index.source)
    with pytest.raises(InputError, match="has no collection 'missing'; make it with msim milvus push"):
        MilvusCollection.open(address, "missing")


def test_wrong_calls_are_one_line(index, collection):
    with pytest.raises(InputError, match="collection tracks at .* has no track nothing"):
        track_query(collection, "nothing")
    with pytest.raises(InputError, match="k is 0"):
        collection.search(track_query(index, index.identifiers[0]), k=0)
    with pytest.raises(InputError, match="vector index 'IVF': expected one of FLAT, HNSW, DISKANN"):
        MilvusCollection.create("unused.db", "x", index.source, vector_index="IVF")


def test_names_that_are_not_text_are_refused(embeddings, address):
    name = "a\udcff.ogg"
    index = Index.build(some_tracks(embeddings, embeddings.identifiers[:1]))
    index.add(Embeddings("x", (name,), embeddings.embeddings[1:2], embeddings.layout, embeddings.meta))
    with MilvusCollection.create(address, "tracks", index.source) as made:
        with pytest.raises(InputError, match="valid UTF-8; rename the file"):
            push(index, made)


def test_without_pymilvus_one_line_says_so(monkeypatch, index):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(InputError, match=r"^Milvus needs pymilvus: pip install 'msim-tf\[milvus\]'.*any size$"):
        MilvusCollection.open("http://localhost:19530", "tracks")


def test_expressions():
    assert filter_expression(None) == ""
    assert filter_expression(Filters(keys=("B minor", "A# major", "Bb major"))) == "(key in [10, 23])"
    assert filter_expression(Filters(artists=('A"\\',))) == '(artist in ["a\\"\\\\"])'
    assert filter_expression(Filters(years=(1, 2)), ["x"]) == (
        f'(year >= 1 and year <= 2) and (id not in ["{track_id("x")}"])'
    )


def test_commands_push_a_library_and_search_it(index, address, tmp_path, monkeypatch):
    def run(*arguments):
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    catalog = Catalog(tmp_path / "library", "toy", tmp_path / "music")
    save_library(index, catalog)
    where = ("--uri", address, "--collection", "tracks")
    pushed = run("milvus", "push", catalog.path, *where)
    assert pushed == "tracks: 300 tracks; 300 added, 0 updated, 0 removed, 0 unchanged\n"
    track = index.identifiers[0]
    asked = ("-w", "mood=1,era=-0.5", "-k", "4", "--tag", "jazz", "--bpm", "60-160")
    actual = json.loads(run("milvus", "query", track, *where, *asked, "--json"))
    filters = Filters(tags=("jazz",), bpm=(60, 160))
    expected = search(index, track_query(index, track), weights={"mood": 1, "era": -0.5}, filters=filters, k=4)
    assert [(hit["identifier"], hit["distance"]) for hit in actual] == [(m.identifier, m.distance) for m in expected]
    assert " 1. " in run("milvus", "query", track, *where) and track not in run("milvus", "query", track, *where)
