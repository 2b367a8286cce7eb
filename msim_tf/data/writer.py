"""Makes feature stores: a folder of audio in, a store out; parallel, resumable, and the same result however often it was interrupted.

The manifest is written first, with every clip assigned to a shard and pending. Shards are written in order; a shard counts when its ``.json``
is there, so a process killed at any moment loses at most the shards under way, and the next run makes them again. Files that were added or
changed since go into new shards; files that were deleted leave the manifest.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import groupby
from pathlib import Path

import numpy as np

from msim_tf.audio import decode
from msim_tf.data.store import (
    FAILED,
    OK,
    PENDING,
    ClipEntry,
    Manifest,
    load_manifest,
    manifest_path,
    save_manifest,
    shard_path,
)
from msim_tf.features.extractor import Extractor, Features
from msim_tf.features.from_file import features_or_reason
from msim_tf.files import atomic_file, exclusive, load_json, save_json
from msim_tf.parallel import in_order
from msim_tf.params import FeatureParams, validate_digest

CLIPS_PER_SHARD = 64


def extract_folder(
    source: str | Path,
    store: str | Path,
    params: FeatureParams,
    *,
    pad: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Extracts every audio file below ``source`` into the store, resuming what an earlier run left.

    Args:
        source: a folder, or a single file.
        store: directory of the store; made when missing.
        params: the feature parameters; an existing store must have the same.
        pad: lengthen clips shorter than one segment with silence.
        workers: threads; default one per core.
        progress: called with (clips done, clips in all).

    Returns:
        The finished manifest; ``failed`` lists what could not be extracted and why.

    Raises:
        InputError: if there is nothing to extract, the parameters differ, or another process is writing this store.
    """
    root, identifiers = decode.library_root(Path(source))
    store = Path(store)
    with _lock(store):
        manifest = _plan(root, identifiers, store, params)
        save_manifest(store, manifest)
        pending = [clip for clip in manifest.clips if not shard_path(store, clip.shard, "json").exists()]
        done = len(manifest.clips) - len(pending)
        progress(done, len(manifest.clips))
        extractor = Extractor(params)
        extracted = in_order(
            lambda clip: features_or_reason(root / clip.identifier, extractor, pad=pad),
            sorted(pending, key=lambda clip: clip.shard),
            workers or os.cpu_count() or 1,
        )
        for shard, results in groupby(extracted, key=lambda result: result[0].shard):
            entries = []
            for entry in write_shard(store, shard, results):
                entries.append(entry)
                done += 1
                progress(done, len(manifest.clips))
            save_json(shard_path(store, shard, "json"), [vars(entry) for entry in entries])
        finished = dataclasses.replace(manifest, clips=_with_results(store, manifest.clips))
        save_manifest(store, finished)
    return finished


def _plan(root: Path, identifiers: list[str], store: Path, params: FeatureParams) -> Manifest:
    """The manifest with which this run starts: unchanged clips keep their shard, new and changed ones get new shards."""
    before: dict[str, ClipEntry] = {}
    labels: dict = {"values": {}, "groups": {}}
    if manifest_path(store).exists():
        old = load_manifest(store)
        validate_digest(old.params.digest, manifest_path(store), params.digest, "this command")
        before, labels = {clip.identifier: clip for clip in old.clips}, old.labels
    clips, fresh = [], max((clip.shard for clip in before.values()), default=-1) + 1
    added = 0
    for identifier in identifiers:
        status = (root / identifier).stat()
        known = before.get(identifier)
        if known and (known.size, known.modified) == (status.st_size, status.st_mtime_ns):
            clips.append(known)
            continue
        shard = fresh + added // CLIPS_PER_SHARD
        clips.append(ClipEntry(identifier, status.st_size, status.st_mtime_ns, shard))
        added += 1
    return Manifest(params, tuple(clips), labels)


Result = tuple[ClipEntry, Features | str]


def write_shard(store: Path, shard: int, results: Iterable[Result]) -> Iterator[ClipEntry]:
    """Appends clips to the shard's arrays, yields their entries, and publishes the arrays at the end.

    Args:
        store: directory of the store.
        shard: its number.
        results: clips, each with its features or the reason why it has none; consumed as the entries are.
    """
    paths = {name: shard_path(store, shard, f"{name}.f16") for name in ("mel", "cens", "onset")}
    paths["mel"].parent.mkdir(exist_ok=True)
    row = onset_row = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context(atomic_file(path)) for name, path in paths.items()}
        for clip, result in results:
            if isinstance(result, str):
                yield dataclasses.replace(clip, status=FAILED, reason=result)
                continue
            for name, array in (("mel", result.mel.T), ("cens", result.cens.T), ("onset", result.onset)):
                files[name].write(np.ascontiguousarray(array, np.float16).data)
            yield dataclasses.replace(clip, status=OK, frames=result.frames, row=row, onset_row=onset_row)
            row, onset_row = row + result.frames, onset_row + len(result.onset)


def _with_results(store: Path, clips: tuple[ClipEntry, ...]) -> tuple[ClipEntry, ...]:
    """Fills the entries of pending clips in from the shards' own lists."""
    results: dict[tuple[int, str], ClipEntry] = {}
    for shard in sorted({clip.shard for clip in clips if clip.status == PENDING}):
        path = shard_path(store, shard, "json")
        for value in load_json(path, "the entries of a shard"):
            results[shard, value["identifier"]] = ClipEntry(**value)
    return tuple(results.get((clip.shard, clip.identifier), clip) for clip in clips)


def _lock(store: Path) -> AbstractContextManager[None]:
    return exclusive(store, "writing this store")
