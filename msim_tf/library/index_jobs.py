"""Indexes a folder on several machines: three steps as in ``data.writer`` and ``export.embedding``.

1. ``plan`` compares the folder with the library and returns what is to embed as jobs of some tracks each.
2. ``run_job`` embeds the tracks of one job into a part. Jobs may run anywhere that sees the music, the model and the
   directory of the parts, in any order, twice, or twice at once. A finished one is skipped.
3. ``finish`` puts what the parts hold into the library, and does everything else that an update does.

Each may be killed and run again. ``library.build.update_library`` is all three on one machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from msim_tf.audio.sandbox import DecodeLimits
from msim_tf.audio.scan import FileState
from msim_tf.errors import InputError
from msim_tf.export.embedding_job import EmbeddingJob, Part, PartTrack, Recipe, save_part
from msim_tf.export.embedding_parts import (
    finished_part,
    finished_tracks,
    is_planned,
    job_embedder,
    parts_directory,
    plan_jobs,
    validate_recipe,
    writing_parts,
)
from msim_tf.export.metadata import ModelMetadata, load_metadata
from msim_tf.library.build import compared, index_to_update, music_catalog, update_from
from msim_tf.library.embedded_files import embedded_files
from msim_tf.library.update import Progress, source_of
from msim_tf.library.update_options import Summary, UpdateOptions

TASK = "index"  # what jobs of a library say they are for


def plan(music: Path, path: Path, model: str | Path, options: UpdateOptions) -> list[EmbeddingJob]:
    """Lists what is new or changed and divides it into jobs. The library stays as it is.

    Args:
        music: the folder of music.
        path: the library's directory; plan and results lie beside it, in ``PATH.parts``.
        model: the model.
        options: how.

    Returns:
        The jobs that are to run, with ``run_job``, on whatever machines see music, model and ``PATH.parts``.

    Raises:
        InputError: as ``update_library``, or if another process plans or finishes this library.
    """
    metadata = load_metadata(model)
    present = index_to_update(path, source_of(metadata), options)
    catalog = music_catalog(music, path, options)
    changes, scan = compared(catalog, present, options)
    with writing_parts(path):
        files = {name: scan.files[name] for name in (*changes.new, *changes.changed)}
        return plan_jobs(files, _recipe(metadata, options), metadata, path)


def run_job(
    job: EmbeddingJob, music: Path, model: str | Path, path: Path, *, limits: DecodeLimits | None = None
) -> Part:
    """Embeds the files of one job into its part beside the library, unless that is finished already.

    The process keeps the model for its next job.

    Args:
        job: what to do.
        music: the folder of music; may be mounted elsewhere than where the job was planned.
        model: the model; of several versions the one that the job names.
        path: the library's directory.
        limits: what decoding one file may cost.

    Raises:
        InputError: if the model is not the one that the job was planned for.
        OSError: if the part cannot be written. What one file raises becomes its reason in the part.
    """
    embedder = job_embedder(job, model, limits)
    validate_recipe(job, Recipe.of_model(embedder.metadata, pad=job.recipe.pad, task=TASK))
    directory = parts_directory(path)
    part = finished_part(directory, job)
    if part is None:
        tracks = dict(embedded_files(job.files, music, embedder, pad=job.recipe.pad))
        part = Part(job.number, job.recipe, tracks)
        save_part(directory, part, embedder.metadata.layout.size)
    return part


def finish(
    music: Path,
    path: Path,
    model: str | Path,
    options: UpdateOptions,
    *,
    progress: Progress = lambda stage, done, total: None,
) -> Summary:
    """Brings the library up to date with the folder by what finished jobs hold, without running the model.

    Files that are new or changed and in no finished job are counted as pending; the library is as complete as it can
    be. When none is pending, plan and parts are removed.

    Args:
        music: the folder of music.
        path: the library's directory.
        model: the model that the jobs were planned with.
        options: how, as when the jobs were planned.
        progress: called with (stage, done, total).

    Raises:
        InputError: as ``update_library``, or if nothing was planned.
    """
    if not is_planned(path):
        raise InputError(f"{parts_directory(path)}: no jobs of this library; plan first with msim index --plan")
    metadata = load_metadata(model)
    recipe = _recipe(metadata, options)

    def tracks(files: Mapping[str, FileState]) -> Iterator[tuple[str, PartTrack]]:
        """Those that finished jobs have embedded as they are now."""
        for name, track in finished_tracks(path, recipe):
            if files.get(name) == track.state:
                yield name, track

    with writing_parts(path):
        summary = update_from(music, path, metadata, tracks, options, progress)
        if not summary.pending:
            shutil.rmtree(parts_directory(path))
    return summary


def _recipe(metadata: ModelMetadata, options: UpdateOptions) -> Recipe:
    return Recipe.of_model(metadata, pad=options.pad, task=TASK)
