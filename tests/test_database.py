"""Databases; every fault is caused for real: flipped and cut bytes, SIGKILL, another process's lock, a full disk."""

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import msim_tf
from msim_tf.database import Database, Schema
from msim_tf.errors import InputError

SCHEMA = Schema(
    "a test",
    "make it again",
    0x74657374,
    "CREATE TABLE numbers (number INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB)",
)
ROWS = [(number, f"name {number}", bytes([number % 256]) * (37 * number % 9000)) for number in range(300)]


@pytest.fixture
def path(tmp_path):
    with Database(tmp_path / "test.db", SCHEMA, create=True) as database:
        database.executemany("INSERT INTO numbers VALUES (?, ?, ?)", ROWS)
    return tmp_path / "test.db"


def rows(path):
    with Database(path, SCHEMA) as database:
        return database.execute("SELECT * FROM numbers ORDER BY number")


def test_what_is_written_is_read_and_one_file_is_left(path):
    assert rows(path) == ROWS
    with Database(path, SCHEMA) as database:
        assert database.check() == []
        assert database.value("SELECT name FROM numbers WHERE number = ?", (7,)) == "name 7"
        assert database.value("SELECT name FROM numbers WHERE number = -1") is None
    assert os.listdir(path.parent) == ["test.db"]
    # Any SQLite reads it.
    assert sqlite3.connect(path).execute("SELECT * FROM numbers ORDER BY number").fetchall() == ROWS


def test_a_path_that_is_not_utf_8_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for create in (True, False):
        with pytest.raises(InputError, match="not valid UTF-8"):
            Database(folder / "test.db", SCHEMA, create=create)
    assert list(folder.iterdir()) == []


def test_a_transaction_is_done_whole_or_not_at_all(path):
    with Database(path, SCHEMA, writable=True) as database:
        with pytest.raises(ZeroDivisionError), database.transaction():
            database.execute("DELETE FROM numbers")
            with database.transaction():
                database.execute("INSERT INTO numbers VALUES (1000, 'new', NULL)")
            raise ZeroDivisionError
        assert database.execute("SELECT * FROM numbers ORDER BY number") == ROWS
        with database.transaction():
            database.execute("DELETE FROM numbers WHERE number >= 5")
    assert rows(path) == ROWS[:5]


def test_one_opened_to_be_read_cannot_be_changed_and_sees_one_state_in_a_transaction(path):
    with Database(path, SCHEMA) as reader:
        with pytest.raises(InputError, match="cannot be written"):
            reader.execute("DELETE FROM numbers")
        before = reader.revision
        with reader.transaction():
            assert reader.value("SELECT count(*) FROM numbers") == 300
        with Database(path, SCHEMA, writable=True) as writer:
            writer.execute("DELETE FROM numbers WHERE number = 0")
        assert reader.revision != before and reader.value("SELECT count(*) FROM numbers") == 299
        assert reader.revision == reader.revision


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_byte_is_refused_in_one_line_or_is_in_a_page_that_nothing_reads(path, tmp_path, seed):
    data, rng = path.read_bytes(), np.random.default_rng(seed)
    refused = 0
    for place in [*rng.integers(0, 100, 10), *rng.integers(0, len(data), 40)]:
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        copy = tmp_path / "flipped.db"
        copy.write_bytes(flipped)
        try:
            assert rows(copy) == ROWS
        except InputError as error:
            refused += 1
            assert str(copy) in str(error) and "\n" not in str(error)
    assert refused >= 45  # the index of names is not read by this query


def test_check_names_a_flipped_byte_wherever_it_is(path):
    data = bytearray(path.read_bytes())
    for page in range(len(data) // 4096):
        flipped = bytearray(data)
        flipped[page * 4096 + 2000] ^= 4
        path.write_bytes(flipped)
        try:
            with Database(path, SCHEMA) as database:
                faults = database.check()
        except InputError as error:  # in a page that is read to open it
            faults = [str(error)]
        assert len(faults) == 1 and "damaged" in faults[0] and "make it again" in faults[0] and "\n" not in faults[0]


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.999])
def test_a_truncated_one_is_refused_in_one_line(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match="test.db: damaged"):
        rows(path)


def test_what_is_not_there_or_something_else_is_refused(path, tmp_path):
    with pytest.raises(InputError, match=r"none.db not found; expected the database of a test"):
        rows(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("hello " * 1000)
    with pytest.raises(InputError, match="not an SQLite database"):
        rows(tmp_path / "text.db")
    with pytest.raises(InputError, match="not that of something"):
        Database(path, replace(SCHEMA, application_id=5, what="something"))
    with pytest.raises(InputError, match="cannot be opened"):
        rows(tmp_path)
    sqlite3.connect(tmp_path / "plain.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(InputError, match="no checksums"):
        rows(tmp_path / "plain.db")


def test_an_older_format_is_brought_up_to_date_and_a_newer_one_refused(path):
    newer = replace(SCHEMA, migrations=("ALTER TABLE numbers ADD COLUMN extra INTEGER DEFAULT 3",))
    with Database(path, newer) as database:
        assert database.execute("SELECT extra, number FROM numbers WHERE number < 2") == [(3, 0), (3, 1)]
    with pytest.raises(InputError, match="format version 2, this release reads 1; make it again"):
        rows(path)


def run(program, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(msim_tf.__file__).parents[1])}
    prelude = textwrap.dedent(f"""
        import os, signal, sys, time
        from msim_tf.database import Database, Schema
        SCHEMA = Schema({SCHEMA.what!r}, {SCHEMA.remake!r}, {SCHEMA.application_id}, {SCHEMA.statements!r})
        """)
    command = [sys.executable, "-c", prelude + textwrap.dedent(program), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_sigkill_leaves_the_last_transaction_whole_or_undone(path, tmp_path):
    program = """
        database = Database(sys.argv[1], SCHEMA, create=True)
        print("ready", flush=True)
        for number in range(10**6):
            with database.transaction():
                database.execute("DELETE FROM numbers")
                for row in range(50):
                    database.execute("INSERT INTO numbers VALUES (?, ?, ?)", (row, f"{number} {row}", bytes(3000)))
        """
    rng = np.random.default_rng(0)
    for _ in range(6):
        process = run(program, path)
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=rng.uniform(0.02, 0.25))
        process.kill()
        process.wait()
        names = [name for _, name, _ in rows(path)]
        assert len(names) in (50, 300) and len({name.split()[0] for name in names}) == 1
        with Database(path, SCHEMA) as database:
            assert database.check() == []


def test_one_in_memory_is_like_one_in_a_file():
    with Database(None, SCHEMA) as database:
        database.executemany("INSERT INTO numbers VALUES (?, ?, ?)", ROWS)
        assert database.execute("SELECT * FROM numbers ORDER BY number") == ROWS and database.check() == []
        with pytest.raises(ZeroDivisionError), database.transaction():
            database.execute("DELETE FROM numbers")
            raise ZeroDivisionError
        assert database.value("SELECT count(*) FROM numbers") == 300


def test_making_one_that_a_killed_process_began(tmp_path):
    path = tmp_path / "new.db"
    path.touch()  # what SQLite leaves before the first transaction
    with Database(path, SCHEMA, create=True) as database:
        database.execute("INSERT INTO numbers VALUES (1, 'a', NULL)")
    assert len(rows(path)) == 1


def test_another_process_that_writes_for_too_long_is_named(path, monkeypatch):
    monkeypatch.setattr("msim_tf.database._BUSY_MILLISECONDS", 50)
    process = run(
        """
        database = Database(sys.argv[1], SCHEMA, writable=True)
        with database.transaction():
            print("locked", flush=True)
            time.sleep(60)
        """,
        path,
    )
    process.stdout.readline()
    with pytest.raises(InputError, match="another process is writing"), Database(path, SCHEMA, writable=True) as other:
        other.execute("DELETE FROM numbers")
    assert rows(path) == ROWS  # readers do not wait for a transaction that has not been committed
    process.kill()
    process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are POSIX's")
def test_a_full_disk_undoes_the_transaction(path):
    """The limit on the size of files fails a write as a full disk does."""
    process = run(
        """
        import resource
        from msim_tf.errors import InputError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = os.path.getsize(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, size + 100_000))
        with Database(sys.argv[1], SCHEMA, writable=True) as database:
            try:
                with database.transaction():
                    for row in range(1000, 1100):
                        database.execute("INSERT INTO numbers VALUES (?, ?, ?)", (row, str(row), bytes(9000)))
            except InputError as error:
                print(error)
        """,
        path,
    )
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and output.count("\n") == 1 and str(path) in output, output
    assert rows(path) == ROWS


def test_a_copy_is_a_copy(path, tmp_path):
    shutil.copy(path, tmp_path / "copy.db")
    assert rows(tmp_path / "copy.db") == ROWS
