"""Free game music from Debian packages: ``python -m tools.corpus.games --corpus ROOT [--cache DIR] [--packages a,b]``.

Which packages, which of their files, and on which side of the train/test line they stand is data: ``games.json``
beside this file. A package is downloaded by ``apt-get download`` (no root needed) and checked against the archive's
checksum; its music is read out of the package and of the archives in it, played if it is a tracker module or a MIDI
file (``tools.corpus.playable``), and cut into excerpts of 30 s. The licence of each file is the one that the
package's copyright file states for it (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/), or that
the catalogue quotes where that file is free text.

Test packages come first, so of music that two packages share, byte for byte, the copy in the test part stays and the
other is dropped, and so is what an artist of the test part has in a package of the training part.
What is recorded already is not decoded again; what the catalogue no longer names is removed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from msim_tf.audio.decode import duration, load_clip
from msim_tf.errors import InputError
from tools.corpus.debian import (
    PackageMissing,
    fetch,
    glob_matches,
    licence_of,
    read_copyright,
    source_path,
    unpack,
    validate_tools,
)
from tools.corpus.games_catalogue import Package, chosen_packages, load_catalogue
from tools.corpus.ledger import SR, CorpusClip, Ledger, sha256
from tools.corpus.playable import APT_LINE, missing_programs, module_title, playable, sound_font

EXCERPT_SECONDS = 30
MIN_SECONDS = 20  # of a track, and of its last excerpt
# Per track, so that a few suites of half an hour do not outweigh whole packages. Those of 3 * 7 +
# 1 contain those of 7 + 1, evenly spread.
MAX_EXCERPTS = {"train": 22, "test": 8}
SILENT_RMS = 1e-3  # -60 dB of full scale
_NON_FREE = re.compile(r"\b(NC|ND)\b|non-?(free|commercial)|unknown", re.IGNORECASE)
_NO_ARTIST = {"", "unknown", "<unknown>", "unknown artist", "various", "various artists", "artist"}
THREADS = 2


@dataclass(frozen=True)
class Track:
    """One music file of a package, unpacked."""

    path: Path
    origin: str
    name: str
    sha256: str
    licence: str


@dataclass
class Tally:
    """What became of the music of one package, or of all."""

    tracks: int = 0
    clips: int = 0
    seconds: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        self.tracks += other.tracks
        self.clips += other.clips
        self.seconds += other.seconds
        self.skipped += other.skipped

    def __str__(self) -> str:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in self.skipped.most_common())
        return f"{self.tracks} tracks, {self.clips} clips, {self.seconds / 3600:.2f} h" + (
            f"; skipped: {reasons}" if reasons else ""
        )


def safe_name(origin: str) -> str:
    """The stem of a file's name in characters that every file system takes."""
    return re.sub(r"[^a-z0-9]+", "_", Path(origin).stem.lower()).strip("_")[:60] or "track"


def tracks_of(package: Package, files: Mapping[str, Path], copyright_text: str, tally: Tally) -> list[Track]:
    """The music that may be taken: of free licence, and not left out by the catalogue;
    the rest is tallied with its reason.
    """
    paragraphs = [] if package.licence else read_copyright(copyright_text)
    shared = Counter(safe_name(origin) for origin in files)
    tracks = []
    for origin in sorted(files):
        reasons = [why for pattern, why in package.leave_out.items() if glob_matches(pattern, origin)]
        licence = package.licence or licence_of(source_path(origin, package.source), paragraphs)
        if not reasons and (not licence or _NON_FREE.search(licence)):
            reasons = [f"licence {licence or 'not stated'}"]
        if reasons:
            tally.skipped[reasons[0]] += 1
            continue
        digest, name = sha256(files[origin]), safe_name(origin)
        name = name if shared[name] == 1 else f"{name}-{digest[:8]}"
        tracks.append(Track(files[origin], origin, name, digest, licence))
    return tracks


def artist_and_title(path: Path) -> tuple[str, str]:
    """From the file's tags; empty where it has none."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            tags = file.copy_metadata()
    except (soundfile.LibsndfileError, UnicodeDecodeError):
        return "", module_title(path)
    artist, title = (" ".join(tags.get(name, "").split()) for name in ("artist", "title"))
    return ("" if artist.casefold() in _NO_ARTIST else artist), title


def excerpt_starts(seconds: float, most: int) -> list[int]:
    """Where the excerpts of a track of ``seconds`` begin: side by side, or, if more
    than ``most``, evenly spread over it.
    """
    whole, rest = divmod(seconds, EXCERPT_SECONDS)
    count = int(whole) + (rest >= MIN_SECONDS)
    if count <= most:
        return [number * EXCERPT_SECONDS for number in range(count)]
    return [int(number) * EXCERPT_SECONDS for number in np.linspace(0, count - 1, most).round()]


def is_silent(y: np.ndarray) -> bool:
    """Whether more than half of the seconds of [samples] ``y`` are below ``SILENT_RMS``."""
    seconds = y[: len(y) // SR * SR].reshape(-1, SR)
    return bool((np.sqrt((seconds**2).mean(axis=1)) < SILENT_RMS).mean() > 0.5)


class Builder:
    """Builds packages into a ledger; threads decode, one at a time records.

    Args:
        ledger: an open one.
        cache: folder of the downloaded packages.
        packages: names of those that will be built; what the ledger holds of others counts as heard before.
    """

    def __init__(self, ledger: Ledger, cache: Path, packages: set[str]) -> None:
        self.ledger = ledger
        self.cache = cache
        self.lock = threading.Lock()
        self.planned: set[str] = set()
        self.test_groups = {clip.group for clip in ledger.clips.values() if clip.part == "test"}
        self.seen: dict[str, tuple[str, str]] = {}
        for source in {clip.source for clip in ledger.clips.values()} - packages:
            self.remember(source)

    def remember(self, source: str) -> None:
        """Takes what the ledger holds of a package for heard, so that its music is
        not taken from another one as well.
        """
        for clip in self.ledger.clips.values():
            if clip.source == source:
                self.seen.setdefault(clip.sha256, (clip.source, clip.origin))

    def build(self, package: Package) -> Tally:
        """Downloads, unpacks and cuts one package.

        Raises:
            PackageMissing: if it cannot be had.
        """
        deb, version = fetch(package.package, self.cache)
        into = self.ledger.root / f".tmp-games-{package.package}"
        try:
            files, text = unpack(deb, package.music, into)
            if not files:
                raise PackageMissing(f"version {version} holds none of {', '.join(package.music)}")
            return self._build(package, version, files, text)
        finally:
            shutil.rmtree(into, ignore_errors=True)

    def _build(self, package: Package, version: str, files: Mapping[str, Path], text: str) -> Tally:
        tally = Tally()
        tracks = []
        for track in tracks_of(package, files, text, tally):
            here = (package.package, track.origin)
            first = self.seen.setdefault(track.sha256, here)
            if first == here:
                tracks.append(track)
            else:
                tally.skipped["duplicate" if first[0] == package.package else f"duplicate of {first[0]}"] += 1
        with ThreadPoolExecutor(THREADS) as pool:
            for one in pool.map(lambda track: self._track(package, version, track), tracks):
                tally.add(one)
        return tally

    def _track(self, package: Package, version: str, track: Track) -> Tally:
        tally = Tally()
        try:
            sound = playable(track.path, track.sha256, self.cache)
            seconds = duration(sound)
        except InputError as error:
            return Tally(skipped=Counter([_reason(error, track)]))
        if seconds < MIN_SECONDS:
            return Tally(skipped=Counter([f"under {MIN_SECONDS} s"]))
        artist, title = artist_and_title(track.path)
        artist = artist or package.artist
        group = artist.casefold() or package.package
        if package.part == "train" and group in self.test_groups:
            return Tally(skipped=Counter(["artist of the test part"]))
        font = sound_font(track.path, track.sha256)
        for start in excerpt_starts(seconds, MAX_EXCERPTS[package.part]):
            clip = CorpusClip(
                clip=f"{package.part}/games/{package.package}/{track.name}-{start:04d}.flac",
                source=package.package,
                version=version,
                origin=track.origin,
                start_seconds=float(start),
                artist=artist,
                title=title,
                licence=track.licence + (f"; sound font {font.package}: {font.licence}" if font else ""),
                sha256=track.sha256,
                group=group,
            )
            try:
                self._excerpt(clip, sound, min(seconds - start, EXCERPT_SECONDS), tally)
            except InputError as error:  # one damaged place does not cost the rest of a track
                tally.skipped[_reason(error, track)] += 1
        tally.tracks = int(tally.clips > 0)
        return tally

    def _excerpt(self, clip: CorpusClip, path: Path, seconds: float, tally: Tally) -> None:
        with self.lock:
            done = self.ledger.clips.get(clip.clip) == clip and clip.clip in self.ledger
        if not done:
            y = load_clip(path, sr=SR, offset=clip.start_seconds, seconds=EXCERPT_SECONDS)
            if len(y) < (MIN_SECONDS - 1) * SR or is_silent(y):
                tally.skipped["excerpt silent or short"] += 1
                return
        with self.lock:
            if not done:
                self.ledger.add(clip, y)
            self.planned.add(clip.clip)
        tally.clips += 1
        tally.seconds += seconds


def _reason(error: InputError, track: Track) -> str:
    return str(error).replace(str(track.path), track.origin)


def remove_unplanned(ledger: Ledger, planned: set[str], built: set[str], catalogued: set[str]) -> int:
    """Removes clips that the catalogue no longer gives: of the packages ``built`` those not
    ``planned``, and of packages not in it all.

    Returns:
        How many.
    """
    return ledger.remove(
        [
            name
            for name, clip in ledger.clips.items()
            if clip.source not in catalogued or (clip.source in built and name not in planned)
        ]
    )


def build_corpus(root: Path, cache: Path, packages: Sequence[Package], catalogued: set[str]) -> list[str]:
    """Builds the packages and writes the tables; prints a line per package and a summary.

    Returns:
        A line for each package that could not be had.
    """
    total, missing, built = Tally(), [], set()
    ledger = Ledger(root, "games")
    with ledger:
        builder = Builder(ledger, cache, {package.package for package in packages})
        for package in packages:
            try:
                tally = builder.build(package)
            except PackageMissing as error:
                builder.remember(package.package)
                missing.append(f"{package.package}: {error}")
                print(missing[-1], file=sys.stderr, flush=True)
                continue
            built.add(package.package)
            builder.test_groups |= {clip.group for clip in ledger.clips.values() if clip.part == "test"}
            total.add(tally)
            print(f"{package.package} ({package.part}): {tally}", flush=True)
    removed = remove_unplanned(ledger, builder.planned, built, catalogued)
    with ledger:  # opened again: the removed ones go out of the file, too
        ledger.write_tables()
    print(
        f"{len(built)} packages: {total}"
        + (f"; {removed} clips removed that the catalogue no longer gives" if removed else "")
    )
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 if the disk is full, 2 for wrong input, 3 if a package could
    not be had and the others are built.
    """
    parser = argparse.ArgumentParser(description="Free game music from Debian packages.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--cache", type=Path, help="folder of the downloaded packages (default: CORPUS/cache)")
    parser.add_argument("--packages", help="only these, comma-separated")
    options = parser.parse_args(arguments)
    try:
        validate_tools()
        catalogue = load_catalogue()
        packages = chosen_packages(catalogue, options.packages)
        lacking = missing_programs(pattern for package in packages for pattern in package.music)
        if lacking:
            raise InputError(f"{', '.join(lacking)} not found: {APT_LINE}")
        missing = build_corpus(
            options.corpus,
            options.cache or options.corpus / "cache",
            packages,
            {package.package for package in catalogue},
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; what is recorded stays, run it again to go on", file=sys.stderr)
        return 1
    for line in missing:
        print(f"missing: {line}", file=sys.stderr)
    return 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
