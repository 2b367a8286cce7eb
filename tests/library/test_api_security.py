"""What the library API must not do: give away other files, obey other sites, or be held up by what somebody sends."""

import email
import os
import shutil

import httpx
import pytest
from library_server import MUSIC, Raw, error, shared_library
from starlette.datastructures import Headers
from tiny_model import tiny_model_path

from msim_tf.audio.kinds import AUDIO_SUFFIXES
from msim_tf.audio.scan import FileState
from msim_tf.errors import InputError
from msim_tf.library.api import Access, library_site
from msim_tf.library.api_audio import MEDIA_TYPES, audio_response
from msim_tf.library.api_errors import ApiError
from msim_tf.library.build import update_library
from msim_tf.library.update_options import UpdateOptions
from msim_tf.serving.guard import check_request, is_loopback
from msim_tf.serving.server import ServerOptions, running_server

TOKEN = "s3cret token/ü"


@pytest.fixture(scope="module")
def library():
    return shared_library()


@pytest.fixture(scope="module")
def folder(library):
    return library.parent / "Music"


@pytest.fixture(scope="module")
def server(library):
    options = ServerOptions(grpc_port=0, rest_port=0)
    with running_server({"tiny": tiny_model_path()}, options, library_site(library)) as addresses:
        yield addresses.rest


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server, timeout=60, trust_env=False) as http:
        yield http


@pytest.fixture(scope="module")
def raw(server):
    return Raw(server)


# --- sound files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header, expected",
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=5-", (5, None)),
        ("bytes=-7", (-7, None)),
        ("bytes=-9000000", (0, None)),
        ("bytes=90-90000000", (90, None)),
        ("bytes=99-99", (99, 100)),
        ("bytes=90000000-", 416),
        ("bytes=-0", 416),
        ("bytes=" + "9" * 30 + "-", 416),
        ("bytes=9-5", 400),
        ("bytes=-", 400),
        ("items=0-1", 400),
        ("bytes=a-b", 400),
        ("bytes=" + "9" * 5000 + "-", 400),
        ("bytes=" + "0-," * 200 + "0-", None),
    ],
)
def test_ranges(http, folder, header, expected):
    """As slices of the file; nonsense is refused, and too many ranges are answered with the whole file."""
    whole = (folder / "colobot__hv2.ogg").read_bytes()
    answer = http.get("/api/v1/audio/colobot__hv2.ogg", headers={"range": header})
    if isinstance(expected, int):
        assert answer.status_code == expected and error(answer).startswith(
            "range 'bytes=" if "bytes" in header else "range"
        )
        assert answer.headers.get("content-range") == (f"bytes */{len(whole)}" if expected == 416 else None)
    elif expected is None:
        assert answer.status_code == 200 and answer.content == whole
    else:
        assert answer.status_code == 206 and answer.content == whole[slice(*expected)]


def test_several_ranges_are_parts_of_one_answer(http, folder):
    whole = (folder / "colobot__hv2.ogg").read_bytes()
    answer = http.get("/api/v1/audio/colobot__hv2.ogg", headers={"range": "bytes=0-3, 100-109"})
    assert answer.status_code == 206
    message = email.message_from_bytes(
        b"Content-Type: %s\r\n\r\n" % answer.headers["content-type"].encode() + answer.content
    )
    parts = {part["content-range"]: part.get_payload(decode=True) for part in message.get_payload()}
    assert set(parts) == {f"bytes 0-3/{len(whole)}", f"bytes 100-109/{len(whole)}"}
    assert answer.content.count(whole[:4]) == 1 and whole[100:110] in answer.content


def test_ranges_over_http(http, folder):
    path = "/api/v1/audio/colobot__hv2.ogg"
    whole = (folder / "colobot__hv2.ogg").read_bytes()
    answer = http.get(path)
    assert answer.status_code == 200 and answer.content == whole
    assert answer.headers["content-type"] == "audio/ogg" and answer.headers["accept-ranges"] == "bytes"
    part = http.get(path, headers={"range": "bytes=1000-300000", "if-range": answer.headers["etag"]})
    assert part.status_code == 206 and part.content == whole[1000:300001]
    end = min(300000, len(whole) - 1)
    assert part.headers["content-range"] == f"bytes 1000-{end}/{len(whole)}"
    assert http.get(path, headers={"range": "bytes=-10"}).content == whole[-10:]
    assert http.get(path, headers={"range": "bytes=0-1", "if-range": '"old"'}).status_code == 200
    late = http.get(path, headers={"range": f"bytes={len(whole)}-"})
    assert late.status_code == 416 and late.headers["content-range"] == f"bytes */{len(whole)}"
    head = http.head(path, headers={"range": "bytes=0-9"})
    assert head.status_code == 206 and head.content == b"" and head.headers["content-length"] == "10"


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/audio/../library/library.db",
        "/api/v1/audio/..%2flibrary%2Flibrary.db",
        "/api/v1/audio/%2e%2e/library/library.db",
        "/api/v1/audio//etc/passwd",
        "/api/v1/audio/%2Fetc%2Fpasswd",
        "/api/v1/audio/Zaz/../colobot__hv2.ogg",
        "/api/v1/audio/colobot__hv2.ogg%00.ogg",
        "/api/v1/audio/not-indexed.ogg",
        "/../api/v1/library",
    ],
)
def test_no_other_file_can_be_had(raw, folder, target):
    (folder / "not-indexed.ogg").write_bytes(b"there, but not of the library")
    status, _, body = raw.get(target)
    (folder / "not-indexed.ogg").unlink()
    assert status == 404 and b"msim-library" not in body and b"root:" not in body


def test_what_replaced_an_indexed_file_is_not_sent(http, folder, tmp_path):
    victim = folder / "colobot__music002.ogg"
    secret = tmp_path / "secret.ogg"
    secret.write_bytes(b"secret")
    kept = victim.rename(tmp_path / "kept.ogg")
    try:
        assert http.get(f"/api/v1/audio/{victim.name}").status_code == 404
        victim.symlink_to(secret)
        answer = http.get(f"/api/v1/audio/{victim.name}")
        assert answer.status_code == 404 and "not in the music folder" in error(answer)
        victim.unlink()
        victim.symlink_to(victim)
        assert http.get(f"/api/v1/audio/{victim.name}").status_code == 404
        victim.unlink()
        os.mkfifo(victim)
        answer = http.get(f"/api/v1/audio/{victim.name}")
        assert answer.status_code == 404 and "is not a file" in error(answer)
        victim.unlink()
        victim.symlink_to(folder / "colobot__hv2.ogg")  # a link that stays inside is as good as the file
        assert http.get(f"/api/v1/audio/{victim.name}").status_code == 200
    finally:
        victim.unlink()
        kept.rename(victim)


def test_a_file_outside_that_was_indexed_by_a_link_is_sent_while_it_is_the_same(tmp_path, embedder, folder):
    outside = tmp_path / "Elsewhere"
    outside.mkdir()
    names = ["colobot__hv2.ogg", "colobot__music002.ogg", "colobot__music010.ogg"]
    for name in names:
        shutil.copyfile(folder / name, outside / name)
    root = tmp_path / "Linked"
    root.mkdir()
    (root / "album").symlink_to(outside)
    (root / "song.ogg").symlink_to(MUSIC / "zaz__mus1.ogg")
    update_library(root, tmp_path / "library", embedder, UpdateOptions())
    secret = tmp_path / "secret.ogg"
    secret.write_bytes(b"secret" * 100)
    options = ServerOptions(grpc_port=0, rest_port=0)
    with running_server({"tiny": tiny_model_path()}, options, library_site(tmp_path / "library")) as addresses:
        with httpx.Client(base_url=addresses.rest, timeout=60, trust_env=False) as http:
            for name in names:
                assert http.get(f"/api/v1/audio/album/{name}").content == (outside / name).read_bytes()
            assert http.get("/api/v1/audio/song.ogg").content == (MUSIC / "zaz__mus1.ogg").read_bytes()
            # Turned to another file, or that file replaced: no longer what was indexed.
            (root / "song.ogg").unlink()
            (root / "song.ogg").symlink_to(secret)
            shutil.copyfile(secret, outside / names[0])
            (outside / names[1]).unlink()
            (outside / names[1]).symlink_to(secret)
            (outside / names[2]).unlink()
            os.mkfifo(outside / names[2])
            for name in ["song.ogg", *(f"album/{name}" for name in names)]:
                answer = http.get(f"/api/v1/audio/{name}")
                assert answer.status_code == 404 and error(answer), name
            # Nor does a link make a track of its neighbours.
            assert http.get("/api/v1/audio/album/../secret.ogg").status_code == 404


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_every_kind_of_file_that_is_indexed_has_a_media_type(tmp_path, suffix):
    (tmp_path / f"song{suffix.upper()}").write_bytes(b"sound")
    response = audio_response(tmp_path, f"song{suffix.upper()}", FileState(5, 0))
    os.close(int(os.path.basename(response.path)))
    assert response.media_type.startswith("audio/") and response.headers["content-type"] == response.media_type


@pytest.mark.parametrize(
    ("suffix", "media_type"),
    [
        (".m4a", "audio/mp4"),
        (".aac", "audio/aac"),
        (".webm", "audio/webm"),
        (".opus", "audio/ogg"),
        (".mp2", "audio/mpeg"),
        (".mka", "audio/x-matroska"),
        (".ac3", "audio/ac3"),
        (".wv", "audio/x-wavpack"),
        (".wma", "audio/x-ms-wma"),
    ],
)
def test_players_know_the_media_types(suffix, media_type):
    assert MEDIA_TYPES[suffix] == media_type


def test_a_client_that_goes_away_leaves_no_open_file(raw, http, folder):
    def open_files():
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return [link for link in links if os.path.exists(link) and str(folder) in os.path.realpath(link)]

    request = "GET /api/v1/audio/colobot__hv2.ogg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for _ in range(5):
        raw.open(request).close()
    for _ in range(200):
        http.get("/api/v1/library")  # gives the server time to notice
        if not open_files():
            break
    assert not open_files()


# --- who may ask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"host": "127.0.0.1:8501"}, None),
        ({"host": "LOCALHOST"}, None),
        ({"host": "[::1]:80"}, None),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "[bad"}, 403),
        ({"host": ""}, 403),
        ({}, 403),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, None),
        ({"host": "localhost:1", "origin": "http://localhost:2"}, 403),
        ({"host": "localhost:1", "origin": "null"}, 403),
        ({"host": "localhost:1", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:1", "sec-fetch-site": "cross-site"}, 403),
        ({"host": "localhost:1", "sec-fetch-site": "same-origin"}, None),
    ],
)
def test_other_sites_are_refused_on_loopback(headers, status):
    if status is None:
        check_request("GET", Headers(headers), "", "")
        return
    with pytest.raises(ApiError) as caught:
        check_request("GET", Headers(headers), "", "")
    assert caught.value.status == status


def test_the_host_is_checked_by_the_server_itself(http, raw):
    assert http.get("/api/v1/library", headers={"host": "evil.example"}).status_code == 403
    status, headers, _ = raw.get("/api/v1/library")
    assert status == 200 and "access-control" not in headers.lower()
    assert "content-security-policy: default-src 'self';" in headers.lower()
    assert "x-content-type-options: nosniff" in headers.lower()


def test_a_token_is_required_where_one_is_set(library):
    options = ServerOptions(grpc_port=0, rest_port=0, token=TOKEN)
    with running_server({"tiny": tiny_model_path()}, options, library_site(library, access=Access(TOKEN))) as addresses:
        with httpx.Client(base_url=addresses.rest, trust_env=False) as http:
            refused = http.get("/api/v1/library")
            assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
            bearer = {"authorization": f"Bearer {TOKEN}".encode()}
            assert http.get("/api/v1/library", headers=bearer).status_code == 200
            assert http.get("/api/v1/library", headers={**bearer, "host": "music.example"}).status_code == 200
            assert http.get("/api/v1/audio/colobot__hv2.ogg", params={"token": TOKEN}).status_code == 200
            assert http.get("/api/v1/library", params={"token": TOKEN[:-1]}).status_code == 401
            assert http.get("/api/v1/library", headers={"authorization": "Basic x"}).status_code == 401
            # Not by the address for what changes something, which a link could carry.
            body = {"query": {"track": "colobot__hv2.ogg"}}
            assert http.post("/api/v1/similar", params={"token": TOKEN}, json=body).status_code == 401
            assert http.post("/api/v1/similar", headers=bearer, json=body).status_code == 200


def test_other_machines_need_a_token(library):
    options = ServerOptions(host="0.0.0.0", grpc_port=0, rest_port=0)
    with (
        pytest.raises(InputError, match="0.0.0.0 can be reached by other machines and needs a token"),
        running_server({"tiny": tiny_model_path()}, options, library_site(library)),
    ):
        pass
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and not is_loopback("example.org")
