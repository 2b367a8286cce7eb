"""A folder that is watched: real changes on the disk, told once they have come to rest."""

import configparser
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from msim_tf.cli.library_index import index
from msim_tf.errors import InputError
from msim_tf.library.watch import settled_changes

QUIET = 0.4
UNITS = Path(__file__).parents[2] / "serving" / "systemd"


class Watched:
    """A watch in a thread that counts what it is told."""

    def __init__(self, music, library, **options):
        self.stop, self.times = threading.Event(), []
        changes = settled_changes(music, library, quiet_seconds=QUIET, stop=self.stop, **options)
        self.thread = threading.Thread(target=lambda: [self.times.append(time.monotonic()) for _ in changes])

    def __enter__(self):
        self.thread.start()
        self.until(1)
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def until(self, count):
        end = time.monotonic() + 60
        while len(self.times) < count:
            assert time.monotonic() < end, f"told {len(self.times)} times, expected {count}"
            time.sleep(0.02)


@pytest.mark.parametrize("polling", [{}, {"poll_seconds": 0.1}])
def test_a_file_that_grows_is_told_once_when_it_is_whole(tmp_path, polling):
    with Watched(tmp_path, tmp_path / "library", **polling) as watched:
        with open(tmp_path / "song.ogg", "wb") as file:
            for _ in range(15):
                file.write(b"x" * 1000)
                file.flush()
                time.sleep(QUIET / 4)
        written = time.monotonic()
        watched.until(2)
        assert watched.times[1] > written
        time.sleep(3 * QUIET)
        assert len(watched.times) == 2
        (tmp_path / "song.ogg").unlink()
        watched.until(3)


def test_the_library_and_hidden_files_do_not_count(tmp_path):
    (tmp_path / "library").mkdir()
    with Watched(tmp_path, tmp_path / "library") as watched:
        (tmp_path / "library" / "library.db").write_text("x")
        (tmp_path / ".hidden").write_text("x")
        time.sleep(4 * QUIET)
        assert len(watched.times) == 1
        (tmp_path / "Album").mkdir()
        (tmp_path / "Album" / "song.ogg").write_text("x")
        watched.until(2)


def test_what_changes_while_the_caller_works_is_told_afterwards(tmp_path):
    stop = threading.Event()
    changes = settled_changes(tmp_path, tmp_path / "library", quiet_seconds=QUIET, stop=stop)
    next(changes)
    (tmp_path / "song.ogg").write_text("x")  # nobody waits now
    time.sleep(2 * QUIET)
    next(changes)
    stop.set()
    assert list(changes) == []


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such folder to watch"):
        next(settled_changes(tmp_path / "nowhere", tmp_path / "library"))


def test_the_command_indexes_what_comes_until_it_is_interrupted(folder, tiny_model, tmp_path, music):
    command = ["index", str(folder), str(tmp_path / "library"), "--model", str(tiny_model), "--watch"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "msim_tf", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # A shell's background jobs, which these tests may be, ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            lines = iter(process.stdout)
            assert "6 tracks; 6 new" in next(lines)
            assert next(line for line in lines if "watching" in line).startswith(f"watching {folder}")
            shutil.copyfile(music / "zaz__mus1.ogg", folder / "later.ogg")
            assert "7 tracks; 1 new" in next(line for line in lines if "tracks;" in line)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("unit", ["msim-watch.service", "msim-index.service"])
def test_units_of_systemd_start_commands_that_there_are(unit):
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(UNITS / unit)
    program, *arguments = parser["Service"]["ExecStart"].split()
    assert program.endswith("/msim")
    command, *rest = arguments
    assert command == "index"
    options = index.make_context(command, rest).params
    assert str(options["folder"]) == "%h/Music" and options["watch"] == (unit == "msim-watch.service")
    assert (UNITS / "msim-index.timer").is_file()  # of the same name, which is how it finds its service
