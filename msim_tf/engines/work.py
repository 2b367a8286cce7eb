"""What a worker of any engine does: a line of JSON goes in, runs as a job, and a small result comes out.

The result itself lies on the file system that all workers share. Nothing here raises for a job that fails: engines
repeat what raised, give up the whole run after some attempts, and have finished jobs thrown away. The driver decides.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# A worker whose disk is full fails fast; without a pause it would take the jobs of all others, and fail them, too.
FAULT_PAUSE = 10.0


@dataclass(frozen=True)
class JobResult:
    """What became of a job.

    Attributes:
        number: of the job; -1 if the line held none.
        files: how many files it was about.
        failures: those that cannot be used -> why.
        fault: why the job could not run; "" if it ran.
        line: the job, to run it again after a fault.
    """

    number: int
    files: int
    failures: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    line: str = ""


@dataclass(frozen=True)
class ExtractWork:
    """The jobs of ``msim extract``.

    Attributes:
        source: the music, as all workers see it.
        store: the store, as all workers see it.
        max_seconds: longer files are left out.
        threads: of one job.
    """

    source: str
    store: str
    max_seconds: float
    threads: int = 1

    def __call__(self, line: str) -> JobResult:
        """Runs a job of ``data.writer.plan``."""
        from msim_tf.audio.sandbox import DecodeLimits
        from msim_tf.data.writer import ShardJob, run_job

        job = ShardJob.from_json(json.loads(line))
        limits = DecodeLimits(max_seconds=self.max_seconds)
        shard = run_job(job, self.source, self.store, workers=self.threads, limits=limits)
        return JobResult(
            job.shard, len(shard.clips), {clip.identifier: clip.reason for clip in shard.clips if clip.reason}
        )


@dataclass(frozen=True)
class EmbedWork:
    """The jobs of ``msim embed`` and ``msim index``.

    Attributes:
        source: the music or the store, as all workers see it.
        model: the model, as all workers see it.
        out: the npz or the library to make, as all workers see it.
        max_seconds: longer files are left out.
        threads: of TensorFlow.
    """

    source: str
    model: str
    out: str
    max_seconds: float
    threads: int = 1

    def __call__(self, line: str) -> JobResult:
        """Runs a job of ``export.embedding.plan`` or ``library.index_jobs.plan``."""
        from msim_tf.audio.sandbox import DecodeLimits
        from msim_tf.export import embedding
        from msim_tf.export.embedding_job import EmbeddingJob
        from msim_tf.library import index_jobs

        # Both commands plan the same kind of job, which says for whom its part is.
        job = EmbeddingJob.from_json(json.loads(line))
        limits = DecodeLimits(max_seconds=self.max_seconds)
        if job.recipe.task == index_jobs.TASK:
            part = index_jobs.run_job(job, Path(self.source), self.model, Path(self.out), limits=limits)
        else:
            part = embedding.run_job(job, self.source, self.model, self.out, limits=limits)
        reasons = {name: part.tracks[name].reason for name in job.files}
        return JobResult(job.number, len(job.files), {name: reason for name, reason in reasons.items() if reason})


Work = ExtractWork | EmbedWork


def attempt(work: Work, line: str, *, sleep: Callable[[float], None] = time.sleep) -> JobResult:
    """Runs a job; whatever it raises is the fault of its result, after a pause."""
    limit_threads(work.threads)
    try:
        from msim_tf.startup import quiet_tensorflow

        quiet_tensorflow()
        return work(line)
    except Exception as error:
        sleep(FAULT_PAUSE)
        return JobResult(_number(line), 0, fault=f"{type(error).__name__}: {' '.join(str(error).split())}", line=line)


def limit_threads(threads: int) -> None:
    """Gives TensorFlow so many threads in this process, unless it has begun or the environment says otherwise.

    Engines run as many jobs at once as they have cores, so each has its own and no more.
    """
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, str(threads))


def _number(line: str) -> int:
    """The number of a job that could not run."""
    # Jobs of an extraction are numbered by their shard.
    try:
        job = json.loads(line)
        return int(job["shard"] if "shard" in job else job["number"])
    except (ValueError, KeyError, TypeError):
        return -1
