"""Where MTG-Jamendo's tables and split lists lie: the whole table or those of the subsets, one of five splits."""

from __future__ import annotations

from pathlib import Path

from msim_tf.datasets.tables import find_file, find_files, read_lines
from msim_tf.errors import InputError
from msim_tf.labels.splits import PARTS

_WHOLE = ("autotagging.tsv", "raw_30s_cleantags_50artists.tsv")
_SUBSETS = ("autotagging_genre.tsv", "autotagging_instrument.tsv", "autotagging_moodtheme.tsv")
_SPLIT_NAMES = ("autotagging", "autotagging_top50tags", *(name.removesuffix(".tsv") for name in _SUBSETS))


def jamendo_tables(root: Path) -> list[Path]:
    """The table of all tags, or those of the subsets that are there.

    Raises:
        InputError: if there is none.
    """
    for name in _WHOLE:
        table = find_file(root, name)
        if table is None:
            continue
        # A copy made without symbolic links holds the name of the file instead of the file.
        lines = read_lines(table)
        target = table.with_name(lines[0]) if len(lines) == 1 and "\t" not in lines[0] else table
        if target.is_file():
            return [target]
    tables = [path for name in _SUBSETS if (path := find_file(root, name))]
    if not tables:
        raise InputError(f"{root}: no {' or '.join((*_WHOLE, *_SUBSETS))} below it")
    return tables


def is_whole(tables: list[Path]) -> bool:
    """Whether ``tables`` is the table of all tags, which has every track of the splits."""
    return tables[0].name in _WHOLE


def jamendo_split(root: Path, number: int) -> tuple[str, dict[str, Path]]:
    """The lists of split ``number``: its name and part -> list; without them, why there is none and nothing."""
    folders = {path.parent for path in find_files(root, "autotagging*-test.tsv")}
    folder = next((folder for folder in sorted(folders) if folder.name == f"split-{number}"), None)
    if folder is None:
        return f"no data/splits/split-{number}, so no published split", {}
    # Of the lists that are there in all three parts the one of most tracks, which comes first.
    for name in _SPLIT_NAMES:
        lists = {part: folder / f"{name}-{part}.tsv" for part in PARTS}
        if all(path.is_file() for path in lists.values()):
            return f"MTG-Jamendo {folder.name}, {name}", lists
    return f"{folder}: no list is there in all three parts, so no published split", {}
