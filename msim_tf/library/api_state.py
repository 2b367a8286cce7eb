"""An indexed library as the API holds it: what is derived from the index once and kept, and renewed when ``msim index`` has written."""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.library.api_errors import ApiError
from msim_tf.library.catalog import Catalog, load_catalog
from msim_tf.search.index import Index
from msim_tf.search.tracks import TAG_KEYS, album_of, artist_of

_LOOK_SECONDS = 1.0  # between looks whether the library has changed
_TAGS_SHOWN = 60
_MAPS_KEPT = 32


class LibraryState:
    """One state of the library. Everything in it is read-only, and derived values are made when they are first needed."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.index: Index = catalog.open_index()
        self.maps: dict[tuple[str, int], Any] = {}

    def require(self, identifier: Any) -> str:
        """``identifier`` if there is such a track.

        Raises:
            ApiError: 400 if it is not text, 404 if there is none.
        """
        if not isinstance(identifier, str):
            raise ApiError(400, f"track {identifier!r}: expected the id of a track, as text")
        if identifier not in self.index:
            raise ApiError(404, f"the library has no track {identifier!r}")
        return identifier

    @cached_property
    def identifiers(self) -> list[str]:
        """All tracks in the order of their paths."""
        return sorted(self.index.identifiers)

    @cached_property
    def _texts(self) -> list[str]:
        """What a search looks at, per track."""
        texts = []
        for identifier in self.identifiers:
            metadata = self.index.metadata(identifier)
            told = (metadata.get(key, "") for key in ("title", "artist", "album_artist", "album"))
            texts.append("\n".join([*told, identifier]).casefold())
        return texts

    def found(self, text: str) -> list[str]:
        """Tracks whose title, artist, album or path holds every word of ``text``, in the order of their paths."""
        words = text.casefold().split()
        if not words:
            return self.identifiers
        return [name for name, told in zip(self.identifiers, self._texts) if all(word in told for word in words)]

    @cached_property
    def artists(self) -> list[tuple[str, int]]:
        """Artists, spelt as on most of their tracks, and how many these are; most tracks first, then by name."""
        spelt: dict[str, Counter[str]] = {}
        for identifier in self.identifiers:
            metadata = self.index.metadata(identifier)
            if artist_of(metadata):
                spelt.setdefault(artist_of(metadata), Counter())[metadata["artist"]] += 1
        counted = [(names.most_common(1)[0][0], names.total()) for names in spelt.values()]
        return sorted(counted, key=lambda artist: (-artist[1], artist[0].casefold()))

    @cached_property
    def overview(self) -> dict[str, Any]:
        """What GET /library tells of the music."""
        counts: dict[str, Counter[str]] = {key: Counter() for key in (*TAG_KEYS, "artist", "album", "key")}
        tempos, years = [], []
        for identifier in self.identifiers:
            metadata = self.index.metadata(identifier)
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
            "model": {"name": source.model, "version": source.version, "features": source.digest},
            "engine": self.index.engine.name,
            "tags": {key: [list(pair) for pair in counts[key].most_common(_TAGS_SHOWN)] for key in TAG_KEYS},
            "keys": sorted(counts["key"]),
            "bpm": [min(tempos), max(tempos)] if tempos else None,
            "years": [min(years), max(years)] if years else None,
        }

    def positions(self, dimension: str, limit: int) -> tuple[list[str], np.ndarray, list[float]]:
        """Two-dimensional positions of at most ``limit`` tracks by principal components, kept once made.

        Args:
            dimension: whose subspace; "" is the whole embedding.
            limit: if the library is larger, tracks at even steps through its paths.

        Returns:
            Tracks; positions [n, 2], within [-1, 1]; the shares of the variance that the two components have.
        """
        key = (dimension, limit)
        if key not in self.maps:
            if len(self.maps) >= _MAPS_KEPT:
                self.maps.clear()
            step = max(1, -(-len(self.identifiers) // limit))
            names = self.identifiers[::step]
            vectors = self.index.vectors(names)
            part = self.index.source.layout.slices[dimension] if dimension else slice(None)
            self.maps[key] = (names, *principal_components(vectors[:, part]))
        return self.maps[key]


def principal_components(vectors: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The two directions of largest variance.

    Args:
        vectors: [n, size] float.

    Returns:
        Positions [n, 2] float, scaled into [-1, 1] with one scale for both; shares of the variance, in [0, 1].
    """
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    axes = directions[:, ::-1][:, :2]
    # The sign of an eigenvector is arbitrary; this one does not change from run to run.
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1, 1)
    places = np.zeros((len(vectors), 2))
    places[:, : axes.shape[1]] = centred @ axes
    total = max(float(values.sum()), np.finfo(float).tiny)
    return places / max(float(np.abs(places).max()), 1e-12), [
        float(max(value, 0) / total) for value in values[::-1][:2]
    ]


class LiveLibrary:
    """The newest state of a library on disk. A library that cannot be read for a moment keeps its last state."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._catalog = load_catalog(self._path)
        self._stamp = self._catalog.stamp()
        self._state = LibraryState(self._catalog)
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
                self._state = LibraryState(load_catalog(self._path))
                self._stamp = stamp
        except (OSError, ValueError):
            return  # a save is under way; the next look will find it whole
