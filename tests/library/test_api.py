"""The library API over real HTTP, against the search functions called directly and arithmetic by NumPy."""

from urllib.parse import quote

import httpx
import numpy as np
import pytest
from library_server import HOSTILE, error, shared_library
from tiny_model import tiny_model_path

from msim_tf.library.api import library_site
from msim_tf.library.api_upload import UploadLimits
from msim_tf.library.catalog import load_catalog
from msim_tf.search.diversity import Diversity
from msim_tf.search.explanation import explain, explanation
from msim_tf.search.filters import Filters
from msim_tf.search.path import track_path
from msim_tf.search.profiles import PROFILES
from msim_tf.search.query import examples_query, mixed_query, search, track_query
from msim_tf.search.weights import choice_differences, learn_profile
from msim_tf.serving.server import ServerOptions, running_server

NAMES = ("genre", "mood", "instrument", "era", "tempo", "key")


@pytest.fixture(scope="module")
def library():
    return shared_library()


@pytest.fixture(scope="module")
def http(library):
    site = library_site(library, limits=UploadLimits(seconds=40))
    with running_server({"tiny": tiny_model_path()}, ServerOptions(grpc_port=0, rest_port=0), site) as addresses:
        with httpx.Client(base_url=addresses.rest, timeout=60, trust_env=False) as http:
            yield http


@pytest.fixture(scope="module")
def index(library):
    return load_catalog(library).open_index()


@pytest.fixture(scope="module")
def names(index):
    return sorted(index.identifiers)


def hits(answer, key="hits"):
    assert answer.status_code == 200, answer.text
    return [(hit["track"]["id"], hit["distance"]) for hit in answer.json()[key]]


def expected(matches):
    return [(match.identifier, pytest.approx(match.distance)) for match in matches]


def test_library(http, index):
    told = http.get("/api/v1/library").json()
    assert told["name"] == "Test music" and told["tracks"] == 10 and told["engine"] == "exact"
    assert told["dimensions"] == list(NAMES)
    source = index.source
    assert told["model"] == {"name": source.model, "version": "1", "features": source.digest}
    assert told["artists"] == 3 and told["albums"] == 6  # two names of albums by three artists
    assert told["tags"]["genre"] == [["rock", 9], ["jazz", 5]] and told["tags"]["mood"] == []
    assert told["uploads"] == {"bytes": 100 * 2**20, "seconds": 40}
    assert told["keys"] == ["A minor", "C major"] and told["bpm"] == [110, 118] and told["years"] is None


def test_tracks_by_text_in_pages(http, names):
    assert [t["id"] for t in http.get("/api/v1/tracks").json()["tracks"]] == names
    page = http.get("/api/v1/tracks", params={"limit": 3, "offset": 8}).json()
    assert page["total"] == 10 and [track["id"] for track in page["tracks"]] == names[8:]
    assert http.get("/api/v1/tracks", params={"search": "GRÜN anna"}).json()["total"] == 3
    assert http.get("/api/v1/tracks", params={"search": "<SCRIPT>"}).json()["total"] == 3
    assert http.get("/api/v1/tracks", params={"search": "zaz two"}).json()["tracks"][0]["id"] == "Zaz/two.ogg"
    assert http.get("/api/v1/tracks", params={"search": "zaz two"}).json()["understood"] is None
    for bad in ({"limit": 0}, {"limit": 501}, {"limit": "x"}, {"offset": -1}, {"offset": "9" * 5000}):
        answer = http.get("/api/v1/tracks", params=bad)
        assert answer.status_code == 400 and error(answer).startswith(next(iter(bad)) + ": ")


def test_tracks_by_words_after_those_of_that_name(http, index, names):
    """Words are tags, tempo and key; a track that is called so comes first, whatever it is."""
    fast = [name for name in names if index.metadata(name).get("tempo", 0) >= 115]
    jazz = [name for name in names if "jazz" in index.metadata(name).get("genre", ())]
    both = [name for name in fast if name in jazz]
    assert 0 < len(both) < len(fast)
    page = http.get("/api/v1/tracks", params={"search": "jazz over 115 bpm"}).json()
    assert [track["id"] for track in page["tracks"]] == both and page["total"] == len(both)
    filters = {"bpm": [115, 1000], "tags": ["jazz"]}
    assert page["understood"] == {"filters": filters, "tracks": len(both), "rest": ""}
    named = next(name for name in names if name not in jazz)
    kept = index.metadata(named)
    index.update_metadata({named: {**kept, "title": "All that Jazz"}})
    index.save()
    try:
        page = http.get("/api/v1/tracks", params={"search": "JAZZ", "limit": 2}).json()
        assert [track["id"] for track in page["tracks"]] == [named, jazz[0]] and page["total"] == 1 + len(jazz)
    finally:
        index.update_metadata({named: kept})
        index.save()


def test_the_scale_of_distances_is_that_of_all_pairs(http, index, names):
    """The quantiles of all pairs, which in a small library is what the estimate is made of."""
    scale = http.get("/api/v1/library").json()["distances"]
    for name, part in index.source.layout.slices.items():
        own = index.vectors(names)[:, part].astype(float)
        pairs = np.array([((own[i] - own[j]) ** 2).sum() for i in range(len(own)) for j in range(i)])
        # Pairs half-way round the circle count twice, so only the ends are exact.
        assert scale[name] == sorted(scale[name]) and len(scale[name]) == 21
        assert [scale[name][0], scale[name][-1]] == pytest.approx([pairs.min(), pairs.max()], abs=2e-3)
        assert scale[name][10] == pytest.approx(np.quantile(pairs, 0.25), abs=0.15)


def test_an_empty_answer_says_why(http, names):
    body = {"query": {"track": names[0]}, "filters": {"bpm": [400, 500]}}
    answer = http.post("/api/v1/similar", json=body).json()
    assert answer["hits"] == [] and answer["reason"] == "no track of this library has a tempo from 400 to 500 bpm"
    assert http.post("/api/v1/similar", json={"query": {"track": names[0]}}).json()["reason"] is None


def test_a_file_and_a_track_are_examples_together(http, library, index, names):
    sound = (library.parent / "Music" / names[2]).read_bytes()
    token = http.post("/api/v1/upload", content=sound, headers={"content-type": "audio/ogg"}).json()["upload"]
    query = {"examples": [{"upload": token}, {"track": names[0]}]}
    actual = hits(http.post("/api/v1/similar", json={"query": query, "k": 10}))
    wanted = examples_query(index, [names[0], index.vectors([names[2]])[0]])
    assert actual == [
        (match.identifier, pytest.approx(match.distance, abs=2e-3)) for match in search(index, wanted, k=10)
    ]
    assert names[0] not in dict(actual) and names[2] in dict(actual)


def test_artists_by_text_those_of_most_tracks_first(http, index):
    told = http.get("/api/v1/artists").json()
    counts = {}
    for name in index.identifiers:
        artist = index.metadata(name).get("artist")
        if artist:
            counts[artist] = counts.get(artist, 0) + 1
    assert {row["artist"]: row["tracks"] for row in told["artists"]} == counts and told["total"] == len(counts) == 3
    order = [(-row["tracks"], row["artist"]) for row in told["artists"]]
    assert order == sorted(order)
    assert [row["artist"] for row in http.get("/api/v1/artists", params={"search": "CLE"}).json()["artists"]] == [
        "Cleo"
    ]
    second = http.get("/api/v1/artists", params={"limit": 1, "offset": 1}).json()
    assert second["artists"] == told["artists"][1:2] and second["total"] == 3
    assert http.get("/api/v1/artists", params={"limit": 0}).status_code == 400


@pytest.mark.parametrize("identifier", HOSTILE.values())
def test_any_name_can_be_asked_for(http, library, identifier):
    for spelling in (quote(identifier, safe=""), quote(identifier)):
        track = http.get(f"/api/v1/tracks/{spelling}")
        assert track.status_code == 200 and track.json()["id"] == identifier
        sound = http.get(f"/api/v1/audio/{spelling}")
        assert sound.content == (library.parent / "Music" / identifier).read_bytes()
    assert http.get(track.json()["audio"]).content == sound.content
    assert "file" not in track.json()
    answer = http.post("/api/v1/similar", json={"query": {"track": identifier}, "k": 9})
    assert identifier not in [name for name, _ in hits(answer)]


def test_similar_is_the_search(http, index, names):
    weights = {"genre": 2, "tempo": 1, "era": -1}
    answer = http.post("/api/v1/similar", json={"query": {"track": names[0]}, "weights": weights, "k": 4})
    query = track_query(index, names[0])
    wanted = search(index, query, weights=weights, k=4)
    assert hits(answer) == expected(wanted)
    assert answer.json()["weights"] == pytest.approx(dict.fromkeys(NAMES, 0) | {k: w / 4 for k, w in weights.items()})
    for hit, match in zip(answer.json()["hits"], wanted):
        assert hit["distances"] == pytest.approx(match.distances)
        assert sum(hit["shares"].values()) == pytest.approx(hit["distance"])
        assert hit["explanation"] == explain(index, query, match).line()
        assert ("tempo" in hit["evidence"]) == ("tempo" in match.metadata)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_profile_is_answered_as_its_weights(http, names, profile):
    weights = profile.weights or None
    bodies = {
        "similar": {"query": {"track": names[0]}, "k": 5},
        "explain": {"query": {"track": names[0]}, "track": names[4]},
    }
    if weights is None or min(weights.values()) > 0:
        bodies["path"] = {"from": names[0], "to": names[1], "length": 4}
    for address, body in bodies.items():
        by_hand = http.post(f"/api/v1/{address}", json={**body, "weights": weights})
        by_name = http.post(f"/api/v1/{address}", json={**body, "profile": profile.name})
        assert by_name.status_code == 200 and by_name.json() == by_hand.json()


def test_similar_by_examples_mix_filters_and_diversity(http, index, names):
    ask = {"k": 10}
    several = http.post("/api/v1/similar", json={**ask, "query": {"tracks": names[:3]}})
    assert hits(several) == expected(search(index, examples_query(index, names[:3]), k=10))
    examples = [{"track": names[0]}, {"track": names[4]}]
    several = http.post("/api/v1/similar", json={**ask, "query": {"examples": examples}})
    assert hits(several) == expected(search(index, examples_query(index, [names[0], names[4]]), k=10))
    mix = {"genre": {"track": names[0]}, "key": {"tracks": names[1:3]}}
    key = examples_query(index, names[1:3]).vector
    mixed = http.post("/api/v1/similar", json={**ask, "query": {"mix": mix}})
    # Examples inside a mix are a vector; what is asked with is not found, here as elsewhere.
    every = search(index, mixed_query(index, {"genre": names[0], "key": key}), k=10)
    assert hits(mixed) == expected([match for match in every if match.identifier not in names[1:3]])
    mix = {"genre": {"track": names[0]}, "key": {"examples": [{"track": name} for name in names[1:3]]}}
    assert hits(http.post("/api/v1/similar", json={**ask, "query": {"mix": mix}})) == hits(mixed)
    filters = {"bpm": [55, 57], "octaves": True, "keys": ["A minor"], "tags": ["ROCK"], "artists": ["anna", "Cleo"]}
    actual = http.post("/api/v1/similar", json={**ask, "query": {"track": names[5]}, "filters": filters})
    chosen = Filters((55, 57), True, ("A minor",), ("rock",), ("Anna", "Cleo"))
    assert hits(actual) == expected(search(index, track_query(index, names[5]), k=10, filters=chosen)) and hits(actual)
    diversity = {"per_artist": 1, "per_album": None, "relevance": 0.6}
    actual = http.post("/api/v1/similar", json={**ask, "query": {"track": names[5]}, "diversity": diversity})
    chosen = Diversity(per_artist=1, relevance=0.6)
    assert hits(actual) == expected(search(index, track_query(index, names[5]), k=10, diversity=chosen))


def test_explain_tells_of_any_track(http, index, names):
    body = {"query": {"track": names[0]}, "weights": {"key": 1}}
    last = search(index, track_query(index, names[0]), weights={"key": 1}, k=9)[-1]
    hit = http.post("/api/v1/explain", json={**body, "track": last.identifier}).json()["hit"]
    assert hit["distance"] == pytest.approx(last.distance)
    itself = http.post("/api/v1/explain", json={**body, "track": names[0]}).json()["hit"]
    assert itself["distance"] == pytest.approx(0, abs=1e-6) and "both: A minor" in itself["explanation"]


def test_path_is_the_path(http, index, names):
    body = {"from": names[0], "to": names[1], "length": 5, "weights": {"tempo": 1, "key": 2}}
    answer = http.post("/api/v1/path", json=body)
    wanted = track_path(index, names[0], names[1], length=5, weights={"tempo": 1, "key": 2})
    assert hits(answer, "tracks") == expected(wanted)
    lines = [step["explanation"] for step in answer.json()["tracks"]]
    pairs = zip(wanted[1:], wanted)
    assert lines[1:] == [explanation(step, dict.fromkeys(NAMES, before.metadata)).line() for step, before in pairs]
    assert lines[0].startswith("0.000 = ")
    assert http.post("/api/v1/path", json={**body, "to": names[0]}).status_code == 400
    assert http.post("/api/v1/path", json={**body, "length": 11}).status_code == 400


def test_profile_is_learnt_from_choices(http, index, names, rng):
    triplets = [rng.choice(10, 3, replace=False) for _ in range(20)]
    choices = [dict(zip(("query", "better", "worse"), (names[i] for i in triplet))) for triplet in triplets]
    choices[3]["query"] = {"track": choices[3]["query"]}
    answer = http.post("/api/v1/profile", json={"choices": choices, "name": "mine"}).json()
    sides = (index.vectors([names[triplet[side]] for triplet in triplets]) for side in range(3))
    layout = index.source.layout
    wanted = learn_profile("mine", choice_differences(*sides, layout), layout)
    assert answer["weights"] == pytest.approx(wanted.weights) and answer["choices"] == 20
    assert answer["agreement"] == pytest.approx(wanted.agreement) and answer["name"] == "mine"
    assert http.post("/api/v1/profile", json={"choices": choices[:1]}).json()["agreement"] is None


@pytest.mark.parametrize("dimension", ["", "mood"])
def test_map_is_the_singular_value_decomposition(http, index, names, dimension):
    answer = http.get("/api/v1/map", params={"dimension": dimension}).json()
    assert [point["id"] for point in answer["points"]] == names and answer["total"] == 10
    part = index.source.layout.slices[dimension] if dimension else slice(None)
    vectors = index.vectors(names)[:, part].astype(float)
    left, values, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    wanted = left[:, :2] * values[:2]
    places = np.array([[point["x"], point["y"]] for point in answer["points"]])
    signs = np.sign((places * wanted).sum(0))
    np.testing.assert_allclose(places, wanted * signs / np.abs(wanted).max(), atol=2e-3)
    np.testing.assert_allclose(answer["variance"], (values**2 / (values**2).sum())[:2], atol=1e-6)
    assert answer["points"][0]["genre"] == "jazz" and answer["points"][0]["tempo"] == 110
    few = http.get("/api/v1/map", params={"dimension": dimension, "limit": 4}).json()
    assert [point["id"] for point in few["points"]] == names[::3]
    # Tracks that are asked for stand on the plane of the others, whatever the limit.
    more = http.get("/api/v1/map", params={"dimension": dimension, "limit": 4, "track": [names[1], names[0]]}).json()
    assert [point["id"] for point in more["points"]] == [*names[::3], names[1]]
    assert more["points"][:4] == few["points"]
    some = vectors[::3]
    _, _, axes = np.linalg.svd(some - some.mean(0), full_matrices=False)
    plane = (vectors - some.mean(0)) @ axes[:2].T
    places = np.array([[point["x"], point["y"]] for point in more["points"]])
    shown = plane[[0, 3, 6, 9, 1]] / np.abs(plane[::3]).max()
    np.testing.assert_allclose(places, shown * np.sign((places * shown).sum(0)), atol=2e-3)
    assert http.get("/api/v1/map", params={"track": "nowhere"}).status_code == 404


TRACK = {"query": {"track": "colobot__hv2.ogg"}}


@pytest.mark.parametrize(
    "path, body, status, message",
    [
        ("similar", [], 400, "body: expected an object"),
        ("similar", None, 400, "body"),
        ("similar", {}, 400, "query: expected, but absent"),
        ("similar", {"query": {}}, 400, "exactly one of"),
        ("similar", {"query": {"track": "a", "upload": "b"}}, 400, "exactly one of"),
        ("similar", {"query": {"track": 7}}, 400, "query.track: expected a valid string, not 7"),
        ("similar", {"query": {"track": "../../etc/passwd"}}, 404, "no track '../../etc/passwd'"),
        ("similar", {"query": {"tracks": []}}, 400, "query.tracks: list should have at least 1 item"),
        (
            "similar",
            {"query": {"examples": [{"tracks": ["a"]}]}},
            400,
            "query.examples.0: expected exactly one of track, upload",
        ),
        ("similar", {"query": {"examples": [{}]}}, 400, "exactly one of"),
        ("similar", {"query": {"mix": {}}}, 400, "query.mix: dictionary should have at least 1 item"),
        ("similar", {"query": {"mix": {"taste": TRACK["query"]}}}, 400, "'taste' is not in this embedding"),
        ("similar", {"query": {"mix": {"genre": {"mix": {}}}}}, 400, "query.mix.genre: expected exactly one of"),
        ("similar", {"query": {"upload": ["x"]}}, 400, "query.upload: expected a valid string"),
        ("similar", {"query": {"upload": "x"}}, 404, "unknown or expired upload"),
        ("similar", {**TRACK, "k": True}, 400, "k: expected a valid integer, not True"),
        ("similar", {**TRACK, "k": 501}, 400, "k: expected less than or equal to 500, not 501"),
        ("similar", {**TRACK, "wieghts": {}}, 400, "body: unknown field 'wieghts'"),
        ("similar", {**TRACK, "weights": {"genre": 0}}, 400, "at least one of them not 0"),
        ("similar", {**TRACK, "weights": {"genre": "1"}}, 400, "weights.genre: expected a valid number"),
        ("similar", {**TRACK, "weights": {"genre": 10**400}}, 400, "weights.genre: expected a valid number"),
        ("similar", {**TRACK, "profile": "fell"}, 400, "no profile 'fell': expected one of everything"),
        ("similar", {**TRACK, "profile": "mix", "weights": {"era": 1}}, 400, "'mix' and weights both say what counts"),
        (
            "path",
            {"from": "colobot__hv2.ogg", "to": "colobot__hv2.ogg", "profile": 7},
            400,
            "profile: expected a valid",
        ),
        ("similar", {**TRACK, "filters": {"bpm": [1]}}, 400, "filters.bpm: list should have at least 2 items, not [1]"),
        ("similar", {**TRACK, "filters": {"keys": ["H"]}}, 400, "expected a tonic"),
        ("similar", {**TRACK, "filters": {"tags": "rock"}}, 400, "filters.tags: expected a valid list"),
        ("similar", {**TRACK, "diversity": {"relevance": 0}}, 400, "diversity.relevance: expected greater than 0"),
        ("similar", {**TRACK, "diversity": {"per_artist": 0}}, 400, "diversity.per_artist"),
        ("explain", {**TRACK, "track": "nowhere"}, 404, "no track 'nowhere'"),
        ("path", {"from": "colobot__hv2.ogg"}, 400, "to: expected, but absent"),
        ("profile", {"choices": []}, 400, "choices: list should have at least 1 item"),
        ("profile", {"choices": [{"query": "colobot__hv2.ogg"}]}, 400, "choices.0.better: expected, but absent"),
    ],
)
def test_wrong_bodies_are_named(http, path, body, status, message):
    import json

    content = json.dumps(body)
    answer = http.post(f"/api/v1/{path}", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status and message in error(answer)


def test_bodies_that_are_no_json(http):
    json_type = {"content-type": "application/json; charset=utf-8"}
    for content in (b"", b"{", b"\xff", b"[" * 100_000, b'{"k": NaN'):
        answer = http.post("/api/v1/similar", content=content, headers=json_type)
        assert answer.status_code == 400 and "not JSON" in error(answer)
    large = b'"' + b"x" * 2**20 + b'"'
    assert http.post("/api/v1/similar", content=large, headers=json_type).status_code == 413
    # What a form of a foreign page can send without asking first is refused.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = http.post("/api/v1/similar", content=b"{}", headers={"content-type": kind})
        assert answer.status_code == 415 and "application/json" in error(answer)


def test_unknown_addresses_and_methods(http):
    for path in (
        "/api/",
        "/api/v1",
        "/api/v1/",
        "/api/v2/library",
        "/api/v1/nothing",
        "/api/v1/tracks/",
        "/api/v1/library/x",
    ):
        assert http.get(path).status_code == 404, path
    answer = http.post("/api/v1/library", json={})
    assert answer.status_code == 405 and answer.headers["allow"] == "GET, HEAD"
    assert http.get("/api/v1/similar").headers["allow"] == "POST"
    assert http.head("/api/v1/library").status_code == 200 and http.head("/api/v1/library").content == b""
    assert http.get("/api/v1/tracks/%ff").status_code == 400
    assert http.get("/api/v1/tracks/none").status_code == 404
    assert http.get("/v1/models/tiny").json()["model_version_status"][0]["state"] == "AVAILABLE"


def test_the_library_follows_the_disk(http, library, names):
    """A track removed by another process is gone at the next look."""
    import time

    other = load_catalog(library).open_index()
    kept = other.vectors([names[3]]), other.metadata(names[3])
    other.remove([names[3]])
    other.save()
    deadline = time.monotonic() + 20
    # The track is gone at once; what is derived of the whole library is renewed at the next look.
    while http.get(f"/api/v1/tracks/{quote(names[3])}").status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while http.get("/api/v1/library").json()["tracks"] != 9:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    from msim_tf.embeddings import Embeddings

    source = other.source
    meta = {"model": source.model, "version": source.version, "digest": source.digest}
    other.add(Embeddings("again", (names[3],), kept[0], source.layout, meta), {names[3]: kept[1]})
    other.save()
    while http.get("/api/v1/library").json()["tracks"] != 10:
        assert time.monotonic() < deadline
        time.sleep(0.1)
