"""One run over one index: what is gone or moved first, then new and changed files, batch by batch, each batch saved.

The first save needs no model; after it memory is bounded by one batch whatever the size of the library, and a process
killed at any moment has lost at most that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import msim_tf
from msim_tf.audio.scan import FileState, Scan, content_hash
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError, unforeseen
from msim_tf.export.description import Description
from msim_tf.features.extractor import Features
from msim_tf.library.catalog import CATALOG, Catalog
from msim_tf.library.descriptions import annotated, with_description, without_description
from msim_tf.library.file_table import FileRecord, FileTable
from msim_tf.library.plan import Known, Plan, make_plan, vanished
from msim_tf.library.update_options import Summary, UpdateOptions
from msim_tf.parallel import READ_AHEAD, in_order
from msim_tf.search.faiss_engine import FaissEngine
from msim_tf.search.index import Index
from msim_tf.search.schema import DATABASE
from msim_tf.search.source import Source

_GROWN = 2.0  # an approximate engine is trained again when the library has so many times the tracks it was trained on

_TRIED = "tried"  # the setting that says how unusable files were last tried

# (stage, done, total): "compare", "embed" or "annotate"
Progress = Callable[[str, int, int], None]


class TrackEmbedder(Protocol):
    """What embeds: ``export.embedder.Embedder``."""

    metadata: Any

    def extract(self, path: str | Path, *, pad: bool = False) -> Features | str:
        """The features of an audio file, or why it has none."""

    def read_tags(self, path: str | Path) -> dict[str, Any]:
        """Artist, album, title, year and genre as the file's tags tell them."""

    def hear(self, features: Features) -> tuple[np.ndarray, Description | None]:
        """The track embedding, [size] float32, and what the model says of the track."""


def source_of(metadata: Any) -> Source:
    """What a model's embeddings are of, from its ``ModelMetadata``."""
    return Source(metadata.layout, metadata.name, metadata.directory.name, metadata.features.digest)


def known_files(index: Index | None) -> Known:
    """What a library remembers of the files of its folder."""
    if index is None:
        return Known()
    records = FileTable(index.table.database).records()
    missing = index.table.missing()
    names = [*index.identifiers, *missing]
    tracks = {name: records.get(name, FileRecord()) for name in names}
    failed = {name: record for name, record in records.items() if record.failure and name not in tracks}
    return Known(tracks, frozenset(missing), failed)


def must_retry(index: Index | None, options: UpdateOptions) -> bool:
    """Whether files that could not be used are to be read again: on demand, or as this time they may be usable."""
    return options.retry or index is None or index.table.setting(_TRIED) != _trial(options)


def _trial(options: UpdateOptions) -> dict[str, Any]:
    """What decides, beside a file itself, whether it can be used."""
    return {"pad": options.pad, "msim": msim_tf.__version__}


@dataclass
class _Embedded:
    """A file that was embedded, and waits to be saved."""

    vector: np.ndarray
    metadata: dict[str, Any]
    record: FileRecord


class Update:
    """One run.

    Args:
        target: the library.
        index: the index to fill, None if there is none yet.
        before: the index that it will replace, for what that knows of tempo and key; None if it replaces none.
        embedder: the model.
        options: how.
        progress: called with (stage, done, total).

    Attributes:
        summary: what was done.
        index: the index that was filled.
        database: the name of its database.
    """

    def __init__(
        self,
        target: Catalog,
        index: Index | None,
        before: Index | None,
        embedder: TrackEmbedder,
        options: UpdateOptions,
        progress: Progress,
    ) -> None:
        self._catalog = target
        self._before = before
        self._embedder = embedder
        self._options = options
        self._progress = progress
        self._source = source_of(embedder.metadata)
        assert target.music is not None
        self._music = target.music
        self.index = index
        self.database = DATABASE
        self.summary = Summary()

    def run(self, scan: Scan) -> None:
        """All of it, for the files of ``scan``.

        Raises:
            InputError: if no file at all could be embedded.
        """
        known = known_files(self.index)
        plan = make_plan(
            self._music, scan, known, retry=must_retry(self.index, self._options), progress=self._stage("compare")
        )
        self.summary.failures |= scan.failures
        self.summary.failures |= {name: known.failed[name].failure for name in plan.failed}
        self.summary.remembered = len(plan.failed)
        self.summary.notices += getattr(scan, "notices", list)()
        self._rearrange(plan, scan, known)
        self._embed([*plan.new, *plan.changed], scan)
        if self.index is None:
            name, reason = next(iter(self.summary.failures.items()))
            raise InputError(
                f"{self._music}: none of {len(self.summary.failures)} files could be embedded; {name}: {reason}"
            )
        if self._options.annotate:
            self._annotate()
        self._choose_engine()
        self.index.begin()
        self.index.table.set_setting(_TRIED, _trial(self._options))
        self.index.save()
        self.summary.tracks = len(self.index)
        self.summary.missing = len(self.index.table.missing())
        used = FileTable(self.index.table.database).records()
        self.summary.notes = {name: record.notes for name, record in used.items() if record.notes}

    def _stage(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(name, done, total)

    def _rearrange(self, plan: Plan, scan: Scan, known: Known) -> None:
        """Everything that needs no model: what is gone, moved, back, or has another time."""
        summary, index = self.summary, self.index
        summary.unchanged = plan.unchanged + len([name for name in plan.touched if name not in known.missing])
        summary.moved, summary.returned = len(plan.moved), len(plan.returned)
        if index is None:
            return
        index.begin()
        files = FileTable(index.table.database)
        # A moved track may have been missing; it is offered again.
        index.set_missing([*plan.returned, *(old for old in plan.moved.values() if old in known.missing)], False)
        index.rename(plan.moved)
        files.forget(plan.moved.values())
        states = {new: known.tracks[old] for new, old in plan.moved.items()}
        states |= {name: known.tracks[name] for name in plan.touched}
        files.put({name: _dated(record, scan.files[name]) for name, record in states.items()})
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
        files.forget(name for name in known.failed if name not in scan.files and name not in scan.failures)
        files.put({name: FileRecord(failure=reason) for name, reason in scan.failures.items()})
        index.save()

    def _embed(self, names: Sequence[str], scan: Scan) -> None:
        """Embeds files and saves them batch by batch; whatever ends the run, what was finished is saved first."""
        started = time.monotonic()
        waiting: dict[str, _Embedded] = {}
        failed: dict[str, FileRecord] = {}
        try:
            for done, (name, result) in enumerate(self._results(names, scan), 1):
                if isinstance(result, FileRecord):
                    self.summary.failures[name] = result.failure
                    failed[name] = result
                else:
                    waiting[name] = result
                self._progress("embed", done, len(names))
                if len(waiting) + len(failed) >= self._options.batch:
                    self._commit(waiting, failed)
        finally:
            self._commit(waiting, failed)
        self.summary.seconds = time.monotonic() - started

    def _results(self, names: Sequence[str], scan: Scan) -> Iterator[tuple[str, _Embedded | FileRecord]]:
        """Each file embedded, or the record of why it cannot be."""

        def work(name: str) -> tuple[FileRecord, dict[str, Any], Features | str]:
            path, record = self._music / name, FileRecord(scan.files[name])
            try:
                record = FileRecord(scan.files[name], content_hash(path))
                features = self._embedder.extract(path, pad=self._options.pad)
                tags = {} if isinstance(features, str) else self._embedder.read_tags(path)
                return record, tags, features
            except OSError as error:
                return record, {}, f"cannot be read ({error.strerror})"
            except InputError:
                raise  # not this file's fault
            except Exception as error:  # one file never ends a run
                return record, {}, unforeseen(error)

        for name, (record, metadata, features) in in_order(work, names, READ_AHEAD):
            outcome = features if isinstance(features, str) else self._embedded(features)
            if isinstance(outcome, str):
                yield name, FileRecord(record.state, record.sha256, outcome)
                continue
            assert not isinstance(features, str)
            vector, description = outcome
            metadata["seconds"] = round(features.frames / self._embedder.metadata.features.frame_rate, 2)
            metadata = {**self._annotations_before(name, record, metadata), **metadata}
            metadata = with_description(metadata, description)
            notes = tuple(getattr(features, "notes", ()))
            yield name, _Embedded(vector, metadata, FileRecord(record.state, record.sha256, notes=notes))

    def _embedded(self, features: Features) -> tuple[np.ndarray, Description | None] | str:
        """The vector [size] float32 and the description, or why an index cannot hold the track."""
        try:
            vector, description = self._embedder.hear(features)
        except Exception as error:  # one file never ends a run
            return unforeseen(error)
        if not np.isfinite(vector).all():
            return "the model's output is not finite"
        flat = [name for name, part in self._source.layout.slices.items() if not np.linalg.norm(vector[part]) > 1e-9]
        return f"the model says nothing about its {', '.join(flat)}" if flat else (vector, description)

    def _commit(self, waiting: dict[str, _Embedded], failed: dict[str, FileRecord]) -> None:
        """Puts a batch into the index and saves it; empties both arguments."""
        if self.index is None and waiting:
            self.index = Index.create(
                self._catalog.path, self._source, name=self.database, settings={CATALOG: self._catalog.to_json()}
            )
        index = self.index
        if index is None or not (waiting or failed):
            return
        index.begin()
        files = FileTable(index.table.database)
        unusable = list(index.table.rows(list(failed), missing=True))
        index.set_missing(unusable, False)
        index.remove(unusable)
        self.summary.removed += len(unusable)
        files.put(failed)
        self._put(index, waiting)
        files.put({name: embedded.record for name, embedded in waiting.items()})
        index.save()
        waiting.clear()
        failed.clear()

    def _put(self, index: Index, waiting: Mapping[str, _Embedded]) -> None:
        """Adds the new tracks among ``waiting``, and replaces the others."""
        present = index.table.rows(list(waiting), missing=True)
        index.set_missing(present, False)
        source = self._source
        meta = {"model": source.model, "version": source.version, "digest": source.digest}
        for change, chosen in (
            (index.update, [name for name in waiting if name in present]),
            (index.add, [name for name in waiting if name not in present]),
        ):
            if chosen:
                vectors = np.stack([waiting[name].vector for name in chosen])
                embeddings = Embeddings(str(self._music), tuple(chosen), vectors, source.layout, meta)
                change(embeddings, {name: waiting[name].metadata for name in chosen})
        self.summary.changed += len(present)
        self.summary.new += len(waiting) - len(present)

    def _annotations_before(self, name: str, record: FileRecord, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Tempo and key that a track had, where only its tags have changed, or only the model: its sound is as long."""
        index = self._before or self.index
        if index is None or name not in index:
            return {}
        old, old_record = without_description(index.metadata(name)), FileTable(index.table.database).record(name)
        same = old_record.sha256 == record.sha256 or old.get("seconds") == metadata["seconds"]
        return {key: old[key] for key in ("tempo", "key") if same and key in old}

    def _annotate(self) -> None:
        from msim_tf.database import Database
        from msim_tf.labels.annotate import annotate_folder
        from msim_tf.labels.annotations import ANNOTATIONS, annotation_labels

        assert self.index is not None
        metadata = dict(self.index.all_metadata())
        with Database(self._catalog.annotations_path, ANNOTATIONS, create=True) as database:
            annotations, failures = annotate_folder(
                self._music, sorted(metadata), database, progress=self._stage("annotate")
            )
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
        outgrown = isinstance(engine, FaissEngine) and len(self.index) > _GROWN * engine.calibration.rows
        if outgrown or chosen not in ("auto", engine.name):
            self.index.build_engine(chosen)
        elif chosen == "auto" and not isinstance(engine, FaissEngine):
            self.index.build_engine("auto")


def _dated(record: FileRecord, state: FileState) -> FileRecord:
    """The record of a file whose contents are as they were."""
    return FileRecord(state, record.sha256, record.failure, record.notes)
