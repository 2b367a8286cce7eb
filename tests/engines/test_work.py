"""What a worker does with a job, on no engine at all: results, faults, and stores that do not belong together."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from synthetic import SMALL, write_clip

from msim_tf.cli import cli
from msim_tf.data import extraction_plan, writer
from msim_tf.engines.work import FAULT_PAUSE, ExtractWork, JobResult, attempt
from msim_tf.errors import InputError
from msim_tf.params import FeatureParams


@pytest.fixture
def planned(clips_folder, tmp_path, monkeypatch):
    """A plan of three jobs in a store, and their lines."""
    monkeypatch.setattr(extraction_plan, "CLIPS_PER_SHARD", 4)
    jobs = writer.plan(writer.list_source(clips_folder)[1], tmp_path / "store", SMALL)
    return ExtractWork(str(clips_folder), str(tmp_path / "store"), 60.0), [json.dumps(job.to_json()) for job in jobs]


def test_a_result_counts_files_and_names_failures(planned, tmp_path, clips_folder):
    work, lines = planned
    assert [attempt(work, line) for line in lines] == [JobResult(number, 4) for number in range(3)]
    assert writer.finish(tmp_path / "store").clips == 12
    write_clip(tmp_path / "music" / "short.wav", 0.2, 1)
    (job,) = writer.plan(writer.list_source(tmp_path / "music")[1], tmp_path / "other", SMALL)
    result = attempt(ExtractWork(str(tmp_path / "music"), str(tmp_path / "other"), 60.0), json.dumps(job.to_json()))
    assert list(result.failures) == ["short.wav"] and "0.20 s is shorter" in result.failures["short.wav"]


# The disk is full for one process: the kernel refuses to let its files grow.
FULL_DISK = """
import resource, sys
from msim_tf.engines.work import ExtractWork, attempt
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
print(attempt(ExtractWork(sys.argv[1], sys.argv[2], 60.0), sys.argv[3], sleep=print))
"""


def test_a_full_disk_is_a_fault_of_the_worker_and_another_does_its_job(planned, clips_folder, tmp_path):
    work, lines = planned
    environment = {**os.environ, "PYTHONPATH": str(Path(writer.__file__).parents[2])}
    command = [sys.executable, "-c", FULL_DISK, work.source, work.store, lines[1]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    pause, result = done.stdout.splitlines()
    assert float(pause) == FAULT_PAUSE, done.stderr
    assert "JobResult(number=1, files=0, failures={}, fault='OSError: [Errno 27] File too large" in result
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert [attempt(work, line).fault for line in lines] == ["", "", ""]
    whole = writer.finish(tmp_path / "store")
    assert whole.clips == 12 and not whole.failures


def test_what_is_no_job_is_a_fault(planned):
    work, _ = planned
    pauses = []
    result = attempt(work, '{"shard": 3}', sleep=pauses.append)
    assert (result.number, result.line, pauses) == (3, '{"shard": 3}', [FAULT_PAUSE])
    assert "InputError: the job: not of format 'msim-shard-job'" in result.fault
    assert attempt(work, "nonsense", sleep=pauses.append).number == -1


def test_shards_of_other_features_are_refused_by_digest(planned, clips_folder, tmp_path):
    work, lines = planned
    other = FeatureParams.from_json({**SMALL.to_json(), "mel_gain": 11.0})
    foreign = {**json.loads(lines[0]), "feature_params": other.to_json()}
    assert not attempt(work, json.dumps(foreign)).fault  # a worker of another release, say
    for step in (
        lambda: writer.finish(tmp_path / "store"),
        lambda: writer.plan(writer.list_source(clips_folder)[1], tmp_path / "store", SMALL),
    ):
        with pytest.raises(InputError, match=f"00000.json.*{other.digest}.*{SMALL.digest}"):
            step()
    # The job itself, run by the right worker, replaces the shard.
    assert [attempt(work, line).fault for line in lines] == ["", "", ""]
    assert writer.finish(tmp_path / "store").clips == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "spark"], "--engine spark needs --master"),
        (["--master", "local[1]"], "--master belongs to --engine spark"),
        (["--engine", "spark", "--master", "local[1]", "--runner", "X"], "--runner belongs to --engine beam"),
        (["--option", "a=b"], "--option belongs to --engine"),
        (["--engine", "spark", "--master", "local[1]", "--finish"], "--engine does all steps"),
    ],
)
def test_options_that_do_not_belong_together(options, message, tmp_path):
    commands = ["extract music store", "embed music --model m --out x.npz", "index music library"]
    for command in map(str.split, commands):
        done = CliRunner().invoke(cli, [*command, *options])
        assert isinstance(done.exception, InputError) and message in str(done.exception)


def test_the_same_command_without_work_starts_no_engine(planned, clips_folder, tmp_path, monkeypatch):
    work, lines = planned
    for line in lines:
        attempt(work, line)
    from msim_tf.params import FEATURE_PRESETS

    monkeypatch.setitem(FEATURE_PRESETS, "small", SMALL)
    shutil.rmtree(tmp_path / "java", ignore_errors=True)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))  # Spark could not start
    arguments = ["extract", clips_folder, tmp_path / "store", "--features", "small"]
    arguments += ["--engine", "spark", "--master", "spark://127.0.0.1:1"]
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == 0 and "12 clips" in done.output, done.output
