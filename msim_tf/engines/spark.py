"""Runs jobs on Apache Spark: one task for each job, through a cluster's master or in threads of this machine.

Every worker has msim installed and sees the music and the store or model under the same paths. A worker that dies loses
its tasks, which Spark gives to others; finished jobs are skipped there.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from msim_tf.engines.work import JobResult, Work, attempt
from msim_tf.errors import InputError
from msim_tf.extras import require

_ROUNDS = 3
_POLL_SECONDS = 1.0


def run_on_spark(
    work: Work,
    lines: Sequence[str],
    *,
    master: str,
    settings: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[JobResult]:
    """Runs jobs, those that met a fault up to three times.

    Args:
        work: what to do with a job.
        lines: the jobs, each a line of JSON.
        master: e.g. ``spark://host:7077``, ``yarn``, ``local[4]``.
        settings: of Spark, by their own names, over its configuration.
        progress: called with (jobs done, jobs in all).

    Returns:
        The result of every job; faults are in them and raise nothing.

    Raises:
        InputError: if PySpark or Java is missing, the master cannot be reached, or Spark gives the run up.
    """
    # Faults go round again: a disk that was full or a mount that was away may be back.
    done: list[JobResult] = []
    faults = [JobResult(-1, 0, line=line) for line in lines]
    with _context(master, settings or {}) as context:
        for _ in range(_ROUNDS):
            if not faults:
                break
            report = partial(_report, progress, len(done), len(lines))
            results = _one_round(context, work, [result.line for result in faults], report)
            done += [result for result in results if not result.fault]
            faults = [result for result in results if result.fault]
            report(len(results) - len(faults))
    return done + faults


def _report(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _one_round(context: Any, work: Work, lines: list[str], progress: Callable[[int], None]) -> list[JobResult]:
    """Runs each line once, as a task of its own."""
    from py4j.protocol import Py4JJavaError

    # A thread asks Spark for its progress, since collect() returns only when all tasks have ended.
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(context.statusTracker(), ended, progress), daemon=True)
    watcher.start()
    try:
        return context.parallelize(lines, len(lines)).map(partial(attempt, work)).collect()
    except Py4JJavaError as error:
        reason = str(error.java_exception.getMessage()).splitlines()[0]
        raise InputError(f"Spark gave up: {reason}; what is finished stays, give the same command again") from error
    finally:
        ended.set()
        watcher.join()


def _watch(tracker: Any, ended: threading.Event, progress: Callable[[int], None]) -> None:
    """Tells how many tasks are done until the round has ended."""
    while not ended.wait(_POLL_SECONDS):
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        if stages:
            progress(sum(stage.numCompletedTasks for stage in stages if stage is not None))


@contextmanager
def _context(master: str, settings: Mapping[str, str]) -> Iterator[Any]:
    """A running ``SparkContext``.

    Raises:
        InputError: saying what it lacks.
    """
    require("pyspark")
    # Spark itself would fail with a Java traceback.
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise InputError("Spark needs Java 17 or later, which is not installed (Debian: default-jre-headless)")
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException

    # Workers use the Python at the same path as this one, unless their environment is another.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    conf = SparkConf().setMaster(master).setAppName("msim").set("spark.ui.showConsoleProgress", "false")
    conf = conf.set("spark.log.level", "ERROR").setAll(list(settings.items()))
    try:
        context = SparkContext(conf=conf)
    except (Py4JError, PySparkException, ValueError) as error:
        cause = getattr(error, "java_exception", None)
        reason = str(cause.getMessage() if cause is not None else error).strip().splitlines()[0]
        raise InputError(f"--master {master}: Spark does not start ({reason})") from error
    try:
        yield context
    finally:
        context.stop()
