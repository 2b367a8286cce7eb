"""Extraction in three steps: interrupted anywhere, repeated, twice at once; and shards that are joined."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from store_contents import contents
from synthetic import write_clip

from msim_tf.audio.scan import FileState, Scan
from msim_tf.data import extraction_plan, joining, outcome, writer
from msim_tf.data.shards import ARRAYS, ShardWriter, array_path, description_path, load_shard
from msim_tf.data.store import FeatureStore, check_store
from msim_tf.data.store_database import StoreDatabase
from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.features.extractor import Features


@pytest.fixture
def few(monkeypatch):
    """Shards of two clips, joined to shards of five."""
    monkeypatch.setattr(extraction_plan, "CLIPS_PER_SHARD", 2)
    monkeypatch.setattr(joining, "CLIPS_PER_JOINED_SHARD", 5)


@pytest.fixture
def counted(monkeypatch):
    """The names of the files whose features were extracted."""
    names = []

    def count(path, *arguments, _original=outcome.features_or_reason, **options):
        names.append(path.name)
        return _original(path, *arguments, **options)

    monkeypatch.setattr(outcome, "features_or_reason", count)
    return names


def listing(folder: Path) -> Scan:
    return writer.list_source(folder)[1]


def some_features(params, rng, frames):
    return Features(
        mel=rng.random((params.n_mels, frames), np.float32),
        onset=rng.random(frames + params.tempogram_lags, np.float32),
        cens=rng.random((params.n_chroma, frames), np.float32),
    )


def make_shards(store, params, sizes, rng, first=0):
    """Finished shards of made-up clips, as jobs elsewhere leave them, and a plan that waits for them."""
    store.mkdir(exist_ok=True)
    with StoreDatabase(store, params) as database:
        for number, size in enumerate(sizes, first):
            shard_writer = ShardWriter(store, number, params)
            for position in range(size):
                name = f"{number:03d}/{position:04d}.wav"
                clip = writer.ShardClip(name, 1, 2)
                shard_writer.add(clip, some_features(params, rng, params.segment_frames + position % 3))
                database.execute(
                    "INSERT INTO clips (identifier, size, modified, padded, status, shard) VALUES (?, 1, 2, 0, "
                    "'pending', ?)",
                    (name, number),
                )
            shard_writer.publish()
            shard_writer.close()


def everything(store):
    """Every clip's arrays, by identifier."""
    opened = FeatureStore(store)
    return {name: opened.read_clip(index) for index, name in enumerate(opened.identifiers)}


def assert_same_clips(store, expected):
    actual = everything(store)
    assert actual.keys() == expected.keys()
    for name, features in expected.items():
        for array in ARRAYS:
            np.testing.assert_array_equal(getattr(actual[name], array), getattr(features, array))


def test_three_steps_with_jobs_as_json_give_the_store_of_one(clips_folder, tmp_path, small_params, few, counted):
    jobs = writer.plan(listing(clips_folder), tmp_path / "steps", small_params)
    assert [len(job.files) for job in jobs] == [2] * 6
    lines = [json.dumps(job.to_json()) for job in reversed(jobs)]
    for line in lines:
        job = writer.ShardJob.from_json(json.loads(line))
        assert writer.finish(tmp_path / "steps").pending > 0
        shard = writer.run_job(job, clips_folder, tmp_path / "steps", workers=1)
        assert [clip.identifier for clip in shard.clips] == list(job.files)
    one = writer.extract_folder(clips_folder, tmp_path / "one", small_params)
    assert dataclasses.replace(one, notices=()) == writer.finish(tmp_path / "steps")
    assert_same_clips(tmp_path / "steps", everything(tmp_path / "one"))
    assert len(counted) == 24
    # All of it again does nothing: not the plan, and not a job that a scheduler repeats before the next finish.
    assert writer.plan(listing(clips_folder), tmp_path / "steps", small_params) == []


def test_a_finished_job_is_skipped_and_a_damaged_description_is_not_taken_for_one(
    clips_folder, tmp_path, small_params, few, counted
):
    job = writer.plan(listing(clips_folder), tmp_path, small_params)[0]
    first = writer.run_job(job, clips_folder, tmp_path)
    again = writer.run_job(job, clips_folder, tmp_path)
    assert len(counted) == 2 and again.stem == first.stem
    path = description_path(tmp_path, job.shard)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"00000\.json: not valid JSON"):
        writer.finish(tmp_path)
    writer.run_job(job, clips_folder, tmp_path)
    assert len(counted) == 4 and writer.finish(tmp_path).clips == 2


def test_two_attempts_at_one_job_at_once_do_not_disturb_each_other(clips_folder, tmp_path, small_params, monkeypatch):
    jobs = writer.plan(listing(clips_folder), tmp_path / "twice", small_params)
    meeting = threading.Barrier(2, timeout=60)
    add = ShardWriter.add

    def add_together(self, *arguments):
        meeting.wait()
        return add(self, *arguments)

    monkeypatch.setattr(ShardWriter, "add", add_together)
    attempts = [
        threading.Thread(target=writer.run_job, args=(jobs[0], clips_folder, tmp_path / "twice"), kwargs={"workers": 1})
        for _ in range(2)
    ]
    for attempt in attempts:
        attempt.start()
    for attempt in attempts:
        attempt.join()
    monkeypatch.undo()
    assert writer.finish(tmp_path / "twice").clips == 12
    assert check_store(tmp_path / "twice") == []
    writer.extract_folder(clips_folder, tmp_path / "once", small_params)
    assert contents(tmp_path / "twice") == contents(tmp_path / "once")


def test_what_reading_a_file_raises_is_its_reason_and_is_remembered(clips_folder, tmp_path, small_params, monkeypatch):
    faults = {"03.wav": RuntimeError("psf_fseek()\nfailed"), "05.wav": OSError(errno.EIO, "Input/output error")}
    tried = []

    def fail(path, *arguments, _original=outcome.features_or_reason, **options):
        tried.append(path.name)
        if path.name in faults:
            raise faults[path.name]
        return _original(path, *arguments, **options)

    monkeypatch.setattr(outcome, "features_or_reason", fail)
    done = writer.extract_folder(clips_folder, tmp_path, small_params)
    reasons = {Path(name).name: reason for name, reason in done.failures.items()}
    assert reasons == {
        "03.wav": "cannot be used (RuntimeError: psf_fseek() failed)",
        "05.wav": "cannot be read (Input/output error)",
    }
    assert done.clips == 10 and len(tried) == 12
    assert writer.extract_folder(clips_folder, tmp_path, small_params) == done and len(tried) == 12


def test_a_fault_of_the_machine_ends_the_run_and_keeps_what_is_done(
    clips_folder, tmp_path, small_params, monkeypatch, counted
):
    count = outcome.features_or_reason

    def fail(path, *arguments, **options):
        if path.name == "11.wav":
            raise OSError(errno.ENOSPC, "No space left on device")
        return count(path, *arguments, **options)

    monkeypatch.setattr(outcome, "features_or_reason", fail)
    with pytest.raises(OSError, match="No space left"):
        writer.extract_folder(clips_folder, tmp_path, small_params, workers=1)
    before = len(counted)
    assert before == 11 and not list((tmp_path / "shards").glob(".tmp*"))
    monkeypatch.setattr(outcome, "features_or_reason", count)
    assert writer.extract_folder(clips_folder, tmp_path, small_params).clips == 12
    # artist3/11.wav is the last one: all before it were finished, and are not extracted again.
    assert len(counted) == before + 1


def test_numbers_that_are_not_finite_never_reach_the_store(clips_folder, tmp_path, small_params, monkeypatch):
    def broken(path, *arguments, _original=outcome.features_or_reason, **options):
        features = _original(path, *arguments, **options)
        wrong = {"02.wav": np.nan, "04.wav": np.inf, "06.wav": 7e4}.get(path.name)  # float16 ends at 65504
        if wrong is None:
            return features
        array = getattr(features, {"02.wav": "mel", "04.wav": "cens", "06.wav": "onset"}[path.name]).copy()
        array.reshape(-1)[17] = wrong
        return dataclasses.replace(
            features, **{{"02.wav": "mel", "04.wav": "cens", "06.wav": "onset"}[path.name]: array}
        )

    monkeypatch.setattr(outcome, "features_or_reason", broken)
    done = writer.extract_folder(clips_folder, tmp_path, small_params)
    assert [Path(name).name for name in done.failures] == ["04.wav", "02.wav", "06.wav"]
    assert all("not finite" in reason for reason in done.failures.values())
    for features in everything(tmp_path).values():
        assert all(np.isfinite(getattr(features, name)).all() for name in ARRAYS)


def test_short_clips_are_tried_again_with_padding_only(tmp_path, small_params, counted):
    write_clip(tmp_path / "music" / "short.wav", 0.1, 1)
    write_clip(tmp_path / "music" / "long.wav", 2, 1)
    run = lambda **options: writer.extract_folder(tmp_path / "music", tmp_path / "store", small_params, **options)  # noqa: E731
    assert list(run().failures) == ["short.wav"]
    assert list(run().failures) == ["short.wav"] and len(counted) == 2
    done = run(pad=True)
    assert (done.clips, done.failures, counted[2:]) == (2, {}, ["short.wav"])


def test_a_clip_whose_file_is_gone_waits_for_its_return_until_pruned(tmp_path, small_params, counted):
    music, path = tmp_path / "music", tmp_path / "store"
    for i in range(3):
        write_clip(music / f"{i}.wav", 2, i)
    run = lambda **options: writer.extract_folder(music, path, small_params, **options)  # noqa: E731
    run()
    whole = everything(path)
    (music / "1.wav").rename(tmp_path / "1.wav")
    done = run()
    assert (done.clips, done.missing) == (2, 1) and FeatureStore(path).identifiers == ["0.wav", "2.wav"]
    (tmp_path / "1.wav").rename(music / "1.wav")
    done = run()
    assert (done.clips, done.missing, len(counted)) == (3, 0, 3)
    assert_same_clips(path, whole)
    (music / "1.wav").rename(tmp_path / "1.wav")
    assert run(prune=True).missing == 0
    (tmp_path / "1.wav").rename(music / "1.wav")
    assert run().clips == 3 and counted[3:] == ["1.wav"]
    assert_same_clips(path, whole)


def test_what_lies_in_an_unreadable_folder_is_kept_and_refused_files_are_listed(tmp_path, small_params):
    state = FileState(1, 2)
    (tmp_path / "music").mkdir()
    for name in ("a.wav", "d/b.wav", "e/c.wav"):
        write_clip(tmp_path / "music" / name, 2, 1)
    writer.extract_folder(tmp_path / "music", tmp_path / "store", small_params)
    files = listing(tmp_path / "music").files
    scan = Scan({"a.wav": files["a.wav"]}, {"d/": "cannot be read (x)", "bad\udcff.wav": "its name"}, ("d/",))
    assert writer.plan(scan, tmp_path / "store", small_params, prune=True) == []
    done = writer.finish(tmp_path / "store")
    assert FeatureStore(tmp_path / "store").identifiers == ["a.wav", "d/b.wav"]
    assert done.failures == {"d/": "cannot be read (x)", "bad\\udcff.wav": "its name"}
    # When the scan finds nothing wrong any more, nothing stays listed, and a file that it refused before is tried.
    refused = Scan({"a.wav": files["a.wav"]}, {"new.wav": "not a regular file"}, ())
    writer.plan(refused, tmp_path / "store", small_params)
    (job,) = writer.plan(Scan({"a.wav": files["a.wav"], "new.wav": state}, {}, ()), tmp_path / "store", small_params)
    assert job.files == {"new.wav": state}


def test_small_shards_are_joined_and_an_open_reader_stays_whole(tmp_path, small_params, few, rng):
    make_shards(tmp_path, small_params, [2, 2, 2, 1], rng)
    writer.finish(tmp_path)
    reader = FeatureStore(tmp_path)
    before = everything(tmp_path)
    sizes = sorted(np.unique(reader.shards, return_counts=True)[1].tolist())
    assert sizes == [2, 5] and len(list((tmp_path / "shards").iterdir())) == 8
    make_shards(tmp_path, small_params, [2, 1], rng, first=50)
    assert writer.finish(tmp_path).clips == 10
    assert sorted(np.unique(FeatureStore(tmp_path).shards, return_counts=True)[1].tolist()) == [5, 5]
    # Its shard of two was joined to others and removed meanwhile; what it has mapped stays.
    for index, name in enumerate(reader.identifiers):
        np.testing.assert_array_equal(reader.read_clip(index).mel, before[name].mel)
    after = everything(tmp_path)
    for name, features in before.items():
        np.testing.assert_array_equal(after[name].onset, features.onset)
    assert check_store(tmp_path) == []


def test_a_store_that_grows_clip_by_clip_copies_each_clip_a_few_times(tmp_path, small_params, rng, monkeypatch):
    monkeypatch.setattr(joining, "CLIPS_PER_JOINED_SHARD", 16)
    copies = dict.fromkeys((f"{number:03d}/0000.wav" for number in range(40)), 0)

    def copy(self, clip, rows, _original=ShardWriter.copy):
        copies[clip.identifier] += 1
        return _original(self, clip, rows)

    monkeypatch.setattr(ShardWriter, "copy", copy)
    number = 0
    for name in copies:
        with StoreDatabase(tmp_path, small_params) as database:
            number = extraction_plan.next_number(tmp_path, database)
            database.execute(
                "INSERT INTO clips (identifier, size, modified, padded, status, shard) VALUES (?, 1, 2, 0, "
                "'pending', ?)",
                (name, number),
            )
        shard_writer = ShardWriter(tmp_path, number, small_params)
        shard_writer.add(writer.ShardClip(name, 1, 2), some_features(small_params, rng, small_params.segment_frames))
        shard_writer.publish()
        shard_writer.close()
        writer.finish(tmp_path)
    assert max(copies.values()) <= 4  # log2 of 16
    sizes = np.unique(FeatureStore(tmp_path).shards, return_counts=True)[1]
    assert sizes.sum() == 40 and len(sizes) <= 6


def test_rows_that_nobody_wants_are_given_back(tmp_path, small_params, rng):
    make_shards(tmp_path, small_params, [9], rng)
    writer.finish(tmp_path)
    whole = everything(tmp_path)
    size = lambda: sum(path.stat().st_size for path in (tmp_path / "shards").glob("*.f16"))  # noqa: E731
    full = size()
    with StoreDatabase(tmp_path, writable=True) as database:
        database.execute("DELETE FROM clips WHERE identifier < '000/0004'")
    writer.finish(tmp_path)
    assert size() == full  # most is still wanted
    with StoreDatabase(tmp_path, writable=True) as database:
        database.execute("DELETE FROM clips WHERE identifier < '000/0006'")
    writer.finish(tmp_path)
    assert size() < full / 2
    assert_same_clips(tmp_path, {name: value for name, value in whole.items() if name >= "000/0006"})
    with StoreDatabase(tmp_path, writable=True) as database:
        database.execute("DELETE FROM clips")
    writer.finish(tmp_path)
    assert list((tmp_path / "shards").iterdir()) == []


def test_damage_is_never_copied(tmp_path, small_params, few, rng):
    make_shards(tmp_path, small_params, [2, 2], rng)
    path = array_path(tmp_path, load_shard(tmp_path, 1).stem, "cens")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{path.name}: damaged"):
        writer.finish(tmp_path)
    assert [path.name in line for line in check_store(tmp_path)] == [True]


def killed_at(event, action):
    """Runs ``action`` in a forked process that dies at its ``event``-th step on disk; whether it got that far."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        return os.WIFSIGNALED(status)
    steps = 0

    def dying(function):
        def call(*arguments, **options):
            nonlocal steps
            steps += 1
            if steps == event:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    code = 1
    try:
        for owner, name in (
            (os, "replace"),
            (os, "fsync"),
            (Path, "unlink"),
            (Database, "execute"),
            (Database, "executemany"),
        ):
            setattr(owner, name, dying(getattr(owner, name)))
        action()
        code = 0
    finally:
        os._exit(code)


def test_killed_at_any_step_of_finish_it_goes_on_to_the_same_store(tmp_path, small_params, few, rng):
    make_shards(tmp_path / "before", small_params, [2, 2, 2, 1, 2], rng)
    shutil.copytree(tmp_path / "before", tmp_path / "whole")
    writer.finish(tmp_path / "whole")
    expected, event = contents(tmp_path / "whole"), 0
    while True:
        event += 1
        shutil.copytree(tmp_path / "before", tmp_path / "killed")
        if not killed_at(event, lambda: writer.finish(tmp_path / "killed")):
            break
        writer.finish(tmp_path / "killed")
        assert contents(tmp_path / "killed") == expected, event
        shutil.rmtree(tmp_path / "killed")
    assert event > 40


def test_killed_at_any_step_of_plan_it_plans_the_same(clips_folder, tmp_path, small_params, few, rng):
    files = listing(clips_folder)
    expected = [job.to_json() for job in writer.plan(files, tmp_path / "whole", small_params)]
    event = 0
    while True:
        event += 1
        killed = killed_at(event, lambda: writer.plan(files, tmp_path / "killed", small_params))
        assert [job.to_json() for job in writer.plan(files, tmp_path / "killed", small_params)] == expected
        shutil.rmtree(tmp_path / "killed")
        if not killed:
            break
    assert event > 5


@pytest.mark.parametrize(
    "change",
    [
        lambda value: [],
        lambda value: {**value, "files": [["a", 1]]},
        lambda value: {**value, "files": None},
        lambda value: {**value, "shard": "x"},
        lambda value: {**value, "feature_params": {}},
        lambda value: {key: value[key] for key in value if key != "pad"},
        lambda value: {**value, "format": "other"},
        lambda value: {**value, "format_version": 2},
    ],
)
def test_what_is_no_job_is_refused(clips_folder, tmp_path, small_params, change):
    job = writer.plan(listing(clips_folder), tmp_path, small_params)[0]
    assert writer.ShardJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    with pytest.raises(InputError):
        writer.ShardJob.from_json(change(job.to_json()))
