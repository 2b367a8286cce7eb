"""Controlled real audio: the same music at another tempo, and in another key.

    python -m tools.corpus.stretched --corpus ROOT

Takes two excerpts of a track of the "games" ledger and plays both at two tempi (2**u, |u| <= 0.4, at least 8 % apart
modulo octave), and in two keys (whole semitones, -5 to +6). No absolute tempo or key is known, but the relative ones
are exact. Four triplets per track: anchor and positive are different excerpts at the same tempo, the negative is the
positive's or the anchor's own excerpt at the other.

    ROOT/PART/stretched/SOURCE/NAME-tempoNNNN.flac     NNNN thousandths of the original tempo
    ROOT/PART/stretched/SOURCE/NAME-key+N.flac         N semitones
    ROOT/stretched-triplets-PART.csv                   what ``msim evaluate triplets`` reads, and the factors

Triplets are made only where both excerpts agree before they are changed. Tempo: each has a steady beat (the
autocorrelation of its onset envelope peaks at ``STEADY`` or more), and their autocorrelations over the
logarithm of the lag, folded to one octave, match well and best unshifted. Key: so do their mean chroma, by a
clear margin. What is left out, and why, is counted.

Every clip goes through the stretcher, also where it changes little, so that traces of it do not give the answer away;
that anchor and positive went through it with equal factors remains. The stretcher is Rubber Band's finer engine
(``rubberband``, GPL; a tool at building time, no part of what is built). Clips keep the licence of their original.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations, islice
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile

from msim_tf.audio.decode import load_clip
from msim_tf.errors import InputError
from msim_tf.files import atomic_file
from tools.corpus.command import run
from tools.corpus.ledger import PARTS, SR, CorpusClip, Ledger

KINDS = ("tempo", "key")
SPREAD = 0.4  # of log2 tempo to either side
APART = float(np.log2(1.08))  # least distance of two tempi, octaves; twice what the tempo relation's 5 bpm are at 120
SEMITONES = range(-5, 7)
STEADY = 0.2
ALIKE = 0.7  # least correlation of two excerpts' profiles
MARGIN = 0.1  # by which chroma must match better unshifted than shifted
_BINS = 60  # per octave of the folded autocorrelation, 1.2 % each
_NEAR = 2  # bins that still count as the same tempo: 2.3 %
_HOP = 256
_PAIRS = 6  # of excerpts that are tried per track

Profile = tuple[np.ndarray, float]


def stretched(y: np.ndarray, *, tempo: float = 1.0, semitones: int = 0) -> np.ndarray:
    """Plays a clip faster at the same pitch, or higher at the same tempo.

    Args:
        y: [samples] float32, mono at ``SR``.
        tempo: multiple of the original tempo.
        semitones: by how many it sounds higher.

    Returns:
        [samples / tempo] float32.

    Raises:
        InputError: if Rubber Band is not installed, or fails.
    """
    with tempfile.TemporaryDirectory(prefix="stretched-") as folder:
        before, after = (str(Path(folder) / name) for name in ("before.wav", "after.wav"))
        soundfile.write(before, y, SR, subtype="FLOAT")
        command = ["rubberband", "--fine", "--quiet", "--ignore-clipping", f"--tempo={tempo}", f"--pitch={semitones}"]
        _call([*command, before, after])
        return soundfile.read(after, dtype="float32")[0]


def rubberband_version() -> str:
    """The installed version, "3.1.2"."""
    return _call(["rubberband", "--version"])


def _call(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError("rubberband is not installed; apt-get install rubberband-cli (3.0 or later)") from None
    if done.returncode:
        raise InputError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")
    # Debian's prints the version on stderr.
    return (done.stdout.strip() or done.stderr.strip()).split("\n")[0]


def tempo_profile(y: np.ndarray) -> Profile:
    """Where a clip's onsets repeat, whatever the octave.

    Returns:
        [60] the autocorrelation of its onset envelope over log2 of the lag, lags of 0.125 to 2 s summed by octave; and
        the highest autocorrelation at lags of 0.25 to 1.5 s, 1 for onsets that repeat exactly.
    """
    import librosa

    onset = librosa.onset.onset_strength(y=y, sr=SR, hop_length=_HOP)
    onset = onset - onset.mean()
    spectrum = np.abs(np.fft.rfft(onset, 2 * len(onset))) ** 2
    # Divided by the number of products at each lag, so that a long lag counts as much as a short one.
    correlation = np.fft.irfft(spectrum)[: len(onset)] / np.arange(len(onset), 0, -1)
    correlation /= max(float(correlation[0]), 1e-12)
    lags = 0.125 * 2 ** (np.arange(4 * _BINS) / _BINS) * SR / _HOP
    folded = np.interp(lags, np.arange(len(correlation)), correlation).reshape(4, _BINS).sum(axis=0)
    beats = slice(round(0.25 * SR / _HOP), round(1.5 * SR / _HOP))
    return folded, float(correlation[beats].max(initial=0.0))


def key_profile(y: np.ndarray) -> Profile:
    """[12] mean chroma of a clip, and 1 where it sounds at all, else 0."""
    import librosa

    chroma = librosa.feature.chroma_stft(y=y, sr=SR, n_fft=4096, hop_length=2048).mean(axis=1)
    return chroma, float(np.ptp(chroma) > 0)


def circular_match(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of ``a`` with ``b`` turned back by 0, 1, ... steps: [size] in [-1, 1],
    highest at k for b = np.roll(a, k).
    """
    a, b = (x - x.mean() for x in (a, b))
    scale = max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
    return np.array([a @ np.roll(b, -shift) for shift in range(len(a))]) / scale


def objection(kind: str, first: Profile, second: Profile) -> str | None:
    """Why two excerpts of a track cannot be compared in a dimension; None if they can."""
    least = STEADY if kind == "tempo" else 1.0
    if min(first[1], second[1]) < least:
        return "no steady beat" if kind == "tempo" else "silence"
    match = circular_match(first[0], second[0])
    best = int(match.argmax())
    unshifted = {"tempo": min(best, len(match) - best) <= _NEAR, "key": match[0] >= match[1:].max() + MARGIN}
    return None if unshifted[kind] and match[best] >= ALIKE else "excerpts differ"


@dataclass(frozen=True)
class Change:
    """What is done to a track: two excerpts, each with two amounts (multiples of the tempo, or semitones)."""

    kind: str
    excerpts: tuple[CorpusClip, CorpusClip]
    amounts: tuple[float, float]

    def clip(self, excerpt: int, amount: int, *, version: str) -> CorpusClip:
        """The record of an excerpt changed by an amount, both 0 or 1."""
        original, value = self.excerpts[excerpt], self.amounts[amount]
        below = PurePosixPath(*PurePosixPath(original.track).parts[1:])
        suffix = f"tempo{round(value * 1000):04d}" if self.kind == "tempo" else f"key{value:+.0f}"
        what = f"tempo x {value:.3f}" if self.kind == "tempo" else f"pitch {value:+.0f} semitones"
        return replace(
            original,
            clip=f"{original.part}/stretched/{below.with_name(f'{below.stem}-{suffix}.flac')}",
            origin=f"{original.origin}; {what}, rubberband {version} --fine",
            labels={},
            labels_from={},
        )

    def triplets(self) -> Iterator[dict[str, str | float]]:
        """Four: each tempo (key) once as that of anchor and positive, the negative once of the
        positive's and once of the anchor's excerpt.
        """
        for same, other in ((0, 1), (1, 0)):
            for anchor in (0, 1):
                members = {"anchor": (anchor, same), "positive": (1 - anchor, same), "negative": (1, other)}
                yield {
                    "dimension": self.kind,
                    **{name: self.clip(*member, version="").track for name, member in members.items()},
                    "factor": self.amounts[same],
                    "negative_factor": self.amounts[other],
                    "negative_excerpt": "anchor's" if anchor == 1 else "positive's",
                    "track": f"{self.excerpts[0].source}/{self.excerpts[0].origin}",
                }


def amounts(kind: str, rng: np.random.Generator) -> tuple[float, float]:
    """Two tempi or two keys, as far apart as they must be."""
    if kind == "key":
        first, second = rng.choice(SEMITONES, 2, replace=False)
        return float(first), float(second)
    while True:
        first, second = rng.uniform(-SPREAD, SPREAD, 2)
        if abs((first - second + 0.5) % 1 - 0.5) >= APART:
            return round(float(2**first), 3), round(float(2**second), 3)


def tracks(clips: Sequence[CorpusClip], *, seed: int) -> list[list[CorpusClip]]:
    """Each track's excerpts; tracks in an order that takes one of every source, then the next of every source.

    The order depends on the seed and the tracks alone, not on the order in which they were finished.
    """
    by_track: dict[tuple[str, str], list[CorpusClip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.clip):
        by_track[clip.source, clip.sha256].append(clip)
    counts: Counter[str] = Counter()
    ordered = []
    for source, checksum in sorted(by_track, key=lambda track: _draw(seed, *track)):
        ordered.append((counts[source], _draw(seed, source), by_track[source, checksum]))
        counts[source] += 1
    return [excerpts for *_, excerpts in sorted(ordered, key=lambda entry: entry[:2])]


def _draw(seed: int, *words: str) -> int:
    return zlib.crc32("\n".join((str(seed), *words)).encode())


def plan(
    root: Path, kind: str, candidates: Sequence[list[CorpusClip]], *, count: int, seed: int
) -> tuple[list[Change], Counter[str]]:
    """What to do to the first ``count`` tracks that allow it.

    Returns:
        The changes; and how many of the tracks looked at were taken, or left out for which reason.
    """
    changes: list[Change] = []
    outcome: Counter[str] = Counter()
    for excerpts in candidates:
        if len(changes) == count:
            break
        rng = np.random.default_rng(_draw(seed, kind, excerpts[0].source, excerpts[0].sha256))
        pair, reason = _comparable(root, kind, excerpts, rng)
        outcome[reason] += 1
        if pair is not None:
            changes.append(Change(kind, pair, amounts(kind, rng)))
    return changes, outcome


def _comparable(
    root: Path, kind: str, excerpts: list[CorpusClip], rng: np.random.Generator
) -> tuple[tuple[CorpusClip, CorpusClip] | None, str]:
    profile: Callable[[np.ndarray], Profile] = tempo_profile if kind == "tempo" else key_profile
    profiles: dict[int, Profile] = {}
    reason = "one excerpt only"
    pairs = list(combinations(range(len(excerpts)), 2))
    for pair in islice((pairs[i] for i in rng.permutation(len(pairs))), _PAIRS):
        try:
            for i in pair:
                if i not in profiles:
                    profiles[i] = profile(load_clip(root / excerpts[i].clip, sr=SR))
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
            return None, "unreadable"
        against = objection(kind, *(profiles[i] for i in pair))
        if against is None:
            return (excerpts[pair[0]], excerpts[pair[1]]), "taken"
        reason = against
    return None, reason


def build(root: Path, changes: Sequence[Change], ledger: Ledger, *, threads: int = 2) -> None:
    """Makes the clips that are not yet there."""
    version = rubberband_version()
    jobs = {}
    for change in changes:
        for excerpt in (0, 1):
            for amount in (0, 1):
                clip = change.clip(excerpt, amount, version=version)
                if clip.clip not in ledger or ledger.clips[clip.clip] != clip:
                    jobs[clip.clip] = (clip, change, excerpt, amount)

    def made(job: tuple[CorpusClip, Change, int, int]) -> tuple[CorpusClip, np.ndarray]:
        clip, change, excerpt, amount = job
        y = load_clip(root / change.excerpts[excerpt].clip, sr=SR)
        value = change.amounts[amount]
        return clip, stretched(y, tempo=value) if change.kind == "tempo" else stretched(y, semitones=int(value))

    with ThreadPoolExecutor(threads) as pool:
        for done, (clip, y) in enumerate(pool.map(made, jobs.values()), start=1):
            ledger.add(clip, y)
            if done % 50 == 0:
                print(f"{done} of {len(jobs)} clips", flush=True)


def write_triplets(path: Path, changes: Sequence[Change]) -> int:
    """The table of all triplets, one row each; their number."""
    rows = [row for change in changes for row in change.triplets()]
    if not rows:
        raise InputError(f"{path}: no track has two excerpts that can be compared; nothing was written")
    with atomic_file(path, "w") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def build_part(root: Path, part: str, *, count: int, seed: int = 0, builder: str = "games", threads: int = 2) -> int:
    """Clips and triplets of a part.

    Args:
        root: the corpus.
        part: "train" or "test".
        count: tracks per dimension, at most.
        seed: decides which tracks, excerpts and factors.
        builder: whose clips are changed.
        threads: that call the stretcher.

    Returns:
        The number of triplets.

    Raises:
        InputError: if there is nothing to compare, or Rubber Band is missing or fails.
    """
    originals = Ledger(root, builder)
    candidates = tracks([c for c in originals.clips.values() if c.part == part and c.clip in originals], seed=seed)
    changes: list[Change] = []
    for kind in KINDS:
        planned, outcome = plan(root, kind, candidates, count=count, seed=seed)
        changes += planned
        reasons = ", ".join(f"{reason} {number}" for reason, number in outcome.most_common())
        print(f"{part}, {kind}: {outcome.total()} of {len(candidates)} tracks looked at: {reasons}", flush=True)
    with Ledger(root, "stretched") as ledger:
        build(root, changes, ledger, threads=threads)
        ledger.write_tables()
    return write_triplets(root / f"stretched-triplets-{part}.csv", changes)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["test", "train"])
    parser.add_argument("--tracks", type=int, default=50, help="per part and dimension, at most (default 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.tracks < 1 or arguments.threads < 1:
        raise InputError("--tracks and --threads must be at least 1")
    for part in arguments.parts:
        number = build_part(
            arguments.corpus, part, count=arguments.tracks, seed=arguments.seed, threads=arguments.threads
        )
        print(f"{arguments.corpus / f'stretched-triplets-{part}.csv'}: {number} triplets")
    return 0


if __name__ == "__main__":
    run(main)
