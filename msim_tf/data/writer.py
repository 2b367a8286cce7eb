"""Makes feature stores: extraction as three steps, each of which may be killed at any moment and run again.

1. ``plan`` compares a listing of sound files with the store, and returns the work that is to do as jobs of one shard
   each.
2. ``run_job`` extracts one job's clips into a shard. Jobs know nothing of each other, so they may run anywhere that
   sees the music and the store's directory, in any order, twice, or twice at once. A finished one is skipped.
3. ``finish`` takes the finished shards into the store's database, joins small ones, and removes what nobody needs.

``extract_folder`` is all three on one machine. The result is the same however often it was interrupted.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from itertools import groupby
from pathlib import Path

from msim_tf.audio.sandbox import DecodeLimits, Decoder
from msim_tf.audio.scan import FileState, Scan
from msim_tf.audio.source import Source, scan_source
from msim_tf.data.extraction_plan import assign_shards
from msim_tf.data.joining import join_shards, sweep
from msim_tf.data.outcome import file_outcome
from msim_tf.data.shard_job import ShardJob
from msim_tf.data.shards import Shard, ShardClip, ShardWriter, description_path, load_shard
from msim_tf.data.store_database import (
    FAILED,
    OK,
    PENDING,
    Extraction,
    StoreDatabase,
    database_path,
)
from msim_tf.errors import InputError
from msim_tf.features.extractor import Extractor, Features
from msim_tf.files import exclusive
from msim_tf.names import storable
from msim_tf.parallel import counted, in_order
from msim_tf.params import FeatureParams, validate_digest


def plan(
    listing: Scan, store: str | Path, params: FeatureParams, *, pad: bool = False, prune: bool = False
) -> list[ShardJob]:
    """Compares the files that there are with the store, and assigns what is new or changed to shards.

    Files that failed before are tried again when they change, and clips that were too short when ``pad`` is given.

    Args:
        listing: the files, and what the scan refused.
        store: directory of the store; made when missing.
        params: the feature parameters; an existing store must have the same.
        pad: lengthen clips shorter than one segment with silence.
        prune: forget clips whose files have left the folder, instead of keeping them in case they return.

    Returns:
        Jobs that are to run, by the numbers of their shards.

    Raises:
        InputError: if the parameters differ, or another process is writing this store.
    """
    with _lock(Path(store)):
        return _plan(listing, Path(store), params, pad=pad, prune=prune)


def _plan(listing: Scan, store: Path, params: FeatureParams, *, pad: bool, prune: bool) -> list[ShardJob]:
    with StoreDatabase(store, params) as database, database.transaction():
        validate_digest(database.params.digest, database_path(store), params.digest, "this command")
        _collect(store, database)
        return assign_shards(listing, store, database, pad=pad, prune=prune)


def run_job(
    job: ShardJob,
    source: str | Path,
    store: str | Path,
    *,
    workers: int | None = None,
    limits: DecodeLimits | None = None,
    progress: Callable[[ShardClip], None] = lambda clip: None,
) -> Shard:
    """Extracts the clips of one job into its shard, unless that is finished already.

    The process keeps its extractor and decoders for its next job.

    Args:
        job: what to do.
        source: the music folder, or its URI; may be mounted elsewhere than where the job was planned.
        store: directory of the store.
        workers: threads; default one per core.
        limits: what decoding one file may cost.
        progress: called with each clip that is done.

    Returns:
        The shard's description.

    Raises:
        OSError: if the shard cannot be written. What one sound file raises becomes its reason in the description.
    """
    (shard,) = _run_jobs([job], source, store, _kept_decoder(limits), workers, progress)
    return shard


@functools.lru_cache(maxsize=1)
def _kept_decoder(limits: DecodeLimits | None) -> Decoder:
    return Decoder(limits)


def run_jobs(
    jobs: Sequence[ShardJob],
    source: str | Path,
    store: str | Path,
    *,
    workers: int | None = None,
    limits: DecodeLimits | None = None,
    progress: Callable[[ShardClip], None] = lambda clip: None,
) -> Iterator[Shard]:
    """``run_job`` of one job after the other; the threads go on to the next while one is being written."""
    with Decoder(limits) as decoder:
        yield from _run_jobs(jobs, source, store, decoder, workers, progress)


def _run_jobs(
    jobs: Sequence[ShardJob],
    root: Source,
    store: str | Path,
    decoder: Decoder,
    workers: int | None,
    progress: Callable[[ShardClip], None],
) -> Iterator[Shard]:
    # What ran before is passed on as it is.
    unfinished = {}
    for job in jobs:
        shard = _finished(job, store)
        if shard is None:
            unfinished[job.shard] = job
        else:
            yield shard

    # The clips of all jobs are one stream, so that no thread waits for the last clip of a shard.
    clips = [
        (job, ShardClip(name, state.size, state.modified))
        for job in unfinished.values()
        for name, state in job.files.items()
    ]

    def extract(item: tuple[ShardJob, ShardClip]) -> Features | str:
        job, clip = item
        file = (clip.identifier, FileState(clip.size, clip.modified))
        return file_outcome(root, file, extractor(job.params), decoder, pad=job.pad)

    # Results come in the order of the clips, so those of one shard follow each other.
    results = in_order(extract, clips, workers or os.cpu_count() or 1)
    for number, of_shard in groupby(results, key=lambda result: result[0][0].shard):
        outcomes = ((clip, outcome) for (_, clip), outcome in of_shard)
        yield _write_shard(Path(store), unfinished[number], outcomes, progress)


def _write_shard(
    store: Path,
    job: ShardJob,
    outcomes: Iterable[tuple[ShardClip, Features | str]],
    progress: Callable[[ShardClip], None],
) -> Shard:
    """Writes what comes; if that breaks off, the clips that are done are published before the error is passed on."""
    # A loop by hand, which catches only what the iterator raises: what came before that is still published.
    iterator, fault = iter(outcomes), None
    with closing(ShardWriter(store, job.shard, job.params)) as writer:
        while True:
            try:
                clip, outcome = next(iterator)
            except StopIteration:
                break
            except BaseException as error:
                fault = error
                break
            progress(writer.add(clip, outcome))
        shard = writer.publish()
    if fault is not None:
        raise fault
    return shard


@functools.lru_cache(maxsize=2)
def extractor(params: FeatureParams) -> Extractor:
    """The extractor of these features, which a process keeps from one job to the next."""
    return Extractor(params)


def _finished(job: ShardJob, store: str | Path) -> Shard | None:
    """The shard of a job that has run; None if it has not, or not wholly, or its description is damaged."""
    if not description_path(store, job.shard).exists():
        return None
    try:
        shard = load_shard(store, job.shard)
    except InputError:
        return None
    # It counts as finished only if it holds the very files of this job, in the state in which they were planned.
    done = {clip.identifier: FileState(clip.size, clip.modified) for clip in shard.clips}
    return shard if shard.digest == job.params.digest and done == dict(job.files) else None


def finish(store: str | Path) -> Extraction:
    """Takes finished shards into the database, joins small ones, and removes files that nobody needs.

    Returns:
        What the store holds now; ``pending`` counts clips whose jobs are still to run.

    Raises:
        InputError: if there is no store, a description is damaged, or another process is writing this store.
    """
    with _lock(Path(store)):
        return _finish(Path(store))


def _finish(store: Path) -> Extraction:
    with StoreDatabase(store, writable=True) as database:
        with database.transaction():
            _collect(store, database)
        # Before a join, too, so that it writes under the same number as one that was killed.
        sweep(store, database)
        join_shards(store, database)
        sweep(store, database)
        return database.extraction()


def _collect(store: Path, database: StoreDatabase) -> None:
    """Takes the shards that pending clips were assigned to, as far as they are finished, into the database."""
    pending = database.execute(
        "SELECT shard, identifier, size, modified FROM clips WHERE status = ? ORDER BY shard", (PENDING,)
    )
    for number, rows in groupby(pending, key=lambda row: row[0]):
        if not description_path(store, number).exists():
            continue
        shard = load_shard(store, number)
        validate_digest(shard.digest, description_path(store, number), database.params.digest, database.path)
        expected = {row[1]: (row[2], row[3]) for row in rows}
        # A clip that was planned anew meanwhile, because its file changed, is left to its new job.
        clips = [clip for clip in shard.clips if expected.get(clip.identifier) == (clip.size, clip.modified)]
        # Features and failures alike: a failed clip keeps its shard as the sign that it was tried.
        database.add_shard(shard)
        database.executemany(
            "UPDATE clips SET status = ?, reason = ?, note = ?, frames = ?, row = ?, onset_row = ? WHERE identifier "
            "= ?",
            (
                (
                    FAILED if clip.reason else OK,
                    storable(clip.reason),
                    clip.note,
                    clip.frames,
                    clip.row,
                    clip.onset_row,
                    clip.identifier,
                )
                for clip in clips
            ),
        )


def extract_folder(
    source: str | Path,
    store: str | Path,
    params: FeatureParams,
    *,
    pad: bool = False,
    prune: bool = False,
    workers: int | None = None,
    limits: DecodeLimits | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extraction:
    """Extracts every audio file below ``source`` into the store, resuming what an earlier run left.

    Args:
        source: a folder, a single file, or the URI of one.
        store: directory of the store; made when missing.
        params: the feature parameters; an existing store must have the same.
        pad: lengthen clips shorter than one segment with silence.
        prune: forget clips whose files have left the folder.
        workers: threads; default one per core.
        limits: what decoding one file may cost.
        progress: called with (clips done, clips in all).

    Returns:
        What the store holds; ``failures`` lists what could not be extracted and why.

    Raises:
        InputError: if there is nothing to extract, the parameters differ, or another process is writing this store.
    """
    # One lock around all three steps, so that no other process plans the same files meanwhile.
    root, listing = list_source(source)
    store = Path(store)
    with _lock(store):
        jobs = _plan(listing, store, params, pad=pad, prune=prune)
        total = len(listing.files)
        done = total - sum(len(job.files) for job in jobs)
        count = counted(progress, done, total)
        for _ in run_jobs(jobs, root, store, workers=workers, limits=limits, progress=count):
            pass
        return dataclasses.replace(_finish(store), notices=tuple(listing.notices()))


def list_source(source: Source) -> tuple[Source, Scan]:
    """The music folder of a folder, a single file or the URI of one, and what is in it.

    Raises:
        InputError: if there is nothing to extract.
    """
    listing = scan_source(source)
    return listing.uri or listing.root, listing


def _lock(store: Path) -> AbstractContextManager[None]:
    return exclusive(store, "writing this store")
