"""Uploads of sound files: what they are good for, what they may cost, and that slow ones hold up nobody."""

import asyncio
import shutil
import struct
import threading

import httpx
import numpy as np
import pytest
import soundfile
from library_server import Raw, error, shared_library
from tiny_model import tiny_model_path

from msim_tf.database import Database
from msim_tf.library.api import library_site
from msim_tf.library.api_errors import ApiError
from msim_tf.library.api_upload import UploadLimits, Uploads, _Embedded
from msim_tf.library.catalog import load_catalog
from msim_tf.search.schema import DATABASE, SCHEMA
from msim_tf.serving.server import ServerOptions, running_server
from msim_tf.serving.versions import Models

LIMITS = UploadLimits(bytes=1_000_000, seconds=40, receive_seconds=3.0, receiving=3, at_once=2, kept=3)
OCTETS = {"content-type": "application/octet-stream"}
HEAD = "POST /api/v1/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/mpeg\r\n"


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


def with_field(content, offset, value):
    """A WAV with another 32-bit number in its header: at 24 its rate, at 40 the bytes of its samples."""
    return content[:offset] + struct.pack("<I", value) + content[offset + 4 :]


def floats(tmp_path, value):
    """A WAV of floats, one of them ``value``."""
    y = 0.1 * np.random.default_rng(0).normal(size=16000).astype(np.float32)
    y[500] = value
    soundfile.write(tmp_path / "floats.wav", y, 8000, subtype="FLOAT")
    return (tmp_path / "floats.wav").read_bytes()


def test_uploads_that_cannot_be_used(http, folder, tmp_path):
    secret = folder / "colobot__hv2.ogg"

    def post(content, **headers):
        return http.post("/api/v1/upload", content=content, headers={**OCTETS, **headers})

    for content, message in (
        (b"", "the body is empty"),
        (b"not audio at all", "not audio"),
        (wav(tmp_path, 2)[:-25000], "truncated or damaged, only 22 % of 2.0 s decodes"),
        (wav(tmp_path, 0.3), "shorter than one segment"),
        (wav(tmp_path, 2, level=0), "silent"),
        (with_field(wav(tmp_path, 2), 24, 1), "sample rate of 1 Hz"),
        (with_field(wav(tmp_path, 2), 24, 2**32 - 1), "not audio"),
        (floats(tmp_path, np.nan), "NaN or infinite"),
        (floats(tmp_path, 3e38), "3.0e+38 times full scale"),
        # Formats that name other files or hosts are no sound files, whatever they name.
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n%s\n#EXT-X-ENDLIST\n" % bytes(secret), "not audio"),
        (b"ffconcat version 1.0\nfile %s\n" % bytes(secret), "not audio"),
    ):
        answer = post(content)
        assert answer.status_code == 422 and message in error(answer)
        assert "/" not in error(answer).replace("audio/", "")  # no name of a temporary file
    assert "longer than 40 s" in error(post(wav(tmp_path, 41)))
    assert post(wav(tmp_path, 39.9)).status_code == 201
    # A length that is only the header's does not count, and most of a file is as good as the whole.
    assert post(with_field(wav(tmp_path, 2), 40, 2**32 - 1)).json()["seconds"] == pytest.approx(2, abs=0.1)
    assert post(with_field(wav(tmp_path, 2), 40, 0)).json()["seconds"] == pytest.approx(2, abs=0.1)
    assert post(wav(tmp_path, 4)[:-9000]).status_code == 201
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json"):
        assert post(wav(tmp_path, 2), **{"content-type": kind}).status_code == 415


def test_the_answer_says_what_is_wrong_with_a_file_that_is_used(http, folder, tmp_path):
    def notes(content):
        return http.post("/api/v1/upload", content=content, headers=OCTETS).json()["notes"]

    assert notes((folder / "colobot__hv2.ogg").read_bytes()) == []
    assert notes(wav(tmp_path, 4)) == []
    # A quarter of 4 s is cut off.
    assert notes(wav(tmp_path, 4)[:-16000]) == ["damaged: 75 % of 4.0 s decodes"]
    # The first pages of an Ogg file, whose last one says how long it is.
    content = (folder / "colobot__hv2.ogg").read_bytes()
    (note,) = notes(content[: len(content) * 3 // 4])
    assert note.startswith("damaged: its last page is missing, ") and note.endswith(" s decode")


def test_an_upload_over_the_limit_is_cut_off(http, raw):
    answer = http.post("/api/v1/upload", content=b"x" * 1_000_001, headers=OCTETS)
    assert answer.status_code == 413 and "larger than 1000000 bytes" in error(answer)
    # Without a length, and without an end: refused as soon as it is too much.
    connection = raw.open(HEAD + "Transfer-Encoding: chunked\r\n\r\n")
    for size in (*[65536] * 15, 1_000_001 - 15 * 65536):
        connection.sendall(b"%x\r\n" % size + b"x" * size + b"\r\n")
    status, _, body = raw.read(connection)
    assert status == 413 and b"larger" in body


def slow_upload(raw):
    """An upload that has begun and does not go on."""
    return raw.open(HEAD + "Content-Length: 9999\r\n\r\nsome")


def test_a_slow_upload_ends(raw, http):
    slow = slow_upload(raw)
    assert http.post("/api/v1/upload", content=b"no audio", headers=OCTETS).status_code == 422
    status, headers, body = raw.read(slow)
    assert status == 408 and b"took longer than 3 s" in body and "connection: close" in headers.lower()


def test_slow_uploads_hold_up_nobody(raw, http, folder):
    slow = [slow_upload(raw) for _ in range(2 * LIMITS.receiving)]
    content = (folder / "colobot__hv2.ogg").read_bytes()
    for _ in range(2):
        assert http.post("/api/v1/upload", content=content, headers=OCTETS).status_code == 201
    answers = [raw.read(connection) for connection in slow]
    assert {status for status, _, _ in answers} == {408}
    assert sum(b"this was the slowest" in body for _, _, body in answers) >= LIMITS.receiving


class Body:
    """A request whose body comes in parts, each when ``more`` is set."""

    headers = OCTETS

    def __init__(self, *parts):
        self.more = asyncio.Event()
        self._parts = parts

    async def stream(self):
        for part in self._parts:
            yield part
        await self.more.wait()


@pytest.fixture
def source(library):
    return load_catalog(library).open_index().source


def test_when_too_many_send_the_slowest_makes_room(source):
    async def four():
        uploads = Uploads(Models({}), UploadLimits(receiving=3))
        bodies = [Body(b"x" * 3000), Body(b"x" * 10), Body(b"x" * 200), Body(b"x")]
        tasks = []
        for body in bodies:
            tasks.append(asyncio.ensure_future(uploads.receive(body, source)))
            await asyncio.sleep(0.05)
        with pytest.raises(ApiError, match="this was the slowest") as caught:
            await tasks[1]
        assert caught.value.status == 408
        assert not any(tasks[number].done() for number in (0, 2, 3))
        for body in bodies:
            body.more.set()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        # Nothing is served that could embed them: so far they came.
        assert [end.status for end in ends] == [409, 408, 409, 409]

    asyncio.run(four())


def test_complete_files_wait_for_their_turn_but_not_for_ever(source, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(Uploads, "_embed", lambda *_: (go_on.wait(30), _Embedded(np.zeros(24), 1.0, ()))[1])

    async def three():
        uploads = Uploads(Models({}), UploadLimits(at_once=1, wait_seconds=0.5))
        ready = [Body(b"x") for _ in range(3)]
        for body in ready:
            body.more.set()
        first, second = (asyncio.ensure_future(uploads.receive(body, source)) for body in ready[:2])
        with pytest.raises(ApiError, match="too many uploads") as caught:
            await second
        assert caught.value.status == 503 and caught.value.headers == {"Retry-After": "5"}
        third = asyncio.ensure_future(uploads.receive(ready[2], source))
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await first)["seconds"] == (await third)["seconds"] == 1.0

    asyncio.run(three())


def test_tokens_are_forgotten(source):
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
    other = tmp_path / "library"
    shutil.copytree(library, other)
    with Database(other / DATABASE, SCHEMA, writable=True) as database:
        database.execute("""UPDATE settings SET value = replace(value, '"version": "1"', '"version": "7"')""")
    options = ServerOptions(grpc_port=0, rest_port=0)
    with running_server({"tiny": tiny_model_path()}, options, library_site(other)) as addresses:
        with httpx.Client(base_url=addresses.rest, timeout=60, trust_env=False) as http:
            content = (folder / "colobot__hv2.ogg").read_bytes()
            answer = http.post("/api/v1/upload", content=content, headers=OCTETS)
            assert answer.status_code == 409 and "msim index --rebuild" in error(answer)
            assert http.post("/api/v1/similar", json={"query": {"track": "colobot__hv2.ogg"}}).status_code == 200
