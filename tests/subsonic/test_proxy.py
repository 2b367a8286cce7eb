"""The proxy between a genuine Subsonic server (supysonic) and a genuine client (py-sonic)."""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from genuine_server import PASSWORD, USER

from msim_tf.errors import InputError
from msim_tf.subsonic.matcher import SongMatcher
from msim_tf.subsonic.proxy import SimilarTrack
from msim_tf.subsonic.server import running_proxy

libsonic = pytest.importorskip("libsonic")
pytest.importorskip("supysonic")
mutagen = pytest.importorskip("mutagen")

# File, artist, album, title; the library below knows the first five under the same paths.
SONGS = [
    ("Björk/Début/01 Crying.ogg", "Björk", "Début", "Crying & Laughing"),
    ("Björk/Début/02 Aeroplane.ogg", "Björk", "Début", "Aeroplane"),
    ("Other/Album/a.ogg", "Other", "Album", "Song"),
    ("Other/Album/b.ogg", "Other", "Album", "Song (Live)"),
    ("Third/Single/c.ogg", "Third", "Single", "Single"),
    ("Unknown/Unknown/d.ogg", "Nobody", "Nothing", "Not in the library"),
]
IN_LIBRARY = [song[0] for song in SONGS[:5]]


class TableLibrary:
    """A library whose similarity is a table: tracks in the order of ``IN_LIBRARY``, each step .1 less similar."""

    def __init__(self) -> None:
        self.failing = False
        self.asked: list[list[str]] = []
        tags = {name: {"artist": artist, "album": album, "title": title} for name, artist, album, title in SONGS[:5]}
        self._matcher = SongMatcher([*tags.items(), ("Gone/gone.ogg", {"title": "Gone", "artist": "Gone"})])

    def matcher(self):
        if self.failing:
            raise RuntimeError("the library is gone")
        return self._matcher

    def similar(self, tracks, count):
        self.asked.append(sorted(tracks))
        # A track that the server does not have comes first.
        names = ["Gone/gone.ogg", *(name for name in IN_LIBRARY if name not in tracks)]
        return [SimilarTrack(name, 1 - 0.1 * place) for place, name in enumerate(names)][:count]

    def path(self, start, end, count):
        return [SimilarTrack(start, 1.0), SimilarTrack(IN_LIBRARY[2], 0.5), SimilarTrack(end, 0.4)][:count]


@pytest.fixture(scope="module")
def library():
    return TableLibrary()


@pytest.fixture
def failing(library):
    library.failing = True
    yield
    library.failing = False


@pytest.fixture(scope="module")
def server(music, tmp_path_factory):
    """The address of a genuine server over ``SONGS``."""
    folder, state = tmp_path_factory.mktemp("music"), tmp_path_factory.mktemp("state")
    sounds = sorted(music.glob("*.ogg"))
    for (name, artist, album, title), sound in zip(SONGS, sounds):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sound, folder / name)
        file = mutagen.File(folder / name)
        file.update({"artist": artist, "album": album, "title": title})
        file.save()
    program = Path(__file__).with_name("genuine_server.py")
    with subprocess.Popen(
        [sys.executable, program, folder, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


@pytest.fixture(scope="module")
def proxy(server, library):
    """The address of the proxy before it."""
    with running_proxy(server, library, port=0) as address:
        yield address


def connect(address):
    """A client that sends the password, because supysonic keeps passwords hashed and cannot check salted tokens."""
    host, _, port = address.rpartition(":")
    return libsonic.Connection(host, USER, PASSWORD, port=int(port), legacyAuth=True)


@pytest.fixture(scope="module")
def song_ids(server):
    """Title -> the server's identifier."""
    songs = [
        song
        for _, _, _, title in SONGS
        for song in connect(server).search3(title.split(" ")[0], songCount=50)["searchResult3"]["song"]
    ]
    return {song["title"]: song["id"] for song in songs}


def credentials(**more):
    return {"u": USER, "p": PASSWORD, "v": "1.16.1", "c": "test", **more}


def titles(songs):
    return [song["title"] for song in songs]


def test_a_genuine_client_gets_an_instant_mix_of_the_library(proxy, song_ids):
    client = connect(proxy)
    answer = client.getSimilarSongs(song_ids["Aeroplane"], count=3)
    assert titles(answer["similarSongs"]["song"]) == ["Crying & Laughing", "Song", "Song (Live)"]
    answer = client.getSimilarSongs2(song_ids["Aeroplane"], count=10)
    assert titles(answer["similarSongs2"]["song"]) == ["Crying & Laughing", "Song", "Song (Live)", "Single"]


def test_songs_are_those_of_the_server(proxy, server, song_ids):
    song = connect(proxy).getSimilarSongs(song_ids["Single"], count=1)["similarSongs"]["song"][0]
    assert song == connect(server).getSong(song_ids["Crying & Laughing"])["song"]


def test_an_artist_and_an_album_start_a_mix(proxy, server, library):
    artists = connect(server).getArtists()["artists"]["index"]
    bjork = next(artist for index in artists for artist in index["artist"] if artist["name"] == "Björk")
    client = connect(proxy)
    assert titles(client.getSimilarSongs2(bjork["id"])["similarSongs2"]["song"]) == ["Song", "Song (Live)", "Single"]
    assert library.asked[-1] == IN_LIBRARY[:2]
    album = connect(server).getArtist(bjork["id"])["artist"]["album"][0]
    assert titles(client.getSimilarSongs(album["id"])["similarSongs"]["song"]) == ["Song", "Song (Live)", "Single"]


def test_sonic_similar_tracks_and_paths(proxy, song_ids):
    parameters = credentials(id=song_ids["Song"], count="2", f="json")
    answer = httpx.get(f"{proxy}/rest/getSonicSimilarTracks", params=parameters).json()["subsonic-response"]
    assert [match["entry"]["title"] for match in answer["sonicMatch"]] == ["Crying & Laughing", "Aeroplane"]
    assert [match["similarity"] for match in answer["sonicMatch"]] == [0.9, 0.8]
    ends = {"startSongId": song_ids["Aeroplane"], "endSongId": song_ids["Single"]}
    answer = httpx.get(f"{proxy}/rest/findSonicPath.view", params=credentials(**ends, f="json")).json()
    path = answer["subsonic-response"]["sonicMatch"]
    assert [match["entry"]["title"] for match in path] == ["Aeroplane", "Song", "Single"]


def test_parameters_may_come_in_the_body(proxy, song_ids):
    data = credentials(id=song_ids["Aeroplane"], count="1", f="json")
    answer = httpx.post(f"{proxy}/rest/getSimilarSongs", data=data).json()["subsonic-response"]
    assert titles(answer["similarSongs"]["song"]) == ["Crying & Laughing"]


def test_xml_and_jsonp(proxy, song_ids):
    address = f"{proxy}/rest/getSimilarSongs.view"
    root = ElementTree.fromstring(httpx.get(address, params=credentials(id=song_ids["Single"])).content)
    names = {"s": "http://subsonic.org/restapi"}
    assert root.get("status") == "ok"
    assert [song.get("title") for song in root.findall("s:similarSongs/s:song", names)][:2] == [
        "Crying & Laughing",
        "Aeroplane",
    ]
    assert root.find("s:similarSongs/s:song", names).get("isDir") == "false"
    jsonp = credentials(id=song_ids["Single"], f="jsonp", callback="app.show")
    text = httpx.get(address, params=jsonp).text
    assert text.startswith("app.show({")
    assert json.loads(text.removeprefix("app.show(").removesuffix(");"))["subsonic-response"]["status"] == "ok"
    hostile = credentials(id=song_ids["Single"], f="jsonp", callback="alert(1);//")
    assert httpx.get(address, params=hostile).text.startswith("{")


def test_the_extension_is_announced_without_credentials(proxy):
    answer = httpx.get(f"{proxy}/rest/getOpenSubsonicExtensions", params={"f": "json"}).json()["subsonic-response"]
    assert {"name": "sonicSimilarity", "versions": [1]} in answer["openSubsonicExtensions"]


def test_everything_else_passes_through_byte_for_byte(proxy, server, song_ids):
    for path in ("/rest/ping.view", "/rest/getMusicFolders", "/rest/nothing", "/nothing?a=%2F&b=%C3%A9"):
        direct = httpx.get(server + path, params=None if "?" in path else credentials())
        through = httpx.get(proxy + path, params=None if "?" in path else credentials())
        assert (through.status_code, through.content) == (direct.status_code, direct.content)
        assert through.headers["content-type"] == direct.headers["content-type"]
    # A stream, whole and in part.
    stream = credentials(id=song_ids["Song"])
    direct = httpx.get(f"{server}/rest/stream.view", params=stream)
    through = httpx.get(f"{proxy}/rest/stream.view", params=stream)
    assert hashlib.sha256(through.content).digest() == hashlib.sha256(direct.content).digest()
    assert through.headers["content-length"] == direct.headers["content-length"]
    part = httpx.get(f"{proxy}/rest/stream.view", params=stream, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == direct.content[100:200]
    posted = httpx.post(f"{proxy}/rest/ping.view", data=credentials(f="json"))
    assert posted.json()["subsonic-response"]["status"] == "ok"


def test_wrong_credentials_get_the_servers_own_refusal(proxy, song_ids, library):
    asked = len(library.asked)
    wrong = {**credentials(id=song_ids["Song"], f="json"), "p": "wrong"}
    answer = httpx.get(f"{proxy}/rest/getSimilarSongs", params=wrong).json()["subsonic-response"]
    assert answer["error"]["code"] == 40
    assert len(library.asked) == asked


def test_what_cannot_be_matched_is_asked_of_the_server(proxy, server, song_ids, failing):
    seeds = [song_ids["Not in the library"], "no-such-song", song_ids["Song"]]  # the last one: the library fails
    for seed in seeds:
        parameters = credentials(id=seed, f="json")
        direct = httpx.get(f"{server}/rest/getSimilarSongs", params=parameters)
        through = httpx.get(f"{proxy}/rest/getSimilarSongs", params=parameters)
        assert (through.status_code, through.content) == (direct.status_code, direct.content)


@pytest.mark.parametrize(
    "method, parameters, code",
    [
        ("getSonicSimilarTracks", {}, 10),
        ("findSonicPath", {"startSongId": "1"}, 10),
    ],
)
def test_missing_parameters_have_the_documented_code(proxy, method, parameters, code):
    answer = httpx.get(f"{proxy}/rest/{method}", params=credentials(**parameters, f="json")).json()
    assert answer["subsonic-response"]["error"]["code"] == code


@pytest.mark.parametrize("count", ["-1", "1e9", "٣", "9" * 400, ""])
def test_odd_counts_are_answered(proxy, song_ids, count):
    answer = httpx.get(
        f"{proxy}/rest/getSonicSimilarTracks", params=credentials(id=song_ids["Song"], count=count, f="json")
    )
    assert answer.status_code == 200
    assert answer.json()["subsonic-response"]["status"] == "ok"


def test_a_server_that_is_gone_is_said(library):
    with running_proxy("http://127.0.0.1:9", library, port=0) as address:
        assert httpx.get(f"{address}/app").status_code == 502
        answer = httpx.get(f"{address}/rest/ping.view", params={"f": "json"}).json()["subsonic-response"]
        assert answer["error"] == {"code": 0, "message": "the music server cannot be reached"}
        answer = httpx.get(f"{address}/rest/getSimilarSongs", params=credentials(id="1", f="json")).json()
        assert answer["subsonic-response"]["status"] == "failed"


@pytest.mark.parametrize("address", ["music.local", "ftp://music", "http://", "http://[", "http://a:x", "http://a/?b"])
def test_what_is_no_address_is_one_line(library, address):
    with pytest.raises(InputError, match="expected the address of a Subsonic server"), running_proxy(address, library):
        pass


def test_a_port_that_is_taken_is_one_line(proxy, library):
    port = int(proxy.rpartition(":")[2])
    with (
        pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}"),
        running_proxy(proxy, library, port=port),
    ):
        pass


def test_credentials_are_not_logged(server, song_ids, library, caplog):
    caplog.set_level("DEBUG")
    secret = {**credentials(id=song_ids["Song"], f="json"), "p": "s3cret-wrong"}
    with running_proxy(server, library, port=0) as address, httpx.Client() as client:
        logging.getLogger("httpx").setLevel("WARNING")  # of the client of this test
        client.get(f"{address}/rest/getSimilarSongs", params=secret)
        client.post(f"{address}/rest/getSimilarSongs", data=secret)
        client.get(f"{address}/rest/ping.view", params=secret)
    assert not [record for record in caplog.records if "s3cret" in record.getMessage()]
