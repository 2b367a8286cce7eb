"""Jobs in a Beam pipeline on its DirectRunner: what one machine makes, and letters for what could not be used."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from store_contents import contents
from synthetic import SMALL, write_clip
from tiny_model import tiny_model_path

beam = pytest.importorskip("apache_beam", reason="no Apache Beam (extra beam)")

from msim_tf.cli import cli  # noqa: E402
from msim_tf.data import extraction_plan, writer  # noqa: E402
from msim_tf.embeddings import load_embeddings  # noqa: E402
from msim_tf.engines import work as work_module  # noqa: E402
from msim_tf.engines.beam import DEAD, DONE, RunJobs, run_on_beam  # noqa: E402
from msim_tf.engines.work import ExtractWork  # noqa: E402
from msim_tf.export import embedding, embedding_parts  # noqa: E402
from msim_tf.export.embedder import Embedder  # noqa: E402
from msim_tf.library.build import update_library  # noqa: E402
from msim_tf.library.catalog import load_catalog  # noqa: E402
from msim_tf.library.update_options import UpdateOptions  # noqa: E402
from msim_tf.params import FEATURE_PRESETS  # noqa: E402

# The runner in this process; "DirectRunner" would first look for Prism on the network.
DIRECT = "BundleBasedDirectRunner"


@pytest.fixture
def music(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction_plan, "CLIPS_PER_SHARD", 2)
    monkeypatch.setattr(embedding_parts, "TRACKS_PER_JOB", 2)
    monkeypatch.setattr(work_module, "FAULT_PAUSE", 0.0)
    monkeypatch.setitem(FEATURE_PRESETS, "small", SMALL)
    for number in range(5):
        write_clip(tmp_path / "music" / f"{number}.wav", 2, number)
    write_clip(tmp_path / "music" / "short.wav", 0.2, 9)
    return tmp_path / "music"


def msim(*arguments):
    return CliRunner().invoke(cli, [*map(str, arguments), "--engine", "beam", "--runner", DIRECT])


def letters(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_store_is_that_of_one_machine(music, tmp_path):
    done = msim("extract", music, tmp_path / "beam", "--features", "small")
    assert done.exit_code == 1 and "5 clips" in done.output, done.output
    writer.extract_folder(music, tmp_path / "alone", SMALL)
    assert contents(tmp_path / "beam") == contents(tmp_path / "alone")
    (letter,) = letters(tmp_path / "beam.dead.jsonl")
    assert (letter["job"], letter["file"]) == (2, "short.wav") and "0.20 s is shorter" in letter["reason"]


@pytest.mark.slow
def test_embeddings_are_those_of_one_machine(music, tmp_path):
    done = msim("embed", music, "--model", tiny_model_path(), "--out", tmp_path / "beam.npz")
    assert done.exit_code == 1 and "5 tracks" in done.output, done.output
    embedding.embed_source(music, Embedder(tiny_model_path()), tmp_path / "alone.npz")
    beam_made, alone = load_embeddings(tmp_path / "beam.npz"), load_embeddings(tmp_path / "alone.npz")
    assert beam_made.identifiers == alone.identifiers
    np.testing.assert_array_equal(beam_made.embeddings, alone.embeddings)
    done = msim("index", music, tmp_path / "library", "--model", tiny_model_path())
    assert done.exit_code == 1 and "5 tracks" in done.output, done.output
    index = load_catalog(tmp_path / "library").open_index()
    update_library(music, tmp_path / "here", Embedder(tiny_model_path()), UpdateOptions())
    here = load_catalog(tmp_path / "here").open_index()
    np.testing.assert_array_equal(index.vectors(alone.identifiers), here.vectors(alone.identifiers))


def test_a_job_that_cannot_run_is_a_letter_and_the_others_run(music, tmp_path):
    jobs = [json.dumps(job.to_json()) for job in writer.plan(writer.list_source(music)[1], tmp_path / "store", SMALL)]
    work = ExtractWork(str(music), str(tmp_path / "store"), 60.0)
    dead = tmp_path / "dead.jsonl"
    (fault,) = run_on_beam(work, [*jobs[:2], '{"shard": 9}'], dead_letters=dead, options=[f"--runner={DIRECT}"])
    assert fault.number == 9 and fault.line == '{"shard": 9}' and "not of format" in fault.fault
    assert [letter["job"] for letter in letters(dead)] == [9]
    assert writer.finish(tmp_path / "store").pending == 2
    # Once more, with what is left.
    assert run_on_beam(work, jobs, dead_letters=dead, options=[f"--runner={DIRECT}"]) == []
    assert writer.finish(tmp_path / "store").clips == 5


def test_the_step_serves_in_other_pipelines(music, tmp_path):
    from apache_beam.testing.util import assert_that, equal_to

    jobs = [json.dumps(job.to_json()) for job in writer.plan(writer.list_source(music)[1], tmp_path / "store", SMALL)]
    with beam.Pipeline(runner=DIRECT) as pipeline:
        outputs = pipeline | beam.Create(jobs) | RunJobs(ExtractWork(str(music), str(tmp_path / "store"), 60.0))
        numbers = outputs[DONE] | "numbers" >> beam.Map(lambda result: (result["number"], result["files"]))
        assert_that(numbers, equal_to([(0, 2), (1, 2), (2, 2)]), label="done")
        assert_that(outputs[DEAD] | "files" >> beam.Map(lambda letter: letter["file"]), equal_to(["short.wav"]))
