"""An indexed library as the API sees it: an open index and what is derived from it, renewed after ``msim index``."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cachetools
import numpy as np
from threadpoolctl import threadpool_limits

from msim_tf.library.api_errors import ApiError
from msim_tf.library.catalog import Catalog, load_catalog
from msim_tf.library.distance_scale import distance_scale
from msim_tf.search.index import Index
from msim_tf.search.profiles import offered
from msim_tf.search.tracks import TAG_KEYS, album_of, artist_of

_LOOK_SECONDS = 1.0  # between looks whether the library has changed
_MOST_TAGS = 60  # of each kind in the overview
_MOST_MAPS = 32


class LibraryState:
    """One state of the library. It is read-only; derived values are made when they are first needed.

    Attributes:
        catalog: of the library.
        index: its open index.
        root_path: the prefix of the addresses in answers, "" unless a proxy serves the library below one.
    """

    def __init__(self, catalog: Catalog, root_path: str = "") -> None:
        self.catalog = catalog
        self.index: Index = catalog.open_index()
        self.root_path = root_path
        self._maps: cachetools.LRUCache[tuple[str, int], tuple[list[str], Plane]] = cachetools.LRUCache(_MOST_MAPS)
        self._maps_lock = threading.Lock()

    def require(self, identifier: str) -> str:
        """``identifier`` if there is such a track.

        Raises:
            ApiError: 404 if there is none.
        """
        if identifier not in self.index:
            raise ApiError(404, f"the library has no track {identifier!r}")
        return identifier

    @cached_property
    def identifiers(self) -> list[str]:
        """All tracks in the order of their paths."""
        return sorted(self.index.identifiers)

    def search(self, text: str) -> list[str]:
        """Tracks whose title, artist, album or path has every word of ``text``, in the order of their paths."""
        return self.index.table.containing(text) if text.split() else self.identifiers

    @cached_property
    def tags(self) -> Counter[str]:
        """Every tag of any kind, and how many tracks have it."""
        every: Counter[str] = Counter()
        for _, metadata in self.index.all_metadata():
            every.update({tag for key in TAG_KEYS for tag in metadata.get(key, ())})
        return every

    @cached_property
    def artists(self) -> list[tuple[str, int]]:
        """Artists, spelt as on most of their tracks, and how many these are; most tracks first, then by name."""
        spelt: dict[str, Counter[str]] = {}
        for _, metadata in self.index.all_metadata():
            if artist_of(metadata):
                spelt.setdefault(artist_of(metadata), Counter())[metadata["artist"]] += 1
        counted = [(names.most_common(1)[0][0], names.total()) for names in spelt.values()]
        return sorted(counted, key=lambda artist: (-artist[1], artist[0].casefold()))

    @cached_property
    def overview(self) -> dict[str, Any]:
        """What GET /library answers, but for the limits of uploads."""
        # All in one pass, since metadata are read from the database track by track.
        counts: dict[str, Counter[str]] = {key: Counter() for key in (*TAG_KEYS, "artist", "album", "key")}
        tempos, years = [], []
        for _, metadata in self.index.all_metadata():
            for key in TAG_KEYS:
                counts[key].update(metadata.get(key, ()))
            counts["artist"].update([artist_of(metadata)] if artist_of(metadata) else [])
            counts["album"].update([album_of(metadata)] if album_of(metadata) else [])
            counts["key"].update([metadata["key"]] if "key" in metadata else [])
            tempos += [metadata["tempo"]] if "tempo" in metadata else []
            years += [metadata["year"]] if "year" in metadata else []
        source = self.index.source
        return {
            "name": self.catalog.name,
            "tracks": len(self.identifiers),
            "artists": len(counts["artist"]),
            "albums": len(counts["album"]),
            "dimensions": list(source.layout.names),
            "profiles": [asdict(profile) for profile in offered(source.layout.names)],
            "model": {"name": source.model, "version": source.version, "features": source.digest},
            "engine": self.index.engine.name,
            "tags": {key: [list(pair) for pair in counts[key].most_common(_MOST_TAGS)] for key in TAG_KEYS},
            "keys": sorted(counts["key"]),
            "bpm": [min(tempos), max(tempos)] if tempos else None,
            "years": [min(years), max(years)] if years else None,
            "distances": distance_scale(self.index),
        }

    def positions(
        self, dimension: str, limit: int, further: Sequence[str] = ()
    ) -> tuple[list[str], np.ndarray, list[float]]:
        """Two-dimensional positions of at most ``limit`` tracks by principal components, kept once made.

        Args:
            dimension: whose subspace; "" is the whole embedding.
            limit: if the library is larger, tracks at even steps through its paths.
            further: tracks that are to be among them, beyond the limit; they do not move the others.

        Returns:
            Tracks; positions [n, 2], within [-1, 1] but for further tracks; the shares of the variance that the two
            components have.
        """
        key = (dimension, limit)
        # One at a time: principal components of a large library use every core anyway.
        with self._maps_lock:
            if key not in self._maps:
                step = max(1, -(-len(self.identifiers) // limit))
                chosen = self.identifiers[::step]
                self._maps[key] = (chosen, Plane.of(self.index.vectors(chosen)[:, self._part(dimension)]))
            names, plane = self._maps[key]
        # Further tracks are projected onto the plane of the others.
        shown = set(names)
        further = [name for name in dict.fromkeys(further) if name not in shown]
        if not further:
            return names, plane.positions, plane.variance
        vectors = self.index.vectors(further)[:, self._part(dimension)]
        return [*names, *further], np.concatenate([plane.positions, plane.project(vectors)]), plane.variance

    def _part(self, dimension: str) -> slice:
        return self.index.source.layout.slices[dimension] if dimension else slice(None)


@dataclass(frozen=True, eq=False)
class Plane:
    """The two directions of largest variance of some vectors.

    Attributes:
        middle: [size] float64, the mean of the vectors.
        axes: [size, 2] float64 or, of a subspace of one dimension, [size, 1]; scaled so that positions fit [-1, 1].
        positions: [n, 2] float64, of the vectors.
        variance: the shares of the variance that the two directions have, in [0, 1].
    """

    middle: np.ndarray
    axes: np.ndarray
    positions: np.ndarray
    variance: list[float]

    @classmethod
    def of(cls, vectors: np.ndarray) -> Plane:
        """The plane of ``vectors`` [n, size] float; one scale for both directions."""
        size = vectors.shape[1]
        if not len(vectors):
            return cls(np.zeros(size), np.zeros((size, 2)), np.zeros((0, 2)), [0.0, 0.0])
        # Eigenvectors of the covariance, largest variance first.
        middle = vectors.mean(0, dtype=np.float64)
        centred = vectors.astype(np.float64) - middle
        # Threads of BLAS wait for each other actively: where other work has a core, a matrix this small takes seconds.
        with threadpool_limits(1, "blas"):
            values, directions = np.linalg.eigh(centred.T @ centred)
        axes = directions[:, ::-1][:, :2]
        # The sign of an eigenvector is arbitrary; this one does not change from run to run.
        axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1, 1)
        axes = axes / max(float(np.abs(centred @ axes).max()), 1e-12)
        total = max(float(values.sum()), np.finfo(float).tiny)
        plane = cls(middle, axes, np.zeros((0, 2)), [float(max(value, 0) / total) for value in values[::-1][:2]])
        return replace(plane, positions=plane.project(vectors))

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Positions [n, 2] of further vectors [n, size]."""
        # A subspace of one dimension has no second direction: y stays 0.
        positions = np.zeros((len(vectors), 2))
        positions[:, : self.axes.shape[1]] = (vectors.astype(np.float64) - self.middle) @ self.axes
        return positions


class LiveLibrary:
    """The newest state of a library on disk. A library that cannot be read for a moment keeps its last state."""

    def __init__(self, path: str | Path, *, root_path: str = "") -> None:
        self._path = Path(path)
        self._root_path = root_path
        self._lock = threading.Lock()
        self._catalog = load_catalog(self._path)
        self._stamp = self._catalog.stamp()
        self._state = LibraryState(self._catalog, root_path)
        self._looked = time.monotonic()

    def state(self) -> LibraryState:
        """The library as it is now."""
        with self._lock:
            if time.monotonic() - self._looked > _LOOK_SECONDS:
                self._looked = time.monotonic()
                self._renew()
            return self._state

    def _renew(self) -> None:
        try:
            stamp = self._catalog.stamp()
            if stamp != self._stamp:
                self._state = LibraryState(load_catalog(self._path), self._root_path)
                self._stamp = stamp
        except (OSError, ValueError):
            return  # a save is under way; the next look will find it whole
