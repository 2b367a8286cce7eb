"""Sound behind URIs: fsspec's memory and a genuine local HTTP server, compared with the same files in a folder."""

import functools
import http.server
import os
import shutil
import threading

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner
from store_contents import contents
from synthetic import SMALL, write_clip
from tiny_model import tiny_model_path

from msim_tf.audio import source as source_module
from msim_tf.audio.scan import FileState
from msim_tf.audio.source import SourceUnavailable, is_uri, local_file, scan_source, source_root
from msim_tf.cli import cli
from msim_tf.data import writer
from msim_tf.data.store import FeatureStore
from msim_tf.errors import InputError
from msim_tf.export import embedding
from msim_tf.export.embedder import Embedder


@pytest.fixture
def music(tmp_path):
    """Three clips, one with a name that a web address cannot hold, and what is not music."""
    folder = tmp_path / "music"
    for number, name in enumerate(("a.wav", "b/Zaz & co #1 %20é.wav", "b/c.wav")):
        write_clip(folder / name, 3.1 + number / 4, number)
    for name in ("readme.txt", ".git/hidden.wav", "b/._c.wav", "b/d.mid"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture
def memory(music):
    """The same folder in fsspec's memory."""
    system = fsspec.filesystem("memory")
    system.put(str(music), "/bucket/music", recursive=True)
    yield "memory://bucket/music"
    system.rm("/bucket", recursive=True)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web(music):
    """The same folder on a web server."""
    handler = functools.partial(Handler, directory=music.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/music"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["memory", "web"])
def uri(request):
    return request.getfixturevalue(request.param)


def test_a_listing_has_the_names_and_sizes_of_the_folder(uri, music):
    there, here = scan_source(uri), scan_source(music)
    assert list(there.files) == list(here.files) and len(here.files) == 3
    assert [state.size for state in there.files.values()] == [state.size for state in here.files.values()]
    assert (there.failures, there.unsupported, there.uri) == ({}, {".mid": 1}, uri)
    assert there.hidden == 2
    assert scan_source(uri + "/").files == there.files
    single = scan_source(uri + "/a.wav")
    assert single.files == {"a.wav": there.files["a.wav"]} and single.uri == uri == source_root(uri + "/a.wav")


def test_a_copy_has_the_bytes_and_leaves_nothing(uri, music, tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "room"))
    for name, state in scan_source(uri).files.items():
        with local_file(uri, name, state) as path:
            assert path.read_bytes() == (music / name).read_bytes() and path.suffix == ".wav"
        assert os.listdir(tmp_path / "room") == []
    with local_file(music, "a.wav", FileState(0, 0)) as path:
        assert path == music / "a.wav"


def test_a_store_is_that_of_the_folder_and_only_what_changed_is_extracted_again(memory, music, tmp_path, monkeypatch):
    done = writer.extract_folder(memory, tmp_path / "there", SMALL)
    writer.extract_folder(music, tmp_path / "here", SMALL)
    there, here = FeatureStore(tmp_path / "there"), FeatureStore(tmp_path / "here")
    assert there.identifiers == here.identifiers and done.clips == 3 and not done.failures
    for row in range(3):
        for name in ("mel", "onset", "cens"):
            np.testing.assert_array_equal(getattr(there.read_clip(row), name), getattr(here.read_clip(row), name))
    before = contents(tmp_path / "there")
    fetched = []
    fetch = source_module._fetch
    monkeypatch.setattr(
        source_module, "_fetch", lambda system, path, copy: (fetched.append(path), fetch(system, path, copy))
    )
    writer.extract_folder(memory, tmp_path / "there", SMALL)
    assert contents(tmp_path / "there") == before and fetched == []
    # The same size, but other bytes: the etag differs.
    system = fsspec.filesystem("memory")
    write_clip(tmp_path / "other.wav", 3.1, 99)
    system.put(str(tmp_path / "other.wav"), "/bucket/music/a.wav")
    assert system.size("/bucket/music/a.wav") == (music / "a.wav").stat().st_size
    writer.extract_folder(memory, tmp_path / "there", SMALL)
    assert fetched == ["/bucket/music/a.wav"]


def test_embeddings_are_those_of_the_folder(memory, music, tmp_path):
    embedder = Embedder(tiny_model_path())
    there = embedding.embed_source(memory, embedder, tmp_path / "there.npz")
    here = embedding.embed_source(music, embedder, tmp_path / "here.npz")
    embedder.close()
    assert there.identifiers == here.identifiers and len(there.identifiers) == 3
    np.testing.assert_array_equal(there.embeddings, here.embeddings)


def test_the_command_line_in_three_steps_reads_a_web_server(web, music, tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    run = lambda *options: CliRunner().invoke(cli, ["extract", web, str(tmp_path / "store"), *options])  # noqa: E731
    write_clip(music / "late.wav", 4, 5)
    assert run("--plan", str(jobs)).exit_code == 0
    (music / "late.wav").unlink()
    assert run("--run", str(jobs)).exit_code == 0
    finished = run("--finish")
    assert finished.exit_code == 1 and "3 clips" in finished.stdout, finished.output
    assert "left out: late.wav: is gone since it was listed" in finished.stderr


def test_a_server_that_goes_away_is_no_fault_of_its_files(music, tmp_path):
    handler = functools.partial(Handler, directory=music)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_address[1]}"
        _, listing = writer.list_source(uri)
        (job,) = writer.plan(listing, tmp_path / "store", SMALL)
        server.shutdown()
    with pytest.raises(SourceUnavailable, match="a.wav: cannot be fetched"):
        writer.run_job(job, uri, tmp_path / "store", workers=1)
    assert writer.finish(tmp_path / "store").pending == 3
    assert not writer.finish(tmp_path / "store").failures


def test_a_file_that_grew_is_tried_again(memory, tmp_path):
    _, listing = writer.list_source(memory)
    (job,) = writer.plan(listing, tmp_path / "store", SMALL)
    write_clip(tmp_path / "longer.wav", 5, 99)
    fsspec.filesystem("memory").put(str(tmp_path / "longer.wav"), "/bucket/music/a.wav")
    writer.run_job(job, memory, tmp_path / "store")
    assert writer.finish(tmp_path / "store").failures == {"a.wav": "changed after it was listed; run again"}
    assert not writer.extract_folder(memory, tmp_path / "store", SMALL).failures


def test_a_listing_cannot_lead_out_of_its_folder(music, tmp_path):
    shutil.rmtree(music / "b")
    links = ["../secret.wav", "a.wav", "%2e%2e/secret.wav", "http://example.org/x.wav", "x%00.wav", "/etc/y.wav"]
    (music / "index.html").write_text("".join(f'<a href="{link}">x</a>' for link in links))
    handler = functools.partial(Handler, directory=music)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        scan = scan_source(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert list(scan.files) == ["a.wav"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nowhere://x/music", "cannot be opened"),
        ("memory://empty", "holds no audio|cannot be listed"),
        ("http://127.0.0.1:9/music", "cannot be listed"),
    ],
)
def test_an_uri_that_cannot_be_read_is_one_line(uri, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        writer.extract_folder(uri, tmp_path / "store", SMALL)
    assert "\n" not in str(caught.value) and uri in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_store_behind_an_uri_is_refused_as_a_source(memory):
    fsspec.filesystem("memory").pipe("/bucket/music/store.db", b"x")
    with pytest.raises(InputError, match="stores need a local or shared file system"):
        scan_source(memory)


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "music", "s3://bucket/store"],
        ["train", "s3://bucket/store", "run"],
        ["index", "music", "gs://bucket/library"],
        ["embed", "music", "--model", "s3://bucket/model", "--out", "x.npz"],
        ["status", "https://example.org/library"],
    ],
)
def test_stores_and_libraries_need_a_file_system(arguments):
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, InputError) and "need a local or shared file system" in str(done.exception)


def test_what_is_an_uri():
    assert all(map(is_uri, ("s3://a", "memory://", "file:///x", "gs+x://b")))
    assert not any(map(is_uri, ("C://x", "/a/b", "a:b", "://x", "music")))
