"""Saves of an index; every fault is caused for real, among them SIGKILL at each step of a save."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from indexed import contents, some

import msim_tf
from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.query import search, track_query, vector_query
from msim_tf.search.schema import SCHEMA


def test_adding_writes_only_what_is_new(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    before = (path / "vectors-000001.f16").read_bytes()
    index.add(some(embeddings, [0, 1], prefix="new/"))
    index.remove([embeddings.identifiers[5]])
    index.save()
    after = (path / "vectors-000001.f16").read_bytes()
    assert after.startswith(before) and len(after) == len(before) + 2 * 48 * 2
    assert len(Index.open(path)) == 301


def test_much_that_is_dead_is_compacted_and_swept(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    index.remove(embeddings.identifiers[:149])
    index.save()
    assert len(Index.open(path).rows) == 300
    index.remove(embeddings.identifiers[149:160])
    expected = contents(index)
    index.save()
    opened = Index.open(path)
    assert contents(opened) == contents(index) == expected
    assert len(opened.rows) == 140
    assert sorted(file.name for file in path.iterdir()) == ["library.db", "vectors-000002.crc", "vectors-000002.f16"]


def test_many_small_saves_stay_one_file_and_rows_keep_their_numbers(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    names = list(embeddings.identifiers)
    for number in range(70):
        index.add(some(embeddings, [number], prefix=f"{number}/"))
        index.save()
        names.append(f"{number}/{embeddings.identifiers[number]}")
        if number % 7 == 0:
            index.remove([names[-1]])
    index.save()
    opened = Index.open(path)
    assert len(opened) == 360 and contents(opened) == contents(index)
    assert len(list(path.iterdir())) == 3
    described = opened.described(range(370))
    assert {row: name for row, (name, _) in described.items()} == {
        row: name for row, name in enumerate(names) if row < 300 or (row - 300) % 7
    }


def test_missing_tracks_are_not_found_until_they_return(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    before = contents(index)
    gone = list(embeddings.identifiers[10:20])
    index.set_missing(gone, True)
    index.save()
    for held in (index, Index.open(path)):
        assert len(held) == 290 and not set(gone) & set(held.identifiers) and held.table.missing() == gone
        with pytest.raises(InputError, match="no track"):
            held.vectors(gone[:1])
        actual = search(held, track_query(held, "t0000.ogg"), filters=Filters(years=(1000, 2999)), k=300)
        assert not {match.identifier for match in actual} & set(gone)
    # Neither compaction nor a copy forgets them.
    index.remove(embeddings.identifiers[100:])
    index.save()
    assert len(Index.open(path).rows) == 100
    index.save(tmp_path / "copy")
    index.set_missing(gone, False)
    index.save()
    assert contents(Index.open(tmp_path / "copy")) == {name: before[name] for name in embeddings.identifiers[:100]}


def test_tracks_may_change_their_names_in_a_circle(index, embeddings, tmp_path):
    index.save(tmp_path / "library")
    before = contents(index)
    a, b, c = embeddings.identifiers[:3]
    index.rename({a: b, b: a, "new": c})
    index.save()
    after = contents(Index.open(tmp_path / "library"))
    assert (after[a], after[b], after["new"]) == (before[b], before[a], before[c]) and c not in after
    assert Index.open(tmp_path / "library").table.containing("NEW") == ["new"]


def test_the_search_box_finds_every_word_anywhere(index, embeddings, metadata, tmp_path):
    names = embeddings.identifiers
    strange = {"title": "100%_[x]*? \u0130stanbul Stra\u00dfe", "artist": "it's"}
    index.update_metadata({names[0]: strange})
    index.save(tmp_path / "library")
    texts = {
        name: "\n".join([*(held.get(key, "") for key in ("title", "artist", "album")), name]).casefold()
        for name, (held, _) in contents(index).items()
    }
    for text in (
        "title 1",
        "ALBUM artist",
        "t00",
        "0",
        "itle 2 rtist",
        "",
        "100%",
        "_[X]",
        "*?",
        "strasse",
        "it's",
        "zz",
    ):
        expected = sorted(name for name, held in texts.items() if all(word in held for word in text.casefold().split()))
        assert Index.open(tmp_path / "library").table.containing(text) == expected, text
    index.remove([names[0]])
    assert index.table.containing("strasse") == []


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
from msim_tf.search.index import Index

path, step = Path(sys.argv[1]), int(sys.argv[2])
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
index.table.database._connection.set_commit_hook(deadly(lambda: False))
index.save(*sys.argv[3:])
print(calls)
"""


def killed_save(path, step, *arguments, removed):
    environment = {**os.environ, "PYTHONPATH": str(Path(msim_tf.__file__).parents[1])}
    program = KILLED.replace("REMOVED", str(removed))
    return subprocess.run(
        [sys.executable, "-c", program, str(path), str(step), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("removed, swept", [(3, False), (200, True)], ids=["append", "compact"])
def test_sigkill_during_a_save_leaves_the_old_index_or_the_new_one(embeddings, metadata, tmp_path, removed, swept):
    """A process is killed at every flush, commit, rename and deletion of a save in turn; the next save succeeds."""
    original = tmp_path / "original"
    Index.build(embeddings, metadata).save(original)
    shutil.copytree(original, tmp_path / "whole")
    steps = int(killed_save(tmp_path / "whole", 0, removed=removed).stdout)
    assert steps >= 3
    old, new = contents(Index.open(original)), contents(Index.open(tmp_path / "whole"))
    assert len(old) == 300 and len(new) == 340 - removed
    seen = set()
    for step in range(1, steps + 1):
        path = tmp_path / f"killed{step}"
        shutil.copytree(original, path)
        assert killed_save(path, step, removed=removed).returncode == -signal.SIGKILL
        opened = Index.open(path)
        actual = contents(opened)
        assert actual in (old, new)
        seen.add(len(actual))
        opened.add(some(embeddings, [0], prefix="after/"))
        opened.save()
        after = contents(Index.open(path))
        assert {name: held for name, held in after.items() if not name.startswith("after/")} == actual
        assert len(after) == len(actual) + 1 and not list(path.glob(".tmp-*"))
    # The commit is the last step, but for the sweeping of what it replaced.
    assert seen == ({len(old), len(new)} if swept else {len(old)})


def test_sigkill_while_an_index_is_written_elsewhere_leaves_what_was_there(embeddings, metadata, tmp_path):
    """Also where another index is replaced."""
    Index.build(embeddings, metadata).save(tmp_path / "source")
    Index.build(some(embeddings, range(20))).save(tmp_path / "target")
    shutil.copytree(tmp_path / "target", tmp_path / "whole")
    steps = int(killed_save(tmp_path / "source", 0, tmp_path / "whole", removed=0).stdout)
    assert len(Index.open(tmp_path / "whole")) == 340 and len(list((tmp_path / "whole").iterdir())) == 3
    seen = set()
    for step in range(1, steps + 1):  # the last two sweep the files of the index that was there
        path = tmp_path / f"killed{step}"
        shutil.copytree(tmp_path / "target", path)
        assert killed_save(tmp_path / "source", step, path, removed=0).returncode == -signal.SIGKILL
        seen.add(len(Index.open(path)))
        Index.build(some(embeddings, range(5))).save(path)
        assert len(Index.open(path)) == 5 and len(list(path.iterdir())) == 3
        if step > steps - 2:
            continue
        empty = tmp_path / f"empty{step}"
        assert killed_save(tmp_path / "source", step, empty, removed=0).returncode == -signal.SIGKILL
        Index.build(some(embeddings, range(5))).save(empty)
        assert len(Index.open(empty)) == 5 and len(list(empty.iterdir())) == 3
    assert seen == {20, 340}


def test_sigkill_at_any_time_leaves_one_of_the_saves(embeddings, tmp_path):
    """SQLite's own writes cannot be counted from outside, so a process that saves is killed at random times."""
    program = """
        from indexed import some
        index = Index.open(sys.argv[1])
        vectors = np.random.default_rng(1).normal(size=(30, 48)).astype(np.float32)
        for number in range(10**6):
            index.add(Embeddings("new", tuple(f"{number} {i}" for i in range(30)), vectors, index.source.layout, META))
            index.remove([name for name in index.identifiers if not name.startswith(f"{number} ")])
            index.save()
            print(number, flush=True)
        """
    prelude = """
        import sys
        import numpy as np
        from msim_tf.embeddings import Embeddings
        from msim_tf.search.index import Index
        META = {"model": "toy", "version": "3", "digest": "0123456789abcdef"}
        """
    rng = np.random.default_rng(0)
    Index.build(embeddings).save(tmp_path / "library")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(msim_tf.__file__).parents[1]), str(Path(__file__).parent)]),
    }
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(program), str(tmp_path / "library")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        last = int(([0, *process.stdout.read().split()])[-1])
        process.wait()
        opened = Index.open(tmp_path / "library")
        numbers = {int(name.split()[0]) for name in opened.identifiers}
        assert len(opened) == 30 and len(numbers) == 1 and numbers <= {last, last + 1}
        assert np.isfinite(opened.vectors(opened.identifiers)).all() and opened.table.database.check() == []
        opened.close()


def test_a_second_writer_is_refused(index, embeddings, tmp_path):
    index.save(tmp_path / "library")
    other = Index.open(tmp_path / "library")
    other.remove(other.identifiers[:1])
    other.save()
    with pytest.raises(InputError, match="changed by another process"):
        index.remove(index.identifiers[-1:])
        index.save()
    assert len(Index.open(tmp_path / "library")) == 299


def test_a_reader_is_never_given_wrong_vectors_after_another_compacts(index, tmp_path):
    index.save(tmp_path / "library")
    reader = Index.open(tmp_path / "library")
    before = contents(reader)
    rows = reader.rows.take(np.arange(300))
    index.remove(index.identifiers[:20])
    index.save()
    # What was only removed is gone at once; the numbers of the others still hold.
    assert contents(reader) == {name: before[name] for name in index.identifiers}
    index.remove(index.identifiers[:180])
    index.save()
    np.testing.assert_array_equal(reader.rows.take(np.arange(300)), rows)
    # Rows have other numbers now: the reader is told, instead of being given the vectors of other tracks.
    for ask in (lambda: contents(reader), lambda: search(reader, vector_query(reader, np.ones(48)))):
        with pytest.raises(InputError, match="written anew by another process; open it again"):
            ask()
    assert len(search(Index.open(tmp_path / "library"), vector_query(reader, np.ones(48)), k=200)) == 100


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


def test_foreign_and_damaged_indexes_are_refused(index, tmp_path):
    path = tmp_path / "library"
    with pytest.raises(InputError, match="library.db not found; expected the database of a library"):
        Index.open(path)
    index.save(path)
    whole = {file: file.read_bytes() for file in path.iterdir()}
    for name in ("vectors-000001.f16", "vectors-000001.crc", "library.db"):
        (path / name).write_bytes(whole[path / name][:-10])
        with pytest.raises(InputError, match=f"{name}.*truncated"):
            Index.open(path)
        (path / name).unlink()
        with pytest.raises(InputError, match=name):
            Index.open(path)
        (path / name).write_bytes(whole[path / name])
    assert len(Index.open(path)) == 300


def test_settings_that_an_index_does_not_write_are_refused(index, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    whole = (path / "library.db").read_bytes()
    for sql in (
        "DELETE FROM settings WHERE name = 'source'",
        "UPDATE settings SET value = '{}' WHERE name = 'vectors'",
        "UPDATE settings SET value = '[1' WHERE name = 'engine'",
        """UPDATE settings SET value = '{"dimensions": ["genre"]}' WHERE name = 'source'""",
    ):
        with Database(path / "library.db", SCHEMA, writable=True) as database:
            database.execute(sql)
        with pytest.raises(InputError, match="damaged .no usable settings.*make it anew"):
            Index.open(path)
        (path / "library.db").write_bytes(whole)
    with Database(path / "library.db", SCHEMA, writable=True) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(InputError, match="format version 9, this release reads 1; make it anew"):
        Index.open(path)


def test_an_index_of_version_0_1_is_refused_with_what_to_do(index, tmp_path):
    (tmp_path / "index.json").write_text("{}")
    for call in (Index.open, index.save):
        with pytest.raises(InputError, match="msim 0.1.*make it anew with msim index"):
            call(tmp_path)
    assert os.listdir(tmp_path) == ["index.json"]


def test_a_damaged_vector_is_refused_when_it_is_used(index, embeddings, tmp_path):
    path = tmp_path / "library"
    index.save(path)
    data = bytearray((path / "vectors-000001.f16").read_bytes())
    data[2 * 48 * 7 + 5] ^= 1
    (path / "vectors-000001.f16").write_bytes(data)
    opened = Index.open(path)
    assert len(opened.vectors(embeddings.identifiers[:7])) == 7
    with pytest.raises(InputError, match="vectors-000001.f16: damaged .1 vectors .* row 7"):
        opened.vectors(embeddings.identifiers[:8])
    with pytest.raises(InputError, match="damaged"):
        search(opened, track_query(opened, embeddings.identifiers[0]))


def test_a_directory_of_something_else_is_not_touched(index, tmp_path):
    (tmp_path / "song.ogg").write_bytes(b"music")
    with pytest.raises(InputError, match="holds something that is not an index"):
        index.save(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        index.save(tmp_path / "song.ogg")
    assert [file.name for file in tmp_path.iterdir()] == ["song.ogg"]
    with pytest.raises(InputError, match="never saved"):
        index.save()
