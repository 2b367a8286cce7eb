"""From a recipe to a MIDI file: mma composes, then programs, tempo, humanising and a solo line are set here.

The tempo is written by us and is the only one in the file, so nothing that a style does can falsify it.
"""

from __future__ import annotations

import dataclasses
import random
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mido

from msim_tf.errors import InputError
from tools.corpus.renders_plan import FAMILIES, Recipe

LIBRARY = Path("/usr/share/mma/lib")
_DRUMS = 9  # the channel of General MIDI
_TICKS = 192  # per mma beat
_PROMINENT = 0.2  # share of the sounding notes above which an instrument family is a label
_FAMILY_OF = {program: family for family, programs in FAMILIES.items() for program in programs}
_BASSES = range(32, 40)
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}

# Bass and chords for styles that are nothing but drums, by beats per bar; mma's syntax: beat,
# duration, chord tone or volume, volume.
_BASS_PATTERNS = {
    4: (
        "{1 2 1 95; 3 2 5 90}",
        "{1 4 1 95; 2 4 1 85; 3 4 5 90; 4 4 1 85}",
        "{1 4. 1 95; 2.5 8 1 85; 3 4. 5 90; 4.5 8 1 80}",
        "{1 1 1 90}",
    )
    + ("{1 8 1 95; 1.5 8 1 80; 2 8 1 85; 2.5 8 1 80; 3 8 5 90; 3.5 8 1 80; 4 8 1 85; 4.5 8 5 80}",),
    3: ("{1 2. 1 95}", "{1 4 1 95; 3 4 5 85}", "{1 4 1 95; 2 4 3 85; 3 4 5 85}"),
    6: ("{1 2. 1 95; 4 2. 5 90}", "{1 2 1 95; 3 4 1 80; 4 2 5 90; 6 4 1 80}"),
}
_CHORD_PATTERNS = {
    4: (
        "{1 1 80}",
        "{1 2 85; 3 2 80}",
        "{1.5 8 85; 2.5 8 85; 3.5 8 85; 4.5 8 85}",
        "{2 4 85; 4 4 85}",
        "{1 4. 90; 2.5 4. 85; 4 4 85}",
    )
    + ("{1 4 85; 2 4 80; 3 4 85; 4 4 80}", "{1 16 90; 1.75 16 80; 2.5 8 90; 3.25 16 80; 4 8 85}"),
    3: ("{1 2. 80}", "{2 4 85; 3 4 80}", "{1 4 85; 2 4 75; 3 4 75}"),
    6: ("{1 2. 85; 4 2. 80}", "{1 4 85; 2 4 70; 3 4 75; 4 4 85; 5 4 70; 6 4 75}", "{2 4 80; 3 4 80; 5 4 80; 6 4 80}"),
}


@dataclass(frozen=True)
class Note:
    """One note: ticks from the beginning, pitch and velocity; ``role`` is drums, bass,
    melody, or the name of mma's track.
    """

    start: int
    end: int
    pitch: int
    velocity: int
    role: str
    program: int


@dataclass(frozen=True)
class Song:
    """A song and how to hear it.

    Attributes:
        notes: sorted by start.
        tempo: mma's, in its beats per minute: felt tempo times ``Style.felt``.
    """

    notes: tuple[Note, ...]
    tempo: float

    def seconds(self, ticks: float) -> float:
        """Where in the sound a position lies."""
        return ticks / _TICKS * 60 / self.tempo


def song(recipe: Recipe, folder: Path, *, seed: int = 0) -> Song:
    """Composes what ``recipe`` says; its bars last at least a bar and two seconds longer than the clip.

    Args:
        recipe: of the clip.
        folder: for files on the way.
        seed: of the whole plan.

    Raises:
        InputError: if mma refuses it.
    """
    tempo = recipe.tempo * recipe.style.felt
    bar_seconds = recipe.style.beats * 60 / tempo
    num_bars = int((recipe.seconds + 2) / bar_seconds) + 3
    source, target = folder / "song.mma", folder / "song.mid"
    source.write_text(mma_source(recipe, num_bars, seed=seed), encoding="utf-8")
    done = subprocess.run(["mma", "-w", "-f", str(target), str(source)], capture_output=True, text=True, timeout=120)
    if done.returncode or not target.is_file():
        last = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise InputError(f"mma failed on {recipe.style.name}, groove {recipe.groove}: {' '.join(last)}")
    notes = _programs(recipe, _read_notes(target), recipe.rng("programs", seed))
    if recipe.melody:
        notes += _melody(recipe, num_bars, recipe.rng("melody", seed))
    notes = _humanised(notes, tempo, recipe.rng("human", seed))
    return Song(tuple(sorted(notes, key=lambda note: (note.start, note.role, note.pitch))), tempo)


def mma_source(recipe: Recipe, num_bars: int, *, seed: int = 0) -> str:
    """The song in mma's language, ``num_bars`` of it, the form repeated as needed."""
    rng = recipe.rng("accompaniment", seed)
    lines = [f"RndSeed {recipe.index + 1}", "Tempo 120", f"Include {LIBRARY / recipe.style.name}.mma"]
    lines.append(f"Groove {recipe.groove}")
    if recipe.style.drums_only:
        bass, chord = rng.choice(_BASS_PATTERNS[recipe.style.beats]), rng.choice(_CHORD_PATTERNS[recipe.style.beats])
        lines += ["Begin Bass-Added", "Voice FingeredBass", "Octave 3", f"Sequence {bass}", "End"]
        lines += ["Begin Chord-Added", "Voice Piano1", "Octave 5", "Voicing Mode=Optimal", f"Sequence {chord}", "End"]
    bars = recipe.progression.bars
    for number in range(num_bars):
        chords = [
            recipe.progression.symbol(chord, recipe.tonic) for chord in bars[(recipe.first_bar + number) % len(bars)]
        ]
        # The second chord of a bar comes on its middle beat, 3 of 4, 2 of 3, 4 of 6, 2 of 2.
        rests = " / " * (recipe.style.beats // 2 - 1) if len(chords) > 1 else ""
        lines.append(f"{number + 1} {chords[0]} {rests}{' '.join(chords[1:])}")
    return "\n".join(lines) + "\n"


def _read_notes(path: Path) -> list[Note]:
    notes = []
    for track in mido.MidiFile(path).tracks:
        now, program, name = 0, 0, ""
        sounding: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for message in track:
            now += message.time
            if message.type == "track_name":
                name = message.name
            elif message.type == "program_change":
                program = message.program
            elif message.type == "note_on" and message.velocity:
                sounding[message.channel, message.note].append((now, message.velocity))
            elif message.type in ("note_on", "note_off") and sounding[message.channel, message.note]:
                start, velocity = sounding[message.channel, message.note].pop(0)
                role = "drums" if message.channel == _DRUMS else _role(name)
                notes.append(Note(start, now, message.note, velocity, role, program))
    return notes


def _role(track_name: str) -> str:
    return "bass" if track_name.split("-")[0].lower() in ("bass", "walk") else track_name


def _programs(recipe: Recipe, notes: list[Note], rng: random.Random) -> list[Note]:
    """Gives every role its program; drops the drums where the recipe has none."""
    if not recipe.drums and any(note.role != "drums" for note in notes):
        notes = [note for note in notes if note.role != "drums"]
    if not recipe.families:
        return notes
    roles = sorted({note.role for note in notes} - {"drums", "bass"})
    rng.shuffle(roles)
    families = recipe.families[1:] if recipe.melody and len(recipe.families) > 1 else recipe.families
    programs = {role: rng.choice(FAMILIES[families[number % len(families)]]) for number, role in enumerate(roles)}
    programs["bass"] = rng.choice(_BASSES)
    return [dataclasses.replace(note, program=programs.get(note.role, note.program)) for note in notes]


def _melody(recipe: Recipe, num_bars: int, rng: random.Random) -> list[Note]:
    """A solo line: chord tones on the beats, steps of the scale between, phrases with rests,
    two octaves above middle C at most.
    """
    family = recipe.families[0] if recipe.families else rng.choice(tuple(FAMILIES))
    program = rng.choice(FAMILIES[family])
    beat = _TICKS * recipe.style.felt
    lengths = (1 / 3, 2 / 3, 1, 1, 2) if recipe.style.compound else (0.5, 0.5, 1, 1, 1.5, 2)
    bar, notes, now, pitch = _TICKS * recipe.style.beats, [], 0, 60 + recipe.tonic % 12
    while now < bar * num_bars:
        length = round(rng.choice(lengths) * beat)
        if rng.random() < 0.12:  # a breath, never longer than a beat
            now += min(length, beat)
            continue
        pitch = _next_pitch(recipe, now, pitch, on_beat=now % beat == 0, rng=rng)
        velocity = 92 + (8 if now % bar == 0 else 0)
        notes.append(Note(now, now + round(length * 0.92), pitch, velocity, "melody", program))
        now += length
    return notes


def _next_pitch(recipe: Recipe, now: int, pitch: int, *, on_beat: bool, rng: random.Random) -> int:
    bar, inside = divmod(now, _TICKS * recipe.style.beats)
    chords = recipe.progression.bars[(recipe.first_bar + bar) % len(recipe.progression.bars)]
    second = len(chords) > 1 and inside >= _TICKS * (recipe.style.beats // 2)
    tones = {(recipe.tonic + tone) % 12 for tone in chords[second].tones}
    scale = {(recipe.tonic + tone) % 12 for tone in _SCALES[recipe.progression.mode]}
    allowed = tones if on_beat else tones | scale
    near = [near for near in range(58, 83) if near % 12 in allowed and 0 < abs(near - pitch) <= (7 if on_beat else 3)]
    return rng.choice(near or [near for near in range(60, 80) if near % 12 in allowed])


def _humanised(notes: list[Note], tempo: float, rng: random.Random) -> list[Note]:
    """Velocities and onsets as uneven as a good player's: some 6 steps and 5 ms, never so late as to move the beat."""
    spread = rng.uniform(0, 8)
    ticks_per_ms = tempo * _TICKS / 60_000
    moved = []
    for note in notes:
        late = round(max(-12.0, min(12.0, rng.gauss(0, 5))) * ticks_per_ms)
        start = max(0, note.start + late)
        velocity = max(1, min(127, round(note.velocity + rng.gauss(0, spread))))
        moved.append(dataclasses.replace(note, start=start, end=max(start + 2, note.end + late), velocity=velocity))
    return moved


def write_midi(song: Song, path: Path, *, levels: dict[str, int]) -> None:
    """Writes ``song`` for a synthesiser.

    Args:
        song: the notes.
        path: to write to.
        levels: role -> channel volume 0..127; 100 where there is none.
    """
    events: list[tuple[int, int, mido.Message]] = []
    channels = _channels(song.notes)
    for (role, program), channel in channels.items():
        events.append((0, 0, mido.Message("program_change", channel=channel, program=program)))
        events.append((0, 0, mido.Message("control_change", channel=channel, control=7, value=levels.get(role, 100))))
    for note in song.notes:
        channel = channels[note.role, note.program]
        on = mido.Message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)
        events += [(note.start, 2, on), (note.end, 1, mido.Message("note_off", channel=channel, note=note.pitch))]
    events.sort(key=lambda event: event[:2])
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=round(60_000_000 / song.tempo))])
    now = 0
    for time, _, message in events:
        track.append(message.copy(time=time - now))
        now = time
    file = mido.MidiFile(type=0, ticks_per_beat=_TICKS)
    file.tracks.append(track)
    file.save(path)


def _channels(notes: Iterable[Note]) -> dict[tuple[str, int], int]:
    """A channel for every role and program; the sixteenth and later ones share."""
    melodic = sorted({(note.role, note.program) for note in notes if note.role != "drums"})
    free = [channel for channel in range(16) if channel != _DRUMS]
    channels = {voice: free[number % len(free)] for number, voice in enumerate(melodic)}
    return channels | {(note.role, note.program): _DRUMS for note in notes if note.role == "drums"}


def prominent_families(song: Song, start: float, seconds: float) -> tuple[str, ...]:
    """Instrument families with at least a fifth of what sounds in a window, bass and drums not counted.

    A note counts its velocity times its duration, at most a second of it: plucked and struck notes fade.

    Args:
        song: the notes.
        start: of the window, in seconds.
        seconds: its length.
    """
    shares: dict[str, float] = defaultdict(float)
    for note in song.notes:
        begin, end = max(song.seconds(note.start), start), min(song.seconds(note.end), start + seconds)
        if note.role not in ("drums", "bass") and end > begin:
            shares[_FAMILY_OF.get(note.program, "")] += note.velocity * min(end - begin, 1.0)
    total = sum(shares.values())
    return tuple(sorted(family for family, share in shares.items() if family and share >= _PROMINENT * total))
