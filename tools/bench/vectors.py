"""Vectors like those of real tracks, as many as a benchmark wants.

Given the embeddings of some thousand real tracks, more are drawn by a smoothed bootstrap that keeps mean and covariance
of every subspace: a track is drawn, pulled towards the mean, and noise of the subspace's own covariance is added. How
much follows Silverman's rule at the number of dimensions that the covariance really has. All subspaces of a draw come
from one track, so dimensions stay related as they are. Without a file the tracks themselves are synthetic: clusters of
unequal weight, and spectra that fall as 1 / rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings, load_embeddings
from msim_tf.search.index import Index
from msim_tf.search.ranking import normalised
from msim_tf.search.source import Source
from msim_tf.search.vectors import BLOCK

_SIZE = 384
_SYNTHETIC = 4000
_CLUSTERS = 40


@dataclass(frozen=True, eq=False)
class TrackVectors:
    """Tracks to draw from.

    Attributes:
        layout: the subspaces.
        tracks: [n, size] float32, every subspace of length 1.
        kind: "real" or "synthetic", with their number: what a note says.
        smoothing: share of noise in each subspace, in (0, 1).
        noise: per subspace [width, width] float32, a square root of its covariance.
    """

    layout: EmbeddingLayout
    tracks: np.ndarray
    kind: str
    smoothing: tuple[float, ...]
    noise: tuple[np.ndarray, ...]

    @classmethod
    def load(cls, path: str) -> TrackVectors:
        """From an npz of ``msim embed``; synthetic ones for "".

        Raises:
            InputError: if the file cannot be read or has no subspaces.
        """
        if not path:
            layout = EmbeddingLayout.equal(DIMENSION_NAMES, _SIZE)
            return cls.fit(layout, synthetic_tracks(layout, _SYNTHETIC), "synthetic tracks")
        embeddings = load_embeddings(path)
        return cls.fit(
            Source.of(embeddings).layout, embeddings.embeddings, f"like {len(embeddings.identifiers)} real ones"
        )

    @classmethod
    def fit(cls, layout: EmbeddingLayout, tracks: np.ndarray, kind: str) -> TrackVectors:
        """From vectors [n, size] of any length."""
        unit = normalised(tracks, layout)
        spectra = [np.linalg.eigh(np.cov(unit[:, part], rowvar=False)) for part in layout.slices.values()]
        values = [np.maximum(spectrum, 0) for spectrum, _ in spectra]
        smoothing = tuple(bandwidth(len(unit), spectrum) for spectrum in values)
        noise = tuple((vectors * np.sqrt(value)).astype(np.float32) for value, (_, vectors) in zip(values, spectra))
        return cls(layout, unit, kind, smoothing, noise)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """New tracks, [count, size] float32; subspaces have about, not exactly, length 1."""
        drawn = self.tracks[rng.integers(len(self.tracks), size=count)]
        for part, share, noise in zip(self.layout.slices.values(), self.smoothing, self.noise):
            mean = self.tracks[:, part].mean(0)
            white = rng.standard_normal((count, len(noise)), np.float32)
            drawn[:, part] = mean + np.sqrt(1 - share**2) * (drawn[:, part] - mean) + share * white @ noise.T
        return drawn


def bandwidth(count: int, spectrum: np.ndarray) -> float:
    """Silverman's rule for ``count`` points at the participation ratio of a covariance's eigenvalues, at most 0.9."""
    dimensions = float(spectrum.sum() ** 2 / max(np.square(spectrum).sum(), 1e-30))
    return float(min(0.9, (4 / ((dimensions + 2) * count)) ** (1 / (dimensions + 4))))


def synthetic_tracks(layout: EmbeddingLayout, count: int, *, seed: int = 0) -> np.ndarray:
    """[count, size] float32."""
    rng, columns = np.random.default_rng(seed), []
    for width in layout.widths:
        scale = 1 / np.sqrt(np.arange(1, width + 1))
        centres = rng.standard_normal((_CLUSTERS, width)) * scale
        members = rng.choice(_CLUSTERS, count, p=rng.dirichlet(np.ones(_CLUSTERS)))
        columns.append(centres[members] + 0.7 * rng.standard_normal((count, width)) * scale)
    return np.concatenate(columns, 1).astype(np.float32)


def write_library(vectors: TrackVectors, rows: int, directory: Path) -> Index:
    """An index of ``rows`` drawn tracks with the exact engine, written block by block to ``directory``."""
    rng = np.random.default_rng(1)
    source = Source(vectors.layout, "bench", "1", "bench")
    meta = {"model": source.model, "version": source.version, "digest": source.digest}
    index = Index.create(directory, source)
    for start in range(0, rows, BLOCK):
        drawn = vectors.draw(min(BLOCK, rows - start), rng)
        names = tuple(f"track {row}" for row in range(start, start + len(drawn)))
        index.add(Embeddings("bench", names, drawn, vectors.layout, meta))
        index.save()
    return index
