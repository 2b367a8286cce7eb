"""More music than there is: excerpts of the training part at other speeds, in other rooms, and two at once.

    python -m tools.corpus.mixes --corpus ROOT --count 6000

A teacher can be asked about any sound, so sound that nobody composed teaches as well as music, and there is no end of
it (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022: student and teacher
must be given the very same input, and mixtures of inputs serve best). What a mixture is labelled with is what
``tools.corpus.teacher`` hears in it, not what it was made of.

    ROOT/train/mixes/SOURCE/NUMBER.flac     SOURCE of the louder excerpt

An excerpt is played 2**u times as fast, |u| <= ``OCTAVES``: tempo and pitch move together, as on a turntable, and no
label of either is kept. Two in three mixes hold a second one, softer by up to ``SOFTEST_DB``; half are put into a room
with ``renders_mix.mixed``. A mix belongs to the groups of both, so no split of training and validation hears one side's
music on the other. Mix NUMBER depends on the seed, the number and the clips of the ledgers alone.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr

from msim_tf.audio.decode import load_clip
from msim_tf.errors import InputError
from msim_tf.labels.tables import joined_groups
from tools.corpus.command import reported, run
from tools.corpus.ledger import SR, CorpusClip, Ledger, finished_clips
from tools.corpus.renders_mix import mixed

BUILDER = "mixes"
OCTAVES = 0.25
SOFTEST_DB = 12.0
SECONDS = 30.0
_SECOND = 2 / 3
_ROOM = 0.5


def played(y: np.ndarray, speed: float) -> np.ndarray:
    """``y`` at another speed and, with it, another pitch: [samples / speed] float32, at most ``SECONDS``."""
    return soxr.resample(y, SR * speed, SR)[: round(SECONDS * SR)]


def blended(first: np.ndarray, second: np.ndarray, softer_db: float) -> np.ndarray:
    """Two sounds at once, the second ``softer_db`` below the first by mean power, as long as the shorter.

    Silence of either is left as it is.
    """
    length = min(len(first), len(second))
    first, second = first[:length], second[:length]
    power = [float(np.mean(np.square(y, dtype=np.float64))) for y in (first, second)]
    if min(power) == 0:
        return first + second
    return first + second * np.float32(np.sqrt(power[0] / power[1]) * 10 ** (-softer_db / 20))


@dataclass(frozen=True)
class Mix:
    """What a mix is made of.

    Attributes:
        clips: one or two, the louder first.
        speeds: how fast each is played.
        softer_db: by how much the second is softer.
        room: whether it is put into one.
        rng: which room.
    """

    clips: tuple[CorpusClip, ...]
    speeds: tuple[float, ...]
    softer_db: float
    room: bool
    rng: random.Random

    @classmethod
    def drawn(cls, clips: Sequence[CorpusClip], number: int, *, seed: int) -> Mix:
        """Mix ``number`` of clips in a fixed order; ``seed`` decides every draw, together with ``number``."""
        rng = random.Random(f"{seed} {number}")
        chosen = tuple(rng.choice(clips) for _ in range(1 + (rng.random() < _SECOND)))
        speeds = tuple(2 ** rng.uniform(-OCTAVES, OCTAVES) for _ in chosen)
        return cls(chosen, speeds, rng.uniform(0, SOFTEST_DB), rng.random() < _ROOM, rng)

    def record(self, number: int) -> CorpusClip:
        """What the ledger says of it."""
        what = [f"{clip.clip} x {speed:.3f}" for clip, speed in zip(self.clips, self.speeds)]
        origin = f" - {self.softer_db:.1f} dB + ".join(reversed(what)) + (", in a room" if self.room else "")
        first = self.clips[0]
        return replace(
            first,
            clip=f"train/{BUILDER}/{first.source}/{number:05d}.flac",
            origin=origin,
            artist=_joined(clip.artist for clip in self.clips),
            title=_joined(clip.title for clip in self.clips),
            licence=_joined(clip.licence for clip in self.clips),
            sha256=hashlib.sha256("\n".join((origin, *(clip.sha256 for clip in self.clips))).encode()).hexdigest(),
            group=joined_groups(clip.group for clip in self.clips),
            labels={},
            labels_from={},
        )

    def sound(self, root: Path) -> np.ndarray:
        """[samples] float32 of the clips of the corpus ``root``; the room is drawn, so ask once."""
        sounds = [played(load_clip(root / clip.clip, sr=SR), speed) for clip, speed in zip(self.clips, self.speeds)]
        y = sounds[0] if len(sounds) == 1 else blended(*sounds, self.softer_db)
        return mixed(y, self.rng) if self.room and np.abs(y).max() > 0 else y


def _joined(texts: Iterable[str]) -> str:
    """Each text once, in the order in which they came."""
    return "; ".join(dict.fromkeys(text for text in texts if text))


def build(root: Path, count: int, *, seed: int = 0, builders: Sequence[str] = ("games",), threads: int = 2) -> int:
    """Makes the mixes 0 to ``count - 1`` that are not yet there, and removes what is there and is none of them.

    Args:
        root: the corpus.
        count: of mixes.
        seed: decides every draw.
        builders: whose clips of the training part are mixed.
        threads: that mix.

    Returns:
        How many were made.

    Raises:
        InputError: if there is nothing to mix.
    """
    clips = finished_clips(root, "train", builders)
    if not clips:
        raise InputError(f"{root}: no finished clip for training by {' or '.join(builders)}; build those first")
    mixes = [Mix.drawn(clips, number, seed=seed) for number in range(count)]
    records = [mix.record(number) for number, mix in enumerate(mixes)]
    ledger = Ledger(root, BUILDER)
    wanted = {record.clip: record for record in records}
    removed = ledger.remove([name for name, clip in ledger.clips.items() if wanted.get(name) != clip])
    if removed:
        print(f"{BUILDER}: {removed} removed that were made of other clips or with another seed", flush=True)
    missing = [number for number, record in enumerate(records) if record.clip not in ledger]
    ledger.add_made({number: records[number] for number in missing}, lambda number: mixes[number].sound(root), threads)
    return len(missing)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6000, help="mixes in all (default 6000)")
    parser.add_argument("--builders", nargs="+", default=["games"], help="whose clips are mixed (default games)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.count < 1 or arguments.threads < 1:
        raise InputError("--count and --threads must be at least 1")

    def work() -> list[str]:
        made = build(
            arguments.corpus,
            arguments.count,
            seed=arguments.seed,
            builders=arguments.builders,
            threads=arguments.threads,
        )
        print(f"{arguments.corpus}: {made} mixes made, {arguments.count - made} were there")
        return []

    return reported(work)


if __name__ == "__main__":
    run(main)
