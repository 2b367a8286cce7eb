"""Other tempi, other keys, other recordings: how members of a batch are changed, and what their relations then are.

*Stretching* reads the features of a segment at another speed (interpolated between frames; pitch stays), *transposing*
rotates the chroma. They change tempo and key exactly, so any two labelled tracks can be made a positive pair, and two
crops of *one* clip have a known relative tempo and key though nobody labelled it.

*Equalising* changes level and spectral balance. It changes no relation, and keeps the network from telling tracks by
how they were mixed.

A member is (clip, octaves, semitones): 2**octaves times as fast as recorded, and so many semitones higher.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from msim_tf.dimensions import dimension
from msim_tf.labels import relations
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.performance import widened
from msim_tf.theory import KEYS, octave_distance, transposed_key

Member = tuple[int, float, int]
MemberDraw = Callable[[np.random.Generator], list[Member] | None]

# 32 % faster, 24 % slower: with octaves folded, that is most of the circle of tempi, and still sounds like music.
MAX_OCTAVES = 0.4
# Of two crops of one clip of unknown tempo: same tempo up to 1.4 %, another from 6.4 % on, octaves folded.
_SAME_OCTAVES = 0.02
_OTHER_OCTAVES = 0.09
_TRIES = 16
_KNOTS = 5  # of the equaliser, evenly over the mel bands
_LEVEL_DB, _KNOT_DB = 4.0, 4.0  # standard deviations


@dataclass(frozen=True, eq=False)
class AugmentedClips:
    """Members of a block as they are played.

    Attributes:
        clips: [n] int.
        stretch: [n] float, tempo factors.
        transpose: [n] int, semitones.
    """

    clips: np.ndarray
    stretch: np.ndarray
    transpose: np.ndarray


def frames_spanned(segment_frames: int, stretch: np.ndarray) -> np.ndarray:
    """Frames of the clip that a segment covers when it is played ``stretch`` times as fast: [n] int."""
    return np.ceil((segment_frames - 1) * np.asarray(stretch)).astype(np.int64) + 1


def frames_needed(segment_frames: int) -> int:
    """Frames of a clip that can be played at every tempo."""
    return int(frames_spanned(segment_frames, np.exp2(MAX_OCTAVES)))


def member_draws(labels: EncodedLabels, clips: np.ndarray, key_relation: str) -> dict[str, MemberDraw]:
    """Functions that draw members of which some are similar, for the dimensions of kind tempo and key.

    Args:
        labels: encoded labels.
        clips: indices of clips that are long enough.
        key_relation: as in ``BatchParams``.

    Returns:
        Dimension -> a function from a random generator to some members, or None if it found none.
    """
    # [24, 24] bool: which keys are similar under this rule, looked up for every pair that is drawn.
    keys = np.arange(KEYS)
    related = relations.key_relation(keys, keys, relation=key_relation) > 0
    pairs: dict[str, Callable[..., list[Member] | None]] = {
        "tempo": _tempo_pair,
        "key": partial(_key_pair, related=related),
    }

    # One draw for each dimension of kind tempo or key; a labelled pair needs two labelled clips that are long enough.
    draws: dict[str, MemberDraw] = {}
    for name, values in labels.arrays.items():
        kind = dimension(name).kind
        if kind in pairs:
            labelled = np.intersect1d(np.flatnonzero(labels.labelled(name)), clips)
            pair = partial(pairs[kind], values=values, labelled=labelled)
            draws[name] = partial(_pair_or_crops, pair=pair if len(labelled) > 1 else None, clips=clips)
    return draws


def _pair_or_crops(rng: np.random.Generator, *, pair: MemberDraw | None, clips: np.ndarray) -> list[Member] | None:
    """A labelled pair or four crops of any clip, each as often; only crops where there is no pair."""
    if pair is None or rng.random() < 0.5:
        return four_crops(int(rng.choice(clips)), rng)
    return pair(rng)


def four_crops(clip: int, rng: np.random.Generator) -> list[Member]:
    """One clip at two tempi in two keys: each tempo occurs in both keys, so neither predicts the other."""
    # Two tempi that are clearly different: between the margins their relation would be unknown. The two ends of the
    # range, 0.8 octaves apart, are still 0.2 apart once octaves are folded.
    slow, fast = rng.uniform(-MAX_OCTAVES, MAX_OCTAVES, 2)
    while abs(slow - fast) < 1.5 * _OTHER_OCTAVES:
        slow, fast = rng.uniform(-MAX_OCTAVES, MAX_OCTAVES, 2)

    # Every tempo in every key: [4] members.
    keys = rng.choice(12, 2, replace=False)
    return [(clip, octaves, int(key)) for octaves in (float(slow), float(fast)) for key in keys]


def _tempo_pair(rng: np.random.Generator, values: np.ndarray, labelled: np.ndarray) -> list[Member] | None:
    """Two labelled clips; one as recorded or at any tempo, the other at the tempo of the first, octaves folded."""
    for _ in range(_TRIES):
        anchor, positive = rng.choice(labelled, 2, replace=False)
        octaves = float(rng.choice((0.0, float(rng.uniform(-MAX_OCTAVES, MAX_OCTAVES)))))
        # How far the positive must be stretched, less whole octaves: in [-0.5, 0.5].
        needed = math.remainder(octaves + math.log2(values[anchor] / values[positive]), 1.0)
        if abs(needed) <= MAX_OCTAVES:
            return [(int(anchor), octaves, 0), (int(positive), needed, 0)]
    return None


def _key_pair(
    rng: np.random.Generator, values: np.ndarray, labelled: np.ndarray, related: np.ndarray
) -> list[Member] | None:
    """Two labelled clips; one in any key, the other transposed into a related one."""
    anchor, positive = rng.choice(labelled, 2, replace=False)
    semitones = int(rng.choice((0, int(rng.integers(12)))))

    # Which of the twelve transpositions of the positive lead to a key related to the anchor's.
    choices = np.arange(12)
    key = transposed_key(values[anchor], semitones)
    fitting = choices[related[key, transposed_key(np.full(12, values[positive]), choices)]]
    return [(int(anchor), 0.0, semitones), (int(positive), 0.0, int(rng.choice(fitting)))] if len(fitting) else None


def relation(name: str, labels: EncodedLabels, members: AugmentedClips, key_relation: str) -> np.ndarray:
    """How augmented members are related in tempo or key.

    Args:
        name: a dimension of kind "tempo" or "key".
        labels: encoded labels.
        members: n members.
        key_relation: as in ``BatchParams``.

    Returns:
        [n, n] int8: by labels where both have one, else by the relative tempo or key of crops of one clip, else 0.
    """
    clips, stretch, transpose = members.clips, members.stretch, members.transpose
    values = labels.arrays[name][clips]

    # [n] labels as played, and [n, n] how two crops of one clip are related by what was done to them alone: two
    # stretches between the margins are neither the same tempo nor clearly another.
    if dimension(name).kind == "tempo":
        values = values * stretch
        apart = octave_distance(stretch[:, None], stretch)
        relative = (apart <= _SAME_OCTAVES).astype(np.int8) - (apart >= _OTHER_OCTAVES)
    else:
        values = transposed_key(values, transpose)
        relative = np.where((transpose[:, None] - transpose) % 12 == 0, 1, -1)

    # [n, n]: labels first; crops of one unlabelled clip by what was done to them.
    labelled = relations.relation(name, values, values, key_relation=key_relation)
    one_clip = (clips[:, None] == clips) & (labelled == 0)
    return np.where(one_clip, relative, labelled).astype(np.int8)


def transposed_chroma(cens: np.ndarray, transpose: np.ndarray) -> np.ndarray:
    """Chroma transposed upwards.

    Args:
        cens: [n, 12, frames], any type.
        transpose: [n] int, semitones.

    Returns:
        [n, 12, frames], same type; row k comes from row k - semitones, modulo 12.
    """
    if not np.any(transpose):
        return cens
    # [n, 12]: for every row of the result the row that it comes from; a frame moves as a whole.
    rows = (np.arange(cens.shape[1]) - np.asarray(transpose)[:, None]) % cens.shape[1]
    return np.take_along_axis(cens, rows[:, :, None], axis=1)


def random_equalisers(count: int, rng: np.random.Generator) -> np.ndarray:
    """Level and equalisation of ``count`` members: [count, knots] dB; half of them, on average, are 0."""
    # [count, 1] levels + [count, knots] spectral balance; half of the members, drawn at random, stay as they are.
    equalisers = rng.normal(0, _LEVEL_DB, (count, 1)) + rng.normal(0, _KNOT_DB, (count, _KNOTS))
    return np.where(rng.random((count, 1)) < 0.5, equalisers, 0.0)


def equalise(mel: np.ndarray, equalisers: np.ndarray) -> None:
    """Puts mel-spectrograms through an equaliser, in place.

    Args:
        mel: [n, n_mels, frames] float16, log10(1 + c * S) of magnitudes S, for any c; becomes log10(1 + c * g * S) with
            the gain g of each band.
        equalisers: [n, knots] dB, linear between knots that lie evenly over the bands; g = 10**(dB / 20).
    """
    if not np.any(equalisers):
        return
    # [n_mels] position of each band among the knots.
    bands = np.linspace(0, equalisers.shape[1] - 1, mel.shape[1])
    for row in np.flatnonzero(equalisers.any(axis=1)):
        # [n_mels] gains; then (10**mel - 1) * g + 1 in one array, row by row, to stay in the cache.
        gains = np.interp(bands, np.arange(equalisers.shape[1]), equalisers[row])
        values = widened(mel[row])
        values *= np.float32(math.log(10))
        # exp and log, not expm1 and log1p, which NumPy computes number by number; what that loses is a thousandth of
        # float16's own rounding.
        np.exp(values, out=values)
        values -= 1
        values *= (10.0 ** (gains / 20)).astype(np.float32)[:, None]
        values += 1
        np.log(values, out=values)
        values *= np.float32(1 / math.log(10))
        mel[row] = values
