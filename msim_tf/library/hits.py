"""What a search of a library finds, as Python gives it: ``Hit`` and ``Hits``."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from msim_tf.errors import InputError

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Hit:
    """A track that was found.

    Attributes:
        track: its identifier in the library.
        path: its file; None where the library has no music folder.
        distance: the weighted distance; smaller is nearer.
        shares: what each dimension adds to the distance; they sum to it.
        metadata: what the library knows of it: artist, title, tempo, key, ...
        why: the shares, and what both tracks have in common, in one line.
    """

    track: str
    path: Path | None
    distance: float
    shares: Mapping[str, float]
    metadata: Mapping[str, Any]
    why: str

    def __repr__(self) -> str:
        return f"<Hit {self.distance:.3f} {self.track!r}>"


class Hits(Sequence[Hit]):
    """Hits, nearest first (or in the order of a path)."""

    def __init__(self, hits: Iterable[Hit]) -> None:
        self._hits = tuple(hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> Hits: ...

    def __getitem__(self, place: int | slice) -> Hit | Hits:
        return Hits(self._hits[place]) if isinstance(place, slice) else self._hits[place]

    def __len__(self) -> int:
        return len(self._hits)

    def __repr__(self) -> str:
        lines = (f"{place:>3}. {hit.distance:6.3f}  {hit.track}" for place, hit in enumerate(self._hits, 1))
        return "\n".join(lines) or "<no hits>"

    def to_pandas(self) -> pandas.DataFrame:
        """A table with a row per hit: track, distance, the share of each dimension as ``share_NAME``, metadata.

        Raises:
            InputError: if pandas is not installed.
        """
        try:
            frame = importlib.import_module("pandas").DataFrame
        except ImportError:
            raise InputError("pandas is not installed: pip install pandas") from None
        return frame(
            {
                "track": hit.track,
                "distance": hit.distance,
                **{f"share_{name}": share for name, share in hit.shares.items()},
                **hit.metadata,
            }
            for hit in self._hits
        )
