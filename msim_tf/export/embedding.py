"""Embeds folders and stores: three steps as in ``data.writer``, each of which may be killed and run again.

1. ``plan`` lists the tracks and returns the work that is to do as jobs of some tracks each.
2. ``run_job`` embeds the tracks of one job into a part. Jobs may run anywhere that sees the music, the model and the
   directory of the parts, in any order, twice, or twice at once. A finished one is skipped.
3. ``finish`` joins the parts to one npz of embeddings and removes them.

The parts of ``tracks.npz`` and their plan lie in the directory ``tracks.npz.parts`` beside it. ``embed_source`` is all
three on one machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from msim_tf.audio.sandbox import DecodeLimits
from msim_tf.audio.scan import FileState, Scan
from msim_tf.audio.source import Source, is_uri, scan_source, source_root
from msim_tf.data.store import FeatureStore
from msim_tf.data.store_database import OK, StoreDatabase, database_path, is_store
from msim_tf.embeddings import save_embeddings
from msim_tf.errors import InputError
from msim_tf.export.embedder import Embedder
from msim_tf.export.embedding_job import EmbeddingJob, Part, PartTrack, Recipe, load_plan, plan_path, save_part
from msim_tf.export.embedding_parts import (
    finished_part,
    is_planned,
    job_embedder,
    parts_directory,
    plan_jobs,
    validate_recipe,
    writing_parts,
)
from msim_tf.export.metadata import ModelMetadata, load_metadata
from msim_tf.features.extractor import Features
from msim_tf.names import storable
from msim_tf.parallel import READ_AHEAD, counted, in_order


@dataclass(frozen=True)
class EmbeddedTracks:
    """What ``finish`` joined.

    Attributes:
        identifiers: of n tracks.
        embeddings: [n, size] float32.
        failures: what was left out -> why.
        notes: what is worth knowing of tracks that were used, e.g. their damage.
        notices: what the scan left out without a reason of its own.
        pending: how many tracks wait for their jobs; then nothing was written.
    """

    identifiers: list[str]
    embeddings: np.ndarray
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    pending: int = 0


def plan(source: Source, model: str | Path, out: str | Path, *, pad: bool = False) -> list[EmbeddingJob]:
    """Lists the tracks of a folder, a single file or a feature store, and divides what is to do into jobs.

    What an earlier plan for the same ``out`` has finished stays done if neither the track nor the model changed.

    Args:
        source: the folder, file or store, or the URI of a folder or file.
        model: ``saved_models/NAME``, or one of its versions.
        out: the npz that ``finish`` will write.
        pad: lengthen clips shorter than one segment with silence.

    Returns:
        Jobs that are to run, by their numbers.

    Raises:
        InputError: if there is nothing to embed, a store holds other features than the model takes, or another process
            is writing this embedding.
    """
    metadata = load_metadata(model)
    scan = _listed(source, metadata)
    with writing_parts(out):
        return _planned(scan, Recipe.of_model(metadata, pad=pad, stored=_is_store(source)), metadata, out)


def _listed(source: Source, metadata: ModelMetadata) -> Scan:
    """The tracks, with the state by which a changed one is noticed; that of a store's track is that of its file."""
    if not _is_store(source):
        return scan_source(source)
    with StoreDatabase(source) as database:
        metadata.validate_features(database.params, database_path(source))
        states = {name: state for name, state in sorted(database.clip_states().items()) if state.status == OK}
    if not states:
        raise InputError(f"{source}: a store without clips; extract some first with msim extract")
    return Scan(
        {name: FileState(state.size, state.modified) for name, state in states.items()}, {}, (), root=Path(source)
    )


def _is_store(source: Source) -> bool:
    return not is_uri(source) and is_store(source)


def _planned(scan: Scan, recipe: Recipe, metadata: ModelMetadata, out: str | Path) -> list[EmbeddingJob]:
    failures = {storable(name): reason for name, reason in scan.failures.items()}
    return plan_jobs(scan.files, recipe, metadata, out, failures=failures, notices=scan.notices())


def run_job(
    job: EmbeddingJob,
    source: Source,
    model: str | Path,
    out: str | Path,
    *,
    limits: DecodeLimits | None = None,
    progress: Callable[[str], None] = lambda identifier: None,
) -> Part:
    """Embeds the tracks of one job into its part, unless that is finished already.

    The process keeps the model for its next job.

    Args:
        job: what to do.
        source: the folder of music, its URI, or the store; may be mounted elsewhere than where the job was planned.
        model: the model; of several versions the one that the job names.
        out: the npz that ``finish`` will write.
        limits: what decoding one file may cost.
        progress: called with each track that is done.

    Raises:
        InputError: if the model is not the one that the job was planned for, or the store holds other features.
        OSError: if the part cannot be written. What one sound file raises becomes its reason in the part.
    """
    (part,) = run_jobs([job], source, job_embedder(job, model, limits), out, progress=progress)
    return part


def run_jobs(
    jobs: Sequence[EmbeddingJob],
    source: Source,
    embedder: Embedder,
    out: str | Path,
    *,
    progress: Callable[[str], None] = lambda identifier: None,
) -> Iterator[Part]:
    """``run_job`` of one job after the other; extraction goes on to the next while one is being embedded."""
    # What ran before is passed on as it is.
    directory = parts_directory(out)
    unfinished: dict[int, EmbeddingJob] = {}
    for job in jobs:
        validate_recipe(job, Recipe.of_model(embedder.metadata, pad=job.recipe.pad, stored=job.recipe.stored))
        part = finished_part(directory, job)
        if part is None:
            unfinished[job.number] = job
        else:
            yield part

    # The tracks of all jobs are one stream, whose features come in its order: those of one job follow each other.
    tracks = [(job, name) for job in unfinished.values() for name in job.files]
    with closing(_features(tracks, source, embedder)) as outcomes:
        for number, of_job in groupby(outcomes, key=lambda item: item[0][0].number):
            job, done = unfinished[number], {}
            for (_, name), outcome in of_job:
                if isinstance(outcome, str):
                    done[name] = PartTrack(job.files[name], None, outcome)
                else:
                    done[name] = PartTrack(job.files[name], embedder.embed_features(outcome), notes=outcome.notes)
                progress(name)

            # A job counts as finished once its part is saved.
            part = Part(number, job.recipe, done)
            save_part(directory, part, embedder.metadata.layout.size)
            yield part


def _features(
    tracks: list[tuple[EmbeddingJob, str]], source: Source, embedder: Embedder
) -> Generator[tuple[tuple[EmbeddingJob, str], Features | str], None, None]:
    """The features of every track, or why it has none, in the order of the tracks."""
    # All jobs of a plan have one source: a folder, whose files are decoded ahead, or a store.
    if not tracks or not tracks[0][0].recipe.stored:
        root = source_root(source)
        yield from in_order(
            lambda item: embedder.outcome(root, (item[1], item[0].files[item[1]]), pad=item[0].recipe.pad),
            tracks,
            READ_AHEAD,
        )
        return

    store = FeatureStore(source)
    embedder.metadata.validate_features(store.params, database_path(source))
    rows = {name: row for row, name in enumerate(store.identifiers)}
    for item in tracks:
        yield item, store.read_clip(rows[item[1]]) if item[1] in rows else "has left the store since the plan was made"


def finish(out: str | Path) -> EmbeddedTracks:
    """Joins the parts to the npz ``out`` and removes them, if no job is left to run; else changes nothing.

    All vectors are in memory meanwhile: 1.5 kB per track with 384 coordinates.

    Raises:
        InputError: if there is no plan, a part is damaged or was made with another model, no track at all could be
            embedded, or another process is writing this embedding.
    """
    if not is_planned(out):
        raise InputError(f"{plan_path(parts_directory(out))} not found; plan first with msim embed --plan")
    with writing_parts(out):
        return _finish(Path(out))


def _finish(out: Path) -> EmbeddedTracks:
    # The tracks of every finished part; as long as a job is left to run, nothing is written.
    directory = parts_directory(out)
    planned = load_plan(directory)
    tracks: dict[str, PartTrack] = {}
    pending = 0
    for job in planned.jobs:
        part = finished_part(directory, job)
        if part is None:
            pending += len(job.files)
        else:
            tracks |= {name: part.tracks[name] for name in job.files}
    if pending:
        return EmbeddedTracks([], np.empty((0, planned.layout.size), np.float32), pending=pending)

    # [tracks, size] in the order of their names, beside the reasons of those that have no vector.
    by_name = {name: track.vector for name, track in sorted(tracks.items()) if track.vector is not None}
    names = list(by_name)
    failures = planned.failures | {name: track.reason for name, track in sorted(tracks.items()) if track.reason}
    if names:
        vectors = np.stack(list(by_name.values()))
        recipe = planned.jobs[0].recipe
        meta = {"model": recipe.model, "version": recipe.version, "digest": recipe.digest}
        save_embeddings(out, identifiers=names, embeddings=vectors, layout=planned.layout, meta=meta)

    # The parts go once the npz is whole, or where nothing can come of them.
    shutil.rmtree(directory)
    if not names:
        name, reason = next(iter(failures.items()))
        raise InputError(f"{out}: none of {len(failures)} files could be embedded; {name}: {reason}")
    notes = {name: tracks[name].notes for name in names if tracks[name].notes}
    return EmbeddedTracks(names, vectors, failures, notes, planned.notices)


def embed_source(
    source: Source,
    embedder: Embedder,
    out: str | Path,
    *,
    pad: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EmbeddedTracks:
    """Embeds every track of a folder, a single file or a feature store into an npz, resuming what an earlier run left.

    Args:
        source: the folder, file or store, or the URI of a folder or file.
        embedder: the model.
        out: the npz to write.
        pad: lengthen clips shorter than one segment with silence.
        progress: called with (tracks done, tracks in all).

    Returns:
        The tracks, and what became of the others.

    Raises:
        InputError: as ``plan`` and ``finish``.
    """
    metadata = embedder.metadata
    scan = _listed(source, metadata)
    with writing_parts(out):
        jobs = _planned(scan, Recipe.of_model(metadata, pad=pad, stored=_is_store(source)), metadata, out)
        total = len(scan.files)
        done = total - sum(len(job.files) for job in jobs)
        for _ in run_jobs(jobs, source, embedder, out, progress=counted(progress, done, total)):
            pass
        return _finish(Path(out))
