"""What every builder of the corpus shares: where clips lie, and the record of what is done.

::

    ROOT/train/BUILDER/SOURCE/NAME.flac     clips for training and validation; ``msim extract ROOT/train STORE``
                                            takes all builders' at once
    ROOT/test/BUILDER/SOURCE/NAME.flac      clips of sources that nothing is trained or chosen on
    ROOT/BUILDER.jsonl                      the ledger: one line per finished clip, appended after the clip itself
                                            is on disk
    ROOT/BUILDER-manifest.csv               the ledger as a table, one row per clip: source, version, licence,
                                            checksum, where labels came from
    ROOT/BUILDER-labels-PART.csv            its labels, for ``msim label``; tracks are named relative to ROOT/PART

A clip is in the ledger only when it is whole on disk, and a line of the ledger cut off by a kill is dropped, so a
builder that is run again does what is missing and nothing twice.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile

from msim_tf.errors import InputError
from msim_tf.files import atomic_file, exclusive
from msim_tf.labels.tables import LabelTable, divided_groups, write_labels_csv

SR = 22050  # of all clips: that of the features, so extraction need not resample
PARTS = ("train", "test")
_AT_ONCE = 64  # mixes between two reports of progress


@dataclass(frozen=True)
class CorpusClip:
    """One clip of the corpus: where it is from, and what is known of it.

    Attributes:
        clip: path relative to the corpus, "train/games/zaz-data/mus2-0030.flac".
        source: Debian package, sound font or other origin.
        version: of the source.
        origin: path inside the source, or what was rendered.
        start_seconds: where in the original the clip begins.
        artist: as far as known; else empty.
        title: as far as known; else empty.
        licence: as the source states it.
        sha256: checksum of the original's bytes; of a mix, of what it was made of.
        group: what is never divided between training and validation; several groups by ``labels.joined_groups``.
        labels: dimension -> values.
        labels_from: dimension -> where its labels came from, "exact", "madmom", ...
    """

    clip: str
    source: str
    version: str
    origin: str
    start_seconds: float
    artist: str
    title: str
    licence: str
    sha256: str
    group: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels_from: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        part, *rest = Path(self.clip).parts
        if part not in PARTS or len(rest) < 2:
            raise InputError(f"clip {self.clip!r}: expected {' or '.join(PARTS)}, a builder, and a path below it")

    @property
    def part(self) -> str:
        """ "train" or "test"."""
        return Path(self.clip).parts[0]

    @property
    def track(self) -> str:
        """The identifier of the clip in a store of its part."""
        return self.clip.partition("/")[2]


class Ledger:
    """The clips that a builder has finished; open it with ``with``, which one process at a time can.

    Args:
        root: the corpus.
        builder: its name, a file name.
    """

    def __init__(self, root: str | Path, builder: str) -> None:
        self.root = Path(root)
        self.builder = builder
        self.path = self.root / f"{builder}.jsonl"
        self.clips = {clip.clip: clip for clip in _read(self.path)}

    def __enter__(self) -> Ledger:
        with ExitStack() as stack:
            stack.enter_context(exclusive(self.root, f"building {self.builder}", name=f".{self.builder}.lock"))
            # Written anew, so that an unfinished line cannot be continued by the next.
            with atomic_file(self.path, "w") as file:
                file.writelines(_line(clip) for clip in self.clips.values())
            self._file = stack.enter_context(self.path.open("a", encoding="utf-8"))
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __contains__(self, clip: str) -> bool:
        """Whether ``clip`` is finished, and still there."""
        return clip in self.clips and (self.root / clip).is_file()

    def add(self, clip: CorpusClip, y: np.ndarray) -> None:
        """Writes a clip and records it.

        Args:
            clip: what it is.
            y: [samples] float in [-1, 1], mono at ``SR``.
        """
        write_flac(self.root / clip.clip, y)
        self._file.write(_line(clip))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.clips[clip.clip] = clip

    def add_made(self, missing: Mapping[int, CorpusClip], sound: Callable[[int], np.ndarray], threads: int) -> None:
        """Opens the ledger, makes clips in some threads, records them in order, and writes the tables.

        Args:
            missing: number -> what is to be made.
            sound: makes [samples] float of a number.
            threads: that make.
        """
        numbers = list(missing)
        with self, ThreadPoolExecutor(threads) as pool:
            for first in range(0, len(numbers), _AT_ONCE):
                some = numbers[first : first + _AT_ONCE]
                for number, y in zip(some, pool.map(sound, some)):
                    self.add(missing[number], y)
                print(f"{self.builder}: {first + len(some)} of {len(numbers)}", flush=True)
            self.write_tables()

    def remove(self, clips: Iterable[str]) -> int:
        """Forgets clips and removes their files, before the ledger is opened; how many."""
        gone = list(clips)
        for clip in gone:
            del self.clips[clip]
            (self.root / clip).unlink(missing_ok=True)
        return len(gone)

    def write_tables(self) -> None:
        """The manifest and the label tables of all finished clips."""
        clips = [self.clips[name] for name in sorted(self.clips)]
        columns = [name.name for name in dataclasses.fields(CorpusClip) if name.name != "labels"]
        with atomic_file(self.root / f"{self.builder}-manifest.csv", "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            for clip in clips:
                origins = "; ".join(f"{name}: {origin}" for name, origin in clip.labels_from.items())
                shown = dataclasses.replace(clip, group="; ".join(divided_groups(clip.group)))
                writer.writerow([*(getattr(shown, name) for name in columns[:-1]), origins])
        for part in PARTS:
            table = LabelTable()
            for clip in clips:
                if clip.part == part:
                    _add_labels(table, clip)
            write_labels_csv(self.root / f"{self.builder}-labels-{part}.csv", table.labels())


def finished_clips(root: Path, part: str, builders: Iterable[str]) -> list[CorpusClip]:
    """The clips of a part that the builders have finished so far, in order of their names."""
    ledgers = [Ledger(root, builder) for builder in builders]
    clips = [clip for ledger in ledgers for clip in ledger.clips.values() if clip.part == part and clip.clip in ledger]
    return sorted(clips, key=lambda clip: clip.clip)


def _add_labels(table: LabelTable, clip: CorpusClip) -> None:
    for name in divided_groups(clip.group):
        table.add(clip.track, "artist", name)
    for name, values in clip.labels.items():
        for value in values:
            table.add(clip.track, name, value)


def _line(clip: CorpusClip) -> str:
    return json.dumps(dataclasses.asdict(clip), ensure_ascii=False) + "\n"


def _read(path: Path) -> list[CorpusClip]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    clips = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline was cut off
        try:
            value = json.loads(line)
            labels = {name: tuple(values) for name, values in value.pop("labels").items()}
            clips.append(CorpusClip(**value, labels=labels))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}, line {number}: not a record of a clip ({error})") from error
    return clips


def write_flac(path: Path, y: np.ndarray) -> None:
    """Writes mono sound at ``SR`` as 16-bit FLAC, atomically; what exceeds full scale is scaled down, not clipped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    peak = float(np.abs(y).max(initial=0.0))
    # Encoded in memory: libsndfile, writing by callbacks, would swallow the error of a full disk.
    encoded = io.BytesIO()
    soundfile.write(encoded, y / max(peak, 1.0), SR, format="FLAC", subtype="PCM_16")
    with atomic_file(path, "wb") as file:
        file.write(encoded.getvalue())


def sha256(path: str | Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
