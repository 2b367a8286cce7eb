"""What a model says of music, in words: from the outputs of signature ``describe`` to a description. No TensorFlow.

Also joins what is said of single segments to what is said of a track.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msim_tf.dimensions import dimension
from msim_tf.labels.taxonomy import NOT_MUSIC
from msim_tf.theory import key_name, tempo_estimate

LIKELY = 0.5  # probability from which a word, a tempo or a key is stated
_EDGE = 1e-6  # probabilities are at least so far from 0 and 1, so that one segment cannot decide for a track


@dataclass(frozen=True)
class Description:
    """What a model says of one track.

    Attributes:
        musical: whether it is music at all; the rest says little of what is not.
        words: tag dimension -> word -> probability, the likeliest first; all words of the model.
        tempo: (bpm, probability) of the likeliest tempo, its half and its double, the likeliest first; empty where the
            model has no head for it.
        key: (key, probability), all 24, the likeliest first; or empty.
    """

    musical: bool
    words: dict[str, dict[str, float]] = field(default_factory=dict)
    tempo: tuple[tuple[float, float], ...] = ()
    key: tuple[tuple[str, float], ...] = ()

    def stated(self, name: str) -> list[str]:
        """The words of a tag dimension that are likely; none of what is no music but what it is instead."""
        likely = [word for word, probability in self.words.get(name, {}).items() if probability >= LIKELY]
        return likely if self.musical else [word for word in likely if name == "instrument" and word in NOT_MUSIC]

    @property
    def bpm(self) -> float | None:
        """The tempo, if it is likely and this is music."""
        return self.tempo[0][0] if self.musical and self.tempo and self.tempo[0][1] >= LIKELY else None

    @property
    def key_name(self) -> str | None:
        """The key, if it is likely and this is music."""
        return self.key[0][0] if self.musical and self.key and self.key[0][1] >= LIKELY else None

    def to_json(self) -> dict[str, Any]:
        """All words, the three tempi and the three likeliest keys as a JSON object, probabilities with three digits."""
        return {
            "musical": self.musical,
            "words": {name: {word: round(p, 3) for word, p in own.items()} for name, own in self.words.items()},
            "tempo": [{"bpm": round(bpm, 1), "probability": round(p, 3)} for bpm, p in self.tempo],
            "key": [{"key": key, "probability": round(p, 3)} for key, p in self.key[:3]],
        }

    def metadata(self) -> dict[str, Any]:
        """What is stated, as a track's metadata (``search.tracks``): lists of words, "tempo", "key"."""
        stated: dict[str, Any] = {name: words for name in self.words if (words := self.stated(name))}
        if self.bpm is not None:
            stated["tempo"] = round(self.bpm, 1)
        if self.key_name is not None:
            stated["key"] = self.key_name
        return stated

    def __str__(self) -> str:
        """One line, e.g. "jazz; mellow, instrumental; piano; 92 bpm (or 184); A minor"."""
        # Dimensions are separated by semicolons, words of one by commas.
        parts = [", ".join(words) for name in self.words if (words := self.stated(name))]
        if not self.musical:
            return f"nothing musical{f' ({parts[0]})' if parts else ''}"
        if self.bpm is not None:
            # Half and double are named from a probability of 1/8 on.
            others = [f"{bpm:.0f}" for bpm, probability in self.tempo[1:] if probability >= (1 - LIKELY) / 4]
            parts.append(f"{self.bpm:.0f} bpm" + (f" (or {', '.join(others)})" if others else ""))
        if self.key_name is not None:
            parts.append(self.key_name)
        return "; ".join(parts) or "nothing is likely"


def track_description(probabilities: Mapping[str, np.ndarray], classes: Mapping[str, Any]) -> Description:
    """The description of a track from what is said of its segments.

    Args:
        probabilities: dimension -> [segments, classes] float, output "<dimension>_probabilities" of signature
            ``describe``; or [1, classes] of a whole track, from signature ``audio``.
        classes: dimension -> what its classes are, from ``msim.json``.
    """
    words: dict[str, dict[str, float]] = {}
    tempo: tuple[tuple[float, float], ...] = ()
    key: tuple[tuple[str, float], ...] = ()
    for name, values in probabilities.items():
        # [segments, classes] -> [classes]: words are independent of each other, tempi and keys exclude each other.
        kind = dimension(name).kind
        joined = joined_words(values) if kind == "tag" else joined_classes(values)
        if kind == "tag":
            order = np.argsort(-joined, kind="stable")
            words[name] = {classes[name][place]: float(joined[place]) for place in order}
        elif kind == "tempo":
            bpm, confidence = tempo_estimate(joined)
            # The likeliest first, which tempo_estimate gives, then half and double.
            octaves = [0, *sorted((1, 2), key=lambda place: -confidence[place])]
            tempo = tuple((float(bpm[place]), float(confidence[place])) for place in octaves)
        else:
            order = np.argsort(-joined, kind="stable")
            key = tuple((key_name(int(place)), float(joined[place])) for place in order)

    # It is music unless a word for something else is likely; a model without such words calls everything music.
    instruments = words.get("instrument", {})
    musical = not any(instruments.get(word, 0.0) >= LIKELY for word in NOT_MUSIC)
    return Description(musical, words, tempo, key)


def joined_words(probabilities: np.ndarray) -> np.ndarray:
    """[segments, words] -> [words]: the probability at the mean of the segments' logits."""
    # sigmoid(mean(logit(p))), as if the model had averaged its logits over the track.
    p = np.clip(np.asarray(probabilities, np.float64), _EDGE, 1 - _EDGE)
    joined: np.ndarray = 1 / (1 + np.exp(-np.mean(np.log(p) - np.log1p(-p), axis=0)))
    return joined


def joined_classes(probabilities: np.ndarray) -> np.ndarray:
    """[segments, classes] -> [classes]: the geometric mean, made to sum to 1."""
    # The softmax of the mean logits: the sum that each segment's softmax was divided by cancels.
    mean = np.exp(np.log(np.maximum(np.asarray(probabilities, np.float64), _EDGE)).mean(axis=0))
    joined: np.ndarray = mean / mean.sum()
    return joined
