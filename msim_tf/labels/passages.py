"""What another model hears where in a track, and what a student must predict of any part of it.

A teacher listens to passages of a few seconds. What it says of a whole track is their mean, which is not true of each
of its segments: a student that hears one segment learns most from what the teacher hears *there* (Beyer et al.,
"Knowledge distillation: a good teacher is patient and consistent", CVPR 2022). A segment's target is the mean of the
passages that it overlaps, each weighted by how much.

Owns the npz format of passages::

    format_version  1
    identifiers     [n] str, the tracks
    counts          [n] int, passages of each, one track after the other
    starts          [m] float32, seconds
    vectors         [m, size] float16
    seconds         float, length of a passage
    widths          [k] int: vectors are k outputs of the teacher side by side
    meta            one JSON object as text

Nothing is pickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.embeddings import Embeddings, load_arrays, save_arrays
from msim_tf.errors import InputError
from msim_tf.files import parse_json
from msim_tf.labels.teacher import standardised

_CLIPPED_AT = 4.0  # standard deviations; what lies further out would outweigh the rest in a squared error
_FORMAT_VERSION = 1
_ARRAYS = ("format_version", "identifiers", "counts", "starts", "vectors", "seconds", "widths", "meta")


@dataclass(frozen=True, eq=False)
class Passages:
    """What a teacher says of passages of tracks.

    Attributes:
        identifiers: [n] tracks, unique.
        counts: [n] int, passages of each track, at least 1.
        starts: [m] float32, where each begins, seconds; track by track.
        vectors: [m, size] float, finite.
        seconds: length of a passage; infinite for the whole track.
        widths: coordinates of each of the teacher's outputs; their sum is size.
        meta: what the file says about itself.
    """

    identifiers: tuple[str, ...]
    counts: np.ndarray
    starts: np.ndarray
    vectors: np.ndarray
    seconds: float
    widths: tuple[int, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = int(np.sum(self.counts)) if len(self.identifiers) else 0
        if not count or len(self.counts) != len(self.identifiers) or np.min(self.counts) < 1:
            raise InputError("passages: expected at least one of each track")
        if len(set(self.identifiers)) < len(self.identifiers):
            raise InputError("passages: a track is named more than once")
        if self.vectors.shape != (count, sum(self.widths)) or self.starts.shape != (count,):
            raise InputError(
                f"passages: vectors {self.vectors.shape} and starts {self.starts.shape} for {count} passages of "
                f"{sum(self.widths)} coordinates"
            )
        if not self.seconds > 0:
            raise InputError(f"passages of {self.seconds} s: expected a length above 0")
        if not np.isfinite(self.vectors).all() or not np.isfinite(self.starts).all():
            raise InputError("passages: NaN or infinity in what the teacher says; let it listen again")

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Track -> [count] int, where its passages stand among all."""
        return dict(zip(self.identifiers, np.split(np.arange(len(self.starts)), np.cumsum(self.counts)[:-1])))

    def take(self, identifiers: Sequence[str]) -> Passages | None:
        """The passages of those of ``identifiers`` that were heard, in their order; None if none was."""
        kept = tuple(name for name in identifiers if name in self.rows)
        if not kept:
            return None
        # [kept] passages of each, and [m'] their rows, track by track in the new order.
        counts = np.array([len(self.rows[name]) for name in kept])
        rows = np.concatenate([self.rows[name] for name in kept])
        return Passages(kept, counts, self.starts[rows], self.vectors[rows], self.seconds, self.widths, self.meta)


def whole_tracks(teachers: Sequence[Embeddings]) -> Passages | None:
    """What teachers say of whole tracks, as one passage each; None if no track was heard by all of them."""
    kept = [name for name in teachers[0].identifiers if all(name in other for other in teachers)] if teachers else []
    if not kept:
        return None
    # [kept, coordinates] of each teacher, side by side; one passage per track, which begins at 0 and never ends.
    blocks = [teacher.embeddings[teacher.rows(kept)] for teacher in teachers]
    return Passages(
        tuple(kept),
        np.ones(len(kept), np.int64),
        np.zeros(len(kept), np.float32),
        np.concatenate(blocks, axis=1),
        math.inf,
        tuple(block.shape[1] for block in blocks),
    )


@dataclass(frozen=True, eq=False)
class RegressionTargets:
    """What a model must predict to hear as its teachers do.

    Attributes:
        vectors: [m, size] float16, standardised over the passages and scaled so that each output of the teacher has the
            same share of a mean squared error, however many its coordinates are.
        starts: [m] seconds.
        seconds: length of a passage.
        rows: [n, most] int: the passages of each track, -1 where it has fewer, or none.
    """

    vectors: np.ndarray
    starts: np.ndarray
    seconds: float
    rows: np.ndarray

    @property
    def size(self) -> int:
        """Coordinates of a target."""
        return int(self.vectors.shape[1])

    def take(self, indices: np.ndarray) -> RegressionTargets:
        """Those of the tracks ``indices``, standardised as before."""
        return RegressionTargets(self.vectors, self.starts, self.seconds, self.rows[indices])

    def of(self, tracks: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Targets of parts of tracks.

        Args:
            tracks: [b] int.
            starts: [b] where the part begins, seconds.
            ends: [b] where it ends.

        Returns:
            [b, size] float32: the mean of the passages that each part overlaps, weighted by how much; between passages,
            the nearest one; NaN for a track that was not heard.
        """
        # [b, most] seconds that each part shares with each passage of its track; below 0 is the gap between them.
        rows = self.rows[tracks]
        first = self.starts[rows]
        overlap = np.minimum(ends[:, None], first + self.seconds) - np.maximum(starts[:, None], first)
        overlap[rows < 0] = -np.inf

        # [b, most] weights of sum 1. A part between two passages takes the one whose gap is smallest.
        weight = np.maximum(overlap, 0.0)
        between = weight.sum(axis=1) == 0
        weight[between, overlap[between].argmax(axis=1)] = 1.0
        weight /= weight.sum(axis=1, keepdims=True)

        # [b, most] x [b, most, size] -> [b, size]. A track that was not heard has read some row (-1): NaN replaces it.
        target = np.einsum("bp,bps->bs", weight.astype(np.float32), self.vectors[rows].astype(np.float32))
        target[rows[:, 0] < 0] = np.nan
        return target


def regression_targets(passages: Passages, identifiers: Sequence[str]) -> RegressionTargets:
    """What ``passages`` say of the tracks ``identifiers``, standardised over these."""
    present = passages.take(identifiers)
    if present is None:
        empty = np.zeros((1, sum(passages.widths)), np.float16)
        return RegressionTargets(empty, np.zeros(1), passages.seconds, np.full((len(identifiers), 1), -1))

    # [m, size] scores in standard deviations. An output of ``width`` coordinates adds ``width`` unit variances to a
    # squared error: scaled by the root of size / outputs / width, every output adds the same.
    values = np.clip(standardised(present.vectors.astype(np.float32)), -_CLIPPED_AT, _CLIPPED_AT)
    share = np.repeat([values.shape[1] / len(present.widths) / width for width in present.widths], present.widths)

    # [n, most] rows of each track's passages; -1 fills up the rest, so that parts of any tracks are one gather.
    rows = np.full((len(identifiers), int(present.counts.max())), -1)
    for index, name in enumerate(identifiers):
        own_rows = present.rows.get(name, ())
        rows[index, : len(own_rows)] = own_rows
    vectors = (values * np.sqrt(share)).astype(np.float16)
    return RegressionTargets(vectors, present.starts.astype(np.float64), present.seconds, rows)


def save_passages(path: str | Path, passages: Passages) -> None:
    """Writes passages, atomically.

    Raises:
        InputError: if a number is too large for float16.
    """
    with np.errstate(over="ignore"):
        vectors = passages.vectors.astype(np.float16)
    if not np.isfinite(vectors).all():
        raise InputError(f"{path}: what the teacher says goes beyond {np.finfo(np.float16).max:.0f}; scale it down")
    arrays = {
        "format_version": np.array(_FORMAT_VERSION),
        "identifiers": np.array(passages.identifiers, np.str_),
        "counts": passages.counts.astype(np.int64),
        "starts": passages.starts.astype(np.float32),
        "vectors": vectors,
        "seconds": np.array(passages.seconds),
        "widths": np.array(passages.widths, np.int64),
        "meta": np.array(json.dumps(passages.meta)),
    }
    save_arrays(path, arrays)


def is_passages(path: str | Path) -> bool:
    """Whether an npz holds passages rather than a vector of each track."""
    return "starts" in load_arrays(Path(path), only="starts")


def load_passages(path: str | Path) -> Passages:
    """Reads what ``save_passages`` wrote.

    Raises:
        InputError: if it is missing or not such a file.
    """
    # First arrays that are missing, then another format, then values that do not fit together.
    arrays = load_arrays(Path(path))
    absent = [name for name in _ARRAYS if name not in arrays]
    if absent:
        raise InputError(f"{path}: array {absent[0]!r} is missing; expected what a teacher says of passages")
    if arrays["format_version"] != _FORMAT_VERSION:
        raise InputError(
            f"{path}: passages of format {arrays['format_version']}; this release reads format {_FORMAT_VERSION}"
        )
    try:
        return Passages(
            tuple(str(name) for name in arrays["identifiers"]),
            arrays["counts"],
            arrays["starts"],
            arrays["vectors"],
            float(arrays["seconds"]),
            tuple(int(width) for width in arrays["widths"]),
            dict(parse_json(str(arrays["meta"]))),
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not what a teacher says of passages ({error})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
