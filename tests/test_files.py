"""Atomic writes: whole or not there, whoever else writes the same name, and whenever the writer dies."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from msim_tf.errors import InputError
from msim_tf.files import TemporaryFile, atomic_file, exclusive, load_json, save_json, temporary_name

WRITER = """
import os, signal, sys
from msim_tf.files import atomic_file
with atomic_file(sys.argv[1]) as file:
    file.write(b"half of it, and longer than what comes next")
    file.flush()
    print("written", flush=True)
    sys.stdin.read()
"""


def start_writer(path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "written\n"
    return process


def test_two_writers_of_one_name_never_share_a_temporary_file(tmp_path):
    path = tmp_path / "a.bin"
    process = start_writer(path)
    with atomic_file(path) as file:
        file.write(b"mine")
    assert path.read_bytes() == b"mine"
    process.communicate()
    assert process.returncode == 0
    assert path.read_bytes() == b"half of it, and longer than what comes next"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_next_writer_uses_what_a_killed_one_left(tmp_path):
    path = tmp_path / "a.bin"
    process = start_writer(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert os.listdir(tmp_path) == [temporary_name(path).name]
    with atomic_file(path) as file:
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["a.bin"] and path.read_bytes() == b"whole"


def test_many_attempts_at_once_in_one_process(tmp_path):
    path = tmp_path / "a.bin"
    attempts = [TemporaryFile(path) for _ in range(5)]
    assert len(os.listdir(tmp_path)) == 5
    for number, attempt in enumerate(attempts):
        attempt.file.write(bytes([number]) * 100)
    for number in (3, 0, 4):
        with closing(attempts[number]) as attempt:
            attempt.publish(path)
        assert path.read_bytes() == bytes([number]) * 100
    for number in (1, 2):
        attempts[number].close()
    assert os.listdir(tmp_path) == ["a.bin"] and path.read_bytes() == bytes([4]) * 100


def test_what_is_no_file_is_never_replaced(tmp_path):
    """A rename would put a file in the place of a device such as /dev/stdout, where the user may do that."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    before = sorted((path.name, os.lstat(path).st_mode) for path in tmp_path.iterdir())
    for name in ("pipe", "link", "folder"):
        with pytest.raises(InputError, match=f"{name}: not a regular file"):
            save_json(tmp_path / name, {})
    assert sorted((path.name, os.lstat(path).st_mode) for path in tmp_path.iterdir()) == before


def test_names_that_are_not_utf_8_come_back_from_json(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xc3\xa9.ogg")
    save_json(tmp_path / "a.json", {name: [name]})
    assert load_json(tmp_path / "a.json", "names") == {name: [name]}
    (tmp_path / "a.json").read_bytes().decode("utf-8")


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "deep" / "a.txt", "w") as file:
        file.write("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "deep") == []


HOLDER = """
import sys
from pathlib import Path
from msim_tf.files import exclusive
with exclusive(Path(sys.argv[1]), "holding it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(directory):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", HOLDER, str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, None])
def test_a_lock_ends_with_its_holder_however_that_ends(tmp_path, number):
    process = start_holder(tmp_path / "deep" / "library")
    begun = time.monotonic()
    with pytest.raises(InputError, match="library: another process is waiting; wait for it to end"):
        with exclusive(tmp_path / "deep" / "library", "waiting"):
            raise AssertionError("two at once")
    assert time.monotonic() - begun < 1
    with exclusive(tmp_path / "deep" / "library", "writing another part", name=".other"):
        pass
    if number is not None:
        process.send_signal(number)
    process.communicate()
    with exclusive(tmp_path / "deep" / "library", "going on"):
        pass


def test_a_lock_that_was_removed_while_held_is_made_anew(tmp_path):
    with exclusive(tmp_path, "tidying up"):
        (tmp_path / ".lock").unlink()
    with exclusive(tmp_path, "working"), pytest.raises(InputError, match="another process"):
        with exclusive(tmp_path, "working"):
            raise AssertionError("two at once")


def test_a_lock_is_released_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path, "working"):
        raise ZeroDivisionError
    with exclusive(tmp_path, "working"):
        pass


def test_a_lock_that_another_thread_holds_is_held(tmp_path):
    with exclusive(tmp_path, "working"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: pytest.raises(InputError, exclusive(tmp_path, "working").__enter__)).result()
