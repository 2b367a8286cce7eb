"""``msim embed``: whole, in three steps, interrupted, and with models and stores that do not belong together."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from synthetic import write_clip
from tiny_model import tiny_model_path

from msim_tf.cli import cli
from msim_tf.data.store_database import StoreDatabase
from msim_tf.embeddings import load_embeddings
from msim_tf.errors import InputError
from msim_tf.export import embedding, embedding_parts
from msim_tf.export.embedder import Embedder, mean_embedding
from msim_tf.export.embedding_job import EmbeddingJob, load_part, part_path
from msim_tf.export.servable import Servable
from msim_tf.features.segments import segments_at
from msim_tf.params import FeatureParams


@pytest.fixture(scope="module")
def model():
    return tiny_model_path()


@pytest.fixture(scope="module")
def embedder(model):
    made = Embedder(model)
    yield made
    made.close()


@pytest.fixture
def few(monkeypatch):
    """Jobs of five tracks."""
    monkeypatch.setattr(embedding_parts, "TRACKS_PER_JOB", 5)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files whose features were extracted."""
    names = []

    def count(self, root, file, *, pad, _original=Embedder.outcome):
        names.append(file[0])
        return _original(self, root, file, pad=pad)

    monkeypatch.setattr(Embedder, "outcome", count)
    return names


def assert_same(path, expected):
    actual, expected = load_embeddings(path), load_embeddings(expected)
    assert actual.identifiers == expected.identifiers
    assert (actual.layout, actual.meta) == (expected.layout, expected.meta)
    np.testing.assert_array_equal(actual.embeddings, expected.embeddings)


def test_embedding_a_folder_equals_the_audio_signature(embedder, clips_folder, small_params, tmp_path):
    from msim_tf.audio.decode import load_clip

    counts = []
    tracks = embedding.embed_source(
        clips_folder, embedder, tmp_path / "a.npz", progress=lambda *done: counts.append(done)
    )
    assert len(tracks.identifiers) == 12 and not tracks.failures and not tracks.notes and not tracks.pending
    assert counts == [(done, 12) for done in range(13)] and os.listdir(tmp_path) == ["a.npz"]
    stored = load_embeddings(tmp_path / "a.npz")
    assert list(stored.identifiers) == tracks.identifiers
    np.testing.assert_array_equal(stored.embeddings, tracks.embeddings)
    servable = Servable.load(embedder.metadata.directory, warmup=False)
    for identifier, vector in zip(tracks.identifiers[:3], tracks.embeddings):
        y = load_clip(clips_folder / identifier, sr=small_params.sr)
        np.testing.assert_allclose(vector, servable.run("audio", {"audio": y[None]})["embedding"][0], atol=1e-4)
    servable.close()
    single = embedding.embed_source(clips_folder / tracks.identifiers[0], embedder, tmp_path / "b.npz")
    assert single.identifiers == [tracks.identifiers[0].split("/")[-1]]
    np.testing.assert_array_equal(single.embeddings[0], tracks.embeddings[0])


def test_the_mean_over_chunks_is_that_of_all_segments(store, rng):
    features, sizes = store.read_clip(0), []
    starts = rng.integers(features.mel.shape[1] - store.params.segment_frames, size=150)

    def run(inputs):
        sizes.append(len(inputs["mel"]))
        return inputs["mel"].mean(1)

    vector = mean_embedding(run, features, starts, store.params)
    assert len(sizes) > 1 and sum(sizes) == 150
    np.testing.assert_allclose(vector, run(segments_at(features, starts, store.params)).mean(0), rtol=1e-5)


def test_embedding_a_store_is_that_of_its_audio_within_float16(embedder, store, clips_folder, tmp_path):
    stored = embedding.embed_source(store.path, embedder, tmp_path / "stored.npz")
    fresh = embedding.embed_source(clips_folder, embedder, tmp_path / "fresh.npz")
    assert stored.identifiers == fresh.identifiers
    a, b = stored.embeddings, fresh.embeddings
    np.testing.assert_allclose(a, b, atol=0.05)
    assert np.mean(np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)) > 0.9999


def test_three_steps_on_the_command_line_give_the_file_of_one(model, clips_folder, few, tmp_path):
    (tmp_path / "music").mkdir()
    shutil.copytree(clips_folder, tmp_path / "music" / "clips")
    write_clip(tmp_path / "music" / "short.wav", 0.3, 99)
    jobs = tmp_path / "jobs.jsonl"

    def run(out, *options, **more):
        arguments = ["embed", tmp_path / "music", "--model", model, "--out", tmp_path / out, *options]
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], **more)

    whole = run("whole.npz")
    assert whole.exit_code == 1 and "left out: short.wav: 0.30 s is shorter than one segment" in whole.output
    assert "3 jobs to run" in run("steps.npz", "--plan", jobs).output
    unfinished = run("steps.npz", "--finish")
    assert unfinished.exit_code == 1 and "not written, 13 tracks are still to be embedded" in unfinished.output
    for line in reversed(jobs.read_text().splitlines()):
        assert not (tmp_path / "steps.npz").exists()
        assert run("steps.npz", "--run", "-", input=line).exit_code == 0
    finished = run("steps.npz", "--finish")
    assert finished.stdout == whole.stdout.replace("whole", "steps") and finished.exit_code == 1
    assert "left out: short.wav: 0.30 s is shorter than one segment" in finished.stderr
    assert_same(tmp_path / "steps.npz", tmp_path / "whole.npz")
    assert not (tmp_path / "steps.npz.parts").exists()
    for options, message in [
        (["--finish"], "plan first with msim embed --plan"),
        (["--finish", "--plan", jobs], "separate steps"),
    ]:
        assert message in str(run("steps.npz", *options).exception)
    assert "--run, line 1: not a job" in str(run("steps.npz", "--run", "-", input="[]").exception)


def test_a_finished_job_is_skipped_and_a_damaged_part_is_made_again(model, clips_folder, few, decoded, tmp_path):
    out = tmp_path / "a.npz"
    jobs = embedding.plan(clips_folder, model, out)
    assert [len(job.files) for job in jobs] == [5, 5, 2]
    first = embedding.run_job(jobs[2], clips_folder, model, out)
    again = embedding.run_job(jobs[2], clips_folder, model, out)
    assert len(decoded) == 2 and again.tracks.keys() == first.tracks.keys() == jobs[2].files.keys()
    for name, track in first.tracks.items():
        np.testing.assert_array_equal(again.tracks[name].vector, track.vector)
    path = part_path(embedding_parts.parts_directory(out), 2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError):
        load_part(path.parent, 2)
    assert embedding.finish(out).pending == 12 and not out.exists()
    embedding.run_job(jobs[2], clips_folder, model, out)
    assert len(decoded) == 4 and embedding.finish(out).pending == 10


def test_a_plan_keeps_what_is_done_and_sends_out_what_changed(model, clips_folder, few, decoded, tmp_path):
    music, out = tmp_path / "music", tmp_path / "a.npz"
    shutil.copytree(clips_folder, music)
    for job in embedding.plan(music, model, out)[:2]:
        embedding.run_job(job, music, model, out)
    names = sorted(path.relative_to(music).as_posix() for path in music.rglob("*.wav"))
    write_clip(music / names[0], 3, 77)  # in a finished job
    (music / names[6]).unlink()  # in a finished job
    write_clip(music / "zz" / "new.wav", 3, 78)
    jobs = embedding.plan(music, model, out)
    assert [list(job.files) for job in jobs] == [names[10:], [names[0], "zz/new.wav"]]
    del decoded[:]
    for job in jobs:
        embedding.run_job(EmbeddingJob.from_json(json.loads(json.dumps(job.to_json()))), music, model, out)
    assert len(decoded) == 4
    tracks = embedding.finish(out)
    assert tracks.identifiers == sorted({*names, "zz/new.wav"} - {names[6]})
    embedding.embed_source(music, Embedder(model), tmp_path / "anew.npz")
    assert_same(out, tmp_path / "anew.npz")
    # Another recipe shares nothing with what was done before.
    embedding.plan(music, model, out)
    assert sum(len(job.files) for job in embedding.plan(music, model, out, pad=True)) == 12


KILLED = """
import os, signal, sys
from msim_tf.export import embedding, embedding_parts
from msim_tf.export.embedder import Embedder, mean_embedding
embedding_parts.TRACKS_PER_JOB = 5
done = lambda count, total: count > 7 and os.kill(os.getpid(), signal.SIGKILL)
embedding.embed_source(sys.argv[1], Embedder(sys.argv[2]), sys.argv[3], progress=done)
"""


def test_a_killed_run_goes_on_where_it_was(model, embedder, clips_folder, few, decoded, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(embedding.__file__).parents[2])}
    arguments = [sys.executable, "-c", KILLED, clips_folder, model, tmp_path / "a.npz"]
    killed = subprocess.run(list(map(str, arguments)), env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert os.listdir(tmp_path) == ["a.npz.parts"]
    embedding.embed_source(clips_folder, embedder, tmp_path / "a.npz")
    assert len(decoded) == 7  # the first part was whole
    embedding.embed_source(clips_folder, embedder, tmp_path / "whole.npz")
    assert_same(tmp_path / "a.npz", tmp_path / "whole.npz")


def test_what_is_not_the_fault_of_a_file_ends_the_job_and_not_the_file(embedder, clips_folder, monkeypatch, tmp_path):
    def full(self, root, file, *, pad):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Embedder, "outcome", full)
    with pytest.raises(OSError, match="No space"):
        embedding.embed_source(clips_folder, embedder, tmp_path / "a.npz")
    monkeypatch.undo()
    assert not embedding.embed_source(clips_folder, embedder, tmp_path / "a.npz").failures


def test_a_folder_without_a_usable_file_is_one_line(embedder, tmp_path):
    write_clip(tmp_path / "music" / "short.wav", 0.1, 1)
    with pytest.raises(InputError, match="none of 1 files could be embedded; short.wav: 0.10 s is shorter"):
        embedding.embed_source(tmp_path / "music", embedder, tmp_path / "a.npz")
    assert sorted(os.listdir(tmp_path)) == ["music"]


def test_another_model_and_other_features_are_refused(model, store, clips_folder, few, tmp_path):
    out = tmp_path / "a.npz"
    job = embedding.plan(clips_folder, model, out)[0]
    other = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, checksum="0" * 8))
    with pytest.raises(InputError, match="job 0 was planned with .*checksum 00000000.*use the same model"):
        embedding.run_job(other, clips_folder, model, out)
    # A store of other features, both when it is planned and when it took the place of the planned one.
    shutil.copytree(store.path, tmp_path / "store")
    job = embedding.plan(tmp_path / "store", model, tmp_path / "b.npz")[0]
    params = FeatureParams.from_json({**store.params.to_json(), "mel_gain": 11.0})
    with StoreDatabase(tmp_path / "store", writable=True) as database:
        database.execute(
            "UPDATE store SET feature_params = ?, digest = ?", (json.dumps(params.to_json()), params.digest)
        )
    for use in (
        lambda: embedding.plan(tmp_path / "store", model, tmp_path / "c.npz"),
        lambda: embedding.run_job(job, tmp_path / "store", model, tmp_path / "b.npz"),
    ):
        with pytest.raises(InputError, match=f"{params.digest}.*{store.params.digest}"):
            use()
