"""The index: unit vectors and metadata of tracks, in memory or in a directory.

One index serves every weighting, see ``ranking``.

    library.db           tracks and what there is one of, see ``schema``
    vectors-000001.f16   the vectors, and their checksums beside them, see ``vectors``
    codes-000001.npz     codes of the FAISS engine, if there is one; rows after those it covers are encoded when it is
                         opened

Every change is part of one transaction, which ``save`` commits after the new vectors are on disk. So a process that is
killed at any moment leaves the last save. Another process sees each save whole. ``query`` searches an index; threads
may search at the same time, but not while one of them changes it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.database import Database
from msim_tf.embeddings import Embeddings, shortlist
from msim_tf.errors import InputError
from msim_tf.search import index_directory as files
from msim_tf.search.engines import Engine, ExactEngine
from msim_tf.search.faiss_codes import faiss_installed
from msim_tf.search.faiss_engine import FaissEngine
from msim_tf.search.ranking import normalised
from msim_tf.search.schema import DATABASE, SCHEMA
from msim_tf.search.source import Source
from msim_tf.search.track_table import TrackTable
from msim_tf.search.tracks import track_metadata
from msim_tf.search.vectors import BLOCK, Rows, VectorFile, vectors_path

ENGINES = ("auto", "exact", "faiss")
FAISS_FROM = 50_000  # rows from which "auto" takes FAISS, where it is installed
_MOST_UNUSED = 0.5  # share of the rows that may belong to no track before the vectors are written anew


class Index:
    """Tracks that can be searched and changed.

    Attributes:
        source: what made the vectors.
        table: the tracks in the database.
        rows: the vectors.
        alive: [rows] bool, which rows a query may find.
        engine: what proposes rows.
        directory: where it is saved, None while it is only in memory.
        note: one line for the user about what is missing for the engine that was chosen, or "".
    """

    def __init__(self, source: Source, table: TrackTable, rows: Rows, directory: Path | None = None) -> None:
        self.source = source
        self.table = table
        self.rows = rows
        self.alive = np.ones(len(rows), bool)
        self.alive[table.hidden()] = False
        self.engine: Engine = ExactEngine(source.layout)
        self.directory = directory
        self.note = ""
        self._number = 0  # of the file of vectors
        self._saved_codes: files.SavedCodes | None = None
        self._transaction: ExitStack | None = None
        self._revision = table.database.revision

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
        index = cls(source, TrackTable(Database(None, SCHEMA)), Rows(source.layout.size))
        index._append(embeddings, metadata or {})
        index.build_engine(engine)
        return index

    @classmethod
    def create(
        cls, directory: str | Path, source: Source, *, name: str = DATABASE, settings: Mapping[str, Any] | None = None
    ) -> Index:
        """An index of no tracks in a directory; a database of that name is replaced, all at once.

        Args:
            directory: made when missing.
            source: of the vectors to come.
            name: of the database, another than usual while it is not to be found.
            settings: what else to store, as JSON values under names of the caller's.

        Raises:
            InputError: if something else is there.
        """
        directory = Path(directory).absolute()
        number = files.prepare_directory(directory)
        VectorFile.create(vectors_path(directory, number), source.layout.size)
        with files.new_database(directory, name) as database, database.transaction():
            table = TrackTable(database)
            table.set_setting("source", source.to_json())
            table.set_setting("vectors", {"number": number, "rows": 0})
            table.set_setting("engine", {"name": ExactEngine.name})
            for key, value in (settings or {}).items():
                table.set_setting(key, value)
        return cls.open(directory, name=name)

    @classmethod
    def open(cls, directory: str | Path, *, name: str = DATABASE, engine: bool = True) -> Index:
        """Opens an index; vectors are mapped, not read.

        Args:
            directory: where it was saved.
            name: of its database.
            engine: whether to open the engine that was saved; else it is the exact one.

        Raises:
            InputError: if there is none, it is damaged, or of a format that this release does not read.
        """
        directory = Path(directory).absolute()
        files.refuse_old_format(directory)
        database = Database(directory / name, SCHEMA, writable=True)
        table = TrackTable(database)
        with database.transaction(read=True):  # no other process replaces the vectors meanwhile
            settings = files.read_settings(table, directory / name)
            file = VectorFile(
                vectors_path(directory, settings.number), rows=settings.rows, size=settings.source.layout.size
            )
            index = cls(settings.source, table, Rows(settings.source.layout.size, file), directory)
            index._number = settings.number
            if engine:
                index.engine, index.note = files.open_engine(directory, settings.engine, settings.source)
        if isinstance(index.engine, FaissEngine):
            index._saved_codes = files.SavedCodes(settings.engine, index.engine)
        return index

    def with_engine(self, engine: Engine) -> Index:
        """The same index, searched by another engine."""
        other = copy.copy(self)
        other.engine = engine
        return other

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
        return int(np.count_nonzero(self.alive))

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._located([identifier])

    @property
    def name(self) -> str:
        """What error texts call the index."""
        return str(self.directory) if self.directory else "the index"

    @property
    def identifiers(self) -> list[str]:
        """All tracks, in the order of their rows; read from the database at each call."""
        return self.table.identifiers()

    def row(self, identifier: str) -> int:
        """The row of a track.

        Raises:
            InputError: if there is none, with names that are alike.
        """
        return self._existing_rows([identifier])[0]

    def _located(self, identifiers: Sequence[str]) -> dict[str, int]:
        """Rows of those that there are; another process may have added more since the index was opened."""
        with self._numbers_as_opened():
            rows = self.table.rows(identifiers)
        return {identifier: row for identifier, row in rows.items() if row < len(self.rows)}

    @contextmanager
    def _numbers_as_opened(self) -> Iterator[None]:
        """A block that looks rows up, in which they have the numbers that they had when the index was opened.

        Raises:
            InputError: if another process has written the vectors anew since then.
        """
        with self.table.database.transaction(read=True):
            if self.table.database.revision != self._revision and self._transaction is None:
                vectors = self.table.setting("vectors")
                if vectors is not None and vectors["number"] != self._number:
                    raise InputError(f"{self.name} was written anew by another process; open it again and repeat")
            yield

    def rows_of(self, identifiers: Iterable[str]) -> list[int]:
        """Rows of those of the identifiers that there are, in any order."""
        return list(self._located(list(identifiers)).values())

    def _existing_rows(self, identifiers: Sequence[str]) -> list[int]:
        located = self._located(identifiers)
        for identifier in identifiers:
            if identifier not in located:
                text = identifier.casefold()
                alike = [name for name in self.identifiers if text and text in name.casefold()]
                hint = f"; did you mean {shortlist(alike)}?" if alike else ""
                raise InputError(f"{self.name} has no track {identifier!r}{hint}")
        return [located[identifier] for identifier in identifiers]

    def metadata(self, identifier: str) -> dict[str, Any]:
        """What is known of a track.

        Raises:
            InputError: if there is none.
        """
        metadata = self.table.metadata(identifier)
        if metadata is None:
            self.row(identifier)  # raises, with names that are alike
        return metadata or {}

    def all_metadata(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Identifier and metadata of every track, in the order of their rows."""
        return self.table.all_metadata()

    def described(self, rows: Sequence[int]) -> dict[int, tuple[str, dict[str, Any]]]:
        """Identifier and metadata of rows; without those that another process has removed since the index was opened.

        Raises:
            InputError: if another process has written the vectors anew since then.
        """
        with self._numbers_as_opened():
            return self.table.described(rows)

    def vectors(self, identifiers: Iterable[str]) -> np.ndarray:
        """Unit vectors of tracks: [n, size] float32, every subspace of length 1.

        Raises:
            InputError: if there is no such track.
        """
        rows = np.array(self._existing_rows(list(identifiers)), np.intp)
        return normalised(self.rows.take(rows), self.source.layout)

    def add(self, embeddings: Embeddings, metadata: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Adds new tracks.

        Raises:
            InputError: if one is there already, or the vectors are of another source.
        """
        self.source.validate(Source.of(embeddings), self.name, embeddings.name)
        present = self._located(embeddings.identifiers)
        if present:
            raise InputError(f"{self.name} already has {shortlist(list(present))}; update them instead")
        self._append(embeddings, metadata or {})

    def update(self, embeddings: Embeddings, metadata: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Replaces vectors, and the metadata of those tracks that ``metadata`` names.

        Raises:
            InputError: if a track is not there, or the vectors are of another source.
        """
        self.source.validate(Source.of(embeddings), self.name, embeddings.name)
        self._existing_rows(embeddings.identifiers)
        self._append(embeddings, metadata or {})

    def _append(self, embeddings: Embeddings, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Gives tracks new rows, adding those that are not there; missing tracks come back."""
        stored = unit_vectors(embeddings, self.source)
        clean = _clean_metadata(metadata, embeddings.identifiers)

        # Vectors never change in place: replaced tracks, too, get rows after the last, and their old ones are hidden.
        self.begin()
        first = len(self.rows)
        new_rows = {identifier: first + place for place, identifier in enumerate(embeddings.identifiers)}
        old_rows = self.table.rows(embeddings.identifiers, missing=True) if first else {}
        added = {name: clean.get(name, {}) for name in embeddings.identifiers if name not in old_rows}
        if len(added) == len(new_rows):
            self.table.add(added, first)
        else:
            # Rows of added tracks need not be consecutive, so they get their numbers like replaced ones.
            for name, facts in added.items():
                self.table.add({name: facts}, new_rows[name])
            self.table.set_rows({name: row for name, row in new_rows.items() if name in old_rows})
            self.table.set_metadata({name: clean[name] for name in old_rows if name in clean})

        # [rows + n] vectors, and which of them a query may find.
        self.rows = self.rows.extended(stored)
        self.alive = np.concatenate([self.alive, np.ones(len(stored), bool)])
        self.alive[list(old_rows.values())] = False

    def update_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Replaces the metadata of tracks and keeps their vectors.

        Raises:
            InputError: if a track is not there.
        """
        self._existing_rows(list(metadata))
        clean = _clean_metadata(metadata, metadata)
        self.begin()
        self.table.set_metadata(clean)

    def remove(self, identifiers: Iterable[str]) -> None:
        """Removes tracks.

        Raises:
            InputError: if one is not there; then none is removed.
        """
        identifiers = list(dict.fromkeys(identifiers))
        rows = self._existing_rows(identifiers)
        self.begin()
        self.table.remove(identifiers)
        self.alive[rows] = False

    def rename(self, names: Mapping[str, str]) -> None:
        """Gives tracks other identifiers, new -> old, and keeps their vectors and metadata.

        Raises:
            InputError: if one is not there.
        """
        self._existing_rows(list(names.values()))
        self.begin()
        self.table.rename(names)

    def set_missing(self, identifiers: Iterable[str], missing: bool) -> None:
        """Hides tracks from queries without forgetting them, or brings hidden ones back."""
        identifiers = list(identifiers)
        rows = self.table.rows(identifiers, missing=True)
        self.begin()
        self.table.set_missing(rows, missing)
        self.alive[list(rows.values())] = not missing

    def begin(self) -> None:
        """Starts the transaction that ``save`` commits, unless it is under way.

        Raises:
            InputError: if another process has saved since this index was opened.
        """
        if self.directory is None or self._transaction is not None:
            return
        with ExitStack() as stack:
            stack.enter_context(self.table.database.transaction())
            if self.table.database.revision != self._revision:
                raise InputError(
                    f"{self.directory} was changed by another process since it was opened; open it again and repeat"
                )
            self._transaction = stack.pop_all()

    def close(self) -> None:
        """Closes the database; what was not saved is lost."""
        self._transaction = None
        self.table.database.close()

    def save(self, directory: str | Path | None = None) -> None:
        """Writes what has changed since the last save; everything, if the directory is another one.

        Args:
            directory: by default where the index was opened or last saved.

        Raises:
            InputError: if there is no directory, it holds something else, or another process saved there meanwhile.
        """
        if directory is None and self.directory is None:
            raise InputError("this index was never saved; give a path")
        if directory is None or Path(directory).absolute() == self.directory:
            self._save_changes()
            return
        # Another directory: a whole copy under a name that nobody opens, which then takes the place of what was there.
        copied = Index.create(directory, self.source, name=files.UNFINISHED)
        copied._copy_from(self)
        copied._save_changes()
        copied.table.database.close()
        files.publish(Path(directory).absolute(), files.UNFINISHED)
        self.__dict__.update(Index.open(directory).__dict__)
        files.sweep(Path(directory).absolute(), self._number, self._saved_codes.name if self._saved_codes else "")

    def _copy_from(self, other: Index) -> None:
        """Takes over all that another index knows, into this one, which is empty; hidden rows are left behind."""
        used = other.table.used()
        self.begin()
        # The rows in use, a block at a time: each is appended under the next number.
        for start in range(0, len(used), BLOCK):
            rows = used[start : start + BLOCK]
            described = other.described(rows.tolist())
            self.table.add(dict(described[row] for row in rows.tolist()), len(self.rows))
            self.rows = self.rows.extended(other.rows.take(rows))
        self.table.set_missing(other.table.missing(), True)
        self.table.copy_files(other.table)
        self.alive = np.ones(len(self.rows), bool)
        self.alive[self.table.hidden()] = False
        # Codes go by the number of the row, so they stay right only if no row was left behind.
        self.engine = other.engine
        if len(used) != len(other.rows):
            self.engine.forget()

    def _save_changes(self) -> None:
        """Vectors first, then the transaction that counts them."""
        vector_file = self.rows.file
        assert self.directory is not None and vector_file is not None
        self.begin()
        if self.table.unused() > _MOST_UNUSED * len(self.rows):
            # Most rows belong to no track. The others, [used, size] in the old order, are streamed into a new file and
            # numbered anew; codes and masks by the old numbers are of no use.
            used = self.table.used()
            self._number = files.next_number(self.directory, "vectors")
            empty = VectorFile.create(vectors_path(self.directory, self._number), self.rows.size)
            blocks = (self.rows.take(used[start : start + BLOCK]) for start in range(0, len(used), BLOCK))
            self.rows = Rows(self.rows.size, empty.appended(blocks))
            self.table.renumber(used)
            self.alive = np.ones(len(self.rows), bool)
            self.alive[self.table.hidden()] = False
            self.engine.forget()
            self._saved_codes = None
        elif self.rows.fresh:
            # Else only what was added is written.
            self.rows = Rows(self.rows.size, vector_file.appended(self.rows.fresh))

        # Then what describes them, as part of the transaction.
        self._saved_codes = files.save_engine(self.directory, self.engine, self.rows, self._saved_codes)
        self.table.set_setting("vectors", {"number": self._number, "rows": len(self.rows)})
        self.table.set_setting("engine", self._saved_codes.setting)

        # The commit makes all of it count at once; only then are the files that it replaced of no use.
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        self._revision = -1  # if the commit fails, what is in memory is not what is on disk
        transaction.close()
        self._revision = self.table.database.revision
        if self.table.database.path.name == DATABASE:
            files.sweep(self.directory, self._number, self._saved_codes.name)


def unit_vectors(embeddings: Embeddings, source: Source) -> np.ndarray:
    """Vectors as an index stores them.

    Returns:
        [n, size] float16, every subspace of length 1.

    Raises:
        InputError: naming tracks whose vector has no direction in a subspace.
    """
    stored = np.empty(embeddings.embeddings.shape, np.float16)
    for start in range(0, len(stored), BLOCK):
        unit = normalised(embeddings.embeddings[start : start + BLOCK], source.layout)
        for name, part in source.layout.slices.items():
            # [rows] whose subspace did not come out at length 1: it was all zero, or its squares overflowed.
            flat = np.flatnonzero(np.abs(np.linalg.norm(unit[:, part], axis=1) - 1) > 0.01)
            if flat.size:
                tracks = shortlist([embeddings.identifiers[start + int(row)] for row in flat])
                raise InputError(
                    f"the vectors of {tracks} have no direction in {name} (all zero, or overflowing); leave them out"
                )
        stored[start : start + BLOCK] = unit
    return stored


def _clean_metadata(metadata: Mapping[str, Mapping[str, Any]], identifiers: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Metadata in its canonical spelling.

    Raises:
        InputError: if it is wrong, or of a track that is not among ``identifiers``.
    """
    tracks = set(identifiers)
    foreign = [identifier for identifier in metadata if identifier not in tracks]
    if foreign:
        raise InputError(f"metadata of {shortlist(foreign)}, which have no vector; embed them or leave them out")
    return {identifier: track_metadata(value, identifier) for identifier, value in metadata.items()}
