"""What has to be done to bring a library up to date with its folder: a comparison of two lists; nothing is changed.

A file is unchanged when size and time are; when only the time differs its contents are compared by hash. A file that is
gone and turned up elsewhere with the same contents was moved, and keeps its vector. What is gone otherwise is
*missing*: it may be on a disk that is not mounted, and is not embedded again when it returns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from msim_tf.audio.scan import Scan, content_hash
from msim_tf.library.file_table import FileRecord


@dataclass(frozen=True)
class Plan:
    """Every file of the scan and every track of the library is in exactly one of these.

    Attributes:
        new: to be embedded.
        changed: to be embedded again.
        moved: new identifier -> old one.
        touched: with another time but the same contents.
        returned: were missing and are as they were.
        missing: tracks whose file is gone since the last run.
        still_missing: tracks whose file was gone before.
        failed: files that could not be used, and have not changed since.
        unchanged: how many are as they were, without the touched.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    touched: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    still_missing: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unchanged: int = 0


@dataclass(frozen=True)
class Remembered:
    """What a library remembers.

    Attributes:
        tracks: track -> its file when it was embedded; missing tracks included.
        missing: those of the tracks whose file was gone.
        failed: file that could not be used -> what it was then.
    """

    tracks: Mapping[str, FileRecord] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    failed: Mapping[str, FileRecord] = field(default_factory=dict)


def make_plan(
    root: Path,
    scan: Scan,
    remembered: Remembered,
    *,
    retry: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Compares a folder with a library.

    Args:
        root: the folder.
        scan: what is in it.
        remembered: what the library knows of them.
        retry: whether to plan files again that could not be used.
        progress: called with (files compared by contents, of how many).
    """
    tracks = remembered.tracks
    present = {name for name in scan.files if name in tracks}
    same = {name for name in present if scan.files[name] == tracks[name].state}
    # In a folder that cannot be listed nothing is known to be gone.
    unseen = [name for name in tracks if name not in scan.files and name.startswith(scan.unreadable)]
    gone = [name for name in tracks if name not in scan.files and not name.startswith(scan.unreadable)]
    # Only files that can be a moved track, by their size, or a touched one, are read.
    sizes = {tracks[name].state.size for name in gone}
    candidates = [name for name in scan.files if name not in tracks and scan.files[name].size in sizes]
    dated = [name for name in sorted(present - same) if scan.files[name].size == tracks[name].state.size]
    hashes: dict[str, str] = {}
    for done, name in enumerate([*candidates, *dated], 1):
        try:
            hashes[name] = content_hash(root / name)
        except OSError:
            hashes[name] = ""  # equal to none; reading it for its sound will say why
        progress(done, len(candidates) + len(dated))
    # Files with the contents of tracks that are gone: the tracks have moved there, each to one file.
    waiting: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(gone, reverse=True):
        waiting[tracks[name].sha256].append(name)
    moved = {name: waiting[hashes[name]].pop() for name in sorted(candidates) if hashes[name] and waiting[hashes[name]]}
    touched = [name for name in dated if hashes[name] == tracks[name].sha256]
    left = set(moved.values())
    gone = [name for name in gone if name not in left]
    failed = [
        name
        for name, state in scan.files.items()
        if not retry and name not in moved and name in remembered.failed and remembered.failed[name].state == state
    ]
    # Whatever else the scan has is new.
    settled = {*present, *moved, *failed}
    return Plan(
        new=[name for name in scan.files if name not in settled],
        changed=sorted(present - same - set(touched)),
        moved=moved,
        touched=touched,
        returned=sorted((same | set(touched)) & remembered.missing),
        missing=[name for name in gone if name not in remembered.missing],
        still_missing=[name for name in gone if name in remembered.missing],
        failed=failed,
        unchanged=len(same - remembered.missing) + len(unseen),
    )


def vanished(missing: Iterable[str], scan: Scan) -> dict[str, int]:
    """Missing tracks, a whole vanished folder as one: name of a track or folder ("Artist/") -> how many tracks."""
    remaining = {str(folder) for name in scan.files for folder in PurePosixPath(name).parents}
    counts: Counter[str] = Counter()
    for name in missing:
        # The outermost folder in which nothing is left.
        empty = [str(folder) for folder in PurePosixPath(name).parents if str(folder) not in remaining]
        counts[f"{empty[-1]}/" if empty else name] += 1
    return dict(counts)
