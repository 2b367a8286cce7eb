"""Openly licensed recordings of people: ``python -m tools.corpus.recordings --corpus ROOT [--mirror FOLDER]``.

Singing of many kinds, choirs, and instruments that game music lacks, at most a minute of each. Which, from which public
repository, under which licence and on what evidence is data: ``recordings.csv`` beside this file. The recordings are
not part of this repository. They are fetched from where they are public, at the commit that the table names, or read
from a folder that holds them under the table's names, already cut and encoded (mono, 22.05 kHz), with ``--mirror``.

    ROOT/PART/recordings/SOURCE/NAME-START.flac     excerpts of up to 30 s
    ROOT/cache/recordings/                          what was fetched

Whole sources are held out for testing, and nobody who performs there is heard in training. Songs and stems of one
album are one group. Of 38 tracks by one producer, and of single voices of a song, one excerpt is taken instead of two.
Speech is not music: it has no excerpts, and is what ``tools.corpus.voices`` makes sing.
"""

from __future__ import annotations

import argparse
import csv
import functools
import re
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msim_tf.audio.decode import load_clip
from msim_tf.errors import InputError
from msim_tf.files import atomic_file
from tools.corpus.command import reported, run
from tools.corpus.games import is_silent
from tools.corpus.ledger import PARTS, SR, CorpusClip, Ledger, sha256

BUILDER = "recordings"
CATALOGUE = Path(__file__).with_name("recordings.csv")
SITE = "https://raw.githubusercontent.com"
EXCERPT_SECONDS, MIN_SECONDS, MOST_SECONDS = 30, 5, 60
_CUTS = ("first", "loudest")
_NOT_OPEN = re.compile(r"\b(NC|ND)\b|non-?commercial|no-?deriv|unknown", re.IGNORECASE)
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Recording:
    """One row of the catalogue.

    Attributes:
        file: its name in a mirror, SOURCE__TITLE.ogg.
        part: "train" or "test".
        excerpts: how many are taken; 0 for speech, and for what an artist of the test part has elsewhere.
        cut: which minute of the original counts, its "first" or its "loudest".
        group: artist or album, never divided between training and validation.
        title: of the work.
        artist: who performs.
        repository: public one that holds it, OWNER/NAME on GitHub.
        commit: of the repository, 40 hexadecimal digits.
        path: in the repository.
        licence: as stated there.
        licence_evidence: where it is stated, and in which words.
        kind: what is heard, in a few words.
        sha256: of the file in a mirror.
    """

    file: str
    part: str
    excerpts: int
    cut: str
    group: str
    title: str
    artist: str
    repository: str
    commit: str
    path: str
    licence: str
    licence_evidence: str
    kind: str
    sha256: str

    def __post_init__(self) -> None:
        if self.part not in PARTS or self.cut not in _CUTS or self.excerpts not in range(3):
            raise InputError(f"{self.file}: part {self.part!r}, cut {self.cut!r} or {self.excerpts} excerpts is wrong")
        if "__" not in self.file or "/" in self.file or not self.group:
            raise InputError(f"{self.file!r}: expected a name SOURCE__TITLE.ogg and a group")
        if not self.licence or _NOT_OPEN.search(self.licence):
            raise InputError(f"{self.file}: licence {self.licence or 'not stated'!r} is not an open one")
        if not re.fullmatch(r"[0-9a-f]{40}", self.commit) or not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise InputError(f"{self.file}: commit {self.commit!r} or checksum {self.sha256!r} is none")

    @property
    def source(self) -> str:
        """Short name of where it is from."""
        return self.file.partition("__")[0]

    @property
    def is_speech(self) -> bool:
        """Whether it is spoken."""
        return self.kind.startswith("speech")

    @property
    def is_stem(self) -> bool:
        """Whether it is a single voice of a song, without its accompaniment."""
        return "vocal stem" in self.kind

    def clip(self, name: str, start: int, checksum: str) -> CorpusClip:
        """The record of a clip called ``name`` that begins ``start`` seconds into the recording."""
        return CorpusClip(
            clip=name,
            source=self.repository,
            version=self.commit,
            origin=self.path,
            start_seconds=float(start),
            artist=self.artist,
            title=self.title,
            licence=self.licence,
            sha256=checksum,
            group=self.group,
        )

    def url(self, site: str = SITE) -> str:
        """Where it is public."""
        return f"{site}/{self.repository}/{self.commit}/{urllib.parse.quote(self.path)}"


def load_catalogue(path: str | Path = CATALOGUE) -> list[Recording]:
    """The recordings, those of the test part first.

    Raises:
        InputError: if the file is not a catalogue, a row is wrong, or a group is heard in both parts.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        recordings = [Recording(**{**row, "excerpts": int(row["excerpts"])}) for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a catalogue of recordings ({error})") from error
    twice = [name for name, count in Counter(recording.file for recording in recordings).items() if count > 1]
    if twice:
        raise InputError(f"{path}: {twice[0]} is there twice")
    groups = {part: {one.group for one in recordings if one.part == part and one.excerpts} for part in PARTS}
    both = sorted(groups["train"] & groups["test"])
    if both:
        raise InputError(f"{path}: {both[0]} is heard in training and in testing")
    return sorted(recordings, key=lambda recording: PARTS[::-1].index(recording.part))


@dataclass(frozen=True)
class Library:
    """Where the recordings are read.

    Attributes:
        cache: folder for what is fetched.
        mirror: folder that has them already, or None.
        site: where they are public.
    """

    cache: Path
    mirror: Path | None = None
    site: str = SITE

    def sound(self, recording: Recording) -> tuple[np.ndarray, str]:
        """At most ``MOST_SECONDS`` of a recording.

        Returns:
            [samples] float32, mono at ``SR``, and the checksum of the file that it was read from.

        Raises:
            InputError: if it cannot be had or read, or is not the file that the catalogue names.
        """
        if self.mirror:
            path = self.mirror / recording.file
            if not path.is_file():
                raise InputError(f"{recording.file}: not in {self.mirror}")
            if sha256(path) != recording.sha256:
                raise InputError(f"{path}: its checksum is not the catalogue's; copy it again")
            return load_clip(path, sr=SR, seconds=MOST_SECONDS), recording.sha256
        path = self._fetched(recording)
        if recording.cut == "first":
            return load_clip(path, sr=SR, seconds=MOST_SECONDS), sha256(path)
        return loudest(load_clip(path, sr=SR), MOST_SECONDS), sha256(path)

    def _fetched(self, recording: Recording) -> Path:
        # The commit is in the name, so what another one held is not mistaken for it.
        path = self.cache / f"{recording.commit[:12]}-{Path(recording.file).stem}{Path(recording.path).suffix}"
        if path.is_file():
            return path
        url = recording.url(self.site)
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response, atomic_file(path, "wb") as file:
                while block := response.read(2**20):
                    file.write(block)
        except urllib.error.URLError as error:
            raise InputError(f"{recording.file}: cannot fetch {url} ({error.reason})") from error
        except (TimeoutError, ConnectionError) as error:
            raise InputError(f"{recording.file}: cannot fetch {url} ({error})") from error
        return path


def library(corpus: Path, mirror: Path | None) -> Library:
    """Where a corpus reads recordings.

    Raises:
        InputError: if ``mirror`` is no folder.
    """
    if mirror is None:
        return Library(corpus / "cache" / BUILDER)
    if not mirror.is_dir():
        raise InputError(f"--mirror {mirror}: no such folder")
    return Library(corpus / "cache" / BUILDER, mirror / "audio" if (mirror / "audio").is_dir() else mirror)


def loudest(y: np.ndarray, seconds: int) -> np.ndarray:
    """The ``seconds`` of ``y`` with the most energy, in steps of one second; all of it if it is shorter."""
    if len(y) <= seconds * SR:
        return y
    energy = np.square(y[: len(y) // SR * SR], dtype=np.float64).reshape(-1, SR).sum(axis=1)
    start = int(np.convolve(energy, np.ones(seconds), "valid").argmax())
    return y[start * SR : (start + seconds) * SR]


def excerpts(recording: Recording, y: np.ndarray, checksum: str) -> Iterable[tuple[CorpusClip, np.ndarray]]:
    """The excerpts of a recording that are long and loud enough, with their records."""
    stem = Path(recording.file).stem.partition("__")[2]
    for start in range(0, recording.excerpts * EXCERPT_SECONDS, EXCERPT_SECONDS):
        part = y[start * SR : (start + EXCERPT_SECONDS) * SR]
        if len(part) >= MIN_SECONDS * SR and not is_silent(part):
            name = f"{recording.part}/{BUILDER}/{recording.source}/{stem}-{start:04d}.flac"
            yield recording.clip(name, start, checksum), part


def build(root: Path, recordings: Iterable[Recording], sounds: Library) -> list[str]:
    """Cuts the recordings that are not yet cut, removes clips that the catalogue no longer gives; writes the tables.

    Returns:
        A line for each recording that could not be had.
    """
    ledger = Ledger(root, BUILDER)
    wanted = [recording for recording in recordings if recording.excerpts]
    catalogued = {(recording.repository, recording.path, recording.part) for recording in wanted}
    ledger.remove(
        [name for name, clip in ledger.clips.items() if (clip.source, clip.origin, clip.part) not in catalogued]
    )
    missing, seconds = [], dict.fromkeys(PARTS, 0.0)
    with ledger:
        for recording in wanted:
            try:
                y, checksum = sounds.sound(recording)
            except InputError as error:
                missing.append(str(error))
                continue
            for clip, excerpt in excerpts(recording, y, checksum):
                if clip.clip not in ledger or ledger.clips[clip.clip] != clip:
                    ledger.add(clip, excerpt)
                seconds[clip.part] += len(excerpt) / SR
        ledger.write_tables()
    counts = Counter(clip.part for clip in ledger.clips.values())
    for part in PARTS:
        print(f"{part}: {counts[part]} clips, {seconds[part] / 3600:.2f} h", flush=True)
    return missing


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--mirror", type=Path, help="folder that holds the recordings; nothing is fetched then")
    arguments = parser.parse_args()
    sounds = library(arguments.corpus, arguments.mirror)
    return reported(functools.partial(build, arguments.corpus, load_catalogue(), sounds))


if __name__ == "__main__":
    run(main)
