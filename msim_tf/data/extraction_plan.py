"""Which files of a folder are to be extracted into which shards, and what a store remembers of the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msim_tf.audio.scan import FileState, Scan
from msim_tf.data.shard_job import ShardJob
from msim_tf.data.shards import description_path
from msim_tf.data.store_database import FAILED, MISSING, OK, PENDING, ClipState, StoreDatabase
from msim_tf.names import storable

CLIPS_PER_SHARD = 64


def assign_shards(listing: Scan, store: Path, database: StoreDatabase, *, pad: bool, prune: bool) -> list[ShardJob]:
    """Compares a listing with the store, inside a transaction: jobs for what is new or changed, by number of shard.

    Args:
        listing: the files, and what the scan refused.
        store: directory of the store.
        database: of the store; what is assigned is recorded there.
        pad: lengthen clips shorter than one segment with silence.
        prune: forget clips whose files have left the folder.
    """
    # What the store has of each file, against what the folder holds now.
    states = database.clip_states()
    waiting = {name: state for name, state in states.items() if state.status == PENDING}
    fresh = next_number(store, database)
    changed = [name for name, state in listing.files.items() if _must_extract(state, states.get(name), pad)]

    # A job that was planned before and never ran keeps its shard, unless a part of it ran or its options changed.
    kept = {
        name: state.shard
        for name, state in waiting.items()
        if name in listing.files  # so it is among the changed
        and _same_file(listing.files[name], state)
        and state.padded == pad
        and state.shard is not None
        and not description_path(store, state.shard).exists()
    }
    # The others fill new shards, in the order of the listing.
    new = [name for name in changed if name not in kept]
    shards = kept | {name: fresh + position // CLIPS_PER_SHARD for position, name in enumerate(new)}

    # Record what is assigned before it is done: a killed extraction finds its own jobs again.
    database.executemany(
        "INSERT OR REPLACE INTO clips (identifier, size, modified, padded, status, shard) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (name, listing.files[name].size, listing.files[name].modified, pad, PENDING, shards[name])
            for name in changed
        ),
    )
    _update_absent(database, listing, states, prune=prune)

    # One job per shard, with its files sorted, so that its arrays come out the same wherever it runs.
    jobs: dict[int, dict[str, FileState]] = {}
    for name in sorted(shards, key=lambda name: (shards[name], name)):
        jobs.setdefault(shards[name], {})[name] = listing.files[name]
    return [ShardJob(shard, database.params, pad, files) for shard, files in jobs.items()]


def _same_file(state: FileState, stored: ClipState) -> bool:
    return (stored.size, stored.modified) == (state.size, state.modified)


def _must_extract(state: FileState, stored: ClipState | None, pad: bool) -> bool:
    if stored is None or stored.status == PENDING or not _same_file(state, stored):
        return True
    # What the scan refused before and lists now was never tried.
    return stored.status == FAILED and (stored.shard is None or (pad and not stored.padded))


def _update_absent(database: StoreDatabase, listing: Scan, states: Mapping[str, ClipState], *, prune: bool) -> None:
    """Marks clips whose files are gone or came back, and records what the scan refused."""
    absent = [name for name in states if name not in listing.files]
    # What lies in a folder that could not be read is unknown, not gone.
    absent = [name for name in absent if not name.startswith(listing.unreadable)] if listing.unreadable else absent
    # Features wait in case their file returns, unless ``prune`` forgets them; a failure goes with its file.
    kept = [] if prune else [name for name in absent if states[name].status in (OK, MISSING)]
    back = [name for name, state in states.items() if state.status == MISSING and name in listing.files]
    database.executemany("DELETE FROM clips WHERE identifier = ?", ((name,) for name in set(absent) - set(kept)))
    database.executemany(f"UPDATE clips SET status = '{MISSING}' WHERE identifier = ?", ((name,) for name in kept))
    database.executemany(
        f"UPDATE clips SET status = '{OK}' WHERE identifier = ? AND status = '{MISSING}'", ((name,) for name in back)
    )
    database.executemany(
        "INSERT OR REPLACE INTO clips (identifier, size, modified, padded, status, reason) VALUES (?, 0, 0, 0, ?, ?)",
        ((storable(name), FAILED, reason) for name, reason in listing.failures.items()),
    )


def next_number(store: Path, database: StoreDatabase) -> int:
    """The first number that no shard has: neither in the database nor among files that a killed ``finish`` left."""
    numbers = [database.value("SELECT max(shard) FROM clips"), database.value("SELECT max(number) FROM shards")]
    numbers += [int(path.stem) for path in (store / "shards").glob("[0-9]*.json") if path.stem.isdigit()]
    return max((number for number in numbers if number is not None), default=-1) + 1
