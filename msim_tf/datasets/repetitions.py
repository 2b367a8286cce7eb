"""Repetitions and damaged excerpts of GTZAN and Ballroom: Sturm's published lists, in ``repetitions.json``.

Of each group of repetitions the first excerpt stays.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from msim_tf.datasets.collection import Collection
from msim_tf.files import load_json, validate_format

_PATH = Path(__file__).with_name("repetitions.json")


def unrepeated_track(collection: Collection, dataset: str, item: str) -> str:
    """The track of an item that is neither a repetition nor damaged; "" after noting why there is none.

    Args:
        collection: what the reader fills in.
        dataset: "gtzan" or "ballroom".
        item: the stem of its file.
    """
    reason = _reasons(dataset).get(item)
    if reason:
        collection.leave_out(reason, item, fault=False)
        return ""
    return collection.track_of(item, stems=(item,))


@functools.cache
def _reasons(dataset: str) -> dict[str, str]:
    """Item -> why the published list leaves it out."""
    table: Any = load_json(_PATH, "the lists of repetitions of this package")
    validate_format(table, _PATH, name="msim-repetitions", version=1)
    # Of each group the first item stays; damage is named before repetition where both are listed.
    repeated = {
        item: "repetition of another excerpt (Sturm)" for group in table[dataset]["groups"] for item in group[1:]
    }
    return {**repeated, **{item: f"{fault} (Sturm)" for item, fault in table[dataset]["damaged"].items()}}
