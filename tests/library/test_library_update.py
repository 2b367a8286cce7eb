"""A library follows its folder: resumed after SIGKILL, files changed, moved, deleted and
broken for real, other models refused.
"""

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from synthetic import write_clip

from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.labels.annotations import ANNOTATIONS, Annotation, AnnotationRecord, save_records
from msim_tf.library.build import planned_update, update_library
from msim_tf.library.catalog import is_library, load_catalog, writing
from msim_tf.library.file_table import FileTable
from msim_tf.library.update_options import UpdateOptions
from msim_tf.search.ranking import normalised

PLAIN = UpdateOptions()
PRUNE = UpdateOptions(prune=True)


class Counting:
    """The embedder, counting what it is asked to extract, and failing when told to."""

    def __init__(self, embedder, *, vector=None):
        self.metadata = embedder.metadata
        self.extracted = []
        self._embedder = embedder
        self._vector = vector

    def extract(self, path, *, pad=False):
        self.extracted.append(path.name)
        return self._embedder.extract(path, pad=pad)

    def read_tags(self, path):
        return self._embedder.read_tags(path)

    def hear(self, features):
        return self._embedder.hear(features) if self._vector is None else (self._vector, None)


def index_of(library):
    return load_catalog(library).open_index()


def contents(index):
    """Everything that is known of every track."""
    names = sorted(index.identifiers)
    return names, index.vectors(names), [index.metadata(name) for name in names]


def same_contents(one, other):
    for a, b in zip(contents(one), contents(other)):
        if isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, atol=2e-3)
        else:
            assert a == b


def counts(summary):
    names = ("new", "changed", "moved", "removed", "unchanged")
    return [getattr(summary, name) for name in names]


def test_every_track_is_indexed_as_the_embedder_hears_it(folder, tmp_path, embedder):
    library = tmp_path / "library"
    seen = []
    summary = update_library(folder, library, embedder, PLAIN, progress=lambda *now: seen.append(now))
    assert counts(summary) == [6, 0, 0, 0, 0] and summary.failures == {} and summary.tracks == 6
    assert seen == [("embed", done, 6) for done in range(1, 7)]
    index = index_of(library)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.ogg"))
    assert sorted(index.identifiers) == names
    for name in names:
        expected = normalised(embedder.embed_file(folder / name), index.source.layout)
        np.testing.assert_allclose(index.vectors([name])[0], expected, atol=2e-3)
    status = (folder / names[0]).stat()
    record = FileTable(index.table.database).record(names[0])
    assert (record.state.size, record.state.modified) == (status.st_size, status.st_mtime_ns)
    assert record.sha256 == hashlib.sha256((folder / names[0]).read_bytes()).hexdigest() and record.failure == ""
    assert 29 < index.metadata(names[0])["seconds"] < 31
    metadata = embedder.metadata
    source = index.source
    assert (source.model, source.version, source.digest) == (metadata.name, "1", metadata.features.digest)
    again = Counting(embedder)
    assert counts(update_library(folder, library, again, PLAIN)) == [0, 0, 0, 0, 6] and again.extracted == []


def test_a_killed_run_goes_on_and_ends_like_an_uninterrupted_one(tmp_path, tiny_model, embedder):
    root, library = tmp_path / "Clips", tmp_path / "library"
    for i in range(60):
        write_clip(root / f"artist{i % 3}" / f"{i:02d}.wav", 2, i)
    command = [sys.executable, "-m", "msim_tf", "index", root, library, "--model", tiny_model, "--batch", "1"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, env={**os.environ})
    while process.poll() is None and not (is_library(library) and len(index_of(library))):
        time.sleep(0.02)
    with pytest.raises(InputError, match="another process is indexing"):
        update_library(root, library, embedder, PLAIN)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(index_of(library))
    assert 1 <= done < 60
    resumed = Counting(embedder)
    summary = update_library(root, library, resumed, UpdateOptions(batch=7))
    assert counts(summary) == [60 - done, 0, 0, 0, done] and len(resumed.extracted) == 60 - done
    update_library(root, tmp_path / "other", embedder, PLAIN)
    same_contents(index_of(library), index_of(tmp_path / "other"))


def test_ctrl_c_keeps_what_was_done(clips, tmp_path, embedder):
    def interrupt(stage, done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_library(clips, tmp_path / "library", embedder, PLAIN, progress=interrupt)
    assert len(index_of(tmp_path / "library")) == 5


def test_changes_of_the_folder_are_followed(clips, tmp_path, embedder):
    library = tmp_path / "library"
    update_library(clips, library, embedder, UpdateOptions(batch=4))
    before = index_of(library).vectors(["artist0/09.wav", "artist1/07.wav", "artist0/00.wav"])
    os.utime(clips / "artist0" / "00.wav", (1, 1))
    shutil.copyfile(clips / "artist1" / "07.wav", clips / "artist0" / "03.wav")
    (clips / "new").mkdir()
    (clips / "artist0" / "09.wav").rename(clips / "new" / "nine.wav")
    (clips / "artist1" / "01.wav").unlink()
    write_clip(clips / "new" / "10.wav", 3, 50)
    plan, _ = planned_update(clips, library, PLAIN)
    assert (plan.new, plan.changed, plan.missing) == (["new/10.wav"], ["artist0/03.wav"], ["artist1/01.wav"])
    counting = Counting(embedder)
    summary = update_library(clips, library, counting, PRUNE)
    assert counts(summary) == [1, 1, 1, 1, 7] and summary.failures == {}
    assert sorted(counting.extracted) == ["03.wav", "10.wav"]
    after = index_of(library)
    np.testing.assert_allclose(
        after.vectors(["new/nine.wav", "artist0/03.wav", "artist0/00.wav"]),
        before,
        atol=2e-3,
    )
    assert "artist1/01.wav" not in after and "artist0/09.wav" not in after
    assert FileTable(after.table.database).record("artist0/00.wav").state.modified == 10**9
    update_library(clips, tmp_path / "fresh", embedder, PLAIN)
    same_contents(after, index_of(tmp_path / "fresh"))
    assert counts(update_library(clips, library, embedder, PLAIN)) == [0, 0, 0, 0, 10]


def test_unusable_files_are_listed_and_the_rest_is_done(clips, tmp_path, embedder):
    library = tmp_path / "library"
    update_library(clips, library, embedder, PLAIN)
    whole = (clips / "artist0" / "00.wav").read_bytes()
    (clips / "artist0" / "00.wav").write_bytes(whole[: len(whole) // 2])  # was good, is truncated now
    (clips / "text.mp3").write_text("not audio")
    (clips / "empty.wav").touch()
    write_clip(clips / "short.wav", 0.2, 1)
    summary = update_library(clips, library, embedder, PLAIN)
    assert counts(summary) == [0, 0, 0, 1, 9] and summary.tracks == 9
    assert set(summary.failures) == {"artist0/00.wav", "text.mp3", "empty.wav", "short.wav"}
    assert "truncated" in summary.failures["artist0/00.wav"] and "empty" in summary.failures["empty.wav"]
    assert "artist0/00.wav" not in index_of(library)
    (clips / "artist0" / "00.wav").write_bytes(whole)
    assert update_library(clips, library, embedder, UpdateOptions(pad=True)).new == 2  # the repaired and the short one


def test_one_bad_vector_does_not_spoil_a_batch(clips, tmp_path, embedder):
    for vector, reason in (
        (np.full(24, np.nan), "not finite"),
        (np.r_[np.zeros(4), np.ones(20)], "says nothing.*genre"),
    ):
        failing = Counting(embedder, vector=vector.astype(np.float32))
        with pytest.raises(InputError, match=f"none of 10 files.*{reason}"):
            update_library(clips, tmp_path / "library", failing, PLAIN)
    assert update_library(clips, tmp_path / "library", embedder, PLAIN).new == 10


def test_everything_deleted_but_one(clips, tmp_path, embedder):
    library = tmp_path / "library"
    update_library(clips, library, embedder, PLAIN)
    for path in sorted(clips.rglob("*.wav"))[1:]:
        path.unlink()
    assert counts(update_library(clips, library, embedder, PRUNE)) == [0, 0, 0, 9, 1]
    assert len(index_of(library)) == 1
    shutil.rmtree(clips)
    clips.mkdir()
    with pytest.raises(InputError, match="holds no audio"):  # a disk that is not mounted
        update_library(clips, library, embedder, PLAIN)
    assert len(index_of(library)) == 1


def test_another_model_is_refused_until_a_rebuild(clips, tmp_path, tiny_model, embedder):
    library = tmp_path / "library"
    update_library(clips, library, embedder, PLAIN)
    index = index_of(library)
    index.update_metadata({"artist0/00.wav": {**index.metadata("artist0/00.wav"), "tempo": 120.0, "key": "A minor"}})
    index.save()
    other = Counting(embedder)
    other.metadata = dataclasses.replace(embedder.metadata, directory=tiny_model / "2")
    with pytest.raises(InputError, match="tiny version 1 .*this model is tiny version 2 .*msim index --rebuild"):
        update_library(clips, library, other, PLAIN)
    assert len(index_of(library)) == 10 and other.extracted == []

    def interrupt(stage, done, total):
        if done == 6:
            raise KeyboardInterrupt

    rebuild = UpdateOptions(rebuild=True, batch=2)
    with pytest.raises(KeyboardInterrupt):
        update_library(clips, library, other, rebuild, progress=interrupt)
    assert index_of(library).source.version == "1" and len(index_of(library)) == 10  # the old index serves on
    other.extracted.clear()
    assert counts(update_library(clips, library, other, rebuild)) == [4, 0, 0, 0, 6]
    assert len(other.extracted) == 4
    rebuilt = index_of(library)
    assert rebuilt.source.version == "2" and len(rebuilt) == 10
    assert rebuilt.metadata("artist0/00.wav")["key"] == "A minor"  # heard before, and the sound is the same
    assert sorted(path.name for path in library.iterdir() if path.name != ".lock") == [
        "library.db",
        "vectors-000002.crc",
        "vectors-000002.f16",
    ]


def test_what_disappears_is_missing_and_returns_without_being_embedded(clips, tmp_path, embedder):
    """A disk that is half gone: one of three sub-folders, and one single file."""
    library = tmp_path / "library"
    update_library(clips, library, embedder, PLAIN)
    before = contents(index_of(library))
    away = tmp_path / "away"
    (clips / "artist1").rename(away)
    (clips / "artist0" / "00.wav").rename(tmp_path / "00.wav")
    summary = update_library(clips, library, Counting(embedder), PLAIN)
    assert counts(summary) == [0, 0, 0, 0, 6] and (summary.missing, summary.tracks) == (4, 6)
    assert summary.vanished == {"artist1/": 3, "artist0/00.wav": 1}
    index = index_of(library)
    assert len(index) == 6 and not any(name.startswith("artist1/") for name in index.identifiers)
    again = update_library(clips, library, embedder, PLAIN)
    assert (again.missing, again.vanished) == (4, {})
    # Back under the old name, and one of them under another.
    away.rename(clips / "artist1")
    (tmp_path / "00.wav").rename(clips / "artist0" / "other.wav")
    returned = Counting(embedder)
    summary = update_library(clips, library, returned, PLAIN)
    assert returned.extracted == [] and (summary.returned, summary.moved, summary.missing, summary.tracks) == (
        3,
        1,
        0,
        10,
    )
    names, vectors, metadata = contents(index_of(library))
    assert sorted(names) == sorted([*before[0][1:], "artist0/other.wav"]) and len(names) == 10
    np.testing.assert_array_equal(np.sort(vectors, axis=0), np.sort(before[1], axis=0))
    assert len(metadata) == 10
    # Until the user says that they are not coming back.
    shutil.rmtree(clips / "artist2")
    assert update_library(clips, library, embedder, PLAIN).missing == 3
    pruned = update_library(clips, library, embedder, PRUNE)
    assert (pruned.removed, pruned.missing, pruned.tracks) == (3, 0, 7)


def test_failures_are_remembered_until_the_file_changes(clips, tmp_path, embedder):
    library = tmp_path / "library"
    (clips / "text.mp3").write_text("not audio")
    (clips / "other.mp3").write_text("no audio either")
    summary = update_library(clips, library, embedder, PLAIN)
    assert set(summary.failures) == {"text.mp3", "other.mp3"} and summary.remembered == 0
    again = Counting(embedder)
    repeated = update_library(clips, library, again, PLAIN)
    assert repeated.failures == summary.failures and repeated.remembered == 2 and again.extracted == []
    retried = Counting(embedder)
    assert update_library(clips, library, retried, UpdateOptions(retry=True)).remembered == 0
    assert sorted(retried.extracted) == ["other.mp3", "text.mp3"]
    shutil.copyfile(clips / "artist0" / "00.wav", clips / "text.mp3")
    (clips / "other.mp3").unlink()
    changed = Counting(embedder)
    summary = update_library(clips, library, changed, PLAIN)
    assert summary.failures == {} and summary.new == 1 and changed.extracted == ["text.mp3"]
    assert not any(record.failure for record in FileTable(index_of(library).table.database).records().values())


class Exploding(Counting):
    """Fails on some files as nobody foresaw, and on one of them when the model runs."""

    def extract(self, path, *, pad=False):
        if path.name == "05.wav":
            raise RuntimeError("psf_fseek() failed")
        return super().extract(path, pad=pad)

    def hear(self, features):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 2:
            raise MemoryError("no room")
        return super().hear(features)


def test_an_unforeseen_error_costs_one_file(clips, tmp_path, embedder, monkeypatch):
    monkeypatch.setattr("msim_tf.library.embedded_files.READ_AHEAD", 1)
    summary = update_library(clips, tmp_path / "library", Exploding(embedder), PLAIN)
    assert summary.new + len(summary.failures) == 10 and summary.new >= 8
    assert "RuntimeError: psf_fseek() failed" in summary.failures["artist2/05.wav"]
    assert len(index_of(tmp_path / "library")) == summary.new


def test_what_was_finished_is_saved_whatever_ends_the_run(clips, tmp_path, embedder):
    class Broken(Exception):
        pass

    def fail(stage, done, total):
        if done == 7:
            raise Broken

    with pytest.raises(Broken):
        update_library(clips, tmp_path / "library", embedder, PLAIN, progress=fail)
    assert len(index_of(tmp_path / "library")) == 7


def test_a_first_run_that_fails_leaves_nothing_behind(tmp_path, embedder):
    music, library = tmp_path / "Music", tmp_path / "library"
    music.mkdir()
    with pytest.raises(InputError, match="holds no audio"):
        update_library(music, library, embedder, PLAIN)
    assert not library.exists()
    (music / "text.mp3").write_text("not audio")
    with pytest.raises(InputError, match="none of 1 files could be embedded"):
        update_library(music, library, embedder, PLAIN)
    assert not library.exists()
    library.mkdir()
    with pytest.raises(InputError, match="none of 1 files could be embedded"):
        update_library(music, library, embedder, PLAIN)
    assert list(library.iterdir()) == []


@pytest.mark.parametrize(
    "leftovers",
    [
        [".lock"],
        [".lock", ".tmp-library.db", ".tmp-library.db-journal", "vectors-000001.crc", "vectors-000001.f16"],
        [".lock", "library.db"],
    ],
)
def test_a_first_run_that_was_killed_before_its_first_save_resumes(clips, tmp_path, embedder, leftovers):
    library = tmp_path / "library"
    library.mkdir()
    for name in leftovers:
        (library / name).touch()
    assert not is_library(library)
    assert update_library(clips, library, embedder, PLAIN).new == 10
    assert len(index_of(library)) == 10
    names = {path.name.split("-")[0] for path in library.iterdir()}
    assert names == {".lock", "library.db", "vectors"}


def test_a_library_of_version_0_1_is_refused_with_what_to_do(clips, tmp_path, embedder):
    library = tmp_path / "library"
    library.mkdir()
    (library / "library.json").write_text('{"format": "msim-library", "format_version": 1}')
    for call in (lambda: update_library(clips, library, embedder, PLAIN), lambda: load_catalog(library)):
        with pytest.raises(InputError, match="made by msim 0.1.*remove it and make it anew with msim index"):
            call()
    assert os.listdir(library) == ["library.json"]


def test_damaged_codes_of_the_engine_are_made_again(clips, tmp_path, embedder, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr("msim_tf.search.faiss_engine._FEWEST_ROWS", 10)
    library = tmp_path / "library"
    for i in range(40):
        write_clip(clips / "more" / f"{i:02d}.wav", 2, 100 + i)
    update_library(clips, library, embedder, UpdateOptions(engine="faiss"))
    codes = next(library.glob("codes-*"))
    codes.write_bytes(codes.read_bytes()[:-50])
    with pytest.raises(InputError, match="run msim index to build the engine again"):
        index_of(library)
    update_library(clips, library, embedder, UpdateOptions(engine="faiss"))
    assert index_of(library).engine.name == "faiss"


def test_folders_are_not_mixed_up(clips, folder, tmp_path, embedder):
    library = tmp_path / "library"
    update_library(clips, library, embedder, UpdateOptions(name="mine"))
    with pytest.raises(InputError, match="is a library of .*Clips, not of .*Music"):
        update_library(folder, library, embedder, PLAIN)
    with pytest.raises(InputError, match="is not a library; give an empty or new"):
        update_library(library, clips, embedder, PLAIN)  # the arguments the wrong way round
    assert not (clips / ".lock").exists() and not is_library(clips)
    moved = clips.with_name("Elsewhere")
    clips.rename(moved)
    assert counts(update_library(moved, library, embedder, PLAIN)) == [0, 0, 0, 0, 10]
    catalog = load_catalog(library)
    assert (catalog.music, catalog.name) == (moved, "mine")


def test_the_lock_ends_with_its_holder(tmp_path):
    with writing(tmp_path / "library"):
        with pytest.raises(InputError, match="another process is indexing"):
            with writing(tmp_path / "library"):
                pass
    with writing(tmp_path / "library"):
        pass


def tempo_and_key(index):
    return {name: (index.metadata(name).get("tempo"), index.metadata(name).get("key")) for name in index.identifiers}


def test_tempo_and_key_are_taken_from_annotations_and_kept(clips, tmp_path, embedder):
    library = tmp_path / "library"
    update_library(clips, library, embedder, PLAIN)
    names = sorted(index_of(library).identifiers)
    records = []
    for place, name in enumerate(names):
        status = (clips / name).stat()
        annotation = Annotation(100.5 + place, 0.5, "A minor", place / 10)
        records.append(AnnotationRecord(name, status.st_size, status.st_mtime_ns, 120.0, annotation))
    with Database(library / "annotations.db", ANNOTATIONS, create=True) as database:
        save_records(database, records)  # as if madmom had heard all of them before
    update_library(clips, library, embedder, UpdateOptions(annotate=True))
    # A key of less confidence than 0.25 is left unknown.
    expected = {n: (100.5 + place, "A minor" if place > 2 else None) for place, n in enumerate(names)}
    assert tempo_and_key(index_of(library)) == expected
    (clips / names[0]).touch()
    update_library(clips, library, embedder, PLAIN)
    assert tempo_and_key(index_of(library)) == expected


@pytest.mark.slow
def test_tempo_and_key_are_heard(folder, tmp_path, embedder):
    for path in sorted(folder.rglob("*.ogg"))[1:]:
        path.unlink()
    library = tmp_path / "library"
    assert update_library(folder, library, embedder, UpdateOptions(annotate=True)).failures == {}
    ((tempo, key),) = tempo_and_key(index_of(library)).values()
    assert 40 <= tempo <= 250 or key.endswith(("major", "minor"))
