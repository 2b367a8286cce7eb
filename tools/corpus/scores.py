"""Builds the scored part of the corpus: music21's bundled scores, played by fluidsynth; era from the composer.

Run ``python -m tools.corpus.scores --corpus ROOT``; it needs ``pip install music21`` beside fluidsynth and the sound
fonts of ``tools.corpus.renders``. Killed at any moment, it goes on from there when run again.

Which scores are taken, ``tools.corpus.scores_catalogue`` says. Of each, some windows are played, each with its own
tempo, transposition, instruments and sound font, so that no dimension predicts another; no collection has more than
``PER_COLLECTION`` clips. Training and testing are divided by composer.

Tempo is exact in the felt beat (``felt_beat``). The key is that of the window's own notes by Krumhansl and Schmuckler's
method, given only where it is clear, and never for modal music.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import random
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.errors import InputError
from msim_tf.theory import key_name, parse_key, transposed_key
from tools.corpus.command import reported
from tools.corpus.ledger import SR, CorpusClip, Ledger, sha256
from tools.corpus.renders import APT_LINE, missing_programs
from tools.corpus.renders_midi import Note, Song, prominent_families, write_midi
from tools.corpus.renders_mix import SOUND_FONTS, mixed, rendered
from tools.corpus.renders_plan import FAMILIES, FONTS
from tools.corpus.scores_catalogue import Collection, Source, sources

PER_COLLECTION, PER_SCORE = 15, 4
SLOWEST, FASTEST = 50.0, 150.0  # felt bpm
_TICKS = 192
_MIN_SECONDS, _MAX_SECONDS = 18.0, 29.0
_CLEAR, _MARGIN = 0.85, 0.08  # correlation of the best key, and its lead over the next
# Words of part names, in several languages, and who plays them when a score keeps its own instruments.
_PLAYERS = (
    (r"violi|viola|vln|cell|bass[oe]? cont|violone|string", "strings"),
    (r"piano|klavier|clav|harpsi|pianoforte", "piano"),
    (r"organ", "organ"),
    (r"clarin|klarin|oboe|fagott|bassoon|sax", "reed"),
    (r"flut|flöt|flaut|traverso|recorder", "flute"),
    (r"horn|corn|trum|tromb|tuba", "brass"),
    (r"guitar|lute|chitar", "guitar"),
    (r"sopran|alto|tenor|basso?\b|bass$|cant|voice|gesang|triplum|motet|superius", "voice"),
)


def felt_beat(numerator: int, denominator: int) -> Fraction | None:
    """The felt beat of a metre in quarter notes; ``None`` where it is not plain.

    The quarter in 2/4, 3/4 and 4/4, the half in 2/2 and 3/2, the dotted quarter in 6/8, 9/8 and 12/8. Tempi that differ
    by octaves count as equal, so feeling 2/2 in quarters makes no difference.
    """
    if denominator == 8 and numerator in (6, 9, 12):
        return Fraction(3, 2)
    if denominator in (2, 4) and numerator in (2, 3, 4):
        return Fraction(4, denominator)
    return None


def player(part_name: str) -> str | None:
    """The instrument family of a part by its name; ``None`` for a name that says nothing."""
    for pattern, family in _PLAYERS:
        if re.search(pattern, part_name, re.I):
            return family
    return None


@dataclass(frozen=True)
class Tune:
    """What is played of one score: per part its name and notes (start, end in quarters,
    pitch), and where its metres begin.
    """

    title: str
    parts: tuple[tuple[str, tuple[tuple[float, float, int], ...]], ...]
    beats: tuple[tuple[float, Fraction | None], ...]

    @property
    def quarters(self) -> float:
        """How long it lasts."""
        return max((end for _, notes in self.parts for _, end, _ in notes), default=0.0)

    def beat(self, start: float, end: float) -> Fraction | None:
        """The felt beat between two places; ``None`` if it changes or is not plain."""
        inside = {beat for place, beat in self.beats if start < place < end}
        before = [(place, beat) for place, beat in self.beats if place <= start]
        inside |= {beat for place, beat in before if place == before[-1][0]}
        return inside.pop() if len(inside) == 1 else None


@functools.lru_cache(maxsize=PER_COLLECTION)
def tunes(path: Path) -> list[Tune]:
    """The scores of a file, as music21 reads them."""
    import music21

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bars a little too full
        parsed = music21.converter.parse(path, forceSource=True)
    scores = list(parsed.scores) if isinstance(parsed, music21.stream.Opus) else [parsed]
    return [_tune(score, path.stem) for score in scores]


def _tune(score: Any, name: str) -> Tune:
    title = score.metadata and (score.metadata.title or score.metadata.movementName) or name
    parts, beats = [], set()
    for part in score.parts:
        flat = part.stripTies().flatten()
        # A grace note lasts no time; chord symbols are written, not played.
        played = [note for note in flat.notes if note.duration.quarterLength and "ChordSymbol" not in note.classes]
        notes = [
            (float(note.offset), float(note.offset + note.duration.quarterLength), pitch.midi)
            for note in played
            for pitch in note.pitches
        ]
        names = [part.partName or "", *(one.instrumentName or "" for one in flat.getElementsByClass("Instrument"))]
        parts.append((" ".join(names).strip(), tuple(notes)))
        signatures = flat.getElementsByClass("TimeSignature")
        beats |= {(float(one.offset), felt_beat(one.numerator, one.denominator)) for one in signatures}
    return Tune(str(title), tuple(parts), tuple(sorted(beats, key=lambda beat: beat[0])))


def clear_key(notes: Iterable[tuple[float, float, int]]) -> str | None:
    """The key of notes (start, end in quarters, pitch), or ``None`` where the second best is near or none fits well."""
    import music21

    stream: Any = music21.stream.Stream()
    for start, end, pitch in notes:
        note = music21.note.Note(pitch)
        note.duration.quarterLength = end - start
        stream.insert(start, note)
    if len(stream) < 12:
        return None
    key = stream.analyze("key.krumhanslkessler")
    if key.correlationCoefficient - key.alternateInterpretations[0].correlationCoefficient < _MARGIN:
        return None
    if key.correlationCoefficient < _CLEAR:
        return None
    return key_name(key.tonic.pitchClass + (12 if key.mode == "minor" else 0))


@dataclass(frozen=True)
class Window:
    """A part of a tune, arranged: what is to be rendered and what is known of it."""

    song: Song
    start: float
    tempo: float | None
    key: str | None
    font: str
    seconds: float


def window(tune: Tune, collection: Collection, rng: random.Random, *, own_instruments: bool) -> Window | None:
    """Draws a window and an arrangement of it; ``None`` where the tune is too short."""
    # Written from the tempo alone, before it is known which metre the window has.
    tempo = round(SLOWEST * (FASTEST / SLOWEST) ** rng.random(), 2)
    beat = tune.beat(0.0, tune.quarters) or (tune.beats[0][1] if tune.beats else None) or Fraction(1)
    quarter_bpm = tempo * float(beat)
    length = min(tune.quarters, _MAX_SECONDS * quarter_bpm / 60)
    if length * 60 / quarter_bpm < _MIN_SECONDS:
        return None
    start = round(rng.uniform(0.0, tune.quarters - length))
    inside = [
        (
            name,
            [
                (max(a, start) - start, min(b, start + length) - start, pitch)
                for a, b, pitch in notes
                if b > start and a < start + length
            ],
        )
        for name, notes in tune.parts
    ]
    sounding = [note for _, notes in inside for note in notes]
    if not sounding or max(end for _, end, _ in sounding) < 0.8 * length:
        return None
    shift = rng.randint(-6, 5)
    key = None if collection.modal else clear_key(sounding)
    if key is not None:
        key = key_name(int(transposed_key(parse_key(key), shift)))
    notes = _arranged(inside, shift, rng, own_instruments=own_instruments)
    steady = tune.beat(start, start + length) == beat
    seconds = length * 60 / quarter_bpm
    return Window(
        Song(notes, quarter_bpm), start, tempo if steady else None, key, rng.choice(FONTS[collection.part]), seconds
    )


def _arranged(
    parts: Sequence[tuple[str, Sequence[tuple[float, float, int]]]],
    shift: int,
    rng: random.Random,
    *,
    own_instruments: bool,
) -> tuple[Note, ...]:
    families = rng.sample(tuple(FAMILIES), 2)
    notes = []
    for number, (name, part_notes) in enumerate(parts):
        family = (player(name) if own_instruments else None) or families[number % rng.choice((1, 2))]
        program, role = rng.choice(FAMILIES[family]), f"part {number}"
        for start, end, pitch in part_notes:
            velocity = round(min(max(rng.gauss(82, 7), 40), 120))
            late = rng.gauss(0, 1.5)
            begin = max(0, round(start * _TICKS + late))
            stop = max(begin + 4, round((start + (end - start) * 0.95) * _TICKS))
            notes.append(Note(begin, stop, pitch + shift, velocity, role, program))
    return tuple(sorted(notes, key=lambda note: (note.start, note.role, note.pitch)))


def render(source: Source, tune: Tune, drawn: Window, clip: str, rng: random.Random) -> tuple[CorpusClip, np.ndarray]:
    """Makes one clip: its record, and [samples] float, mono at ``SR``."""
    import music21

    collection = source.collection
    with tempfile.TemporaryDirectory(prefix="msim-score-") as folder:
        midi = Path(folder) / "clip.mid"
        write_midi(drawn.song, midi, levels={})
        y = rendered(midi, SOUND_FONTS[drawn.font])[: int((drawn.seconds + 1) * SR)]
    if not len(y) or np.abs(y).max() < 1e-4:
        raise InputError(f"{source.path}: nothing was heard")
    labels = {
        "genre": (collection.genre,),
        "era": (collection.era,) if collection.era else (),
        "instrument": prominent_families(drawn.song, 0.0, drawn.seconds),
        "tempo": (f"{drawn.tempo:g}",) if drawn.tempo else (),
        "key": (drawn.key,) if drawn.key else (),
    }
    labels = {name: values for name, values in labels.items() if values}
    origins = {
        "genre": "collection",
        "era": "composer",
        "instrument": "exact",
        "tempo": "exact",
        "key": "Krumhansl-Schmuckler",
    }
    record = CorpusClip(
        clip=clip,
        source="music21",
        version=music21.VERSION_STR,
        origin=f"corpus/{collection.folder}/{source.path.name}, from quarter {drawn.start:g}; {drawn.font}",
        start_seconds=0.0,
        artist=collection.composer,
        title=tune.title,
        licence=f"score: {source.licence}; sound font: {SOUND_FONTS[drawn.font].licence}",
        sha256=sha256(source.path),
        group=collection.folder,
        labels=labels,
        labels_from={name: origins[name] for name in labels},
    )
    return record, mixed(y, rng)


def build(root: Path, corpus: Path, *, seed: int = 0, unstated: bool = False) -> list[str]:
    """Makes what is missing; writes the tables; returns what failed, a line each."""
    failures: list[str] = []
    by_collection: dict[Collection, list[Source]] = {}
    for source in sources(corpus, unstated=unstated):
        by_collection.setdefault(source.collection, []).append(source)
    with Ledger(root, "scores") as ledger:
        try:
            for collection, files in by_collection.items():
                failures += _build_collection(ledger, files, seed=seed)
                made = sum(clip.group == collection.folder for clip in ledger.clips.values())
                print(f"{collection.composer}: {made} clips", flush=True)
        finally:
            ledger.write_tables()
    return failures


def _build_collection(ledger: Ledger, files: Sequence[Source], *, seed: int) -> list[str]:
    """Goes round the files until there are clips enough: first one of each, then a second."""
    failures: list[str] = []
    count = 0
    files = random.Random(f"{seed}/{files[0].collection.folder}").sample(files, len(files))[:PER_COLLECTION]
    for turn in range(PER_SCORE if len(files) > 1 else 2 * PER_SCORE):
        for source in files:
            name = source.path.stem.replace(" ", "_")
            clip = f"{source.collection.part}/scores/{source.collection.folder}/{name}-{turn}.flac"
            if count >= PER_COLLECTION:
                return failures
            try:
                count += clip in ledger or _make(ledger, source, clip, turn, random.Random(f"{seed}/{clip}"))
            except (
                Exception
            ) as error:  # music21 fails on some files in many ways; one must not end the work on all others
                failures.append(f"{clip}: {type(error).__name__}: {error}")
    return failures


def _make(ledger: Ledger, source: Source, clip: str, turn: int, rng: random.Random) -> bool:
    candidates = tunes(source.path)
    tune = rng.choice(candidates)
    drawn = window(tune, source.collection, rng, own_instruments=turn == 0)
    if drawn is None:
        return False
    ledger.add(*render(source, tune, drawn, clip, rng))
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.corpus.scores", description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unstated", action="store_true", help="also scores whose files state no licence")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("music21") is None:
        print("not installed: music21. Run: pip install music21", file=sys.stderr)
        return 1
    if missing := [name for name in missing_programs() if "mma" not in name]:
        print(f"not installed: {', '.join(missing)}. Run: {APT_LINE}", file=sys.stderr)
        return 1
    import music21

    where = music21.common.getCorpusFilePath()
    return reported(lambda: build(options.corpus, where, seed=options.seed, unstated=options.unstated))


if __name__ == "__main__":
    sys.exit(main())
