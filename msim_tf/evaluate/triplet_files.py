"""Reads judgements of people from any published form: Dim-Sim (raw and clean, CSV and JSON), MagnaTagATune, lists.

Other forms (single answers of odd one out, ratings, comparisons of pairs, ABX) are read by ``judgement_files``. Columns
are found by name and others are ignored. Every reader returns the triplets it could make and what it dropped; only a
file that is not what it says raises. Sources: Lee et al., "Disentangled multidimensional metric learning for music
similarity", ICASSP 2020 (Dim-Sim); Law et al., "Evaluation of algorithms using games: the case of music tagging",
ISMIR 2009 (MagnaTagATune).
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.embeddings import shortlist
from msim_tf.errors import InputError
from msim_tf.evaluate import judgement_files
from msim_tf.evaluate.judgement_files import NO_VOTES, RATER_COLUMNS, TIE, Tally, add_odd_one_out
from msim_tf.evaluate.triplets import Dropped, Triplets
from msim_tf.files import load_json

_MEMBERS = ("anchor", "song1", "song2")
DIM_SIM_COLUMNS = ("triplet_id", "anchor_id", "song1_id", "song2_id", "song1_vote", "song2_vote")
MAGNATAGATUNE_COLUMNS = tuple(f"clip{clip}_{what}" for what in ("id", "numvotes") for clip in (1, 2, 3))
PLAIN_COLUMNS = ("anchor", "positive", "negative")

Row = Mapping[str, Any]

_number = partial(judgement_files.number_in, unit="triplet")
_identifier = partial(judgement_files.text, unit="triplet")


def read_triplets(path: str | Path) -> tuple[Triplets, Dropped]:
    """Reads any kind of file, recognised by its columns.

    Args:
        path: ``.json``, or delimited text (comma or tab).

    Returns:
        The triplets, and what was dropped (ties, no votes).

    Raises:
        InputError: if the columns are none we know, or a value is not what its column says.
    """
    path = Path(path)
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _text_rows(path)
    if not rows:
        raise InputError(f"{path}: no triplets in it")
    # The first form whose columns are all there reads the file.
    for columns, reader in (
        (DIM_SIM_COLUMNS, _dim_sim),
        (MAGNATAGATUNE_COLUMNS, _magnatagatune),
        (PLAIN_COLUMNS, _plain),
        *judgement_files.READERS,
    ):
        if all(column in rows[0] for column in columns):
            triplets, dropped = reader(path, rows)
            twice = [triplet_id for triplet_id, count in Counter(triplets.triplet_ids).items() if count > 1]
            if twice:
                raise InputError(f"{path}: triplet ids more than once: {shortlist(twice)}")
            return triplets, dropped
    raise InputError(
        f"{path}: columns {shortlist([str(column) for column in rows[0]])}; expected those of Dim-Sim "
        f"({', '.join(DIM_SIM_COLUMNS)}), "
        f"of MagnaTagATune ({', '.join(MAGNATAGATUNE_COLUMNS)}), or one of "
        + "; ".join(",".join(columns) for columns in (PLAIN_COLUMNS, *(own for own, _ in judgement_files.READERS)))
    )


def _text_rows(path: Path) -> list[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} not found; expected a file of triplets") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); expected a file of triplets") from error
    # A tab in the first line says what separates cells: names of tracks hold commas, but no tabs.
    delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ","
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    try:
        return list(rows)
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: not a table ({error})") from error


def _json_rows(path: Path) -> list[Row]:
    """Records; or pandas' column-wise form ``{column: {row: value}}``; or ``{triplet_id: record}``."""
    # Both forms of object become a list of records, in the order of the file.
    value = load_json(path, "a file of triplets")
    if isinstance(value, dict) and "triplet_id" in value and isinstance(value["triplet_id"], dict):
        order = list(value["triplet_id"])
        value = [{column: cells.get(row) for column, cells in value.items()} for row in order]
    elif isinstance(value, dict) and all(isinstance(row, dict) for row in value.values()):
        value = [{"triplet_id": triplet_id, **row} for triplet_id, row in value.items()]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{path}: expected a JSON list of triplets, or an object of them")
    return value


def _votes(path: Path, row: Row, columns: tuple[str, ...], number: int) -> list[int]:
    votes = [_number(path, row, column, number) for column in columns]
    for column, vote in zip(columns, votes):
        if vote < 0 or vote != int(vote):
            raise InputError(f"{path}, triplet {number}: {column} is {row[column]!r}, neither a count nor 0/1")
    return [int(vote) for vote in votes]


def _made(path: Path, kept: list[dict[str, Any]], *, starts: bool, seconds: float | None) -> Triplets:
    return Triplets(
        name=path.name,
        triplet_ids=tuple(row["id"] for row in kept),
        anchor=tuple(row["anchor"] for row in kept),
        positive=tuple(row["positive"] for row in kept),
        negative=tuple(row["negative"] for row in kept),
        agreement=np.array([row["agreement"] for row in kept], np.float64),
        starts=np.array([row["starts"] for row in kept], np.float64).reshape(-1, 3) if starts else None,
        clip_seconds=seconds,
        votes=np.array([row["votes"] for row in kept], np.float64) if kept and "votes" in kept[0] else None,
    )


def _dim_sim(path: Path, rows: list[Row]) -> tuple[Triplets, Dropped]:
    """Dim-Sim, raw with counts of votes or clean with only the outcome of each, with or without starts of clips."""
    # [n, 2] votes. Where all are (1, 0) or (0, 1), they are outcomes of a vote whose counts nobody has.
    votes = [_votes(path, row, ("song1_vote", "song2_vote"), number) for number, row in enumerate(rows, 1)]
    outcomes_only = all(sorted(pair) == [0, 1] for pair in votes)
    has_starts = all(f"{member}_start_seconds" in rows[0] for member in _MEMBERS)
    kept: list[dict[str, Any]] = []
    reasons: dict[str, tuple[str, ...]] = {}
    for number, (row, pair) in enumerate(zip(rows, votes), 1):
        triplet_id = _identifier(path, row, "triplet_id", number)
        anchor, *songs = (_identifier(path, row, f"{member}_id", number) for member in _MEMBERS)
        starts = None
        if has_starts:
            starts = [_number(path, row, f"{member}_start_seconds", number) for member in _MEMBERS]
            if min(starts) < 0:
                raise InputError(f"{path}, triplet {number}: a start of {min(starts)} s, expected 0 or later")
        if pair[0] == pair[1]:
            reason = TIE if pair[0] else NO_VOTES
            reasons[reason] = (*reasons.get(reason, ()), triplet_id)
            continue
        # The song of more votes is the positive; starts are put into the order anchor, positive, negative.
        near = int(pair[1] > pair[0])
        kept.append(
            {
                "id": triplet_id,
                "anchor": anchor,
                "positive": songs[near],
                "negative": songs[1 - near],
                "agreement": math.nan if outcomes_only else max(pair) / sum(pair),
                "starts": starts and [starts[0], starts[1 + near], starts[2 - near]],
                **({} if outcomes_only else {"votes": (max(pair), min(pair))}),
            }
        )
    seconds = _number(path, rows[0], "clip_lengths_seconds", 1) if "clip_lengths_seconds" in rows[0] else 3.0
    return _made(path, kept, starts=has_starts, seconds=seconds if has_starts else None), Dropped(reasons)


def _magnatagatune(path: Path, rows: list[Row]) -> tuple[Triplets, Dropped]:
    """Odd one out: the most-voted clip differs from the other two, which are the anchors of one triplet each."""
    tally = Tally(path.name)
    reasons: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows, 1):
        votes = _votes(path, row, MAGNATAGATUNE_COLUMNS[3:], number)
        clips = [_identifier(path, row, column, number) for column in MAGNATAGATUNE_COLUMNS[:3]]
        if votes.count(max(votes)) > 1:
            reason = TIE if max(votes) else NO_VOTES
            reasons[reason] = (*reasons.get(reason, ()), str(number))
            continue
        add_odd_one_out(tally, str(number), clips, votes)
    # Clips are numbers here; the paths of their sound, where the file has them, find them on disk.
    paths = {}
    for row in rows:
        for clip in (1, 2, 3):
            sound = row.get(f"clip{clip}_mp3_path")
            if sound:
                paths[str(row[f"clip{clip}_id"]).strip()] = str(sound).strip()
    triplets, dropped = tally.triplets()
    return replace(triplets, paths=paths), Dropped(reasons) + dropped


def _plain(path: Path, rows: list[Row]) -> tuple[Triplets, Dropped]:
    """A list of outcomes, or with a column of raters their votes, which are added up."""
    if any(column in rows[0] for column in RATER_COLUMNS):
        tally = Tally(path.name)
        for number, row in enumerate(rows, 1):
            anchor, positive, negative = (_identifier(path, row, column, number) for column in PLAIN_COLUMNS)
            tally.add(anchor, (anchor, positive), (anchor, negative))
        return tally.triplets()
    kept = []
    for number, row in enumerate(rows, 1):
        members = {column: _identifier(path, row, column, number) for column in PLAIN_COLUMNS}
        kept.append({"id": str(row.get("triplet_id") or number), "agreement": math.nan, **members})
    return _made(path, kept, starts=False, seconds=None), Dropped()
