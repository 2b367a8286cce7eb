"""Embeds one track at a time with an exported model, in this process; ``embedding`` does folders and stores.

The embedding of a track is the mean over its non-overlapping segments (paper, section 4.1), without those that are
silent (``features.segments.audible_segments``). The exported ``audio`` signature averages over all of them, because a
graph that ships cannot change: the two differ for waveforms with silent segments. Segments pass through the model in
chunks, so that a track of hours needs no more memory than its features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf import settings
from msim_tf.audio.sandbox import DecodeLimits, Decoder
from msim_tf.audio.scan import FileState
from msim_tf.audio.source import Source
from msim_tf.audio.tags import read_tags
from msim_tf.data.outcome import file_outcome
from msim_tf.dimensions import PROBABILITIES
from msim_tf.errors import AudioWarning, InputError
from msim_tf.export.description import Description, track_description
from msim_tf.export.metadata import load_metadata
from msim_tf.export.servable import Servable
from msim_tf.features.extractor import Extractor, Features
from msim_tf.features.from_file import extract_file, features_or_reason
from msim_tf.features.segments import audible_segments, segments_at
from msim_tf.parallel import READ_AHEAD, in_order
from msim_tf.params import FeatureParams
from msim_tf.performance import release_pages

_CHUNK = 64  # segments; a song then takes 7 to 22 % less processor time than by 16, and 130 MB more


class Embedder:
    """An exported model with the extraction that belongs to it.

    Files are decoded in processes of their own (``audio.sandbox``), which ``close`` ends.

    Args:
        model: ``saved_models/NAME``, or one of its versions.
        limits: what decoding one file may cost.
        precision: in which the model computes, see ``msim_tf.precision``; by default as ``msim_tf.settings`` says.

    Attributes:
        metadata: what the model says of itself.
    """

    def __init__(self, model: str | Path, limits: DecodeLimits | None = None, *, precision: str | None = None) -> None:
        self.metadata = load_metadata(model)
        chosen = precision or settings.default_precision()
        self._servable = Servable.load(self.metadata.directory, warmup=False, precision=chosen)
        self._extractor = Extractor(self.metadata.features)
        self._decoder = Decoder(limits)

    def extract(self, path: str | Path, *, pad: bool = False) -> Features | str:
        """The features of an audio file, or why it has none.

        Raises:
            DecoderUnavailable: if no file at all can be decoded.
        """
        return features_or_reason(Path(path), self._extractor, self._decoder.read_blocks, pad=pad)

    def outcome(self, root: Source, file: tuple[str, FileState], *, pad: bool) -> Features | str:
        """The features of an audio file (identifier, state) below a folder or URI, or whatever reading it raised.

        Raises:
            DecoderUnavailable: if no file at all can be decoded.
            SourceUnavailable: if the file cannot be fetched now.
            OSError: if the disk is full, or the machine has no more memory or files.
        """
        return file_outcome(root, file, self._extractor, self._decoder, pad=pad)

    def read_tags(self, path: str | Path) -> dict[str, Any]:
        """Artist, album, title, year and genre as the file's own tags tell them.

        Raises:
            DecoderUnavailable: if no file at all can be decoded.
        """
        return read_tags(Path(path), self._decoder.metadata)

    def embed_features(self, features: Features) -> np.ndarray:
        """The track embedding, [size] float32: the mean over the segments that are not silent."""
        return self.embed_segments(features, audible_segments(features, self.metadata.features))

    def hear(self, features: Features) -> tuple[np.ndarray, Description | None]:
        """The track embedding, [size] float32, and what the model says of the track; None if it describes nothing."""
        classes = self.metadata.classes
        if not classes:
            return self.embed_features(features), None
        probabilities: dict[str, list[np.ndarray]] = {name: [] for name in classes}

        def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
            feeds = {name: inputs[name] for name in self.metadata.inputs}
            outputs = self._servable.run("describe", feeds, ["embedding", *(name + PROBABILITIES for name in classes)])
            for name, segments in probabilities.items():
                segments.append(outputs[name + PROBABILITIES])
            return outputs["embedding"]

        starts = audible_segments(features, self.metadata.features)
        vector = mean_embedding(run, features, starts, self.metadata.features)
        return vector, track_description({name: np.concatenate(own) for name, own in probabilities.items()}, classes)

    def validate_describes(self) -> None:
        """Refuses a model that describes nothing.

        Raises:
            InputError: naming it.
        """
        if not self.metadata.classes:
            raise InputError(
                f"{self.metadata.directory}: this model places music but has no words for it; use one that was trained "
                "with --describe-steps, such as the one that msim carries"
            )

    def embed_segments(self, features: Features, starts: np.ndarray) -> np.ndarray:
        """The mean over the segments that begin at the frames ``starts`` ([n] int), [size] float32."""
        return mean_embedding(self._run, features, starts, self.metadata.features)

    def _run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        feeds = {name: inputs[name] for name in self.metadata.inputs}
        return self._servable.run("serving_default", feeds)["embedding"]

    def extract_file(self, path: str | Path, *, pad: bool = False) -> Features:
        """The features of one audio file; what is wrong with one that is used all the same is an ``AudioWarning``.

        Raises:
            InputError: if it cannot be decoded, is silent, or too short.
        """
        features = extract_file(Path(path), self._extractor, self._decoder.read_blocks, pad=pad)
        for note in features.notes:
            warnings.warn(f"{path}: {note}", AudioWarning, stacklevel=4)
        return features

    def embed_file(self, path: str | Path, *, pad: bool = False) -> np.ndarray:
        """The track embedding of one audio file, [size] float32.

        Raises:
            InputError: if it cannot be decoded, is silent, or too short.
        """
        return self.embed_features(self.extract_file(path, pad=pad))

    def extract_waveform(self, y: np.ndarray, *, pad: bool = False) -> Features:
        """The features of a waveform.

        Args:
            y: [samples] float32 mono at the sample rate of the model's features.
            pad: lengthen what is shorter than one segment with silence.

        Raises:
            InputError: if it is silent or too short.
        """

        def read_blocks(path: str | Path, *, sr: int, notes: list[str] | None = None) -> Iterator[np.ndarray]:
            yield y

        return extract_file(Path("the waveform"), self._extractor, read_blocks, pad=pad)

    def close(self) -> None:
        """Releases the model and ends the decoders."""
        self._decoder.close()
        self._servable.close()

    def extract_all(
        self, root: Path, identifiers: Sequence[str], *, pad: bool = False
    ) -> Iterator[tuple[str, Features | str]]:
        """Every file below ``root`` with its features, or why it has none; a few are read ahead."""

        def work(identifier: str) -> Features | str:
            return self.outcome(root, (identifier, FileState(0, 0)), pad=pad)

        return in_order(work, identifiers, READ_AHEAD)


def mean_embedding(
    run: Callable[[dict[str, np.ndarray]], np.ndarray], features: Features, starts: np.ndarray, params: FeatureParams
) -> np.ndarray:
    """Mean embedding of segments, passed through the model in chunks.

    Args:
        run: inputs, each [n, *shape], to embeddings [n, size].
        features: of the whole clip.
        starts: [n] first frame of each segment.
        params: how the features were made.

    Returns:
        [size] float32.
    """
    total = np.zeros((), np.float64)
    for first in range(0, len(starts), _CHUNK):
        embeddings = run(segments_at(features, starts[first : first + _CHUNK], params))
        total = total + embeddings.sum(0, dtype=np.float64)
        release_pages(features.mel)
    return (total / len(starts)).astype(np.float32)
