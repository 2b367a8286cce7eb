"""Decoders that really crash, hang, and eat memory cost one file; the process that hosts them goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from fit import sine
from sabotage import SABOTAGE

import msim_tf
from msim_tf.audio import decode
from msim_tf.audio.sandbox import DecodeLimits, Decoder, DecoderUnavailable
from msim_tf.errors import InputError


@pytest.fixture
def sabotaged(tmp_path, monkeypatch):
    """Makes workers that are started from now on dangerous, and returns a function that writes a file under a name."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{Path(msim_tf.__file__).parents[1]}")

    def write(name):
        soundfile.write(tmp_path / name, sine(440.0, 22050, 10.0), 22050, subtype="PCM_16")
        return tmp_path / name

    return write


def samples(decoder, path):
    return np.concatenate(list(decoder.read_blocks(path, sr=22050)))


def test_the_samples_and_notes_are_those_of_the_decoder(music, tmp_path):
    damaged = tmp_path / "a.flac"
    soundfile.write(damaged, np.random.default_rng(0).normal(0, 0.1, 44100 * 4), 44100)
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size * 3 // 4])
    with Decoder() as decoder:
        for path in (music / "zaz__mus1.ogg", damaged):
            notes, expected_notes = [], []
            blocks = list(decoder.read_blocks(path, sr=22050, notes=notes))
            expected = list(decode.read_blocks(path, sr=22050, notes=expected_notes))
            assert len(blocks) == len(expected) and notes == expected_notes
            for block, other in zip(blocks, expected):
                np.testing.assert_array_equal(block, other)
        with pytest.raises(InputError, match=r"nothing\.wav: cannot be read \(No such file"):
            list(decoder.read_blocks(tmp_path / "nothing.wav", sr=22050))


@pytest.mark.parametrize("when", ["", "later "])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("SIGSEGV", r"its decoder crashed \(SIGSEGV\)"),
        ("SIGABRT", r"its decoder crashed \(SIGABRT\)"),
        ("SIGKILL", r"its decoder was killed \(SIGKILL\)"),
        ("spin", "takes longer than 2 s to decode"),
        ("sleep", "takes longer than 2 s to decode"),
        ("exit", "its decoder ended with status 7"),
        ("memory", "needs more than 1 GB of memory to decode"),
    ],
)
def test_a_deadly_file_costs_itself_only(sabotaged, fault, reason, when):
    good, bad = sabotaged("good.wav"), sabotaged(f"{when}{fault}.wav")
    seconds = 60.0 if fault == "memory" else 2.0
    with Decoder(DecodeLimits(seconds=seconds, memory=2**30)) as decoder:
        expected = samples(decoder, good)
        for _ in range(2):
            with pytest.raises(InputError, match=rf"{when}{fault}\.wav: {reason}"):
                samples(decoder, bad)
            np.testing.assert_array_equal(samples(decoder, good), expected)


def test_a_worker_that_dies_between_files_is_replaced(sabotaged, own_workers):
    good = sabotaged("good.wav")
    with Decoder() as decoder:
        samples(decoder, good)
        (child,) = own_workers()
        child.kill()
        child.wait(10)
        assert len(samples(decoder, good)) == 220500


def test_what_decoders_print_reaches_no_terminal(sabotaged, capfd):
    with Decoder() as decoder:
        samples(decoder, sabotaged("print.wav"))
    assert capfd.readouterr() == ("", "")


def test_a_caller_that_stops_leaves_no_worker_behind(sabotaged, own_workers):
    good = sabotaged("good.wav")
    with Decoder() as decoder:
        blocks = decoder.read_blocks(good, sr=22050)
        next(blocks)
        blocks.close()
        assert len(samples(decoder, good)) == 220500
        assert len(own_workers()) == 1
    assert own_workers() == []


def test_threads_decode_at_the_same_time(sabotaged):
    paths = [sabotaged(f"{number}.wav") for number in range(6)]
    lengths = []
    with Decoder() as decoder:
        threads = [
            threading.Thread(target=lambda path=path: lengths.append(len(samples(decoder, path)))) for path in paths
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert lengths == [220500] * 6


@pytest.mark.parametrize("name", ["idle.wav", "spin.wav", "sleep.wav"])
def test_no_worker_outlives_its_parent(sabotaged, name):
    path = sabotaged(name)
    code = (
        "import sys, time\nfrom msim_tf.audio.sandbox import Decoder\n"
        "decoder = Decoder()\nfor _ in decoder.read_blocks(sys.argv[1], sr=22050): pass\ntime.sleep(1000)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        wait_until(lambda: children(parent.pid), 60)
        (worker,) = children(parent.pid)
        # Past its start: in the middle of the file, or waiting for the next.
        wait_until(lambda: os.readlink(f"/proc/{worker.pid}/fd/2") == os.devnull, 60) if os.path.exists(
            "/proc"
        ) else time.sleep(5)
        time.sleep(0.5)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    worker.wait(10)


def test_a_worker_imports_no_tensorflow_and_little_memory(sabotaged, own_workers):
    with Decoder() as decoder:
        samples(decoder, sabotaged("good.wav"))
        (worker,) = own_workers()
        assert worker.memory_info().rss < 150e6
        assert not [entry.path for entry in worker.memory_maps() if "tensorflow" in entry.path]


def test_limits_of_length_and_of_total_time(sabotaged):
    path = sabotaged("good.wav")
    with Decoder(DecodeLimits(max_seconds=5.0)) as decoder, pytest.raises(decode.TooLong, match="longer than 5 s"):
        samples(decoder, path)
    with Decoder(DecodeLimits(total_seconds=1.0)) as decoder:
        blocks = decoder.read_blocks(path, sr=22050)
        next(blocks)
        time.sleep(1.1)
        with pytest.raises(InputError, match="takes longer than 1 s to decode"):
            list(blocks)


def test_a_broken_installation_is_not_taken_for_a_broken_file(sabotaged, monkeypatch, tmp_path):
    path = sabotaged("good.wav")
    (tmp_path / "site" / "soxr.py").write_text("raise ImportError('soxr is broken')")
    (tmp_path / "site" / "sitecustomize.py").write_text(f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})")
    with Decoder() as decoder, pytest.raises(DecoderUnavailable, match="does not start: ImportError: soxr is broken"):
        samples(decoder, path)


def children(pid):
    try:
        return [child for child in psutil.Process(pid).children() if "msim_tf.audio.worker" in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def own_workers():
    """() -> the workers that the test has started; decoders of other tests in this process may still have theirs."""
    before = children(os.getpid())
    return lambda: [worker for worker in children(os.getpid()) if worker not in before]


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.05)
