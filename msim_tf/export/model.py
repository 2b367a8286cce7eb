"""An exported model as Python code uses it: sound in, embeddings out.

    model = msim_tf.load()
    track = model.embed("song.mp3")
    track.vector, track.mood
    print(model.describe("song.mp3"))

``Embedder`` is what works underneath, for whole libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import overload

import numpy as np

from msim_tf import settings
from msim_tf.audio.decode import resampled_mono
from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.export.description import Description
from msim_tf.export.embedder import Embedder
from msim_tf.export.metadata import ModelMetadata
from msim_tf.features.extractor import Features

Audio = str | Path | np.ndarray


@dataclass(frozen=True, eq=False)
class TrackEmbedding:
    """Where a model places a track. Every dimension is an attribute: ``embedding.mood`` is [width] float32.

    Attributes:
        vector: [size] float32, the whole embedding.
        layout: which coordinates belong to which dimension.
    """

    vector: np.ndarray
    layout: EmbeddingLayout

    @property
    def subspaces(self) -> Mapping[str, np.ndarray]:
        """The part of every dimension, [width] float32, by name."""
        return MappingProxyType({name: self.vector[part] for name, part in self.layout.slices.items()})

    def __getattr__(self, name: str) -> np.ndarray:
        # Dataclass fields are found before this is asked; while one is being unpickled there is no layout yet.
        layout: EmbeddingLayout | None = self.__dict__.get("layout")
        if layout is None or name not in layout.names:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return self.vector[layout.slices[name]]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.layout.names]

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} [{width}]" for name, width in zip(self.layout.names, self.layout.widths))
        return f"<TrackEmbedding [{self.layout.size}]: {parts}>"


class Model:
    """An exported model. Close it, or use it in a ``with`` block, to release it and its decoders.

    Args:
        path: ``saved_models/NAME``, or one of its versions.
        precision: in which it computes, see ``msim_tf.precision``; by default as ``msim_tf.settings`` says.
    """

    def __init__(self, path: str | Path, *, precision: str | None = None) -> None:
        self._embedder = Embedder(path, precision=precision)

    @property
    def metadata(self) -> ModelMetadata:
        """What the model says of itself."""
        return self._embedder.metadata

    @property
    def name(self) -> str:
        """The model's name."""
        return self.metadata.name

    @property
    def version(self) -> int:
        """The number of its version."""
        return int(self.metadata.directory.name)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of its subspaces."""
        return self.metadata.layout.names

    # A text is an iterable, too, but the first form takes it.
    @overload
    def embed(self, audio: Audio, *, sr: int | None = None, pad: bool = False) -> TrackEmbedding: ...  # type: ignore[overload-overlap]

    @overload
    def embed(self, audio: Iterable[Audio], *, sr: int | None = None, pad: bool = False) -> list[TrackEmbedding]: ...

    def embed(
        self, audio: Audio | Iterable[Audio], *, sr: int | None = None, pad: bool = False
    ) -> TrackEmbedding | list[TrackEmbedding]:
        """Listens to one track, or to several one after the other.

        The embedding of a track is the mean over its segments of 3 s (Ribecky et al., section 4.1).

        Args:
            audio: a sound file, or a waveform of [samples] or [samples, channels]; or an iterable of these.
            sr: sample rate of waveforms in Hz; files have their own.
            pad: lengthen what is shorter than one segment with silence, instead of refusing it.

        Returns:
            The embedding; a list of them for an iterable.

        Raises:
            InputError: if it cannot be decoded, is silent or too short, or a waveform comes without ``sr``.
        """
        # A path or an array is one track. Of several, the features of one at a time are in memory.
        if isinstance(audio, (str, Path, np.ndarray)):
            vector = self._embedder.embed_features(self._features(audio, sr, pad))
            return TrackEmbedding(vector, self.metadata.layout)
        return [self.embed(one, sr=sr, pad=pad) for one in audio]

    @overload
    def describe(self, audio: Audio, *, sr: int | None = None, pad: bool = False) -> Description: ...  # type: ignore[overload-overlap]

    @overload
    def describe(self, audio: Iterable[Audio], *, sr: int | None = None, pad: bool = False) -> list[Description]: ...

    def describe(
        self, audio: Audio | Iterable[Audio], *, sr: int | None = None, pad: bool = False
    ) -> Description | list[Description]:
        """Says what it hears in one track, or in several: words by dimension, the tempo, the key.

        Args:
            audio: as for ``embed``.
            sr: likewise.
            pad: likewise.

        Returns:
            The description; a list of them for an iterable.

        Raises:
            InputError: as ``embed``, or if the model has no words.
        """
        self._embedder.validate_describes()
        if isinstance(audio, (str, Path, np.ndarray)):
            description = self._embedder.hear(self._features(audio, sr, pad))[1]
            assert description is not None
            return description
        return [self.describe(one, sr=sr, pad=pad) for one in audio]

    def close(self) -> None:
        """Releases the model and ends its decoders."""
        self._embedder.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Model {self.name} version {self.version}: {', '.join(self.dimensions)}>"

    def _features(self, audio: Audio, sr: int | None, pad: bool) -> Features:
        """Features of one whole track; a waveform is mixed down and resampled first, as a decoder does with a file."""
        if not isinstance(audio, np.ndarray):
            return self._embedder.extract_file(audio, pad=pad)
        if sr is None:
            raise InputError("a waveform needs its sample rate: sr=44100")
        return self._embedder.extract_waveform(resampled_mono(audio, sr, self.metadata.features.sr), pad=pad)


def load(path: str | Path | None = None, *, precision: str | None = None) -> Model:
    """Loads an exported model.

    Args:
        path: ``saved_models/NAME`` or one of its versions; by default as ``msim_tf.settings`` says, which is the model
            that the package carries unless you set another.
        precision: "float32" or "bfloat16", see ``msim_tf.precision``; by default likewise, and float32.

    Raises:
        InputError: if there is no such model or precision.
    """
    return Model(settings.default_model() if path is None else path, precision=precision)
