"""Saves of an index; every fault is caused for real, among them SIGKILL at each step of a save."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from indexed import contents, some
from numpy.lib.format import open_memmap

import msim_tf
from msim_tf.errors import InputError
from msim_tf.search import index_files
from msim_tf.search.index import Index
from msim_tf.search.index_files import MANIFEST


def test_adding_writes_only_what_is_new(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file() and file.name != MANIFEST}
    index.add(some(embeddings, [0, 1], prefix="new/"))
    index.remove([embeddings.identifiers[5]])
    index.save()
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert len(Index.open(path)) == 301


def test_much_that_is_dead_is_compacted_and_swept(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    index.remove(embeddings.identifiers[:100])
    expected = contents(index)
    index.save()
    opened = Index.open(path)
    assert contents(opened) == contents(index) == expected
    assert len(opened.rows) == 200 and len(list(path.glob("segment-*"))) == 1


def test_many_small_saves_become_one_segment(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    for number in range(70):
        index.add(some(embeddings, [number], prefix=f"{number}/"))
        index.save()
    assert len(Index.open(path)) == 370 and len(list(path.glob("segment-*"))) < 10


def test_joining_small_segments_leaves_the_great_one_and_the_numbers_of_the_rows(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    before = {file: file.stat().st_mtime_ns for file in (path / "segment-000001").iterdir()}
    for number in range(70):
        index.add(some(embeddings, [number], prefix=f"{number}/"))
        index.save()
        if number % 7 == 0:
            index.remove([f"{number}/{embeddings.identifiers[number]}"])
    index.save()
    opened = Index.open(path)
    assert len(opened) == 360 and contents(opened) == contents(index)
    assert len(list(path.glob("segment-*"))) < 10
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert [opened.rows.identifier(row) for row in range(300)] == list(embeddings.identifiers)


def test_an_index_that_grows_copies_a_row_as_often_as_its_segment_doubles(index, embeddings, tmp_path, monkeypatch):
    monkeypatch.setattr(index_files, "_MOST_SEGMENTS", 4)
    path, saves = tmp_path / "library", 260
    grown = Index.build(some(embeddings, [0], prefix="0/"), engine="exact")
    written, known = 0, set()
    for number in range(1, saves):
        grown.save(path)
        segments = {segment.name: len(segment) for segment in grown.rows.segments}
        assert len(segments) <= 5 + math.log2(saves)
        written += sum(count for name, count in segments.items() if name not in known)
        known = set(segments)
        grown.add(some(embeddings, [number % 300], prefix=f"{number}/"))
    # All into one every time would write each row some 32 times.
    assert written <= saves * (2 + math.log2(saves / 4))
    grown.save()
    assert contents(Index.open(path)) == contents(grown) and len(grown) == saves


def test_everything_may_be_removed_and_added_again(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    before = contents(index)
    index.remove(embeddings.identifiers)
    index.save()
    empty = Index.open(path)
    assert len(empty) == 0 and empty.identifiers == []
    empty.add(embeddings, {name: held for name, (held, _) in before.items()})
    empty.save()
    assert contents(Index.open(path)) == before


def test_saving_elsewhere_writes_everything(index, tmp_path):
    index.save(tmp_path / "one")
    index.save(tmp_path / "two")
    index.remove(index.identifiers[:3])
    index.save()
    assert len(Index.open(tmp_path / "one")) == 300
    assert len(Index.open(tmp_path / "two")) == 297


def test_file_names_that_are_not_utf8_survive(embeddings, tmp_path):
    name = os.fsdecode(b"caf\xe9/\xff.ogg")
    index = Index.build(
        replace(some(embeddings, [0]), identifiers=(name,)), {name: {"title": name, "file": {"size": 7}}}
    )
    index.save(tmp_path / "library")
    opened = Index.open(tmp_path / "library")
    assert opened.identifiers == [name] and opened.metadata(name) == {"title": name, "file": {"size": 7}}


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from msim_tf.embeddings import Embeddings
from msim_tf.search import index_files
from msim_tf.search.index import Index

path, step, index_files._MOST_SEGMENTS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
index = Index.open(path)
vectors = np.random.default_rng(1).normal(size=(40, index.source.layout.size)).astype(np.float32)
meta = {"model": "toy", "version": "3", "digest": "0123456789abcdef"}
index.add(Embeddings("new", tuple(f"new{i}" for i in range(40)), vectors, index.source.layout, meta))
index.remove(index.identifiers[:REMOVED])
calls = 0

def deadly(function):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped

for name in ("replace", "fsync", "unlink", "rmdir"):
    setattr(os, name, deadly(getattr(os, name)))
index.save()
print(calls)
"""


def killed_save(path, step, *, removed, most):
    environment = {**os.environ, "PYTHONPATH": str(Path(msim_tf.__file__).parents[1])}
    program = KILLED.replace("REMOVED", str(removed))
    return subprocess.run(
        [sys.executable, "-c", program, str(path), str(step), str(most)],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "tracks, removed, most, swept",
    [(300, 3, 64, False), (300, 120, 64, True), (30, 3, 1, True)],
    ids=["append", "compact", "join"],
)
def test_sigkill_during_a_save_leaves_the_old_index_or_the_new_one(
    embeddings, metadata, tmp_path, tracks, removed, most, swept
):
    """A process is killed at every flush, rename and deletion of a save in turn; the next save always succeeds."""
    first, held = tmp_path / "0", some(embeddings, range(tracks))
    index = Index.build(held, {name: metadata[name] for name in held.identifiers if name in metadata})
    index.save(first)
    old = contents(index)
    whole = killed_save(first, 0, removed=removed, most=most)
    assert whole.returncode == 0, whole.stderr
    new = contents(Index.open(first))
    assert len(new) == len(old) + 40 - removed
    assert (len(list(first.glob("segment-*"))) == 1) == swept
    seen = set()
    for step in range(1, int(whole.stdout) + 1):
        path = tmp_path / str(step)
        index.save(path)
        assert killed_save(path, step, removed=removed, most=most).returncode == -signal.SIGKILL
        opened = Index.open(path)
        found = contents(opened)
        assert found in (old, new)
        seen.add(len(found))
        opened.remove(opened.identifiers[:1])
        opened.save()
        assert len(Index.open(path)) == len(found) - 1
        assert not list(path.glob(".tmp-*"))
    # The new manifest is the last step, but for the sweeping of what it replaced.
    assert seen == ({len(old), len(new)} if swept else {len(old)})


def test_a_second_writer_is_refused(index, embeddings, tmp_path):
    index.save(tmp_path / "library")
    other = Index.open(tmp_path / "library")
    other.remove(other.identifiers[:1])
    other.save()
    index.remove(index.identifiers[-1:])
    with pytest.raises(InputError, match="changed by another process"):
        index.save()
    assert len(Index.open(tmp_path / "library")) == 299


def test_a_reader_keeps_its_mapped_files_after_another_compacts(index, tmp_path):
    index.save(tmp_path / "library")
    reader = Index.open(tmp_path / "library")
    before = contents(reader)
    index.remove(index.identifiers[:200])
    index.save()
    assert contents(reader) == before


def test_a_disk_that_is_full_leaves_the_old_index(index, embeddings, tmp_path):
    """The limit on file size makes the write itself fail, as a full disk does."""
    import resource

    index.save(tmp_path / "library")
    index.add(some(embeddings, range(200), prefix="new/"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            index.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(Index.open(tmp_path / "library")) == 300
    index.save()
    assert contents(Index.open(tmp_path / "library")) == contents(index)


def altered_manifest(path, **changes):
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_foreign_and_damaged_indexes_are_refused(index, tmp_path):
    path = tmp_path / "library"
    with pytest.raises(InputError, match="not found; expected the manifest"):
        Index.open(path)
    index.save(path)
    segment = next(path.glob("segment-*"))
    whole = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    def restore():
        for file, data in whole.items():
            file.write_bytes(data)

    altered_manifest(path, format_version=99)
    with pytest.raises(InputError, match="format version 99, this release reads 1"):
        Index.open(path)
    altered_manifest(path, format="msim-model")
    with pytest.raises(InputError, match="not of format 'msim-index'"):
        Index.open(path)
    restore()
    (path / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        Index.open(path)
    restore()
    for name, message in (
        ("vectors.npy", "cannot be mapped"),
        ("offsets.npy", "cannot be mapped"),
        ("identifiers.json", "not valid JSON"),
        ("metadata.jsonl", "its offsets.npy tells of"),
    ):
        (segment / name).write_bytes(whole[segment / name][:-10])
        with pytest.raises(InputError, match=f"{name}.*{message}"):
            Index.open(path)
        (segment / name).unlink()
        with pytest.raises(InputError, match=name):
            Index.open(path)
        restore()
    open_memmap(segment / "vectors.npy", "w+", np.float16, (300, 6))
    with pytest.raises(InputError, match=r"\(300, 6\), expected float16 \(300, 48\)"):
        Index.open(path)


def test_pickled_arrays_are_refused(index, tmp_path):
    index.save(tmp_path / "library")
    vectors = next((tmp_path / "library").rglob("vectors.npy"))
    np.save(vectors, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be mapped"):
        Index.open(tmp_path / "library")


def test_a_directory_of_something_else_is_not_touched(index, tmp_path):
    (tmp_path / "song.ogg").write_bytes(b"music")
    with pytest.raises(InputError, match="holds something that is not an index"):
        index.save(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        index.save(tmp_path / "song.ogg")
    assert [file.name for file in tmp_path.iterdir()] == ["song.ogg"]
    with pytest.raises(InputError, match="never saved"):
        index.save()
