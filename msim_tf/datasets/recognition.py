"""Which data set lies below a folder? Recognised by names that only it has, so that a wrong root is one clear line.

Only the first levels are looked at: a data set of half a million files is recognised in a moment.
"""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from msim_tf.datasets.catalogue import dataset_facts, datasets
from msim_tf.errors import InputError

_LEVELS = 3
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".zip.001")
_UNFINISHED = (".part", ".crdownload", ".download", ".partial", ".aria2")
_FMA_SIZES = ("small", "medium", "large", "full")


def validate_root(root: Path, name: str) -> None:
    """Checks that the data set called ``name`` lies below ``root``.

    Raises:
        InputError: saying what lies there instead, or what is missing and where people get it.
    """
    facts = dataset_facts(name)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected the root of {facts.title}")
    # Names of files, and of folders with a slash, on the first levels; the root's own name counts.
    names = {f"{root.resolve().name}/"}
    for parent, folders, files in os.walk(root):
        names.update(files)
        names.update(f"{folder}/" for folder in folders)
        if len(Path(parent).relative_to(root).parts) >= _LEVELS - 1:
            folders.clear()  # os.walk then goes no deeper here

    # The data sets that these names give away; of FMA they also tell which sizes lie here.
    present = [other for other in datasets().values() if any(_marked(mark, names) for mark in other.marks)]
    if facts in present:
        return
    if present:
        sizes = " and ".join(size for size in _FMA_SIZES if f"fma_{size}/" in names)
        titles = [f"FMA {sizes}" if other.name == "fma" and sizes else other.title for other in present]
        raise InputError(
            f"{root}: this looks like {' and '.join(titles)}, not {facts.title}; try msim dataset labels "
            f"{present[0].name} {root}"
        )
    # Nothing that we know: say which step of fetching it is missing.
    packed = [file for file in sorted(names) if file.lower().endswith(_ARCHIVES)]
    unfinished = [file for file in sorted(names) if file.lower().endswith(_UNFINISHED)]
    if unfinished:
        raise InputError(f"{root}: {unfinished[0]} is a download that has not ended; finish it first")
    if packed:
        raise InputError(f"{root}: nothing of {facts.title} but {packed[0]}; unpack it first")
    raise InputError(f"{root}: nothing of {facts.title}; expected {facts.files} (from {facts.where})")


def _marked(mark: str, names: set[str]) -> bool:
    """Whether names or patterns that give a data set away are all there."""
    return all(part in names or any(fnmatch.filter(names, part)) for part in mark.split(" and "))
