"""Atomic writes: whole or not there, whoever else writes the same name, and whenever the writer dies."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from msim_tf.files import TemporaryFile, atomic_file, temporary_name

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


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "deep" / "a.txt", "w") as file:
        file.write("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "deep") == []
