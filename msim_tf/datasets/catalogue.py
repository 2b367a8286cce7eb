"""What is supported, and what people need to know before they fetch it: the table in ``catalogue.json``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msim_tf.errors import InputError
from msim_tf.files import load_json, validate_format

_PATH = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class DatasetFacts:
    """One data set as its publishers describe it.

    Attributes:
        name: its one name on the command line.
        title: what people call it.
        gives: dimension, "artists", "split" or "triplets" -> from what.
        size: tracks and disk.
        licence: of audio and annotations.
        may_train: who may train on it.
        may_ship: what may be passed on.
        where: addresses.
        files: what is read, in the layout of the publisher.
        marks: names of files, or of folders with a slash at the end, that give it away; "a and b" needs both.
        release: which release was read while the reader was written, and how: seen by listing, or only read about.
    """

    name: str
    title: str
    gives: Mapping[str, str]
    size: str
    licence: str
    may_train: str
    may_ship: str
    where: str
    files: str
    marks: tuple[str, ...]
    release: str


@functools.cache
def datasets() -> dict[str, DatasetFacts]:
    """Every supported data set by name, in the order of the table."""
    table = load_json(_PATH, "the catalogue of data sets of this package")
    validate_format(table, _PATH, name="msim-datasets", version=1)
    return {
        name: DatasetFacts(name=name, **{**facts, "marks": tuple(facts["marks"])})
        for name, facts in table["datasets"].items()
    }


def dataset_facts(name: str) -> DatasetFacts:
    """The data set called ``name``.

    Raises:
        InputError: if there is none.
    """
    if name not in datasets():
        raise InputError(f"no data set {name!r}; there are {', '.join(datasets())} (see msim dataset list)")
    return datasets()[name]
