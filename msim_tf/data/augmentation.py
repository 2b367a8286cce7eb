"""Other tempi, other keys, other recordings: how members of a batch are changed, and what their relations then are.

*Stretch* reads the features of a segment at another speed (interpolated between frames; pitch stays), *roll* turns the chroma. They change
tempo and key exactly, so any two labelled tracks can be made a positive pair, and two crops of *one* clip have a known relative tempo and key
though nobody labelled it.

*Colour* is level and equalisation: it changes no relation, and keeps the network from telling tracks by how they were mixed.

A member is (clip, octaves, semitones): 2**octaves times as fast as recorded, and so many semitones higher.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from msim_tf.dimensions import dimension
from msim_tf.labels import relations
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.performance import widened
from msim_tf.theory import KEYS, octave_distance, transposed_key

Member = tuple[int, float, int]

MAX_OCTAVES = 0.4  # 32 % faster, 24 % slower: with octaves equal, that is most of the circle of tempi, and still sounds like music
# Of two crops of one clip whose tempo nobody knows: same tempo up to 1.4 %, another from 6.4 % on, octaves apart.
_SAME_OCTAVES = 0.02
_OTHER_OCTAVES = 0.09
_TRIES = 16
_KNOTS = 5  # of the equaliser, evenly over the mel bands
_LEVEL_DB, _KNOT_DB = 4.0, 4.0  # standard deviations


def frames_spanned(segment_frames: int, stretch: np.ndarray) -> np.ndarray:
    """Frames of the clip that a segment covers when it is played ``stretch`` times as fast: [n] int."""
    return np.ceil((segment_frames - 1) * np.asarray(stretch)).astype(np.int64) + 1


def frames_needed(segment_frames: int) -> int:
    """Frames of a clip that can be played at every tempo."""
    return int(frames_spanned(segment_frames, np.exp2(MAX_OCTAVES)))


def pair_makers(
    labels: EncodedLabels, clips: np.ndarray, key_relation: str
) -> dict[str, Callable[[np.random.Generator], list[Member] | None]]:
    """For tempo and key: functions that draw members of which some are similar.

    Args:
        labels: encoded labels.
        clips: indices of clips that are long enough.
        key_relation: as in ``BatchParams``.
    """
    keys = np.arange(KEYS)
    related = relations.key_relation(keys, keys, relation=key_relation) > 0
    makers: dict[str, Callable[[np.random.Generator], list[Member] | None]] = {}
    pairs = {"tempo": _tempo_pair, "key": partial(_key_pair, related=related)}
    for name, values in labels.arrays.items():
        kind = dimension(name).kind
        if kind in pairs:
            labelled = np.intersect1d(np.flatnonzero(labels.known(name)), clips)
            makers[name] = partial(_drawn, labels=values, known=labelled, clips=clips, pair=pairs[kind])
    return makers


def _drawn(
    rng: np.random.Generator,
    *,
    labels: np.ndarray,
    known: np.ndarray,
    clips: np.ndarray,
    pair: Callable[[np.random.Generator, np.ndarray, np.ndarray], list[Member] | None],
) -> list[Member] | None:
    """A labelled pair or four crops of any clip, each as often."""
    if len(known) < 2 or rng.random() < 0.5:
        return four_crops(int(rng.choice(clips)), rng)
    return pair(rng, labels, known)


def four_crops(clip: int, rng: np.random.Generator) -> list[Member]:
    """One clip at two tempi in two keys: each tempo is heard in both keys, so neither tells the other."""
    slow, fast = rng.uniform(-MAX_OCTAVES, MAX_OCTAVES, 2)
    while abs(slow - fast) < 1.5 * _OTHER_OCTAVES:
        slow, fast = rng.uniform(-MAX_OCTAVES, MAX_OCTAVES, 2)
    keys = rng.choice(12, 2, replace=False)
    return [(clip, octaves, int(key)) for octaves in (float(slow), float(fast)) for key in keys]


def _tempo_pair(rng: np.random.Generator, bpm: np.ndarray, known: np.ndarray) -> list[Member] | None:
    """Two labelled clips; one as recorded or at any tempo, the other played at the tempo of the first, up to octaves."""
    for _ in range(_TRIES):
        anchor, positive = rng.choice(known, 2, replace=False)
        octaves = float(rng.choice((0.0, float(rng.uniform(-MAX_OCTAVES, MAX_OCTAVES)))))
        needed = math.remainder(octaves + math.log2(bpm[anchor] / bpm[positive]), 1.0)
        if abs(needed) <= MAX_OCTAVES:
            return [(int(anchor), octaves, 0), (int(positive), needed, 0)]
    return None


def _key_pair(
    rng: np.random.Generator, keys: np.ndarray, known: np.ndarray, related: np.ndarray
) -> list[Member] | None:
    """Two labelled clips; one in any key, the other transposed into a related one."""
    anchor, positive = rng.choice(known, 2, replace=False)
    roll = int(rng.choice((0, int(rng.integers(12)))))
    rolls = np.arange(12)
    fitting = rolls[related[transposed_key(keys[anchor], roll), transposed_key(np.full(12, keys[positive]), rolls)]]
    return [(int(anchor), 0.0, roll), (int(positive), 0.0, int(rng.choice(fitting)))] if len(fitting) else None


def relation(
    name: str, labels: EncodedLabels, clips: np.ndarray, stretch: np.ndarray, roll: np.ndarray, key_relation: str
) -> np.ndarray:
    """How augmented members are related in tempo or key.

    Args:
        name: a dimension of kind "tempo" or "key".
        labels: encoded labels.
        clips: [n] int.
        stretch: [n] tempo factors.
        roll: [n] semitones.
        key_relation: as in ``BatchParams``.

    Returns:
        [n, n] int8: by labels where both have one, else by the relative tempo or key of crops of one clip, else 0.
    """
    values = labels.arrays[name][clips]
    if dimension(name).kind == "tempo":
        values = values * stretch
        apart = octave_distance(stretch[:, None], stretch)
        relative = (apart <= _SAME_OCTAVES).astype(np.int8) - (apart >= _OTHER_OCTAVES)
    else:
        values = transposed_key(values, roll)
        relative = np.where((roll[:, None] - roll) % 12 == 0, 1, -1)
    known = relations.relation(name, values, values, key_relation=key_relation)
    one_clip = (clips[:, None] == clips) & (known == 0)
    return np.where(one_clip, relative, known).astype(np.int8)


def rolled_chroma(cens: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Chroma transposed up by ``roll`` semitones each: [n, 12, frames], same type."""
    if not np.any(roll):
        return cens
    rows = (np.arange(cens.shape[1]) - np.asarray(roll)[:, None]) % cens.shape[1]
    return np.take_along_axis(cens, rows[:, :, None], axis=1)


def drawn_colours(count: int, rng: np.random.Generator) -> np.ndarray:
    """Level and equalisation of ``count`` members: [count, knots] dB; every second one, on average, stays as recorded (0)."""
    colours = rng.normal(0, _LEVEL_DB, (count, 1)) + rng.normal(0, _KNOT_DB, (count, _KNOTS))
    return np.where(rng.random((count, 1)) < 0.5, colours, 0.0)


def colour(mel: np.ndarray, colours: np.ndarray) -> None:
    """Puts mel-spectrograms through an equaliser, in place.

    Args:
        mel: [n, n_mels, frames] float16, log10(1 + c * S) of magnitudes S, for any c; becomes log10(1 + c * g * S) with the gain g of each band.
        colours: [n, knots] dB, linear between knots that lie evenly over the bands.
    """
    if not np.any(colours):
        return
    bands = np.linspace(0, colours.shape[1] - 1, mel.shape[1])
    for row in np.flatnonzero(colours.any(axis=1)):
        gains = np.interp(bands, np.arange(colours.shape[1]), colours[row])
        values = widened(mel[row])
        values *= np.float32(math.log(10))
        # exp and log, not expm1 and log1p, which NumPy computes number by number; what that loses is a thousandth of float16's own rounding.
        np.exp(values, out=values)
        values -= 1
        values *= (10.0 ** (gains / 20)).astype(np.float32)[:, None]
        values += 1
        np.log(values, out=values)
        values *= np.float32(1 / math.log(10))
        mel[row] = values
