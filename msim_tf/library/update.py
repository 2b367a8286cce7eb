"""One run over one index: what is gone or moved first, then new and changed files, batch by batch, each batch saved.

The first save needs no model; after it memory holds one batch whatever the size of the library, and a process killed at any moment has lost
at most that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from msim_tf.audio.scan import FileState, Scan, content_hash, scan_folder
from msim_tf.audio.tags import read_tags
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.features.extractor import Features
from msim_tf.library.catalog import Catalog
from msim_tf.library.plan import Plan, make_plan
from msim_tf.parallel import in_order
from msim_tf.search.faiss_engine import FaissEngine
from msim_tf.search.index import Index
from msim_tf.search.source import Source

BATCH = 200
_WORKERS = 2  # extraction runs ahead of the model; more threads would only take its cores
_GROWN = 2.0  # an approximate engine is trained again when the library has so many times the tracks it was trained on

# (stage, done, total): "compare", "embed" or "annotate"
Progress = Callable[[str, int, int], None]


class TrackEmbedder(Protocol):
    """What embeds: ``export.embedder.Embedder``."""

    metadata: Any

    def extract(self, path: str | Path, *, pad: bool = False) -> Features | str:
        """The features of an audio file, or why it has none."""

    def embed_features(self, features: Features) -> np.ndarray:
        """The track embedding, [size] float32."""


@dataclass(frozen=True)
class UpdateOptions:
    """How a library is brought up to date.

    Attributes:
        rebuild: embed everything again, for example with another model.
        annotate: estimate tempo and key.
        pad: lengthen tracks shorter than one segment with silence instead of leaving them out.
        engine: "exact", "faiss", or "auto".
        batch: tracks between two saves.
        name: what people call the library; "" keeps the name, at first that of the folder.
    """

    rebuild: bool = False
    annotate: bool = False
    pad: bool = False
    engine: str = "auto"
    batch: int = BATCH
    name: str = ""


@dataclass
class Summary:
    """What an update did.

    Attributes:
        new: embedded.
        changed: embedded again.
        moved: found under another name.
        removed: files that are gone, or can no longer be used.
        unchanged: files as they were.
        failures: file -> why it was left out.
        seconds: spent on embedding.
        tracks: in the library now.
    """

    new: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    tracks: int = 0


def source_of(metadata: Any) -> Source:
    """What a model's embeddings are of, from its ``ModelMetadata``."""
    return Source(metadata.layout, metadata.name, metadata.directory.name, metadata.features.digest)


def file_states(index: Index | None) -> dict[str, dict[str, Any]]:
    """What the file of every track was when it was embedded."""
    return {} if index is None else {name: index.metadata(name)["file"] for name in index.identifiers}


class Update:
    """One run.

    Args:
        target: the library and the number of the index to fill.
        index: that index, None if nothing is in it yet.
        before: the index that it will replace, for what that knows of tempo and key; None if it replaces none.
        embedder: the model.
        options: how.
        progress: called with (stage, done, total).
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
        self._before = before
        self._catalog = target
        self._music = target.music
        self._embedder = embedder
        self._options = options
        self._progress = progress
        self._source = source_of(embedder.metadata)
        self._index = index
        self.summary = Summary()

    def run(self) -> None:
        """All of it."""
        scan = scan_folder(self._music)
        self.summary.failures |= scan.failures
        plan = make_plan(self._music, scan, file_states(self._index), progress=self._stage("compare"))
        self._rearrange(plan, scan)
        self._embed([*plan.new, *plan.changed], scan)
        if self._index is None:
            name, reason = next(iter(self.summary.failures.items()))
            raise InputError(
                f"{self._music}: none of {len(self.summary.failures)} files could be embedded; {name}: {reason}"
            )
        if self._options.annotate:
            self._annotate()
        self._choose_engine()
        self._index.save(self._catalog.index_path)
        self.summary.tracks = len(self._index)

    def _stage(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(name, done, total)

    def _rearrange(self, plan: Plan, scan: Scan) -> None:
        """Everything that needs no model: what is gone, moved, or has another time."""
        self.summary.unchanged = plan.unchanged + len(plan.touched)
        self.summary.moved, self.summary.removed = len(plan.moved), len(plan.removed)
        index = self._index
        if index is None or not (plan.moved or plan.removed or plan.touched):
            return
        vectors = index.vectors(plan.moved.values())
        metadata = {new: index.metadata(old) for new, old in plan.moved.items()}
        index.remove([*plan.removed, *plan.moved.values()])
        if plan.moved:
            index.add(self._embeddings(list(plan.moved), vectors), _dated(metadata, scan))
        index.update_metadata(_dated({name: index.metadata(name) for name in plan.touched}, scan))
        index.save(self._catalog.index_path)

    def _embed(self, names: Sequence[str], scan: Scan) -> None:
        started = time.monotonic()
        waiting: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
        failed: list[str] = []
        try:
            for done, (name, metadata, result) in enumerate(self._results(names, scan), 1):
                if isinstance(result, str):
                    self.summary.failures[name] = result
                    failed.append(name)
                else:
                    waiting[name] = (result, metadata)
                self._progress("embed", done, len(names))
                if len(waiting) >= self._options.batch:
                    self._commit(waiting, failed)
        except KeyboardInterrupt:
            self._commit(waiting, failed)
            raise
        self._commit(waiting, failed)
        self.summary.seconds = time.monotonic() - started

    def _results(self, names: Sequence[str], scan: Scan) -> Iterator[tuple[str, dict[str, Any], np.ndarray | str]]:
        """Metadata and vector of each file, or why it has none."""

        def work(name: str) -> tuple[dict[str, Any], Features | str]:
            path = self._music / name
            try:
                metadata = {**read_tags(path), "file": _file(scan.files[name], content_hash(path))}
                return metadata, self._embedder.extract(path, pad=self._options.pad)
            except OSError as error:
                return {}, f"cannot be read ({error.strerror})"

        for name, (metadata, features) in in_order(work, names, _WORKERS):
            if isinstance(features, str):
                yield name, metadata, features
                continue
            metadata["seconds"] = round(features.frames / self._embedder.metadata.features.frame_rate, 2)
            vector = self._embedder.embed_features(features)
            yield name, metadata, self._fault(vector) or vector

    def _fault(self, vector: np.ndarray) -> str:
        """Why the index could not hold a vector, "" if it can."""
        if not np.isfinite(vector).all():
            return "the model's output is not finite"
        flat = [name for name, part in self._source.layout.slices.items() if not np.linalg.norm(vector[part]) > 1e-9]
        return f"the model says nothing about its {', '.join(flat)}" if flat else ""

    def _commit(self, waiting: dict[str, tuple[np.ndarray, dict[str, Any]]], failed: list[str]) -> None:
        """Puts a batch into the index and saves it; empties both arguments."""
        names = list(waiting)
        index = self._index
        gone = [name for name in failed if index is not None and name in index]
        if names or gone:
            metadata = {name: {**self._heard_before(name, told), **told} for name, (_, told) in waiting.items()}
            self._put(names, np.stack([vector for vector, _ in waiting.values()]) if names else None, metadata, gone)
        waiting.clear()
        failed.clear()

    def _put(
        self, names: list[str], vectors: np.ndarray | None, metadata: dict[str, dict[str, Any]], gone: list[str]
    ) -> None:
        if self._index is None:
            assert vectors is not None
            self._index = Index.build(self._embeddings(names, vectors), metadata, engine="exact")
            self.summary.new += len(names)
        else:
            self._index.remove(gone)
            self.summary.removed += len(gone)
            there = np.array([name in self._index for name in names], bool)
            for change, which in ((self._index.update, there), (self._index.add, ~there)):
                chosen = [name for name, take in zip(names, which) if take]
                if chosen and vectors is not None:
                    change(self._embeddings(chosen, vectors[which]), {name: metadata[name] for name in chosen})
            self.summary.changed += int(there.sum())
            self.summary.new += int((~there).sum())
        self._index.save(self._catalog.index_path)

    def _heard_before(self, name: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """Tempo and key of a track that only its tags changed, or only the model: its sound is as long as it was."""
        index = self._before or self._index
        if index is None or name not in index:
            return {}
        old = index.metadata(name)
        same = old["file"]["sha256"] == told["file"]["sha256"] or old["seconds"] == told["seconds"]
        return {key: old[key] for key in ("tempo", "key") if same and key in old}

    def _annotate(self) -> None:
        from msim_tf.database import Database
        from msim_tf.labels.annotate import annotate_folder
        from msim_tf.labels.annotations import ANNOTATIONS, annotation_labels

        assert self._index is not None
        names = sorted(self._index.identifiers)
        with Database(self._catalog.annotations_path, ANNOTATIONS, create=True) as database:
            annotations, failures = annotate_folder(self._music, names, database, progress=self._stage("annotate"))
        labels = annotation_labels(annotations).values
        changed = {}
        for name in names:
            old = self._index.metadata(name)
            heard = {key: value[0] for key, value in labels.get(name, {}).items()}
            new = {**{key: value for key, value in old.items() if key not in ("tempo", "key")}, **heard}
            if "tempo" in new:
                new["tempo"] = float(new["tempo"])
            if new != old:
                changed[name] = new
        self._index.update_metadata(changed)
        self.summary.failures |= {name: f"tempo and key: {reason}" for name, reason in failures.items()}

    def _choose_engine(self) -> None:
        """Builds the engine if it is another than before, or has outgrown what it was trained on."""
        assert self._index is not None
        held = self._index.engine
        outgrown = isinstance(held, FaissEngine) and len(self._index) > _GROWN * held.calibration.rows
        if outgrown or self._options.engine not in ("auto", held.name):
            self._index.build_engine(self._options.engine)
        elif self._options.engine == "auto" and not isinstance(held, FaissEngine):
            self._index.build_engine("auto")

    def _embeddings(self, names: Sequence[str], vectors: np.ndarray) -> Embeddings:
        source = self._source
        meta = {"model": source.model, "version": source.version, "digest": source.digest}
        return Embeddings(str(self._music), tuple(names), vectors, source.layout, meta)


def _file(state: FileState, sha256: str) -> dict[str, Any]:
    return {"size": state.size, "modified": state.modified, "sha256": sha256}


def _dated(metadata: Mapping[str, Mapping[str, Any]], scan: Scan) -> dict[str, dict[str, Any]]:
    """Metadata with the files' present sizes and times."""
    return {name: {**told, "file": _file(scan.files[name], told["file"]["sha256"])} for name, told in metadata.items()}
