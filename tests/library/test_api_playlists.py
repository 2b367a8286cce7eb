"""Playlists of the library API: the hits of the search route, in a file that players and ``read_playlist`` read."""

import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from library_server import HOSTILE, error, shared_library
from tiny_model import tiny_model_path

from msim_tf.library.api import Access, library_site
from msim_tf.library.catalog import load_catalog
from msim_tf.library.playlists import read_playlist
from msim_tf.serving.server import ServerOptions, running_server

ADDRESS = "/api/v1/playlist.m3u8"
BROKEN = HOSTILE["zaz__mus1.ogg"]  # a line break in a relative path, which M3U has no spelling for


@pytest.fixture(scope="module")
def library():
    return shared_library()


@pytest.fixture(scope="module")
def http(library):
    site = library_site(library, root_path="/msim")
    with running_server({"tiny": tiny_model_path()}, ServerOptions(grpc_port=0, rest_port=0), site) as addresses:
        with httpx.Client(base_url=addresses.rest, timeout=60, trust_env=False) as http:
            yield http


@pytest.fixture(scope="module")
def names(library):
    return sorted(load_catalog(library).open_index().identifiers)


def saved(answer, folder):
    """The files that a playlist names when it is saved in ``folder``."""
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/mpegurl", answer.text
    (folder / "list.m3u8").write_bytes(answer.content)
    return read_playlist(folder / "list.m3u8")


def parameters(body):
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}


def test_a_playlist_has_the_hits_of_the_search_with_titles_and_lengths(http, names, tmp_path):
    body = {
        "query": {"mix": {"genre": {"track": names[0]}, "key": {"tracks": names[1:3]}}},
        "weights": {"genre": 1, "key": 0.5},
        "filters": {"bpm": [110, 117]},
        "diversity": {"per_artist": 2},
        "k": 5,
    }
    tracks = [hit["track"] for hit in http.post("/api/v1/similar", json=body).json()["hits"]]
    answer = http.get(ADDRESS, params=parameters(body))
    wanted = [track for track in tracks if track["id"] != BROKEN]
    assert saved(answer, tmp_path) == [tmp_path / track["id"] for track in wanted] and len(wanted) > 2
    lines = answer.text.splitlines()
    assert lines[0] == "#EXTM3U" and lines[1] == "#PLAYLIST:Test music: Similar tracks"
    assert lines[2] == f"#EXTINF:{round(wanted[0]['seconds'])},{wanted[0]['artist']} - {wanted[0]['title']}"
    assert "attachment" in answer.headers["content-disposition"]


def test_tracks_stand_for_a_query(http, names, tmp_path):
    for query, track in (({"track": names[3]}, names[3]), ({"tracks": names[:2]}, names[:2])):
        body = {"query": query, "diversity": {"per_artist": 2}}  # the default of playlists
        tracks = [hit["track"]["id"] for hit in http.post("/api/v1/similar", json=body).json()["hits"]]
        files = saved(http.get(ADDRESS, params={"track": track, "prefix": "/music/"}), tmp_path)
        assert files == [Path("/music") / name for name in tracks]  # a line break, too: as a URI


def test_a_profile_is_named_as_it_is(http, names, tmp_path):
    body = {"query": {"track": names[3]}, "diversity": {"per_artist": 2}, "profile": "mix"}
    tracks = [hit["track"]["id"] for hit in http.post("/api/v1/similar", json=body).json()["hits"]]
    files = saved(http.get(ADDRESS, params={"track": names[3], "profile": "mix", "prefix": "/music"}), tmp_path)
    assert files == [Path("/music") / name for name in tracks]
    body = {"from": names[0], "to": names[1], "length": 4, "profile": "mix"}
    steps = [step["track"]["id"] for step in http.post("/api/v1/path", json=body).json()["tracks"]]
    fields = {"from": names[0], "to": names[1], "length": "4", "profile": "mix", "prefix": "/music"}
    assert saved(http.get("/api/v1/path.m3u8", params=fields), tmp_path) == [Path("/music") / name for name in steps]


def test_links_play(http, library, names):
    answer = http.get(ADDRESS, params={"track": names[3], "links": "true"})
    links = [line for line in answer.text.splitlines() if not line.startswith("#")]
    body = {"query": {"track": names[3]}, "diversity": {"per_artist": 2}}
    hits = http.post("/api/v1/similar", json=body).json()["hits"]
    prefix = f"{str(http.base_url).rstrip('/')}/msim/api/v1/audio/"
    assert [unquote(link.removeprefix(prefix)) for link in links] == [hit["track"]["id"] for hit in hits]
    for link, hit in zip(links, hits):
        sound = http.get(urlsplit(link).path.removeprefix("/msim"))  # as the proxy passes it on
        assert sound.content == (library.parent / "Music" / hit["track"]["id"]).read_bytes()


def test_a_path_is_a_playlist_too(http, names, tmp_path):
    body = {"from": names[0], "to": names[1], "length": 4, "weights": {"tempo": 1}}
    steps = [step["track"]["id"] for step in http.post("/api/v1/path", json=body).json()["tracks"]]
    answer = http.get("/api/v1/path.m3u8", params={**parameters(body), "prefix": "/music"})
    assert saved(answer, tmp_path) == [Path("/music") / name for name in steps]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({}, "query: expected, but absent"),
        ({"track": "nowhere.ogg"}, "the library has no track 'nowhere.ogg'"),
        ({"track": "a", "query": '{"track": "a"}'}, "query and track both say"),
        ({"query": "a.ogg"}, "query: not JSON"),
        ({"query": "[" * 20_000}, "query: not JSON"),
        ({"query": '{"tracks": []}'}, "query.tracks: "),
        ({"track": "a", "k": "0"}, "k: "),
        ({"track": "a", "k": "many"}, "k: not JSON"),
        ({"track": "a", "weights": '{"taste": 1}'}, "taste"),
        ({"track": "a", "profile": "fell"}, "no profile 'fell'"),
        ({"track": "a", "filters": '{"colour": 1}'}, "filters: unknown field 'colour'"),
        ({"track": "a", "links": "perhaps"}, "links: "),
        ({"track": "a", "prefix": "/music", "links": "1"}, "prefix and links"),
    ],
)
def test_wrong_parameters_name_the_field(http, names, wrong, message):
    parameters = {name: names[0] if value == "a" else value for name, value in wrong.items()}
    answer = http.get(ADDRESS, params=parameters)
    assert answer.status_code in (400, 404) and message in error(answer)


def test_no_token_is_in_a_playlist(library, names):
    site = library_site(library, access=Access("secret word"))
    options = ServerOptions(grpc_port=0, rest_port=0, token="secret word")
    with running_server({"tiny": tiny_model_path()}, options, site) as addresses:
        with httpx.Client(base_url=addresses.rest, timeout=60, trust_env=False) as http:
            assert http.get(ADDRESS, params={"track": names[3]}).status_code == 401
            for links in ("true", "false"):
                answer = http.get(ADDRESS, params={"track": names[3], "links": links, "token": "secret word"})
                assert answer.status_code == 200 and "secret" not in answer.text
