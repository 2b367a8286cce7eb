"""The steps into which ``extract``, ``embed`` and ``index`` can be divided: ``--plan``, ``--run``, ``--finish``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from msim_tf.cli.engines import check_engine, engine_options
from msim_tf.cli.options import progress_bar
from msim_tf.errors import InputError
from msim_tf.files import parse_json

Job = TypeVar("Job")


def step_options(finish_help: str) -> Callable[[Callable], Callable]:
    """The options that ``check_steps`` and ``cli.engines.run_jobs`` read.

    Args:
        finish_help: what ``--finish`` does.
    """

    def decorate(function: Callable) -> Callable:
        function = engine_options(function)
        function = click.option("--finish", "only_finish", is_flag=True, help=finish_help)(function)
        text = "Only do the jobs of this file (- is standard input)."
        function = click.option("--run", "run_file", type=click.File("r"), help=text)(function)
        text = "Only write the jobs that are to do, a line of JSON each."
        return click.option("--plan", "plan_file", type=click.File("w"), help=text)(function)

    return decorate


def check_steps(options: dict[str, Any]) -> None:
    """Refuses options that do not belong together, and an engine that is not installed, before work begins.

    Raises:
        InputError: saying which.
    """
    if sum(map(bool, (options["plan_file"], options["run_file"], options["only_finish"]))) > 1:
        raise InputError("--plan, --run and --finish are separate steps; give one of them")
    check_engine(options)


def write_jobs(file: TextIO, jobs: Sequence[Any], target: Path) -> None:
    """Writes planned jobs, each with ``to_json``, for ``do_jobs`` of any machine."""
    file.writelines(json.dumps(job.to_json()) + "\n" for job in jobs)
    click.echo(f"{target}: {len(jobs)} jobs to run")


def do_jobs(
    lines: Iterable[str],
    from_json: Callable[[Any], Job],
    do: Callable[[list[Job]], Iterable[Any]],
    command: str,
    target: Path,
) -> None:
    """Does the jobs that ``write_jobs`` wrote.

    Args:
        lines: a job each.
        from_json: reads one.
        do: does them, and yields something after each.
        command: that planned them.
        target: what it makes.

    Raises:
        InputError: naming the line that is no such job, before any is done.
    """
    # All lines are read before the first job runs, so that a broken file costs no work.
    jobs: list[Job] = []
    try:
        for line in lines:  # which fails itself where the file is no text
            jobs.append(from_json(parse_json(line)))
    except ValueError as error:
        where = f"--run, line {len(jobs) + 1}"
        raise InputError(f"{where}: not a job that msim {command} --plan writes ({error})") from error
    with progress_bar(command, "job") as progress:
        for done, _ in enumerate(do(jobs), 1):
            progress(done, len(jobs))
    click.echo(f"{target}: {len(jobs)} jobs done")
