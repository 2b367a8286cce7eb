"""A library follows its folder: resumed after SIGKILL, files changed, moved, deleted and broken for real, other models refused."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from synthetic import write_clip

from msim_tf.errors import InputError
from msim_tf.library.build import planned_update, update_library
from msim_tf.library.catalog import is_library, load_catalog, writing
from msim_tf.library.update import UpdateOptions
from msim_tf.search.ranking import normalised

PLAIN = UpdateOptions()


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

    def embed_features(self, features):
        return self._embedder.embed_features(features) if self._vector is None else self._vector


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
    known = index.metadata(names[0])
    assert known["file"]["size"] == status.st_size and known["file"]["modified"] == status.st_mtime_ns
    assert 29 < known["seconds"] < 31
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
    manifest = library / "index-1" / "index.json"
    while not manifest.exists() and process.poll() is None:
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
    before = index_of(library)
    os.utime(clips / "artist0" / "00.wav", (1, 1))
    shutil.copyfile(clips / "artist1" / "07.wav", clips / "artist0" / "03.wav")
    (clips / "new").mkdir()
    (clips / "artist0" / "09.wav").rename(clips / "new" / "nine.wav")
    (clips / "artist1" / "01.wav").unlink()
    write_clip(clips / "new" / "10.wav", 3, 50)
    plan, _ = planned_update(clips, library)
    assert (plan.new, plan.changed, plan.removed) == (["new/10.wav"], ["artist0/03.wav"], ["artist1/01.wav"])
    counting = Counting(embedder)
    summary = update_library(clips, library, counting, PLAIN)
    assert counts(summary) == [1, 1, 1, 1, 7] and summary.failures == {}
    assert sorted(counting.extracted) == ["03.wav", "10.wav"]
    after = index_of(library)
    np.testing.assert_allclose(
        after.vectors(["new/nine.wav", "artist0/03.wav", "artist0/00.wav"]),
        before.vectors(["artist0/09.wav", "artist1/07.wav", "artist0/00.wav"]),
        atol=2e-3,
    )
    assert "artist1/01.wav" not in after and "artist0/09.wav" not in after
    assert after.metadata("artist0/00.wav")["file"]["modified"] == 10**9
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
    assert counts(update_library(clips, library, embedder, PLAIN)) == [0, 0, 0, 9, 1]
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
    assert sorted(path.name for path in library.glob("index-*")) == ["index-2"]


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


def told(index):
    return {name: (index.metadata(name).get("tempo"), index.metadata(name).get("key")) for name in index.identifiers}


def test_tempo_and_key_are_taken_from_annotations_and_kept(clips, tmp_path, embedder):
    library = tmp_path / "library"
    update_library(clips, library, embedder, PLAIN)
    names = sorted(index_of(library).identifiers)
    with open(library / "annotations.jsonl", "w") as file:  # as if madmom had heard all of them before
        file.write('{"format": "msim-annotations", "format_version": 1, "seconds": 120.0}\n')
        for place, name in enumerate(names):
            status = (clips / name).stat()
            heard = {"tempo": 100.5 + place, "tempo_confidence": 0.5, "key": "A minor", "key_confidence": place / 10}
            record = {"track": name, "stamp": [status.st_size, status.st_mtime_ns], "annotation": heard}
            file.write(json.dumps(record) + "\n")
    update_library(clips, library, embedder, UpdateOptions(annotate=True))
    # A key of less confidence than 0.25 is left unknown.
    expected = {n: (100.5 + place, "A minor" if place > 2 else None) for place, n in enumerate(names)}
    assert told(index_of(library)) == expected
    (clips / names[0]).touch()
    update_library(clips, library, embedder, PLAIN)
    assert told(index_of(library)) == expected


@pytest.mark.slow
def test_tempo_and_key_are_heard(folder, tmp_path, embedder):
    for path in sorted(folder.rglob("*.ogg"))[1:]:
        path.unlink()
    library = tmp_path / "library"
    assert update_library(folder, library, embedder, UpdateOptions(annotate=True)).failures == {}
    ((tempo, key),) = told(index_of(library)).values()
    assert 40 <= tempo <= 250 or key.endswith(("major", "minor"))
