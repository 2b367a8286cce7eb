"""The jobs of one embedding and their results while it is being made: beside ``out``, in the directory ``out.parts``.

``msim embed`` joins them to an npz of vectors, ``msim index`` puts them into a library.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from msim_tf.audio.sandbox import DecodeLimits
from msim_tf.audio.scan import FileState
from msim_tf.errors import InputError
from msim_tf.export.embedder import Embedder
from msim_tf.export.embedding_job import (
    EmbeddingJob,
    Part,
    PartTrack,
    Plan,
    Recipe,
    load_part,
    load_plan,
    part_path,
    plan_path,
    save_plan,
)
from msim_tf.export.metadata import ModelMetadata
from msim_tf.files import exclusive

TRACKS_PER_JOB = 64


def parts_directory(out: str | Path) -> Path:
    """Where the plan and the parts of ``out`` lie."""
    return Path(out).with_name(Path(out).name + ".parts")


def writing_parts(out: str | Path) -> AbstractContextManager[None]:
    """Keeps a second process from planning or finishing ``out``."""
    return exclusive(parts_directory(out), "embedding into it")


def is_planned(out: str | Path) -> bool:
    """Whether jobs of ``out`` were planned and not finished."""
    return plan_path(parts_directory(out)).exists()


def plan_jobs(
    files: Mapping[str, FileState],
    recipe: Recipe,
    metadata: ModelMetadata,
    out: str | Path,
    *,
    failures: Mapping[str, str] | None = None,
    notices: list[str] | None = None,
) -> list[EmbeddingJob]:
    """Divides tracks into jobs and writes them down as the plan of ``out``, under its lock.

    Args:
        files: identifier -> state of every track that ``out`` is to be made of.
        recipe: how they are embedded.
        metadata: of the model.
        out: what is made.
        failures: what was left out of the files -> why.
        notices: what else was left out, each as a line.

    Returns:
        The jobs that are to run, by their numbers. What an earlier plan has finished stays done if neither the track
        nor the recipe changed.
    """
    directory = parts_directory(out)
    previous = load_plan(directory).jobs if is_planned(out) else []
    # Jobs that were planned before keep their unchanged tracks, so that their parts stay of use.
    assigned = {
        job.number: {name: state for name, state in job.files.items() if files.get(name) == state}
        for job in previous
        if job.recipe == recipe
    }
    kept = {name for own in assigned.values() for name in own}
    # No number is used twice: a job of an earlier plan may still be running somewhere.
    numbers = [job.number for job in previous] + [int(path.stem) for path in directory.glob("[0-9]*.npz")]
    first = max(numbers, default=-1) + 1
    for position, name in enumerate(name for name in files if name not in kept):
        assigned.setdefault(first + position // TRACKS_PER_JOB, {})[name] = files[name]
    jobs = [EmbeddingJob(number, recipe, own) for number, own in sorted(assigned.items()) if own]
    save_plan(directory, Plan(jobs, metadata.layout, dict(failures or {}), notices or []))
    return [job for job in jobs if finished_part(directory, job) is None]


def finished_part(directory: Path, job: EmbeddingJob) -> Part | None:
    """The part of a job that has run; None if it has not, or its part is damaged or of another recipe."""
    if not part_path(directory, job.number).exists():
        return None
    try:
        part = load_part(directory, job.number)
    except InputError:
        return None
    return part if part.fulfils(job) else None


def finished_tracks(out: str | Path, recipe: Recipe) -> Iterator[tuple[str, PartTrack]]:
    """Every track that finished jobs of a recipe hold, one part in memory at a time; none if nothing was planned."""
    if not is_planned(out):
        return
    directory = parts_directory(out)
    for job in load_plan(directory).jobs:
        part = finished_part(directory, job) if job.recipe == recipe else None
        if part is not None:
            yield from ((name, part.tracks[name]) for name in job.files)


def validate_recipe(job: EmbeddingJob, recipe: Recipe) -> None:
    """Refuses a job that was planned for another model or another command.

    Raises:
        InputError: saying what differs.
    """
    if recipe.task != job.recipe.task:
        raise InputError(f"job {job.number} was planned by msim {job.recipe.task}, not by msim {recipe.task}")
    if recipe != job.recipe:
        raise InputError(f"job {job.number} was planned with {job.recipe}; here is {recipe}: use the same model")


def job_embedder(job: EmbeddingJob, model: str | Path, limits: DecodeLimits | None) -> Embedder:
    """The embedder of a job, which this process keeps for its next one.

    Args:
        job: the job.
        model: the model; of several versions the one that the job names.
        limits: what decoding one file may cost.
    """
    version = Path(model) / job.recipe.version
    return _kept_embedder((version if version.is_dir() else Path(model)).absolute(), limits)


@functools.lru_cache(maxsize=1)
def _kept_embedder(model: Path, limits: DecodeLimits | None) -> Embedder:
    return Embedder(model, limits)
