"""Versions of one song as one hit: by hand-made vectors and tags, and by re-encoded music and the shipped model."""

import numpy as np
import pytest
import soundfile

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.search.diversity import Diversity
from msim_tf.search.index import Index
from msim_tf.search.query import search, track_query
from msim_tf.search.versions import SAME_RECORDING, Versions, song_of

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 48)
ONE_HIT = Diversity(versions=True)


def unit(vectors):
    parts = np.asarray(vectors, np.float64).reshape(len(vectors), len(DIMENSION_NAMES), -1)
    return (parts / np.linalg.norm(parts, axis=2, keepdims=True)).reshape(len(vectors), -1).astype(np.float32)


@pytest.fixture
def index(rng):
    """Ten songs; a second file of the fourth, nearly its vector, and a louder cut of the fifth that names it."""
    vectors = rng.normal(size=(10, 48))
    copies = np.concatenate(
        [vectors, vectors[3:4] + 0.01 * rng.normal(size=(1, 48)), vectors[4:5] + 0.3 * rng.normal(size=(1, 48))]
    )
    names = (*(f"song{number}" for number in range(10)), "copy3", "cut4")
    metadata = {name: {"artist": f"Artist {name[4:]}", "title": f"Title {name[4:]}"} for name in names[:10]}
    metadata["cut4"] = {"artist": "ARTIST  4 feat. Somebody", "title": "title 4"}
    return Index.build(Embeddings("x", names, unit(copies), LAYOUT), metadata)


def test_copies_and_equal_tags_are_one_hit(index):
    query = track_query(index, "song0")
    plain = [match.identifier for match in search(index, query, k=20)]
    collapsed = search(index, query, k=20, diversity=ONE_HIT)
    pairs = {frozenset(("song3", "copy3")), frozenset(("song4", "cut4"))}
    assert {frozenset((match.identifier, *match.versions)) for match in collapsed if match.versions} == pairs
    # Of each pair the nearer one stays, in its place.
    dropped = {max(pair, key=plain.index) for pair in pairs}
    assert [match.identifier for match in collapsed] == [name for name in plain if name not in dropped]
    assert all(match.versions == () for match in search(index, query, k=20))


def test_versions_of_the_last_hit_count_though_they_come_after_it(index):
    query = track_query(index, "song0")
    every = search(index, query, k=20, diversity=ONE_HIT)
    count = next(place for place, match in enumerate(every, 1) if match.identifier in ("song4", "cut4"))
    last = search(index, query, k=count, diversity=ONE_HIT)[-1]
    assert {last.identifier, *last.versions} == {"song4", "cut4"}


def test_the_same_name_joins_only_what_sounds_alike(index, rng):
    """Neither is an equal name enough, nor the distance of the louder cut without one."""
    distance = np.square(index.vectors(["cut4"]) - index.vectors(["song4"])).sum() / 6
    assert 2 * SAME_RECORDING < distance < 10 * SAME_RECORDING
    nameless = Index.build(Embeddings("x", tuple(index.identifiers), index.vectors(index.identifiers), LAYOUT))
    matches = search(nameless, track_query(nameless, "song0"), k=20, diversity=ONE_HIT)
    assert [match.versions for match in matches if match.versions] in ([("song3",)], [("copy3",)])
    # An "Intro" on each of three albums: different music of one name.
    metadata = {name: {"artist": "A", "title": "Intro", "album": name} for name in ("song1", "song2", "song5")}
    intros = Index.build(Embeddings("x", tuple(index.identifiers), index.vectors(index.identifiers), LAYOUT), metadata)
    shown = [match.identifier for match in search(intros, track_query(intros, "song0"), k=20, diversity=ONE_HIT)]
    assert set(metadata) <= set(shown)


def test_weights_have_no_say(index):
    """All songs are equal in tempo, and are no versions of each other for that."""
    vectors = index.vectors(index.identifiers).copy()
    part = LAYOUT.slices["tempo"]
    vectors[:, part] = vectors[0, part]
    same_tempo = Index.build(Embeddings("x", tuple(index.identifiers), vectors, LAYOUT))
    query = track_query(same_tempo, "song0")
    matches = search(same_tempo, query, weights={"tempo": 1.0}, k=20, diversity=ONE_HIT)
    assert [match.versions for match in matches if match.versions] and len(matches) == 10
    assert [match.distance for match in matches] == pytest.approx([0] * 10, abs=1e-6)


def test_a_version_does_not_count_for_its_artist(index):
    metadata = {name: {**index.metadata(name), "artist": "One"} for name in index.identifiers}
    one = Index.build(Embeddings("x", tuple(metadata), index.vectors(metadata), LAYOUT), metadata)
    query = track_query(one, "song3")
    matches = search(one, query, k=20, diversity=Diversity(per_artist=2, versions=True))
    assert len(matches) == 2 and matches[0].identifier == "copy3"


def test_versions_and_marginal_relevance_go_together(index):
    query = track_query(index, "song0")
    matches = search(index, query, k=20, diversity=Diversity(relevance=0.6, versions=True))
    shown = [match.identifier for match in matches]
    assert len(shown) == 9 and len(set(shown)) == 9
    assert sorted([*shown, *(name for match in matches for name in match.versions)]) == sorted(
        set(index.identifiers) - {"song0"}
    )


def test_half_a_song_is_no_song():
    assert song_of({"artist": "A"}) == song_of({"title": "T"}) == song_of({}) == ""
    assert song_of({"artist": "Beyonce\u0301; B", "title": "T "}) == song_of({"artist": "Beyonc\xe9", "title": "t"})


def test_the_bound_follows_what_the_model_tells_apart(rng):
    far = unit(rng.normal(size=(200, 48)))
    near = unit(np.ones((200, 48)) + 0.02 * rng.normal(size=(200, 48)))
    bounds = [Versions(vectors, [{}] * len(vectors), LAYOUT).bound for vectors in (far, near, far[:1], far[:0])]
    assert bounds[0] == SAME_RECORDING and bounds[1] == bounds[2] == pytest.approx(1e-3)
    # The mean distance of pairs, by a loop over pairs.
    some = far[:20]
    pairs = [np.square(a - b).sum() / 6 for a in some for b in some]
    expected = min(max(np.mean(pairs) / 80, 1e-3), SAME_RECORDING)
    assert Versions(some, [{}] * 20, LAYOUT).bound == pytest.approx(expected)


def test_an_mp3_is_a_version_of_its_file_and_no_other_song_is(music, tmp_path):
    from msim_tf.export.embedder import Embedder
    from msim_tf.settings import default_model

    embedder = Embedder(default_model())
    names = ("zaz__mus1", "zaz__mus2", "unknown__goldenvalley", "widelands__ingame_13")  # among them the nearest pair
    vectors = []
    for name in names:
        y, sr = soundfile.read(music / f"{name}.ogg")
        soundfile.write(tmp_path / f"{name}.mp3", y, sr, format="MP3")
        vectors += [embedder.embed_file(music / f"{name}.ogg"), embedder.embed_file(tmp_path / f"{name}.mp3")]
    files = tuple(f"{name}.{kind}" for name in names for kind in ("ogg", "mp3"))
    index = Index.build(Embeddings("x", files, np.stack(vectors), embedder.metadata.layout))
    matches = search(index, track_query(index, "zaz__mus1.ogg"), k=8, diversity=ONE_HIT)
    assert matches[0].identifier == "zaz__mus1.mp3" and matches[0].versions == ()
    assert len(matches) == 4 and {(match.identifier[:-4], *match.versions)[0] for match in matches} == set(names)
    assert all(match.versions[0][:-4] == match.identifier[:-4] for match in matches[1:])
