"""What has to be done to bring a library up to date with its folder: a comparison of two lists, and no change to anything.

A file is unchanged when size and time are; when only the time differs its contents are compared by hash. A file that is gone and turned up
elsewhere with the same contents was moved, and keeps its vector.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msim_tf.audio.scan import FileState, Scan, content_hash


@dataclass(frozen=True)
class Plan:
    """Every file of the scan and every track of the index is in exactly one of these.

    Attributes:
        new: to be embedded.
        changed: to be embedded again.
        moved: new identifier -> old one.
        touched: with another time but the same contents.
        removed: tracks whose file is gone.
        unchanged: how many are as they were, without the touched.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    touched: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0


def make_plan(
    root: Path,
    scan: Scan,
    known: Mapping[str, Mapping[str, Any]],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Compares a folder with an index.

    Args:
        root: the folder.
        scan: what is in it.
        known: track -> its ``file`` metadata (size, modified, sha256).
        progress: called with (files compared by contents, of how many).
    """
    there = {name for name in scan.files if name in known}
    same = {name for name in there if scan.files[name] == FileState(known[name]["size"], known[name]["modified"])}
    gone = [name for name in known if name not in scan.files and not name.startswith(scan.unreadable)]
    sizes = {known[name]["size"] for name in gone}
    candidates = [name for name in scan.files if name not in known and scan.files[name].size in sizes]
    dated = [name for name in sorted(there - same) if scan.files[name].size == known[name]["size"]]
    hashes: dict[str, str] = {}
    for done, name in enumerate([*candidates, *dated], 1):
        hashes[name] = _hash(root / name)
        progress(done, len(candidates) + len(dated))
    moved = _moved({name: hashes[name] for name in candidates}, gone, known)
    touched = [name for name in dated if hashes[name] == known[name]["sha256"]]
    left = set(moved.values())
    return Plan(
        new=[name for name in scan.files if name not in known and name not in moved],
        changed=sorted(there - same - set(touched)),
        moved=moved,
        touched=touched,
        removed=[name for name in gone if name not in left],
        unchanged=len(same) + sum(name.startswith(scan.unreadable) for name in known if name not in scan.files),
    )


def _hash(path: Path) -> str:
    try:
        return content_hash(path)
    except OSError:
        return ""  # equal to none; reading it for its sound will say why


def _moved(found: Mapping[str, str], gone: list[str], known: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Pairs files with tracks of the same contents, each track once."""
    waiting: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(gone, reverse=True):
        waiting[known[name]["sha256"]].append(name)
    return {name: waiting[digest].pop() for name, digest in sorted(found.items()) if waiting[digest]}
