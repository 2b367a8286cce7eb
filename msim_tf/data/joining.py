"""Joins small shards of a store to larger ones, and removes files that nobody needs.

Extraction makes shards of 64 clips, so that little is lost when it is killed. Reading is faster from few large ones:
fewer maps, and neighbours in a batch share pages. A join writes a new shard beside the old ones, switches the database
to it in one transaction, and then removes the old files; readers that have those mapped keep them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from msim_tf.data.shards import ARRAYS, Shard, ShardClip, ShardWriter, array_path, copied_clips, description_path
from msim_tf.data.store_database import MISSING, OK, PENDING, StoreDatabase
from msim_tf.files import remove_leftovers

CLIPS_PER_JOINED_SHARD = 1024
_FILE = re.compile(r"([0-9]{5,})(-[0-9a-f]{8}\.(?:mel|cens|onset)\.f16|\.json)")


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A shard that may be joined to others, with its clips that are still wanted, in the order of their rows."""

    shard: Shard
    clips: tuple[ShardClip, ...]
    sparse: bool


def join_shards(store: Path, database: StoreDatabase) -> None:
    """Joins what is small, and copies what is mostly of clips that nobody wants any more.

    May be killed at any moment: the database names the old shards until the new one is whole.

    Raises:
        InputError: if a shard that would be copied is damaged.
        OSError: if there is no room for the copy; the store stays as it was.
    """
    candidates = _candidates(database)

    # Shards whose clips have all gone leave the database; ``sweep`` removes their files.
    with database.transaction():
        database.execute(
            "DELETE FROM shards WHERE number NOT IN (SELECT shard FROM clips WHERE status IN (?, ?))", (OK, MISSING)
        )

    for group in _groups(candidates):
        _join(store, database, group)


def _candidates(database: StoreDatabase) -> list[_Candidate]:
    """Shards with fewer clips than a full one, and those of whose frames less than half is still wanted."""
    # Of each shard the clips that are wanted and their frames; it is sparse if they fill less than half of its rows.
    shards = database.shards()
    counts = database.execute(
        "SELECT shard, count(*), sum(frames) FROM clips WHERE status IN (?, ?) GROUP BY shard", (OK, MISSING)
    )
    sparse = {row[0]: 2 * row[2] < database.shard_rows(shards[row[0]])["mel"] for row in counts}
    chosen = {row[0] for row in counts if row[1] < CLIPS_PER_JOINED_SHARD or sparse[row[0]]}

    # The wanted clips of the chosen shards, in the order of their rows: a copy reads each file from front to back.
    clips: dict[int, list[ShardClip]] = defaultdict(list)
    for number, *clip in database.execute(
        "SELECT shard, identifier, size, modified, reason, note, frames, row, onset_row FROM clips"
        " WHERE status IN (?, ?) ORDER BY shard, row",
        (OK, MISSING),
    ):
        if number in chosen:
            clips[number].append(ShardClip(*clip))
    return [_Candidate(shards[number], tuple(clips[number]), sparse[number]) for number in sorted(chosen)]


def _groups(candidates: Sequence[_Candidate]) -> list[list[_Candidate]]:
    """What is worth joining, each group to one shard, in the order of their numbers.

    The smallest shards are joined, as many as make a shard at least twice as large as each of them. So a clip is copied
    at most ten times on its way into a full shard, however small the steps in which a store grows.
    """
    # Smallest first: a shard is joined if all smaller ones together hold as many clips as it does.
    by_size = sorted(candidates, key=lambda candidate: len(candidate.clips))
    total, count = 0, 0
    for position, candidate in enumerate(by_size):
        if len(candidate.clips) <= total:
            count = position + 1
        total += len(candidate.clips)
    chosen = {candidate.shard.number for candidate in by_size[:count]}
    chosen |= {candidate.shard.number for candidate in candidates if candidate.sparse}

    # Each goes to the first group that has room for it; full groups are closed.
    groups: list[list[_Candidate]] = []
    open_groups: list[tuple[list[_Candidate], int]] = []
    smallest = min((len(candidate.clips) for candidate in candidates), default=0)
    for candidate in candidates:
        if candidate.shard.number not in chosen:
            continue
        size = len(candidate.clips)
        position = next((i for i, (_, room) in enumerate(open_groups) if size <= room), -1)
        if position < 0:
            groups.append([])
            open_groups.append((groups[-1], CLIPS_PER_JOINED_SHARD))
            position = len(open_groups) - 1
        group, room = open_groups[position]
        group.append(candidate)
        open_groups[position] = group, room - size
        if room - size < smallest:
            del open_groups[position]

    # A shard alone is copied only to be rid of rows that nobody wants.
    return [group for group in groups if len(group) > 1 or group[0].sparse]


def _join(store: Path, database: StoreDatabase, group: Sequence[_Candidate]) -> None:
    """Copies the clips of a group into one new shard, which takes the place of theirs."""
    # The new shard is written whole, under a number that no shard has, before the database names it.
    number = 1 + max(
        database.value("SELECT max(number) FROM shards"), database.value("SELECT coalesce(max(shard), 0) FROM clips")
    )
    sources = [(candidate.shard, candidate.clips) for candidate in group]
    with closing(ShardWriter(store, number, database.params)) as writer:
        for clip, rows in copied_clips(store, sources, database.params):
            writer.copy(clip, rows)
        joined = writer.publish()

    # One transaction moves all clips: whoever opens the store sees the old shards or the new one.
    with database.transaction():
        database.add_shard(joined)
        database.executemany(
            "UPDATE clips SET shard = ?, row = ?, onset_row = ? WHERE identifier = ?",
            ((number, clip.row, clip.onset_row, clip.identifier) for clip in joined.clips),
        )
        database.executemany("DELETE FROM shards WHERE number = ?", ((candidate.shard.number,) for candidate in group))

    # Now nobody who opens the store looks for the old ones. Removed at once: a catalogue may not fit the disk twice.
    for candidate in group:
        description_path(store, candidate.shard.number).unlink(missing_ok=True)
        for name in ARRAYS:
            array_path(store, candidate.shard.stem, name).unlink(missing_ok=True)


def sweep(store: Path, database: StoreDatabase) -> None:
    """Removes files of shards that neither the database nor an unfinished job needs."""
    directory = store / "shards"
    if not directory.exists():
        return
    stems = {shard.number: shard.stem for shard in database.shards().values()}
    pending = {row[0] for row in database.execute("SELECT DISTINCT shard FROM clips WHERE status = ?", (PENDING,))}
    for path in directory.iterdir():
        # Files of another kind are not ours, and those of a job that is to run may be in the making.
        match = _FILE.fullmatch(path.name)
        if match is None or int(match[1]) in pending:
            continue
        # Arrays of the same number but another stem are from an attempt that another one overtook.
        number = int(match[1])
        needed = number in stems and (path.suffix == ".json" or path.name.startswith(f"{stems[number]}."))
        if not needed:
            path.unlink(missing_ok=True)
    remove_leftovers(directory)
