"""Who gets what: the recipe of every clip, a pure function of the seed and the clip's number.

Style, progression, key, tempo, instruments, sound font and mix are drawn independently, so that none of
them predicts another. What is tested on comes from style files, phrases and a sound font of its own:
unseen styles, unseen progressions, unseen sounds.

The tempo is that of the *felt beat*: the quarter note in simple metres (also in 3/4), the dotted
quarter in compound ones (6/8, and 12/8 written as 4/4 with triplets). ``styles.json`` says per style
file how many of mma's beats make a felt one.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msim_tf.files import load_json, validate_format
from msim_tf.theory import key_name
from tools.corpus.renders_harmony import Progression, progressions

TEST_EVERY = 5  # one clip in five is for testing
NUM_PROGRESSIONS = {"train": 80, "test": 30}
SLOWEST, FASTEST, FASTEST_COMPOUND = 50.0, 200.0, 130.0  # felt bpm
FAMILIES = {
    "piano": (0, 1, 2, 3, 4, 5),
    "organ": (16, 17, 18, 19, 21),
    "guitar": (24, 25, 26, 27, 28, 29, 30),
    "strings": (40, 41, 42, 48, 49),
    "brass": (56, 57, 60, 61),
    "reed": (64, 65, 66, 68, 71),
    "flute": (73, 74, 75),
    "synth": (62, 63, 80, 81, 82, 87, 88, 89, 90, 95),
    "mallets": (9, 11, 12, 13, 108),
    "voice": (52, 53, 54),
}
FONTS = {"train": ("FluidR3_GM", "TimGM6mb"), "test": ("MuseScore_General",)}


@dataclass(frozen=True)
class Style:
    """One of mma's style files.

    Attributes:
        name: its library and file, "stdlib/bossanova".
        family: styles of a family share the clips of the family.
        genre: tags.
        beats: of mma in a bar.
        felt: how many of mma's beats make a felt one.
        compound: whether the felt beat is divided in three.
        drums_only: whether bass and chords must be added.
        test: whether it is held out.
        grooves: those of its grooves that are neither intro, fill nor ending.
    """

    name: str
    family: str
    genre: tuple[str, ...]
    beats: int
    felt: int
    compound: bool
    drums_only: bool
    test: bool
    grooves: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """One clip to be rendered.

    Attributes:
        index: its number.
        part: "train" or "test".
        style: the style file.
        groove: one of its grooves.
        progression: the form.
        first_bar: of the form with which the clip begins.
        tonic: pitch class.
        tempo: felt bpm.
        families: instrument families that replace the groove's own programs; empty where it keeps them.
        melody: whether there is a solo line.
        drums: whether the drums stay.
        font: sound font.
        seconds: length.
    """

    index: int
    part: str
    style: Style
    groove: str
    progression: Progression
    first_bar: int
    tonic: int
    tempo: float
    families: tuple[str, ...]
    melody: bool
    drums: bool
    font: str
    seconds: float

    @property
    def key(self) -> str:
        """Its name, e.g. "Eb minor"."""
        return key_name(self.tonic + (12 if self.progression.mode == "minor" else 0))

    @property
    def group(self) -> str:
        """The style file, as a folder."""
        return self.style.name.replace("/", "-")

    @property
    def clip(self) -> str:
        """Its path in the corpus."""
        return f"{self.part}/renders/{self.group}/{self.groove.replace('&', 'n')}-{self.index:05d}.flac"

    def rng(self, purpose: str, seed: int) -> random.Random:
        """Chance for one purpose, the same whenever this clip is made."""
        return random.Random(f"{seed}/{self.index}/{purpose}")


def load_styles() -> tuple[Style, ...]:
    """All style files that are used, sorted by name."""
    path = Path(__file__).with_name("styles.json")
    table = load_json(path, "the style files of mma")
    validate_format(table, path, name="msim-render-styles", version=1)
    return tuple(_style(name, value) for name, value in sorted(table["styles"].items()))


def _style(name: str, value: dict[str, Any]) -> Style:
    return Style(name=name, **{**value, "genre": tuple(value["genre"]), "grooves": tuple(value["grooves"])})


def recipe(index: int, *, seed: int = 0) -> Recipe:
    """The recipe of clip ``index``."""
    part = "test" if index % TEST_EVERY == TEST_EVERY - 1 else "train"
    position = index // TEST_EVERY if part == "test" else index - index // TEST_EVERY
    order = _style_order(part, seed)
    style = order[position % len(order)]
    rng = random.Random(f"{seed}/{index}")
    progression = rng.choice(_progressions(part, seed))
    tempo = SLOWEST * (FASTEST / SLOWEST) ** rng.random()
    if style.compound and tempo > FASTEST_COMPOUND:
        tempo /= 2
    families = tuple(rng.sample(tuple(FAMILIES), rng.choice((1, 2, 2, 3))))
    return Recipe(
        index=index,
        part=part,
        style=style,
        groove=rng.choice(style.grooves),
        progression=progression,
        first_bar=rng.randrange(0, len(progression.bars), 2),
        tonic=rng.randrange(12),
        tempo=round(tempo, 2),
        families=families if rng.random() < 0.8 else (),
        melody=rng.random() < 0.55,
        drums=rng.random() < 0.82 or style.drums_only,
        font=rng.choice(FONTS[part]),
        seconds=round(rng.uniform(24.0, 30.0), 2),
    )


@functools.cache
def _progressions(part: str, seed: int) -> tuple[Progression, ...]:
    return progressions(part, NUM_PROGRESSIONS[part], seed=seed)


@functools.cache
def _style_order(part: str, seed: int) -> tuple[Style, ...]:
    """Style files in the order in which clips take them, long enough to be repeated.

    A family's share of the clips grows with the square root of its number of files: a family of 30 files neither swamps
    one of 3 nor gets as few clips per file as to be a mere list of singles.
    """
    rng = random.Random(f"{seed}/styles/{part}")
    families: dict[str, list[Style]] = {}
    for style in load_styles():
        if style.test == (part == "test"):
            families.setdefault(style.family, []).append(style)
    order = []
    for styles in families.values():
        # 24 * sqrt(n) turns for n files; the files take turns in ever new order.
        turns = round(24 * len(styles) ** 0.5)
        drawn: list[Style] = []
        while len(drawn) < turns:
            drawn += rng.sample(styles, len(styles))
        order += drawn[:turns]
    rng.shuffle(order)
    return tuple(order)
