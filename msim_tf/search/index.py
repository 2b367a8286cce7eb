"""The index: identifiers, metadata and unit vectors of a library. One index serves every weighting (see ``ranking``).

Adding appends a segment, removing marks rows, updating does both: nothing is rebuilt. Vectors are held as float16 with every subspace of
length 1. ``index_files`` keeps it on disk, ``query`` searches it. Threads may search at the same time, but not while one changes the index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.embeddings import Embeddings, shortlist
from msim_tf.errors import InputError
from msim_tf.search import index_files
from msim_tf.search.engines import Engine, ExactEngine
from msim_tf.search.faiss_codes import faiss_installed
from msim_tf.search.faiss_engine import FaissEngine
from msim_tf.search.filters import FilterColumns
from msim_tf.search.ranking import normalised
from msim_tf.search.segments import BLOCK, Rows, Segment
from msim_tf.search.source import Source
from msim_tf.search.tracks import track_metadata

ENGINES = ("auto", "exact", "faiss")
FAISS_FROM = 50_000  # rows from which "auto" takes FAISS, where it is installed


class Index:
    """A library that can be searched and changed; changes are on disk after ``save``."""

    def __init__(self, source: Source, rows: Rows, alive: np.ndarray, engine: Engine) -> None:
        self.source = source
        self.rows = rows
        self.alive = alive
        self.engine = engine
        self.columns = FilterColumns()
        self.saved: index_files.Saved | None = None
        self._positions = self._placed()

    def _placed(self) -> dict[str, int]:
        names = (name for segment in self.rows.segments for name in segment.identifiers)
        placed = {name: row for row, name in enumerate(names) if self.alive[row]}
        if len(placed) != np.count_nonzero(self.alive):
            raise InputError("an identifier is in the index twice; index again")
        return placed

    @classmethod
    def build(
        cls,
        embeddings: Embeddings,
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        engine: str = "auto",
    ) -> Index:
        """An index of ``embeddings``, in memory.

        Args:
            embeddings: the vectors; their meta tells the source.
            metadata: identifier -> what is known of the track, see ``tracks``.
            engine: "exact", "faiss", or "auto": FAISS from 50,000 tracks on where it is installed.

        Raises:
            InputError: for vectors or metadata that cannot be indexed, or an engine that is not there.
        """
        source = Source.of(embeddings)
        segment = _segment(embeddings.identifiers, embeddings.embeddings, metadata or {}, source)
        index = cls(source, Rows((segment,)), np.ones(len(segment), bool), ExactEngine(source.layout))
        index.build_engine(engine)
        return index

    def build_engine(self, engine: str = "auto") -> None:
        """Trains and calibrates an engine on what the index now holds.

        Raises:
            InputError: if there is no such engine, or it is not installed.
        """
        if engine not in ENGINES:
            raise InputError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}")
        if engine == "auto":
            engine = "faiss" if len(self) >= FAISS_FROM and faiss_installed() else "exact"
        layout = self.source.layout
        self.engine = FaissEngine.build(self.rows, layout) if engine == "faiss" else ExactEngine(layout)

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._positions

    @property
    def name(self) -> str:
        """What error texts call the index."""
        return str(self.saved.path) if self.saved else "the index"

    @property
    def identifiers(self) -> list[str]:
        """All tracks, in the order of their rows."""
        return list(self._positions)

    def row(self, identifier: str) -> int:
        """The row of a track.

        Raises:
            InputError: if there is none, with names that are alike.
        """
        if identifier not in self._positions:
            like = [name for name in self._positions if identifier and identifier.casefold() in name.casefold()]
            hint = f"; did you mean {shortlist(like)}?" if like else ""
            raise InputError(f"{self.name} has no track {identifier!r}{hint}")
        return self._positions[identifier]

    def metadata(self, identifier: str) -> dict[str, Any]:
        """What is known of a track."""
        return self.rows.metadata(self.row(identifier))

    def vectors(self, identifiers: Iterable[str]) -> np.ndarray:
        """Unit vectors of tracks: [n, size] float32, every subspace of length 1."""
        rows = np.array([self.row(identifier) for identifier in identifiers], np.intp)
        return normalised(self.rows.take(rows), self.source.layout)

    def add(self, embeddings: Embeddings, metadata: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Adds new tracks.

        Raises:
            InputError: if one is there already, or the vectors are of another source.
        """
        there = [identifier for identifier in embeddings.identifiers if identifier in self]
        if there:
            raise InputError(f"{self.name} already has {shortlist(there)}; update them instead")
        self._append(embeddings, metadata or {})

    def update(self, embeddings: Embeddings, metadata: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Replaces vectors, and the metadata of those tracks that ``metadata`` names.

        Raises:
            InputError: if a track is not there, or the vectors are of another source.
        """
        old = {identifier: self.metadata(identifier) for identifier in embeddings.identifiers}
        rows = [self.row(identifier) for identifier in embeddings.identifiers]
        self._append(embeddings, {**old, **(metadata or {})}, replaced=rows)

    def update_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Replaces the metadata of tracks and keeps their vectors.

        Raises:
            InputError: if a track is not there.
        """
        if not metadata:
            return
        rows = [self.row(identifier) for identifier in metadata]
        clean = [track_metadata(value, identifier) for identifier, value in metadata.items()]
        self._extend(Segment(self.rows.take(np.array(rows)), tuple(metadata), clean), replaced=rows)

    def remove(self, identifiers: Iterable[str]) -> None:
        """Removes tracks.

        Raises:
            InputError: if one is not there; then none is removed.
        """
        identifiers = list(dict.fromkeys(identifiers))
        rows = [self.row(identifier) for identifier in identifiers]
        self.alive[rows] = False
        for identifier in identifiers:
            del self._positions[identifier]

    def _append(
        self, embeddings: Embeddings, metadata: Mapping[str, Mapping[str, Any]], *, replaced: Sequence[int] = ()
    ) -> None:
        self.source.validate(Source.of(embeddings), self.name, embeddings.name)
        segment = _segment(embeddings.identifiers, embeddings.embeddings, metadata, self.source)
        self._extend(segment, replaced=replaced)

    def _extend(self, segment: Segment, *, replaced: Sequence[int] = ()) -> None:
        first = len(self.rows)
        self.rows = Rows((*self.rows.segments, segment))
        self.alive = np.concatenate([self.alive, np.ones(len(segment), bool)])
        self.alive[np.array(replaced, np.intp)] = False
        self._positions.update((identifier, first + row) for row, identifier in enumerate(segment.identifiers))

    def renumber(self, rows: Rows) -> None:
        """Takes ``rows``, which hold what is alive and nothing else, in the same order."""
        self.rows = rows
        self.alive = np.ones(len(rows), bool)
        self._positions = self._placed()
        self.engine.forget()

    def save(self, path: str | Path | None = None) -> None:
        """Writes the index, atomically; only what is new since it was opened, unless the path is another one.

        Args:
            path: a directory; by default where it was opened or last saved.

        Raises:
            InputError: if there is no path, the directory holds something else, or another process saved there meanwhile.
        """
        if path is None and self.saved is None:
            raise InputError("this index was never saved; give a path")
        self.saved = index_files.save_index(self, Path(path) if path is not None else self.saved.path)  # type: ignore[union-attr]

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """Opens an index by memory map.

        Raises:
            InputError: if there is none, it is damaged, or of a format that this release does not read.
        """
        saved, source, rows, alive, engine = index_files.load_index(Path(path))
        index = cls(source, rows, alive, engine)
        index.saved = saved
        return index


def _segment(
    identifiers: Sequence[str], vectors: np.ndarray, metadata: Mapping[str, Mapping[str, Any]], source: Source
) -> Segment:
    """Tracks in memory, their vectors made unit vectors."""
    known = set(identifiers)
    foreign = [identifier for identifier in metadata if identifier not in known]
    if foreign:
        raise InputError(f"metadata of {shortlist(foreign)}, which have no vector; embed them or leave them out")
    stored = np.empty(vectors.shape, np.float16)
    for start in range(0, len(vectors), BLOCK):
        unit = normalised(vectors[start : start + BLOCK], source.layout)
        for name, part in source.layout.slices.items():
            flat = np.flatnonzero(np.abs(np.linalg.norm(unit[:, part], axis=1) - 1) > 0.01)
            if flat.size:
                names = shortlist([identifiers[start + int(row)] for row in flat])
                raise InputError(
                    f"the vectors of {names} have no direction in {name} (all zero, or overflowing); leave them out"
                )
        stored[start : start + BLOCK] = unit
    return Segment(
        stored, tuple(identifiers), [track_metadata(metadata.get(track, {}), track) for track in identifiers]
    )
