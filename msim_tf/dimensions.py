"""The musical dimensions and how they share one embedding.

One ordered tuple, ``DIMENSIONS``, is the only list of them. Everything else follows from it: label tables, relations,
the sampler of positives, the network's subspaces and time-averaged heads, its losses, output and signature names, the
command line's choices, table rows and the sliders of the page. To add a dimension, append a line to the tuple, or name
further tag dimensions in the environment variable ``MSIM_DIMENSIONS`` ("danceability,language"), which every process of
``msim`` reads when it starts.

Models, stores and libraries name their own dimensions; one that has fewer than there are here stays valid.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from msim_tf.errors import InputError

TRACK = "track"  # the relation "same clip" over the whole embedding, for Lee's track regularisation; no dimension
TEACHER = "teacher"  # target and output that predict all that a teacher says of a track; no dimension
TEACHER_SUFFIX = "_teacher"  # of targets and outputs that compare a subspace with the tags of a teacher
PROBABILITIES = "_probabilities"  # of outputs that describe: those of a dimension's words, tempi or keys
KINDS = ("tag", "tempo", "key")
# Names of other targets, signatures, rows of a label table, fields of a track's metadata and layers of the network.
_RESERVED = frozenset(
    f"{TRACK} {TEACHER} embedding all audio tag tags artist album title year file seconds id path "
    "mel onset cens tempogram join backbone projection parts "
    "words describe described fold crops musical bpm".split()
)


@dataclass(frozen=True)
class Dimension:
    """One musical dimension.

    Attributes:
        name: its one name everywhere: small letters and digits.
        kind: what its labels are, and so when two tracks are similar in it (``labels.relations``): "tag" (they share a
            value), "tempo" (beats per minute within a margin, octaves folded) or "key" (equal or related, of 24 keys).
        averaged_input: the model input, "onset" or "cens", from whose average over time a network with time-averaged
            heads projects this dimension; None: from the backbone, as all dimensions of the paper.
    """

    name: str
    kind: str
    averaged_input: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9]*", self.name) or self.name in _RESERVED:
            raise InputError(
                f"dimension {self.name!r}: expected small letters and digits, and no name that has another use"
            )
        if self.kind not in KINDS:
            raise InputError(f"dimension {self.name!r} of kind {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.averaged_input not in (None, "onset", "cens"):
            raise InputError(f"dimension {self.name!r} from {self.averaged_input!r}: expected 'onset', 'cens' or None")


def _declared(*dimensions: Dimension, further_tags: str) -> tuple[Dimension, ...]:
    """The dimensions, and a tag dimension for every comma-separated name in ``further_tags``."""
    further = (Dimension(name.strip(), "tag") for name in further_tags.split(",") if name.strip())
    declared = (*dimensions, *further)
    names = [dimension.name for dimension in declared]
    if len(set(names)) < len(names):
        raise InputError(f"dimensions {', '.join(names)}: one is named twice; see the variable MSIM_DIMENSIONS")
    return declared


DIMENSIONS: tuple[Dimension, ...] = _declared(
    Dimension("genre", "tag"),
    Dimension("mood", "tag"),
    Dimension("instrument", "tag"),
    Dimension("era", "tag"),
    Dimension("tempo", "tempo", averaged_input="onset"),
    Dimension("key", "key", averaged_input="cens"),
    further_tags=os.environ.get("MSIM_DIMENSIONS", ""),
)
DIMENSION_NAMES: tuple[str, ...] = tuple(dimension.name for dimension in DIMENSIONS)
TAG_DIMENSION_NAMES: tuple[str, ...] = tuple(dimension.name for dimension in DIMENSIONS if dimension.kind == "tag")


def dimension(name: str) -> Dimension:
    """The dimension called ``name``.

    Raises:
        InputError: if there is none.
    """
    for candidate in DIMENSIONS:
        if candidate.name == name:
            return candidate
    raise InputError(f"unknown dimension {name!r}, expected one of {', '.join(DIMENSION_NAMES)}")


@dataclass(frozen=True)
class EmbeddingLayout:
    """Which coordinates of the embedding belong to which dimension: adjacent, disjoint, together the whole.

    Attributes:
        names: dimension names, in the order of ``DIMENSIONS``.
        widths: coordinates of each, same order.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        ordered = [name for name in DIMENSION_NAMES if name in self.names]
        if not self.names or list(self.names) != ordered:
            raise InputError(
                f"dimensions {list(self.names)}: expected some of {', '.join(DIMENSION_NAMES)}, "
                "once each, in this order"
            )
        if len(self.widths) != len(self.names) or min(self.widths) < 1:
            raise InputError(f"widths {list(self.widths)}: expected one positive width for each of {list(self.names)}")

    @classmethod
    def equal(cls, names: Iterable[str], size: int) -> EmbeddingLayout:
        """Equal subspaces (paper, section 2.2).

        Raises:
            InputError: if ``size`` is not divisible by the number of dimensions.
        """
        names = tuple(names)
        if not names or size % len(names):
            raise InputError(f"embedding size {size} does not divide into {len(names)} equal subspaces")
        return cls(names, (size // len(names),) * len(names))

    @cached_property
    def size(self) -> int:
        """Coordinates of the whole embedding."""
        return sum(self.widths)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """The subspace of each dimension."""
        ends = list(itertools.accumulate(self.widths))
        return {name: slice(end - width, end) for name, width, end in zip(self.names, self.widths, ends)}

    def validate(self, names: Iterable[str]) -> None:
        """Refuses names that are not in this layout.

        Raises:
            InputError: if there is one.
        """
        for name in names:
            if name not in self.names:
                raise InputError(f"dimension {name!r} is not in this embedding, which has {', '.join(self.names)}")

    def mask(self, names: Iterable[str]) -> np.ndarray:
        """The mask that keeps the subspaces ``names``.

        Returns:
            [size] float32, 1 inside and 0 outside.

        Raises:
            InputError: if a name is not in this layout.
        """
        names = tuple(names)
        self.validate(names)
        mask = np.zeros(self.size, np.float32)
        for name in names:
            mask[self.slices[name]] = 1.0
        return mask

    def subsets(self) -> Iterator[tuple[str, ...]]:
        """All non-empty subsets of the dimensions, largest first (63 of six; paper, Table 2)."""
        for count in range(len(self.names), 0, -1):
            yield from itertools.combinations(self.names, count)

    def to_json(self) -> dict[str, Any]:
        """The layout as a JSON object."""
        return {"dimensions": list(self.names), "widths": list(self.widths)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EmbeddingLayout:
        """The inverse of ``to_json``."""
        return cls(tuple(value["dimensions"]), tuple(int(width) for width in value["widths"]))
