"""What the library API must not do: give away other files, obey other sites, or be held up by what somebody sends."""

import asyncio
import os
import subprocess
import sys

import httpx
import numpy as np
import pytest
import soundfile
from library_server import Raw, error, shared_library
from starlette.datastructures import Headers
from tiny_model import tiny_model_path

from msim_tf.audio.sandbox import decode_apart
from msim_tf.errors import InputError
from msim_tf.library.api import library_site
from msim_tf.library.api_audio import requested_part
from msim_tf.library.api_errors import ApiError
from msim_tf.library.api_upload import UploadLimits, Uploads
from msim_tf.library.catalog import load_catalog
from msim_tf.serving.guard import check_request, is_loopback
from msim_tf.serving.server import ServerOptions, running_server
from msim_tf.serving.versions import Models

LIMITS = UploadLimits(bytes=1_000_000, seconds=40, receive_seconds=3.0, at_once=2, kept=3)
TOKEN = "s3cret token/ü"
OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def library():
    return shared_library()


@pytest.fixture(scope="module")
def folder(library):
    return library.parent / "Music"


@pytest.fixture(scope="module")
def server(library):
    site = library_site(library, limits=LIMITS)
    with running_server({"tiny": tiny_model_path()}, ServerOptions(grpc_port=0, rest_port=0), site) as addresses:
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
        ("bytes=5-", (5, 100)),
        ("bytes=-7", (93, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=90-500", (90, 100)),
        ("bytes=99-99", (99, 100)),
        ("bytes=100-", 416),
        ("bytes=-0", 416),
        ("bytes=9-5", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
        ("bytes=" + "9" * 5000 + "-", None),
        (None, None),
    ],
)
def test_ranges_by_hand(header, expected):
    if expected == 416:
        with pytest.raises(ApiError, match="not within 100 bytes") as caught:
            requested_part(header, 100)
        assert caught.value.status == 416 and caught.value.headers == {"Content-Range": "bytes */100"}
        return
    part = requested_part(header, 100)
    assert expected == (part and (part.start, part.stop))


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
        "/api/v1/audio/../library/library.json",
        "/api/v1/audio/..%2flibrary%2Flibrary.json",
        "/api/v1/audio/%2e%2e/library/library.json",
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
    with running_server({"tiny": tiny_model_path()}, options, library_site(library, token=TOKEN)) as addresses:
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


# --- uploads -------------------------------------------------------------------------------------------------------


def test_an_upload_is_a_query(http, folder):
    content = (folder / "colobot__hv2.ogg").read_bytes()
    answer = http.post("/api/v1/upload", content=content, headers={"content-type": "audio/ogg"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["seconds"] == pytest.approx(30, abs=0.1) and answer.json()["expires_in"] == 3600
    body = {"query": {"upload": answer.json()["upload"]}, "k": 1}
    hit = http.post("/api/v1/similar", json=body).json()["hits"][0]
    # The library's own copy of the file, at distance 0 but for the rounding of float16.
    assert hit["track"]["id"] == "colobot__hv2.ogg" and hit["distance"] < 1e-4
    mix = {"genre": {"upload": answer.json()["upload"]}, "tempo": {"track": "Zaz/two.ogg"}}
    assert len(http.post("/api/v1/similar", json={"query": {"mix": mix}, "k": 3}).json()["hits"]) == 3


def wav(tmp_path, seconds, *, sr=8000, level=0.1):
    path = tmp_path / "x.wav"
    soundfile.write(path, level * np.random.default_rng(0).normal(size=int(seconds * sr)), sr)
    return path.read_bytes()


def test_uploads_that_cannot_be_used(http, tmp_path):
    def post(content, **headers):
        return http.post("/api/v1/upload", content=content, headers={**OCTETS, **headers})

    for content, message in (
        (b"", "the body is empty"),
        (b"not audio at all", "not audio"),
        (wav(tmp_path, 2)[:-9000], "truncated"),
        (wav(tmp_path, 0.3), "shorter than one segment"),
        (wav(tmp_path, 2, level=0), "silent"),
    ):
        answer = post(content)
        assert answer.status_code == 422 and message in error(answer)
        assert "/" not in error(answer).replace("audio/", "")  # no name of a temporary file
    assert "longer than 40 s" in error(post(wav(tmp_path, 41)))
    assert post(wav(tmp_path, 39.9)).status_code == 201
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json"):
        assert post(wav(tmp_path, 2), **{"content-type": kind}).status_code == 415


def test_an_upload_over_the_limit_is_cut_off(http, raw):
    answer = http.post("/api/v1/upload", content=b"x" * 1_000_001, headers=OCTETS)
    assert answer.status_code == 413 and "larger than 1000000 bytes" in error(answer)
    # Without a length, and without an end: refused as soon as it is too much.
    head = "POST /api/v1/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = raw.open(head)
    for size in (*[65536] * 15, 1_000_001 - 15 * 65536):
        connection.sendall(b"%x\r\n" % size + b"x" * size + b"\r\n")
    status, _, body = raw.read(connection)
    assert status == 413 and b"larger" in body


def slow_upload(raw):
    return raw.open(
        "POST /api/v1/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/mpeg\r\nContent-Length: 9999\r\n\r\nsome"
    )


def test_a_slow_upload_ends(raw, http):
    slow = slow_upload(raw)
    assert http.post("/api/v1/upload", content=b"no audio", headers=OCTETS).status_code == 422
    status, headers, body = raw.read(slow)
    assert status == 408 and b"took longer than 3 s" in body and "connection: close" in headers.lower()


def test_places_for_uploads_are_counted(library):
    class Waiting:
        """A request whose body never comes."""

        headers = OCTETS

        async def stream(self):
            await asyncio.sleep(3600)
            yield b""

    async def three():
        uploads = Uploads(Models({}), LIMITS)
        source = load_catalog(library).open_index().source
        waiting = [asyncio.ensure_future(uploads.receive(Waiting(), source)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="too many uploads") as caught:
            await uploads.receive(Waiting(), source)
        for task in waiting:
            task.cancel()
        return caught.value

    refused = asyncio.run(three())
    assert refused.status == 503 and refused.headers == {"Retry-After": "5"}


def test_tokens_are_forgotten(library):
    source = load_catalog(library).open_index().source
    uploads = Uploads(Models({}), UploadLimits(kept=2))
    tokens = [uploads._keep(source, np.full(24, value)) for value in range(3)]
    with pytest.raises(ApiError, match="unknown or expired upload"):
        uploads.vector(tokens[0], source)
    assert uploads.vector(tokens[2], source)[0] == 2
    expired = Uploads(Models({}), UploadLimits(kept_seconds=0))
    with pytest.raises(ApiError, match="unknown or expired upload"):
        expired.vector(expired._keep(source, np.zeros(24)), source)


def test_a_library_of_another_model_takes_no_uploads(library, tmp_path, folder):
    """The index of a model that is not served: its tracks can still be searched."""
    import shutil

    other = tmp_path / "library"
    shutil.copytree(library, other)
    manifest = other / "index-1" / "index.json"
    manifest.write_text(manifest.read_text().replace('"version": "1"', '"version": "7"'))
    options = ServerOptions(grpc_port=0, rest_port=0)
    with running_server({"tiny": tiny_model_path()}, options, library_site(other)) as addresses:
        with httpx.Client(base_url=addresses.rest, timeout=60, trust_env=False) as http:
            content = (folder / "colobot__hv2.ogg").read_bytes()
            answer = http.post("/api/v1/upload", content=content, headers=OCTETS)
            assert answer.status_code == 409 and "msim index --rebuild" in error(answer)
            assert http.post("/api/v1/similar", json={"query": {"track": "colobot__hv2.ogg"}}).status_code == 200


def test_decoding_is_limited(tmp_path):
    source, out = tmp_path / "x.wav", tmp_path / "out.wav"
    source.write_bytes(wav(tmp_path, 3))
    decode_apart(source, out, sr=4000, seconds=3.0, timeout=60)
    y, sr = soundfile.read(out)
    assert sr == 4000 and len(y) == 12000
    with pytest.raises(OverflowError, match="longer than 2 s"):
        decode_apart(source, out, sr=4000, seconds=2.0, timeout=60)
    with pytest.raises(TimeoutError, match="longer than 0.01 s"):
        decode_apart(source, out, sr=4000, seconds=3.0, timeout=0.01)
    code = "from msim_tf.audio.sandbox import _limit; _limit(4000, 1.0, 5); bytearray(3 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MemoryError" in done.stderr
