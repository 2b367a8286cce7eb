"""Singing over the music of the training part: ``python -m tools.corpus.voices --corpus ROOT --count 1500``.

Game music hardly ever sings. So voices are put over it: speech of many people that WORLD makes sing a tune
(``tools.corpus.singing``), alone, as duets and as choirs, and sung stems as they are. The tune fits the accompaniment:
its tempo and key where they are exact (renders), else the scale that holds most of its sound. Phrases have rests; the
voice is compressed, echoes and stands in a room like any other.

    ROOT/train/voices/SOURCE/NUMBER.flac    SOURCE of the accompaniment, or of the voice where it is alone

What a mix is labelled with is what ``tools.corpus.teacher`` hears in it; only tempo and key of a rendered accompaniment
stay, because the voice follows them. ``tools.corpus.voices_kept`` drops those in which the teacher hears no voice.
Voices are those of ``tools.corpus.recordings`` (``--mirror`` as there), of its training part only.

A mix belongs to the group of its accompaniment, and of its stem, so no split hears one side's music on the other. A
speaker makes no group: whose speech it was is not what the song is. Mix NUMBER depends on the seed, the number, the
clips of the ledgers and the voices alone.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msim_tf.audio.decode import load_clip
from msim_tf.errors import InputError
from msim_tf.labels.tables import joined_groups
from msim_tf.theory import parse_key
from tools.corpus.command import reported, run
from tools.corpus.ledger import SR, CorpusClip, Ledger, finished_clips
from tools.corpus.mixes import played
from tools.corpus.recordings import Library, Recording, library, load_catalogue
from tools.corpus.renders_mix import mixed
from tools.corpus.singing import (
    MAJOR,
    MINOR,
    Manner,
    Voice,
    analysed,
    at_level,
    harmony,
    melody,
    sung,
    with_effects,
)

BUILDER = "voices"
SECONDS = 15.0
UNHEARD = "voices-unheard.txt"  # numbers of mixes that were dropped, a line each; they are not made again
_SPEECH_SECONDS = 30.0
_ALONE = 0.15
_STEMS = 0.25
_SINGERS = (1, 1, 1, 1, 1, 2, 2, 4)
_HARMONIES = (2, -2, 5, -5, 7, -7)  # degrees of the scale between the voices of a duet or choir
_LOUDEST_DB, _SOFTEST_DB = 10.0, 1.0  # of the voice, while it sings, against the accompaniment
_RAISED = 14.0  # semitones above where they speak that voices sing, at most
_KEPT_LABELS = ("tempo", "key")
_FILE = re.compile(r"\S+__\S+\.\w+")


class Singers:
    """The voices that there are; each is read, and taken apart, when it is first asked for.

    Args:
        recordings: the catalogue; speech and sung stems of its training part are taken.
        sounds: where they are read.
    """

    def __init__(self, recordings: Sequence[Recording], sounds: Library) -> None:
        usable = sorted((one for one in recordings if one.part == "train"), key=lambda one: one.file)
        self.speech = [one for one in usable if one.is_speech]
        self.stems = [one for one in usable if one.is_stem]
        self._sounds = sounds
        self.voice = functools.cache(self._voice)
        self.stem = functools.cache(self._stem)

    def _voice(self, recording: Recording) -> Voice:
        y, _ = self._sounds.sound(recording)
        return analysed(recording.file, y[: round(_SPEECH_SECONDS * SR)])

    def _stem(self, recording: Recording) -> np.ndarray:
        return self._sounds.sound(recording)[0]


@dataclass(frozen=True)
class Part:
    """One singer of a mix: whose speech, where in it he begins, in which manner, how many degrees above the tune."""

    recording: Recording
    first: float
    manner: Manner
    degrees: int


@dataclass(frozen=True)
class Song:
    """What a mix is made of.

    Attributes:
        accompaniment: clip of the corpus, or None for voices alone.
        parts: who sings; none for a stem.
        stem: sung recording that is taken as it is, or None.
        voice_db: level of the voice against the accompaniment.
        raised: how far above where they speak the voices sing, semitones.
        rng: all other draws, in a fixed order.
    """

    accompaniment: CorpusClip | None
    parts: tuple[Part, ...]
    stem: Recording | None
    voice_db: float
    raised: float
    rng: random.Random

    @classmethod
    def drawn(cls, clips: Sequence[CorpusClip], singers: Singers, number: int, *, seed: int) -> Song:
        """Mix ``number``; ``seed`` decides every draw, together with ``number``."""
        rng = random.Random(f"voices {seed} {number}")
        accompaniment = None if rng.random() < _ALONE else rng.choice(clips)
        voice_db, raised = rng.uniform(_SOFTEST_DB, _LOUDEST_DB), rng.uniform(0, _RAISED)
        if rng.random() < _STEMS and singers.stems:
            return cls(accompaniment, (), rng.choice(singers.stems), voice_db, raised, rng)
        count = rng.choice(_SINGERS)
        parts = [
            Part(rng.choice(singers.speech), rng.random(), Manner.drawn(rng, raised=raised, in_choir=count > 2), 0)
            for _ in range(count)
        ]
        # Half of the singers beside the first have a line of their own.
        parts[1:] = [replace(part, degrees=rng.choice((0, rng.choice(_HARMONIES)))) for part in parts[1:]]
        return cls(accompaniment, tuple(parts), None, voice_db, raised, rng)

    @property
    def voices(self) -> tuple[Recording, ...]:
        """Whose voices are heard."""
        return (self.stem,) if self.stem else tuple(part.recording for part in self.parts)

    def record(self, number: int) -> CorpusClip:
        """What the ledger says of it."""
        names = " + ".join(voice.file for voice in self.voices)
        origin = f"{'stem' if self.stem else 'sung'} {names}"
        groups = [self.stem.group] if self.stem else []
        below = self.accompaniment
        if below is None:
            first = self.voices[0]
            source, version, labels = first.source, first.commit, {}
            groups = groups or [f"voice {first.source}"]
        else:
            source, version = below.source, below.version
            origin += f" {self.voice_db:+.1f} dB over {below.clip}"
            groups.append(below.group)
            labels = {} if self.stem else {name: below.labels[name] for name in _KEPT_LABELS if name in below.labels}
        made_of = (origin, *(voice.sha256 for voice in self.voices), below.sha256 if below else "")
        return CorpusClip(
            clip=f"train/{BUILDER}/{source}/{number:05d}.flac",
            source=source,
            version=version,
            origin=origin,
            start_seconds=0.0,
            artist=_joined([*(voice.artist for voice in self.voices), below.artist if below else ""]),
            title=below.title if below else "",
            licence=_joined([*(voice.licence for voice in self.voices), below.licence if below else ""]),
            sha256=hashlib.sha256("\n".join(made_of).encode()).hexdigest(),
            group=joined_groups(groups),
            labels=labels,
            labels_from=dict.fromkeys(labels, "exact"),
        )

    def sound(self, root: Path, singers: Singers) -> np.ndarray:
        """[samples] float32; everything else about it is drawn now, so ask once."""
        rng = self.rng
        below = np.zeros(0, np.float32)
        if self.accompaniment:
            below = load_clip(root / self.accompaniment.clip, sr=SR, seconds=SECONDS)
        tonic, scale = scale_of(self.accompaniment, below)
        if self.stem:
            voice = _fitted_stem(singers.stem(self.stem), tonic, scale, rng)
        else:
            voice = self._choir(singers, tonic, scale)
        voice = with_effects(voice, rng)
        if len(below):
            length = min(len(below), len(voice))
            voice = at_level(voice[:length], below[:length], self.voice_db)
            voice = voice + below[:length]
        if not np.abs(voice).max() > 0:
            return voice
        return mixed(voice, rng) if rng.random() < 0.5 else voice * np.float32(0.9 / np.abs(voice).max())

    def _choir(self, singers: Singers, tonic: int, scale: Sequence[int]) -> np.ndarray:
        voices = [singers.voice(part.recording) for part in self.parts]
        tempo = self.accompaniment.labels.get("tempo") if self.accompaniment else None
        bpm = float(tempo[0]) if tempo else self.rng.uniform(60, 140)
        middle = voices[0].register + self.raised
        tune = melody(self.rng, seconds=SECONDS, tonic=tonic, scale=scale, bpm=bpm, middle=middle)
        lines = []
        for part, voice in zip(self.parts, voices):
            # Men an octave below women who sing the same.
            lower = 12 * round((voice.register - voices[0].register) / 12)
            degrees = part.degrees + len(scale) * lower // 12
            notes = harmony(tune, tonic=tonic, scale=scale, degrees=degrees)
            line = sung(voice, notes, part.manner, seconds=SECONDS, first=part.first)
            lines.append(line / (np.sqrt(np.mean(np.square(line))) + 1e-9))
        return np.sum(lines, axis=0, dtype=np.float32)


def voices_of(clip: CorpusClip) -> list[str]:
    """Files of the recordings whose voices a mix of this builder holds, as its record names them."""
    return _FILE.findall(clip.origin.partition(" over ")[0])


def _joined(texts: Sequence[str]) -> str:
    """Each text once, in the order in which they came."""
    return "; ".join(dict.fromkeys(text for text in texts if text))


def scale_of(clip: CorpusClip | None, y: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Tonic and scale of an accompaniment: of its label or, without one, those that hold most of its sound.

    Args:
        clip: what is known of it; None for no accompaniment.
        y: [samples] its sound.
    """
    if clip and "key" in clip.labels:
        key = parse_key(clip.labels["key"][0])
        return key % 12, MINOR if key >= 12 else MAJOR
    return fullest_scale(y) if len(y) else (0, MAJOR)


def fullest_scale(y: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """The major scale whose seven pitch classes hold most of the energy of ``y``; its minor has the same."""
    import librosa

    chroma = librosa.feature.chroma_stft(y=y, sr=SR, n_fft=4096, hop_length=2048, tuning=0.0, norm=None).sum(axis=1)
    energies = [chroma[[(tonic + degree) % 12 for degree in MAJOR]].sum() for tonic in range(12)]
    return int(np.argmax(energies)), MAJOR


def _fitted_stem(y: np.ndarray, tonic: int, scale: Sequence[int], rng: random.Random) -> np.ndarray:
    """A random part of a stem that is not mostly rests, its speed changed so that its scale is the accompaniment's."""
    length = round(1.5 * SECONDS * SR)
    energy = np.concatenate([[0.0], np.cumsum(np.square(y, dtype=np.float64))])
    starts = np.arange(0, max(1, len(y) - length), SR)
    energies = energy[np.minimum(starts + length, len(y))] - energy[starts]
    start = int(rng.choice(list(starts[energies >= 0.3 * energies.max()])))
    part = y[start : start + length]
    relative_major = (tonic + (3 if tuple(scale) == MINOR else 0)) % 12
    # At most half an octave, up or down.
    semitones = (relative_major - fullest_scale(part)[0] + 5) % 12 - 5
    return played(part, 2 ** (semitones / 12))[: round(SECONDS * SR)]


def unheard(root: Path) -> set[int]:
    """Numbers of mixes that ``tools.corpus.voices_kept`` has dropped."""
    path = root / UNHEARD
    return {int(line) for line in path.read_text().split()} if path.exists() else set()


def build(
    root: Path, count: int, singers: Singers, *, seed: int = 0, builders: Sequence[str] = ("games",), threads: int = 2
) -> int:
    """Makes the mixes 0 to ``count - 1`` that are not there and were not dropped; removes what is none of them.

    Args:
        root: the corpus.
        count: of mixes.
        singers: the voices.
        seed: decides every draw.
        builders: whose clips of the training part are accompaniments; they should not sing themselves.
        threads: that mix.

    Returns:
        How many were made.

    Raises:
        InputError: if there is no accompaniment or no voice.
    """
    clips = finished_clips(root, "train", builders)
    if not clips or not singers.speech:
        raise InputError(f"{root}: no finished clip for training by {' or '.join(builders)}, or no voice")
    dropped = unheard(root)
    songs = {number: Song.drawn(clips, singers, number, seed=seed) for number in range(count) if number not in dropped}
    records = {number: song.record(number) for number, song in songs.items()}
    wanted = {record.clip: record for record in records.values()}
    ledger = Ledger(root, BUILDER)
    ledger.remove([name for name, clip in ledger.clips.items() if wanted.get(name) != clip])
    missing = [number for number, record in records.items() if record.clip not in ledger]
    ledger.add_made(
        {number: records[number] for number in missing}, lambda number: songs[number].sound(root, singers), threads
    )
    return len(missing)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000, help="mixes in all (default 2000)")
    parser.add_argument("--mirror", type=Path, help="folder that holds the recordings; nothing is fetched then")
    parser.add_argument("--builders", nargs="+", default=["games", "renders"], help="of the accompaniments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.count < 1 or arguments.threads < 1:
        raise InputError("--count and --threads must be at least 1")
    singers = Singers(load_catalogue(), library(arguments.corpus, arguments.mirror))

    def work() -> list[str]:
        options = {name: getattr(arguments, name) for name in ("seed", "builders", "threads")}
        made = build(arguments.corpus, arguments.count, singers, **options)
        print(f"{arguments.corpus}: {made} mixes with voices made")
        return []

    return reported(work)


if __name__ == "__main__":
    run(main)
