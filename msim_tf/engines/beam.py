"""Runs jobs in an Apache Beam pipeline, on whatever runner its options name.

``RunJobs`` is the pipeline's one step, for use in others, too: lines of JSON in, results out, and beside them a
dead-letter output of what could not be used. Every worker has msim installed and sees the music and the store or model
under the same paths.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from msim_tf.engines.work import JobResult, Work, attempt

DONE, DEAD = "done", "dead"


class RunJobs(beam.PTransform):
    """Jobs as lines of JSON -> their results, and dead letters.

    The output ``DONE`` has a JSON object per job that ran, ``DEAD`` one per file that cannot be used (``job``,
    ``file``, ``reason``) and one per job that could not run (``job``, ``fault``, ``line``).

    Args:
        work: what to do with a job.
    """

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def expand(self, lines: Any) -> Any:
        """Adds the step to a pipeline."""
        # Without a reshuffle, a runner may fuse reading the lines and running the jobs into one worker.
        return lines | beam.Reshuffle() | beam.ParDo(_RunJob(self._work)).with_outputs(DEAD, main=DONE)


class _RunJob(beam.DoFn):
    def __init__(self, work: Work) -> None:
        self._work = work

    def process(self, element: str) -> Iterator[Any]:
        result = attempt(self._work, element)
        for file, reason in result.failures.items():
            yield beam.pvalue.TaggedOutput(DEAD, {"job": result.number, "file": file, "reason": reason})
        if result.fault:
            yield beam.pvalue.TaggedOutput(DEAD, {"job": result.number, "fault": result.fault, "line": result.line})
        else:
            yield dataclasses.asdict(result)


def run_on_beam(
    work: Work, lines: Sequence[str], *, dead_letters: Path, options: Sequence[str] = ()
) -> list[JobResult]:
    """Runs jobs once each, and writes the dead letters as lines of JSON.

    Args:
        work: what to do with a job.
        lines: the jobs, each a line of JSON.
        dead_letters: file for what could not be used; on the file system that all workers share.
        options: of the pipeline, as its command line has them, e.g. ``--runner=FlinkRunner``.

    Returns:
        The results of jobs that met a fault.
    """
    # One file of dead letters, whatever number of workers writes them.
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        outputs = pipeline | beam.Create(list(lines)) | RunJobs(work)
        letters = outputs[DEAD] | beam.Map(json.dumps)
        _ = letters | beam.io.WriteToText(str(dead_letters), num_shards=1, shard_name_template="")
    # Files that cannot be used are recorded in the store or the parts, jobs that could not run only here.
    letters = [json.loads(line) for line in dead_letters.read_text(encoding="utf-8").splitlines()]
    return [
        JobResult(letter["job"], 0, fault=letter["fault"], line=letter["line"])
        for letter in letters
        if "fault" in letter
    ]
