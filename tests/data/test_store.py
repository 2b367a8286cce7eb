"""What goes into the store comes out of it, whatever happened in between."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from store_contents import contents
from synthetic import write_clip

from msim_tf.audio import decode
from msim_tf.audio.scan import scan_folder
from msim_tf.data import extraction_plan, joining, outcome, writer
from msim_tf.data.store import FeatureStore, check_store
from msim_tf.data.store_database import StoreDatabase
from msim_tf.errors import InputError
from msim_tf.features.extractor import Extractor
from msim_tf.params import FEATURE_PRESETS


def test_stored_clips_equal_extracted_ones(store, clips_folder, small_params):
    extractor = Extractor(small_params)
    assert store.identifiers == list(scan_folder(clips_folder).files)
    for i, identifier in enumerate(store.identifiers):
        fresh = extractor([decode.load_clip(clips_folder / identifier, sr=small_params.sr)])
        read = store.read_clip(i)
        # float16 keeps 11 bits: mel < 4 and decibels < 80 lose at most half of 2^-9 and 2^-4.
        np.testing.assert_allclose(read.mel, fresh.mel, atol=1e-3)
        np.testing.assert_allclose(read.cens, fresh.cens, atol=2.5e-4)
        np.testing.assert_allclose(read.onset, fresh.onset, rtol=5e-4, atol=1e-6)


def test_segments_are_slices_of_their_clips(store, small_params, rng):
    clips = rng.integers(0, len(store), 50)
    starts = rng.integers(0, store.frames[clips] - small_params.segment_frames + 1)
    batch = store.read_segments(clips, starts)
    assert {name: value.shape[1:] for name, value in batch.items()} == small_params.input_shapes
    for i, (clip, start) in enumerate(zip(clips, starts)):
        whole = store.read_clip(clip)
        frames = slice(start, start + small_params.segment_frames)
        np.testing.assert_array_equal(batch["mel"][i], whole.mel[:, frames])
        np.testing.assert_array_equal(batch["cens"][i], whole.cens[:, frames])
        np.testing.assert_array_equal(batch["onset"][i], whole.onset[start : start + small_params.segment_onsets])


def test_many_shards_read_like_one(store, clips_folder, small_params, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(extraction_plan, "CLIPS_PER_SHARD", 5)
    monkeypatch.setattr(joining, "CLIPS_PER_JOINED_SHARD", 5)
    writer.extract_folder(clips_folder, tmp_path / "sharded", small_params)
    sharded = FeatureStore(tmp_path / "sharded")
    assert len(set(sharded.shards.tolist())) == 3
    clips = rng.integers(0, len(store), 40)
    for name, value in store.read_segments(clips, np.zeros(40, int)).items():
        np.testing.assert_array_equal(sharded.read_segments(clips, np.zeros(40, int))[name], value)


def test_a_segment_beyond_its_clip_is_refused(store):
    with pytest.raises(InputError, match="beyond its clip"):
        store.read_segments([0], [store.frames[0]])


def test_bad_files_are_listed_and_the_rest_is_done(tmp_path, small_params):
    music = tmp_path / "music"
    write_clip(music / "good.wav", 3, 0)
    write_clip(music / "short.wav", 0.1, 1)
    soundfile.write(music / "silent.wav", np.zeros(30_000), 8000)
    (music / "empty.ogg").write_bytes(b"")
    (music / "notes.mp3").write_text("this is not music")
    (music / "truncated.wav").write_bytes((music / "good.wav").read_bytes()[:30])
    reasons = writer.extract_folder(music, tmp_path / "store", small_params).failures
    assert set(reasons) == {"short.wav", "silent.wav", "empty.ogg", "notes.mp3", "truncated.wav"}
    assert "shorter than one segment" in reasons["short.wav"] and "0.10 s" in reasons["short.wav"]
    assert "silent" in reasons["silent.wav"]
    assert all(reasons.values())
    assert FeatureStore(tmp_path / "store").identifiers == ["good.wav"]


def test_short_clips_are_padded_when_asked(tmp_path, small_params):
    write_clip(tmp_path / "music" / "short.wav", 0.1, 1)
    writer.extract_folder(tmp_path / "music", tmp_path / "store", small_params, pad=True)
    store = FeatureStore(tmp_path / "store")
    assert store.frames[0] == small_params.segment_frames
    assert not store.read_clip(0).mel[:, 10:].any()  # what was added is silence


EXTRACT = """
import sys
from msim_tf.data import extraction_plan, writer
from synthetic import SMALL
extraction_plan.CLIPS_PER_SHARD = 4
done = lambda done, total: print(done, flush=True)
writer.extract_folder(sys.argv[1], sys.argv[2], SMALL, progress=done)
"""


def start_extraction(source, store, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-c", EXTRACT, str(source), str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


def test_killed_extraction_resumes_to_the_same_store(clips_folder, tmp_path, small_params, monkeypatch):
    process = start_extraction(clips_folder, tmp_path / "killed")
    for line in process.stdout:
        if int(line) >= 6:  # in the middle of the second shard
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(InputError, match="unfinished"):
        FeatureStore(tmp_path / "killed")

    monkeypatch.setattr(extraction_plan, "CLIPS_PER_SHARD", 4)
    extracted = []
    monkeypatch.setattr(
        outcome,
        "features_or_reason",
        lambda path, *a, _f=outcome.features_or_reason, **k: extracted.append(path) or _f(path, *a, **k),
    )
    writer.extract_folder(clips_folder, tmp_path / "killed", small_params)
    assert len(extracted) <= 8  # the first shard was whole and is not made again
    writer.extract_folder(clips_folder, tmp_path / "whole", small_params)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_full_disk_leaves_no_shard_that_looks_whole(clips_folder, tmp_path):
    # Room for the database, and not for the arrays of a shard.
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000))  # noqa: E731
    process = start_extraction(clips_folder, tmp_path / "store", stderr=subprocess.PIPE, preexec_fn=limit)
    _, errors = process.communicate()
    assert process.returncode != 0 and "File too large" in errors
    with pytest.raises(InputError, match="unfinished"):
        FeatureStore(tmp_path / "store")
    assert not [name for name in contents(tmp_path / "store") if name.startswith("shards/")]


def test_new_changed_and_deleted_files_are_noticed(tmp_path, small_params):
    music, path = tmp_path / "music", tmp_path / "store"
    for i in range(3):
        write_clip(music / f"{i}.wav", 2, i)
    writer.extract_folder(music, path, small_params)
    before = FeatureStore(path).read_clip(1)
    write_clip(music / "3.wav", 2, 3)
    write_clip(music / "1.wav", 3, 99)
    os.utime(music / "1.wav", ns=(time.time_ns(), time.time_ns()))
    (music / "0.wav").unlink()
    writer.extract_folder(music, path, small_params)
    store = FeatureStore(path)
    assert store.identifiers == ["1.wav", "2.wav", "3.wav"]
    assert store.read_clip(0).frames > before.frames
    fresh = Extractor(small_params)([decode.load_clip(music / "1.wav", sr=small_params.sr)])
    np.testing.assert_allclose(store.read_clip(0).mel, fresh.mel, atol=1e-3)


@pytest.mark.parametrize("gone", range(3))
def test_whoever_leaves_a_shard_the_others_stay_readable(tmp_path, small_params, gone):
    music, path = tmp_path / "music", tmp_path / "store"
    for i in range(3):
        write_clip(music / f"{i}.wav", 2, i)
    writer.extract_folder(music, path, small_params)
    before = FeatureStore(path)
    kept = [i for i in range(3) if i != gone]
    expected = [before.read_clip(i).mel for i in kept]
    (music / f"{gone}.wav").unlink()
    writer.extract_folder(music, path, small_params)
    store = FeatureStore(path)
    assert store.identifiers == [f"{i}.wav" for i in kept]
    for row, mel in enumerate(expected):
        np.testing.assert_array_equal(store.read_clip(row).mel, mel)


def test_other_parameters_are_refused_naming_both_digests(store, clips_folder):
    other = FEATURE_PRESETS["paper"]
    with pytest.raises(InputError, match=f"{store.params.digest}.*{other.digest}"):
        writer.extract_folder(clips_folder, store.path, other)


def test_two_writers_do_not_meet(clips_folder, tmp_path, small_params):
    with writer._lock(tmp_path / "store"), pytest.raises(InputError, match="another process"):
        writer.extract_folder(clips_folder, tmp_path / "store", small_params)


def test_no_room_for_the_database_is_one_line(clips_folder, tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))  # noqa: E731
    process = start_extraction(clips_folder, tmp_path / "store", stderr=subprocess.PIPE, preexec_fn=limit)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert (
        errors.rstrip().splitlines()[-1].startswith(f"msim_tf.errors.InputError: {tmp_path / 'store' / 'store.db'}: ")
    )
    assert not (tmp_path / "store" / "shards").exists()


@pytest.mark.parametrize(
    "statement, message",
    [
        ("PRAGMA user_version = 99", "store.db: format version 99, this release reads 1; extract again into a new"),
        ("PRAGMA application_id = 1", "store.db: a database, but not that of a feature store"),
        ("UPDATE store SET digest = '0000000000000000'", "says digest 0{16}, but its parameters give"),
        ("DELETE FROM store", "says nothing of its features"),
        ("UPDATE clips SET frames = 100000", "the rows of a.wav are not in its shard"),
        ("UPDATE clips SET row = -1", "the rows of a.wav are not in its shard"),
        ("UPDATE clips SET frames = 0", "the rows of a.wav are not in its shard"),
        ("UPDATE clips SET shard = 7", "the rows of a.wav are not in its shard"),
        ("DELETE FROM shards", "the rows of a.wav are not in its shard"),
        ("UPDATE clips SET status = 'pending'", "extraction is unfinished .1 clips to go"),
        ("UPDATE clips SET status = 'failed'", "none of its 1 clips could be extracted"),
    ],
)
def test_a_foreign_or_wrong_database_is_refused(tmp_path, small_params, statement, message):
    write_clip(tmp_path / "music" / "a.wav", 2, 0)
    writer.extract_folder(tmp_path / "music", tmp_path / "store", small_params)
    with StoreDatabase(tmp_path / "store", writable=True) as database:
        database.execute(statement)
    with pytest.raises(InputError, match=message):
        FeatureStore(tmp_path / "store")


def test_a_store_of_the_first_release_is_refused_with_the_cure(tmp_path, clips_folder, small_params):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "manifest.json").write_text('{"format": "msim-feature-store", "format_version": 1}')
    for use in (FeatureStore, lambda path: writer.extract_folder(clips_folder, path, small_params)):
        with pytest.raises(
            InputError, match=r"manifest\.json: a feature store of msim 0\.1.* msim extract SOURCE STORE$"
        ):
            use(tmp_path / "old")
    assert len(check_store(tmp_path / "old")) == 1
    assert set(os.listdir(tmp_path / "old")) == {"manifest.json", ".lock"}


def test_a_truncated_shard_is_refused(tmp_path, small_params):
    write_clip(tmp_path / "music" / "a.wav", 2, 0)
    writer.extract_folder(tmp_path / "music", tmp_path / "store", small_params)
    shard = next((tmp_path / "store" / "shards").glob("*.mel.f16"))
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(InputError, match="damaged"):
        FeatureStore(tmp_path / "store")
    assert [str(shard) in line for line in check_store(tmp_path / "store")] == [True]
