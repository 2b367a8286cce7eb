"""madmom: clicks at known tempi, cadences in known keys, and a batch that is killed for real."""

import dataclasses
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from msim_tf.audio import decode
from msim_tf.audio.scan import scan_folder
from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.labels import annotate
from msim_tf.labels.annotate import Annotator, annotate_folder
from msim_tf.labels.annotations import (
    ANNOTATIONS,
    Annotation,
    AnnotationRecord,
    annotation_labels,
    load_records,
    save_records,
)
from msim_tf.labels.relations import key_relation, tempo_relation
from msim_tf.theory import parse_key

SR = 44100


@pytest.fixture(scope="module")
def annotator():
    return Annotator()


@pytest.mark.parametrize("bpm", [60, 110, 174])
def test_the_tempo_of_clicks(annotator, clicks, bpm):
    actual = annotator.annotate(clicks(bpm, 10), SR)
    assert actual.tempo == pytest.approx(bpm, abs=0.5)
    assert 0.2 < actual.tempo_confidence <= 1


@pytest.mark.parametrize(("tonic", "minor", "name"), [(3, False, "Eb major"), (9, True, "A minor")])
def test_the_key_of_a_cadence(annotator, cadence, tonic, minor, name):
    actual = annotator.annotate(cadence(tonic, minor, 12), SR)
    assert actual.key == name
    assert 0.25 < actual.key_confidence <= 1


def test_the_tempo_of_real_music_is_librosas_up_to_octaves(annotator, music):
    import librosa

    y = decode.load_clip(music / "zaz__mus1.ogg", sr=SR, seconds=15)
    expected = librosa.feature.tempo(y=y, sr=SR)
    actual = annotator.annotate(y, SR)
    assert tempo_relation(np.array([actual.tempo]), expected) == [[1]]
    assert 40 <= actual.tempo <= 250 and 0 <= parse_key(actual.key) < 24


def test_what_cannot_be_annotated_is_an_error(annotator, clicks):
    with pytest.raises(InputError, match="at 22050 Hz: madmom hears 44100 Hz only"):
        annotator.annotate(clicks(120, 5), 22050)
    with pytest.raises(InputError, match="2.00 s long: too short for tempo and key, 3 s are needed"):
        annotator.annotate(clicks(120, 2), SR)
    with pytest.raises(InputError, match="silent"):
        annotator.annotate(np.zeros(SR * 5, np.float32), SR)


def test_importing_madmom_leaves_the_metadata_as_it_was(annotator):
    assert importlib.metadata.distribution.__module__ == "importlib.metadata"


def test_unsure_annotations_stay_unknown():
    sure = Annotation(120.25, 0.4, "A minor", 0.9)
    annotations = {
        "a": sure,
        "b": dataclasses.replace(sure, tempo_confidence=0.05),
        "c": dataclasses.replace(sure, tempo=None, tempo_confidence=0.0, key_confidence=0.1),
    }
    labels = annotation_labels(annotations)
    assert labels.values == {"a": {"tempo": ("120.25",), "key": ("A minor",)}, "b": {"key": ("A minor",)}}


@pytest.fixture(scope="module")
def library(tmp_path_factory, clicks, cadence):
    root = tmp_path_factory.mktemp("library")
    (root / "beats").mkdir()
    for bpm in (70, 100, 130):
        soundfile.write(root / "beats" / f"{bpm}.flac", clicks(bpm, 4), SR)
    soundfile.write(root / "stereo.ogg", np.stack([cadence(7, False, 5)] * 2, axis=1), SR)
    return root


def opened(path):
    return Database(path, ANNOTATIONS, create=True)


def stored(path):
    """Annotations that are kept, by track, without failures."""
    with opened(path) as database:
        records = load_records(database)
    return {track: record.outcome for track, record in records.items() if isinstance(record.outcome, Annotation)}


def script(path, library, out, workers, rest=""):
    """A program that annotates ``library``; its workers run its first lines too."""
    path.write_text(
        f"""import sys
from msim_tf.database import Database
from msim_tf.labels import annotate
from msim_tf.labels.annotations import ANNOTATIONS
from msim_tf.audio.scan import scan_folder
assert not {{"tensorflow", "keras"}} & set(sys.modules), __name__
if __name__ == "__main__":
    calls = []
    database = Database({str(out)!r}, ANNOTATIONS, create=True)
    found, failures = annotate.annotate_folder(
        {str(library)!r},
        list(scan_folder({str(library)!r}).files),
        database,
        workers={workers},
        progress=lambda done, total: calls.append((done, total)),
    )
{rest}"""
    )
    return [sys.executable, str(path)]


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(scope="module")
def whole(library, tmp_path_factory):
    """The annotations of an uninterrupted run by two processes."""
    folder = tmp_path_factory.mktemp("whole")
    checks = """    assert calls == [(done, 4) for done in range(5)], calls
    assert not failures and len(found) == 4
    assert not {"tensorflow", "keras", "madmom"} & set(sys.modules)
"""
    subprocess.run(
        script(folder / "run.py", library, folder / "out.db", 2, checks), check=True, env=environment(), cwd=folder
    )
    return stored(folder / "out.db")


def test_a_folder_is_annotated_by_processes(whole):
    assert {track: round(actual.tempo) for track, actual in whole.items() if track.startswith("beats/")} == {
        "beats/70.flac": pytest.approx(70, abs=1),
        "beats/100.flac": pytest.approx(100, abs=1),
        "beats/130.flac": pytest.approx(130, abs=1),
    }
    assert key_relation(np.array([parse_key(whole["stereo.ogg"].key)]), np.array([7])) == [[1]]


def test_a_worker_has_no_tensorflow():
    code = "import sys; from msim_tf.labels.annotate import Annotator; Annotator(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True, text=True)
    assert "madmom" in done.stdout.split()
    assert not {"tensorflow", "keras"} & set(done.stdout.split())


def test_a_killed_run_goes_on_where_it_was(library, whole, tmp_path):
    out = tmp_path / "killed.db"
    running = subprocess.Popen(script(tmp_path / "run.py", library, out, 1), env=environment(), start_new_session=True)
    wait_until(lambda: out.exists() and out.stat().st_size and len(stored(out)) >= 2)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_until(lambda: group_is_gone(running.pid))  # its workers end by themselves

    done = stored(out)
    assert 2 <= len(done) < 4
    # One is marked, to see that it is not done again.
    marked = next(iter(done))
    with opened(out) as database:
        database.execute("UPDATE annotations SET tempo = 77 WHERE track = ?", (marked,))
        calls = []
        actual, failures = annotate_folder(
            library,
            list(scan_folder(library).files),
            database,
            workers=2,
            progress=lambda done, total: calls.append(done),
        )
    assert calls[0] == len(done) and calls[-1] == 4 and not failures
    assert actual[marked].tempo == 77.0
    assert actual | {marked: whole[marked]} == whole
    assert stored(out) == actual


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def group_is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_changed_files_are_done_again_and_failures_are_remembered(tmp_path, clicks):
    for name in ("one", "two"):
        soundfile.write(tmp_path / f"{name}.wav", clicks(100, 4), SR)
    (tmp_path / "bad.wav").write_text("no music")
    soundfile.write(tmp_path / "silent.wav", np.zeros(SR * 4), SR)
    out = tmp_path / "a.db"
    calls = []

    def run(*tracks):
        calls.clear()
        with opened(out) as database:
            return annotate_folder(
                tmp_path, tracks, database, workers=1, progress=lambda done, total: calls.append((done, total))
            )

    first, failures = run("bad.wav", "one.wav", "silent.wav", "two.wav")
    assert list(first) == ["one.wav", "two.wav"]
    assert failures.keys() == {"bad.wav", "silent.wav"}
    assert failures["silent.wav"].startswith("silent") and "wav" not in failures["bad.wav"]
    assert run("bad.wav", "one.wav", "silent.wav", "two.wav") == (first, failures) and calls == [(4, 4)]

    (tmp_path / "two.wav").unlink()
    soundfile.write(tmp_path / "one.wav", clicks(130, 4), SR)
    (tmp_path / "bad.wav").unlink()
    (tmp_path / "bad.wav").write_bytes((tmp_path / "one.wav").read_bytes())
    second, failures = run("bad.wav", "one.wav", "silent.wav")
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert failures.keys() == {"silent.wav"}
    assert second["one.wav"].tempo == pytest.approx(130, abs=1) and second["bad.wav"] == second["one.wav"]
    assert run("one.wav", "bad.wav")[0] == second and calls == [(2, 2)]


def deadly(connection, root, seconds):
    """A worker like annotate's, whose decoder dies of some files."""
    connection.send(None)
    while True:
        track = connection.recv()
        if track.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, track.partition(".")[0]))
        status = (root / track).stat()
        outcome = Annotation(100.0, 0.5, "C major", 0.5)
        connection.send(AnnotationRecord(track, status.st_size, status.st_mtime_ns, seconds, outcome))


def test_a_process_that_dies_costs_its_file_only(tmp_path, monkeypatch):
    names = ["0.wav", "SIGABRT.wav", "SIGKILL.wav", "SIGSEGV.wav", "z.wav"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(annotate, "_work", deadly)
    calls = []
    with opened(tmp_path / "a.db") as database:
        for _ in range(2):
            actual, failures = annotate_folder(
                tmp_path, names, database, workers=2, progress=lambda done, total: calls.append(done)
            )
            assert list(actual) == ["0.wav", "z.wav"]
            assert failures == {
                "SIGABRT.wav": "its annotation process died (SIGABRT)",
                "SIGKILL.wav": "its annotation process died (SIGKILL)",
                "SIGSEGV.wav": "its annotation process died (SIGSEGV)",
            }
    # The second time only the one is tried that somebody else may have killed, for want of memory.
    assert calls == [0, 1, 2, 3, 4, 5, 4, 5]


def end(connection, root, seconds):
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_that_cannot_start_are_no_files_fault(tmp_path, monkeypatch):
    (tmp_path / "0.wav").write_bytes(b"x")
    monkeypatch.setattr(annotate, "_work", end)
    with opened(tmp_path / "a.db") as database:
        with pytest.raises(InputError, match="died at its start .SIGKILL; out of memory.*fewer workers"):
            annotate_folder(tmp_path, ["0.wav"], database, workers=1)
        assert load_records(database) == {}


def test_records_come_back(tmp_path):
    records = [
        AnnotationRecord("a/é.wav", 1, 2**62, 120.0, Annotation(120.25, 0.4, "A minor", 0.9)),
        AnnotationRecord("b.wav", 1, 2, 30.5, Annotation(None, 0.0, "C major", 0.5)),
        AnnotationRecord("c.wav", 1, 2, 30.5, "silent"),
    ]
    with opened(tmp_path / "a.db") as database:
        save_records(database, records)
    with opened(tmp_path / "a.db") as database:
        assert list(load_records(database).values()) == records


def test_only_the_middle_of_a_long_file_is_heard(tmp_path, clicks):
    y = np.concatenate([clicks(70, 5), clicks(150, 6), clicks(70, 5)])
    soundfile.write(tmp_path / "a.flac", y, SR)
    with opened(tmp_path / "a.db") as database:
        actual, _ = annotate_folder(tmp_path, ["a.flac"], database, workers=1, seconds=5.5)
    assert actual["a.flac"].tempo == pytest.approx(150, abs=1)
