"""``store.db``: what a feature store knows of its clips, their labels and the files that failed.

A clip is *pending* (assigned to a shard that is not finished), *ok*, *failed* (with its reason;
tried again when the file changes), or *missing* (its file has left the folder; its features wait in
case it returns, and readers pass over it).
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msim_tf.data.shards import ARRAYS, Shard, row_width
from msim_tf.database import Database, Schema
from msim_tf.errors import InputError
from msim_tf.labels.annotations import ANNOTATIONS_TABLE
from msim_tf.labels.tables import Labels, divided_groups, joined_groups
from msim_tf.params import FeatureParams

PENDING, OK, FAILED, MISSING = "pending", "ok", "failed", "missing"
_REMAKE = "extract again into a new directory: msim extract SOURCE STORE"

SCHEMA = Schema(
    what="a feature store (msim extract makes one)",
    remake=_REMAKE,
    application_id=0x6D734653,  # "msFS"
    statements=f"""
        CREATE TABLE store (digest TEXT NOT NULL, feature_params TEXT NOT NULL);
        CREATE TABLE clips (
            identifier TEXT PRIMARY KEY,
            size INTEGER NOT NULL,
            modified INTEGER NOT NULL,
            padded INTEGER NOT NULL,     -- whether short clips were lengthened when it was tried
            status TEXT NOT NULL,
            reason TEXT NOT NULL DEFAULT '',
            note TEXT NOT NULL DEFAULT '',
            shard INTEGER,               -- NULL where the scan refused the file
            frames INTEGER NOT NULL DEFAULT 0,
            row INTEGER NOT NULL DEFAULT 0,
            onset_row INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE shards (
            number INTEGER PRIMARY KEY,
            stem TEXT NOT NULL,
            mel_bytes INTEGER NOT NULL, cens_bytes INTEGER NOT NULL, onset_bytes INTEGER NOT NULL,
            mel_checksums BLOB NOT NULL, cens_checksums BLOB NOT NULL, onset_checksums BLOB NOT NULL
        ) STRICT;
        CREATE TABLE labels (
            track TEXT NOT NULL, dimension TEXT NOT NULL, value TEXT NOT NULL,
            PRIMARY KEY (track, dimension, value)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE artists (
            track TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (track, name)
        ) STRICT, WITHOUT ROWID;
        {ANNOTATIONS_TABLE}
        """,
)


@dataclass(frozen=True)
class ClipState:
    """What decides whether a file must be extracted again."""

    size: int
    modified: int
    padded: bool
    status: str
    shard: int | None


@dataclass(frozen=True)
class Extraction:
    """What a store holds after ``finish``.

    Attributes:
        clips: how many clips can be read.
        frames: theirs in all.
        failures: identifier -> why it has no features.
        notes: identifier -> what is worth knowing of a file that has features.
        missing: clips whose files have left the folder.
        pending: clips whose jobs are not done.
        notices: what the scan left out without a reason of its own; known to who has scanned the folder.
    """

    clips: int
    frames: int
    failures: dict[str, str]
    notes: dict[str, str]
    missing: int
    pending: int
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ClipColumns:
    """The clips that can be read, sorted by identifier: [n] of each."""

    identifiers: list[str]
    shards: np.ndarray
    frames: np.ndarray
    rows: np.ndarray
    onset_rows: np.ndarray


def database_path(store: str | Path) -> Path:
    """Where the database of ``store`` lies."""
    return Path(store) / "store.db"


def is_store(path: str | Path) -> bool:
    """Whether a directory is a feature store, of this or an earlier release."""
    return database_path(path).exists() or (Path(path) / "manifest.json").exists()


class StoreDatabase(Database):
    """The opened database of a store.

    Args:
        store: the store's directory.
        params: makes a store of these features where there is none; an existing store must have the same.
        writable: whether it may be changed; implied by ``params``.

    Attributes:
        params: how the features are made.

    Raises:
        InputError: if it is missing, damaged, of other features, or of another release.
    """

    def __init__(self, store: str | Path, params: FeatureParams | None = None, *, writable: bool = False) -> None:
        path = database_path(store)
        manifest = Path(store) / "manifest.json"
        if manifest.exists() and not path.exists():
            raise InputError(f"{manifest}: a feature store of msim 0.1, which this release does not read; {_REMAKE}")
        super().__init__(path, SCHEMA, create=params is not None, writable=writable)
        try:
            self.params = self._stored_params(params)
        except BaseException:
            self.close()
            raise

    def _stored_params(self, wanted: FeatureParams | None) -> FeatureParams:
        rows = self.execute("SELECT digest, feature_params FROM store")
        if not rows and wanted is not None:
            with self.transaction():
                self.execute("INSERT INTO store VALUES (?, ?)", (wanted.digest, json.dumps(wanted.to_json())))
            return wanted
        if len(rows) != 1:
            raise InputError(f"{self.path}: says nothing of its features; {_REMAKE}")
        # The parameters must give the digest that lies beside them, or one of the two is damaged.
        ((digest, text),) = rows
        stored = FeatureParams.from_json(json.loads(text))
        if stored.digest != digest:
            raise InputError(f"{self.path}: says digest {digest}, but its parameters give {stored.digest}; {_REMAKE}")
        return stored

    def clip_states(self) -> dict[str, ClipState]:
        """Every file that is known, by identifier."""
        rows = self.execute("SELECT identifier, size, modified, padded, status, shard FROM clips")
        return {row[0]: ClipState(row[1], row[2], bool(row[3]), row[4], row[5]) for row in rows}

    def count(self, status: str) -> int:
        """Clips of one status."""
        return self.value("SELECT count(*) FROM clips WHERE status = ?", (status,))

    def failures(self) -> dict[str, str]:
        """Files without features, with the reason, by identifier."""
        return dict(self.execute("SELECT identifier, reason FROM clips WHERE status = ? ORDER BY 1", (FAILED,)))

    def notes(self) -> dict[str, str]:
        """What is worth knowing of files although they have features, by identifier."""
        return dict(
            self.execute("SELECT identifier, note FROM clips WHERE status = ? AND note != '' ORDER BY 1", (OK,))
        )

    def extraction(self) -> Extraction:
        """What the store holds, as ``finish`` tells it."""
        # Counted by the database: a store of a million clips is never listed to be summed up.
        frames = self.value("SELECT coalesce(sum(frames), 0) FROM clips WHERE status = ?", (OK,))
        counts = {status: self.count(status) for status in (OK, MISSING, PENDING)}
        return Extraction(counts[OK], frames, self.failures(), self.notes(), counts[MISSING], counts[PENDING])

    def readable_clips(self) -> ClipColumns:
        """The clips that have features, sorted by identifier.

        Raises:
            InputError: if the rows of one reach beyond its shard.
        """
        rows = self.execute(
            "SELECT identifier, shard, frames, row, onset_row FROM clips WHERE status = ? ORDER BY identifier", (OK,)
        )
        # [n, 4] -> four columns [n], each consecutive in memory for the lookups of every batch.
        numbers = np.array([row[1:] for row in rows], np.int64).reshape(-1, 4)
        return ClipColumns([row[0] for row in rows], *numbers.T.copy())

    def shards(self) -> dict[int, Shard]:
        """Finished shards by number, without their clips."""
        rows = self.execute("SELECT * FROM shards ORDER BY number")
        return {
            row[0]: Shard(
                number=row[0],
                stem=row[1],
                digest=self.params.digest,
                clips=(),
                sizes=dict(zip(ARRAYS, row[2:5])),
                checksums={name: np.frombuffer(blob, "<u4") for name, blob in zip(ARRAYS, row[5:8])},
            )
            for row in rows
        }

    def add_shard(self, shard: Shard) -> None:
        """Takes a finished shard in; the caller tells which clips are in it."""
        checksums = [shard.checksums[name].astype("<u4").tobytes() for name in ARRAYS]
        sizes = [shard.sizes[name] for name in ARRAYS]
        self.execute(
            "INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (shard.number, shard.stem, *sizes, *checksums),
        )

    def shard_rows(self, shard: Shard) -> dict[str, int]:
        """Rows of each array of a shard."""
        return {name: shard.sizes[name] // 2 // row_width(self.params, name) for name in ARRAYS}

    def labels(self) -> Labels:
        """The label table."""
        # Rows come sorted by track, so each group is all that is said of one track.
        values: dict[str, dict[str, tuple[str, ...]]] = {}
        rows = self.execute("SELECT track, dimension, value FROM labels ORDER BY track, dimension, value")
        for track, of_track in itertools.groupby(rows, key=lambda row: row[0]):
            by_dimension: dict[str, list[str]] = defaultdict(list)
            for _, dimension, value in of_track:
                by_dimension[dimension].append(value)
            values[track] = {dimension: tuple(names) for dimension, names in by_dimension.items()}
        # The artists of one track are one group: splits never divide them.
        artists = itertools.groupby(
            self.execute("SELECT track, name FROM artists ORDER BY track, name"), key=lambda row: row[0]
        )
        return Labels(values, {track: joined_groups(name for _, name in rows) for track, rows in artists})

    def write_labels(self, labels: Labels) -> None:
        """Replaces the label table."""
        # Three columns, one row per value; generators, so that a million labels are never in memory twice.
        values = (
            (track, dimension, value)
            for track, of_track in labels.values.items()
            for dimension, of_dimension in of_track.items()
            for value in of_dimension
        )
        artists = ((track, name) for track, group in labels.groups.items() for name in divided_groups(group))
        with self.transaction():
            self.execute("DELETE FROM labels")
            self.execute("DELETE FROM artists")
            self.executemany("INSERT INTO labels VALUES (?, ?, ?)", values)
            self.executemany("INSERT INTO artists VALUES (?, ?)", artists)


def write_labels(store: str | Path, labels: Labels) -> None:
    """Replaces the label table of a store."""
    with StoreDatabase(store, writable=True) as database:
        database.write_labels(labels)


def store_params(store: str | Path) -> FeatureParams:
    """How the features of a store were made."""
    with StoreDatabase(store) as database:
        return database.params
