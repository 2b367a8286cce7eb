"""The options ``--engine``, ``--master``, ``--runner`` and ``--option``, and what they start."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msim_tf.cli.options import progress_bar
from msim_tf.errors import InputError
from msim_tf.extras import require

if TYPE_CHECKING:
    from msim_tf.engines.work import JobResult, Work

_OPTIONS = (
    click.option(
        "--engine", type=click.Choice(["spark", "beam"]), help="Run the jobs on a cluster (extras spark, beam)."
    ),
    click.option("--master", help="Of Spark, e.g. spark://HOST:7077."),
    click.option("--runner", help="Of Beam, e.g. FlinkRunner."),
    click.option(
        "--option", "engine_settings", multiple=True, help="NAME=VALUE, a setting of Spark or pipeline option of Beam."
    ),
)


def engine_options(function: Callable) -> Callable:
    """The options that ``check_engine`` and ``run_jobs`` read."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def check_engine(options: dict[str, Any]) -> None:
    """Refuses options that do not belong together, and an engine that is not installed, before work begins.

    Raises:
        InputError: saying which.
    """
    engine = options["engine"]
    step = options["plan_file"] or options["run_file"] or options["only_finish"]
    if engine and step:
        raise InputError("--engine does all steps; --plan, --run and --finish are for engines that msim does not start")
    for name, owner in (("master", "spark"), ("runner", "beam")):
        if options[name] and engine != owner:
            raise InputError(f"--{name} belongs to --engine {owner}")
    if options["engine_settings"] and not engine:
        raise InputError("--option belongs to --engine spark or beam")
    if engine == "spark" and not options["master"]:
        raise InputError("--engine spark needs --master, e.g. spark://HOST:7077, or local[2] for a try")
    if engine:
        require({"spark": "pyspark", "beam": "apache_beam"}[engine])


def run_jobs(options: dict[str, Any], work: Work, jobs: Sequence[Any], target: Path) -> list[JobResult]:
    """Runs planned jobs on the engine of the options.

    Args:
        options: of the command.
        work: what to do with a job.
        jobs: the jobs, each with ``to_json``.
        target: what the command makes; Beam's dead letters go into ``TARGET.dead.jsonl``.

    Returns:
        The results of the jobs that could not run.
    """
    lines = [json.dumps(job.to_json()) for job in jobs]
    if not lines:
        return []
    if options["engine"] == "spark":
        from msim_tf.engines.spark import run_on_spark

        settings = {}
        for text in options["engine_settings"]:
            name, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"--option {text}: expected NAME=VALUE, e.g. spark.executor.memory=4g")
            settings[name] = value
        with progress_bar(options["engine"], "job") as progress:
            results = run_on_spark(work, lines, master=options["master"], settings=settings, progress=progress)
        return [result for result in results if result.fault]
    from msim_tf.engines.beam import run_on_beam

    # A pipeline option without a value is a switch.
    arguments = [f"--{text}" for text in options["engine_settings"]]
    if options["runner"]:
        arguments.append(f"--runner={options['runner']}")
    return run_on_beam(work, lines, dead_letters=dead_letters(target), options=arguments)


def dead_letters(target: Path) -> Path:
    """Where Beam's dead letters of a store or npz lie."""
    return target.with_name(target.name + ".dead.jsonl")


def list_faults(faults: Sequence[JobResult]) -> None:
    """The jobs that could not run, on standard error."""
    for result in faults[:10]:
        click.echo(f"  job {result.number} could not run: {result.fault}", err=True)
    if faults:
        click.echo(f"  {len(faults)} jobs are left; give the same command again", err=True)
