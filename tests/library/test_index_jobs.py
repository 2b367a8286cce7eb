"""An update of a library as jobs on several machines: what comes of it is what one machine makes."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from synthetic import write_clip

from msim_tf.cli import cli
from msim_tf.errors import InputError
from msim_tf.export import embedding, embedding_parts
from msim_tf.export.embedder import Embedder
from msim_tf.export.embedding_job import EmbeddingJob, load_part, part_path
from msim_tf.library import index_jobs
from msim_tf.library.build import update_library
from msim_tf.library.catalog import load_catalog
from msim_tf.library.file_table import FileTable
from msim_tf.library.update_options import UpdateOptions

PLAIN = UpdateOptions()


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(embedding_parts, "TRACKS_PER_JOB", 4)


def contents(library):
    """Everything that a library knows of its tracks and files, without the order of its rows."""
    index = load_catalog(library).open_index()
    names = sorted(index.identifiers)
    vectors, metadata = index.vectors(names), [index.metadata(name) for name in names]
    records = FileTable(index.table.database).records()
    index.close()
    return names, vectors.tobytes(), metadata, records


def msim(*arguments, **more):
    return CliRunner().invoke(cli, list(map(str, arguments)), **more)


def test_three_steps_on_the_command_line_give_the_library_of_one(folder, tmp_path, tiny_model, embedder):
    write_clip(folder / "short.wav", 0.3, 99)
    update_library(folder, tmp_path / "whole", embedder, PLAIN)
    command = ["index", folder, tmp_path / "steps", "--model", tiny_model]
    lines = tmp_path / "jobs.jsonl"
    assert "2 jobs to run" in msim(*command, "--plan", lines).output
    jobs = lines.read_text().splitlines()
    early = msim(*command, "--finish")
    assert early.exit_code == 1 and "0 tracks" in early.output and "7 tracks are still to be embedded" in early.output
    assert not (tmp_path / "steps").exists()
    assert msim(*command, "--run", "-", input=jobs[1]).exit_code == 0
    half = msim(*command, "--finish")
    assert half.exit_code == 1 and "4 tracks are still to be embedded" in half.output
    assert len(load_catalog(tmp_path / "steps").open_index()) == 2  # of three files one is too short
    assert msim(*command, "--run", "-", input=jobs[0]).exit_code == 0
    done = msim(*command, "--finish")
    assert done.exit_code == 1 and "left out: short.wav: 0.30 s is shorter than one segment" in done.stderr
    assert contents(tmp_path / "steps") == contents(tmp_path / "whole")
    assert not (tmp_path / "steps.parts").exists()
    assert "0 jobs to run" in msim(*command, "--plan", lines).output
    for options, message in [
        (["--finish", "--plan", lines], "separate steps"),
        (["--finish", "--watch"], "--watch and --dry-run are for one machine"),
    ]:
        assert message in str(msim(*command, *options).exception)


def test_only_what_changed_is_a_job_and_a_finished_one_is_not_run_twice(clips, tmp_path, tiny_model, embedder):
    library = tmp_path / "library"
    update_library(clips, library, embedder, PLAIN)
    names = sorted(path.relative_to(clips).as_posix() for path in clips.rglob("*.wav"))
    write_clip(clips / names[3], 3, 77)
    write_clip(clips / "zz" / "new.wav", 3, 78)
    (clips / names[5]).unlink()
    (job,) = index_jobs.plan(clips, library, tiny_model, PLAIN)
    assert list(job.files) == ["zz/new.wav", names[3]]
    job = EmbeddingJob.from_json(json.loads(json.dumps(job.to_json())))
    index_jobs.run_job(job, clips, tiny_model, library)
    stored = part_path(embedding_parts.parts_directory(library), job.number)
    written = stored.stat().st_mtime_ns
    again = index_jobs.run_job(job, clips, tiny_model, library)
    assert stored.stat().st_mtime_ns == written and again.tracks[names[3]].sha256
    assert index_jobs.plan(clips, library, tiny_model, PLAIN) == []
    # The file changes once more before the end: the part is not what it is now.
    write_clip(clips / names[3], 3, 79)
    summary = index_jobs.finish(clips, library, tiny_model, PLAIN)
    assert (summary.new, summary.changed, summary.missing, summary.pending) == (1, 0, 1, 1)
    (job,) = index_jobs.plan(clips, library, tiny_model, PLAIN)
    assert list(job.files) == [names[3]]
    index_jobs.run_job(job, clips, tiny_model, library)
    assert index_jobs.finish(clips, library, tiny_model, PLAIN).changed == 1
    update_library(clips, tmp_path / "whole", embedder, PLAIN)
    names, vectors, metadata, records = contents(library)
    assert (names, vectors, metadata) == contents(tmp_path / "whole")[:3]
    with pytest.raises(InputError, match="plan first with msim index --plan"):
        index_jobs.finish(clips, library, tiny_model, PLAIN)


def test_a_rebuild_in_steps_serves_the_old_index_until_its_end(clips, tmp_path, tiny_model, embedder):
    library, rebuild = tmp_path / "library", UpdateOptions(rebuild=True)
    update_library(clips, library, embedder, PLAIN)
    before = contents(library)
    jobs = index_jobs.plan(clips, library, tiny_model, rebuild)
    assert [len(job.files) for job in jobs] == [4, 4, 2]
    index_jobs.run_job(jobs[0], clips, tiny_model, library)
    assert index_jobs.finish(clips, library, tiny_model, rebuild).pending == 6
    assert contents(library) == before
    for job in index_jobs.plan(clips, library, tiny_model, rebuild):
        index_jobs.run_job(job, clips, tiny_model, library)
    summary = index_jobs.finish(clips, library, tiny_model, rebuild)
    assert (summary.new, summary.pending) == (6, 0) and contents(library) == before


def test_jobs_of_other_commands_and_models_are_refused(clips, tmp_path, tiny_model, embedder):
    (job, *_) = embedding.plan(clips, tiny_model, tmp_path / "a.npz")
    with pytest.raises(InputError, match="job 0 was planned by msim embed, not by msim index"):
        index_jobs.run_job(job, clips, tiny_model, tmp_path / "library")
    (job, *_) = index_jobs.plan(clips, tmp_path / "library", tiny_model, PLAIN)
    with pytest.raises(InputError, match="job 0 was planned by msim index, not by msim embed"):
        embedding.run_job(job, clips, tiny_model, tmp_path / "library")


def test_a_full_disk_is_not_the_fault_of_a_file(clips, tmp_path, tiny_model, monkeypatch):
    jobs = index_jobs.plan(clips, tmp_path / "library", tiny_model, PLAIN)

    def full(self, path, *, pad=False):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Embedder, "extract", full)
    with pytest.raises(OSError, match="No space"):
        index_jobs.run_job(jobs[0], clips, tiny_model, tmp_path / "library")
    monkeypatch.undo()
    index_jobs.run_job(jobs[0], clips, tiny_model, tmp_path / "library")
    part = load_part(embedding_parts.parts_directory(tmp_path / "library"), jobs[0].number)
    assert all(np.isfinite(track.vector).all() and not track.reason for track in part.tracks.values())
