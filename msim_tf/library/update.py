"""One run over one index: what is gone or moved first, then new and changed files, batch by batch, each batch saved.

The first save needs no model; after it memory is bounded by one batch whatever the size of the library, and a process
killed at any moment has lost at most that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import msim_tf
from msim_tf.audio.scan import FileState, Scan
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.export.embedding_job import PartTrack
from msim_tf.export.metadata import ModelMetadata
from msim_tf.library.catalog import CATALOG, Catalog
from msim_tf.library.descriptions import annotated, without_description
from msim_tf.library.file_table import FileRecord, FileTable
from msim_tf.library.plan import Plan, Remembered, make_plan, vanished
from msim_tf.library.update_options import Summary, UpdateOptions
from msim_tf.search.faiss_engine import FaissEngine
from msim_tf.search.index import Index
from msim_tf.search.schema import DATABASE
from msim_tf.search.source import Source

_GROWN = 2.0  # an approximate engine is trained again when the library has so many times the tracks it was trained on

_TRIED = "tried"  # the setting that says how unusable files were last tried

# (stage, done, total): "compare", "embed" or "annotate"
Progress = Callable[[str, int, int], None]

# Takes files (identifier -> state) and yields what became of each; of those whose job is not finished, nothing.
TrackSource = Callable[[Mapping[str, FileState]], Iterator[tuple[str, PartTrack]]]


def source_of(metadata: ModelMetadata) -> Source:
    """What a model's embeddings are of."""
    return Source(metadata.layout, metadata.name, metadata.directory.name, metadata.features.digest)


def remembered_files(index: Index | None) -> Remembered:
    """What a library remembers of the files of its folder."""
    if index is None:
        return Remembered()
    records = FileTable(index.table.database).records()
    missing = index.table.missing()
    names = [*index.identifiers, *missing]
    tracks = {name: records.get(name, FileRecord()) for name in names}
    failed = {name: record for name, record in records.items() if record.failure and name not in tracks}
    return Remembered(tracks, frozenset(missing), failed)


def must_retry(index: Index | None, options: UpdateOptions) -> bool:
    """Whether files that could not be used are to be read again: on demand, or as this time they may be usable."""
    return options.retry or index is None or index.table.setting(_TRIED) != _trial(options)


def _trial(options: UpdateOptions) -> dict[str, Any]:
    """What decides, beside a file itself, whether it can be used."""
    return {"pad": options.pad, "msim": msim_tf.__version__}


class Update:
    """One run.

    Args:
        target: the library.
        source: what the model's embeddings are of.
        tracks: what embeds files, or has them embedded.
        options: how.
        progress: called with (stage, done, total).

    Attributes:
        index: the index to fill; None if there is none yet, and one comes to be.
        before: the index that it will replace, for what that knows of tempo and key; None if it replaces none.
        database: the name of the database of ``index``.
        summary: what was done.
    """

    def __init__(
        self,
        target: Catalog,
        source: Source,
        tracks: TrackSource,
        options: UpdateOptions,
        progress: Progress,
    ) -> None:
        self._catalog = target
        self._source = source
        self._tracks = tracks
        self._options = options
        self._progress = progress
        assert target.music is not None
        self._music = target.music
        self.index: Index | None = None
        self.before: Index | None = None
        self.database = DATABASE
        self.summary = Summary()

    def run(self, scan: Scan) -> None:
        """All of it, for the files of ``scan``. Without an index before, none is made while all files are pending.

        Raises:
            InputError: if no file at all could be embedded.
        """
        # The folder as it is now, compared with what the index remembers of it.
        before = remembered_files(self.index)
        plan = make_plan(
            self._music, scan, before, retry=must_retry(self.index, self._options), progress=self._stage("compare")
        )
        self.summary.failures |= scan.failures
        self.summary.failures |= {name: before.failed[name].failure for name in plan.failed}
        self.summary.remembered = len(plan.failed)
        self.summary.notices += scan.notices()
        self._rearrange(plan, scan, before)
        self._embed({name: scan.files[name] for name in (*plan.new, *plan.changed)})
        if self.index is None:
            if self.summary.pending:
                return
            name, reason = next(iter(self.summary.failures.items()))
            raise InputError(
                f"{self._music}: none of {len(self.summary.failures)} files could be embedded; {name}: {reason}"
            )
        if self._options.annotate:
            self._annotate()
        self._choose_engine()
        # Only a whole run says how unusable files were last tried.
        if not self.summary.pending:
            self.index.begin()
            self.index.table.set_setting(_TRIED, _trial(self._options))
            self.index.save()
        self.summary.tracks = len(self.index)
        self.summary.missing = len(self.index.table.missing())
        used = FileTable(self.index.table.database).records()
        self.summary.notes = {name: record.notes for name, record in used.items() if record.notes}

    def _stage(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(name, done, total)

    def _rearrange(self, plan: Plan, scan: Scan, before: Remembered) -> None:
        """Everything that needs no model: what is gone, moved, back, or has another time."""
        summary, index = self.summary, self.index
        summary.unchanged = plan.unchanged + len([name for name in plan.touched if name not in before.missing])
        summary.moved, summary.returned = len(plan.moved), len(plan.returned)
        if index is None:
            return
        index.begin()
        files = FileTable(index.table.database)
        # A moved track may have been missing; it is offered again.
        index.set_missing([*plan.returned, *(old for old in plan.moved.values() if old in before.missing)], False)
        index.rename(plan.moved)
        files.forget(plan.moved.values())
        # The contents of moved and touched files are as they were; their times and sizes are those of the scan.
        states = {new: before.tracks[old] for new, old in plan.moved.items()}
        states |= {name: before.tracks[name] for name in plan.touched}
        files.put({name: replace(record, state=scan.files[name]) for name, record in states.items()})
        # What is gone is forgotten only when the user says so.
        if self._options.prune:
            gone = [*plan.missing, *plan.still_missing]
            index.set_missing(gone, False)
            index.remove(gone)
            files.forget(gone)
            summary.removed = len(gone)
        else:
            index.set_missing(plan.missing, True)
            summary.vanished = vanished(plan.missing, scan)
        # Failures of names that the scan leaves out are remembered to be listed; those of files that are gone are not.
        files.forget(name for name in before.failed if name not in scan.files and name not in scan.failures)
        files.put({name: FileRecord(failure=reason) for name, reason in scan.failures.items()})
        index.save()

    def _embed(self, files: Mapping[str, FileState]) -> None:
        """Embeds files and saves them batch by batch; whatever ends the run, what was finished is saved first."""
        started = time.monotonic()
        batch: dict[str, PartTrack] = {}
        done = 0
        try:
            for done, (name, track) in enumerate(self._tracks(files), 1):
                batch[name] = track
                self._progress("embed", done, len(files))
                if len(batch) % self._options.batch == 0:  # longer only while no file of a first run was usable
                    self._commit(batch)
        finally:
            self._commit(batch)
        self.summary.pending = len(files) - done
        self.summary.seconds = time.monotonic() - started

    def _commit(self, batch: dict[str, PartTrack]) -> None:
        """Puts a batch into the index and saves it; empties it."""
        used = {name: track for name, track in batch.items() if track.vector is not None}
        unusable = {name: track for name, track in batch.items() if track.vector is None}
        self.summary.failures |= {name: track.reason for name, track in unusable.items()}
        # The first usable track makes the index.
        if self.index is None and used:
            self.index = Index.create(
                self._catalog.path, self._source, name=self.database, settings={CATALOG: self._catalog.to_json()}
            )
        index = self.index
        if index is None or not batch:
            return
        index.begin()
        files = FileTable(index.table.database)
        # A file that can no longer be used takes its track with it.
        removed = list(index.table.rows(list(unusable), missing=True))
        index.set_missing(removed, False)
        index.remove(removed)
        self.summary.removed += len(removed)
        # Annotations are looked up by the records of before, so the new records come last.
        self._put(index, used)
        files.put(
            {name: FileRecord(track.state, track.sha256, track.reason, track.notes) for name, track in batch.items()}
        )
        index.save()
        batch.clear()

    def _put(self, index: Index, tracks: Mapping[str, PartTrack]) -> None:
        """Adds the new ones among ``tracks``, and replaces the others."""
        metadata = {
            name: annotated(track.metadata, self._annotations_before(name, track)) for name, track in tracks.items()
        }
        # A missing track whose file is embedded is back.
        present = index.table.rows(list(tracks), missing=True)
        index.set_missing(present, False)
        source = self._source
        meta = {"model": source.model, "version": source.version, "digest": source.digest}
        for change, chosen in (
            (index.update, [name for name in tracks if name in present]),
            (index.add, [name for name in tracks if name not in present]),
        ):
            if chosen:
                vectors = np.array([tracks[name].vector for name in chosen], np.float32)
                embeddings = Embeddings(str(self._music), tuple(chosen), vectors, source.layout, meta)
                change(embeddings, {name: metadata[name] for name in chosen})
        self.summary.changed += len(present)
        self.summary.new += len(tracks) - len(present)

    def _annotations_before(self, name: str, track: PartTrack) -> dict[str, Any]:
        """Tempo and key that a track had, where only its tags have changed, or only the model: its sound is as long."""
        index = self.before or self.index
        if index is None or name not in index:
            return {}
        old, old_record = without_description(index.metadata(name)), FileTable(index.table.database).record(name)
        same = old_record.sha256 == track.sha256 or old.get("seconds") == track.metadata["seconds"]
        return {key: old[key] for key in ("tempo", "key") if same and key in old}

    def _annotate(self) -> None:
        """Estimates tempo and key of every track, those of earlier runs from their database."""
        from msim_tf.database import Database
        from msim_tf.labels.annotate import annotate_folder
        from msim_tf.labels.annotations import ANNOTATIONS, annotation_labels

        assert self.index is not None
        metadata = dict(self.index.all_metadata())
        with Database(self._catalog.annotations_path, ANNOTATIONS, create=True) as database:
            annotations, failures = annotate_folder(
                self._music, sorted(metadata), database, progress=self._stage("annotate")
            )
        # Only what differs is written.
        labels = annotation_labels(annotations).values
        changed = {}
        for name, old in metadata.items():
            estimated: dict[str, Any] = {key: value[0] for key, value in labels.get(name, {}).items()}
            if "tempo" in estimated:
                estimated["tempo"] = float(estimated["tempo"])
            new = annotated(old, estimated)
            if new != old:
                changed[name] = new
        self.index.update_metadata(changed)
        self.summary.failures |= {name: f"tempo and key: {reason}" for name, reason in failures.items()}

    def _choose_engine(self) -> None:
        """Builds the engine if another is chosen, or it has outgrown what it was trained on."""
        assert self.index is not None
        engine, chosen = self.index.engine, self._options.engine
        # An approximate engine is calibrated on the tracks of its time, and loses recall as the library outgrows them.
        outgrown = isinstance(engine, FaissEngine) and len(self.index) > _GROWN * engine.calibration.rows
        if outgrown or chosen not in ("auto", engine.name):
            self.index.build_engine(chosen)
        elif chosen == "auto" and not isinstance(engine, FaissEngine):
            self.index.build_engine("auto")
