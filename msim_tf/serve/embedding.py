"""Embeds audio files and stores with an exported model, in this process: what ``msim embed`` does.

The embedding of a track is the mean over its non-overlapping segments (paper, section 4.1). Segments pass through the model in chunks, so that
a track of hours needs no more memory than its features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from msim_tf.corpus import audio
from msim_tf.errors import InputError
from msim_tf.features.extract import Extractor, Features
from msim_tf.features.store import FeatureStore, manifest_path
from msim_tf.features.writer import extract_file, features_or_reason, in_order
from msim_tf.params import FeatureParams, validate_digest
from msim_tf.serve.metadata import load_metadata
from msim_tf.serve.servable import Servable

_CHUNK = 32
_WORKERS = 2  # extraction runs ahead of the model; more threads would only take its cores


class Embedder:
    """An exported model with the extraction that belongs to it.

    Args:
        model: ``saved_models/NAME``, or one of its versions.

    Attributes:
        metadata: what the model says of itself.
    """

    def __init__(self, model: str | Path) -> None:
        self.metadata = load_metadata(model)
        self._servable = Servable.load(self.metadata.directory, warmup=False)
        self._extractor = Extractor(self.metadata.features)

    def embed_features(self, features: Features) -> np.ndarray:
        """The track embedding, [size] float32."""
        params, total = self.metadata.features, np.zeros(self.metadata.layout.size)
        count = params.segments(features.frames)
        for first in range(0, count, _CHUNK):
            inputs = segments_of(features, range(first, min(first + _CHUNK, count)), params)
            feeds = {name: inputs[name] for name in self.metadata.inputs}
            total += self._servable.run("serving_default", feeds)["embedding"].sum(0, dtype=np.float64)
        return (total / count).astype(np.float32)

    def embed_file(self, path: str | Path, *, pad: bool = False) -> np.ndarray:
        """The track embedding of one audio file, [size] float32.

        Raises:
            InputError: if it cannot be decoded, is silent, or too short.
        """
        return self.embed_features(extract_file(Path(path), self._extractor, pad=pad))

    def embed(
        self,
        source: str | Path,
        *,
        pad: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[list[str], np.ndarray, dict[str, str]]:
        """Embeds every track of a folder, a single file, or a feature store.

        Args:
            source: the folder, file or store.
            pad: lengthen clips shorter than a segment with silence.
            progress: called with (tracks done, tracks in all).

        Returns:
            identifiers of n tracks; their embeddings [n, size] float32; the reason for each track left out.

        Raises:
            InputError: if nothing can be embedded, or a store holds other features.
        """
        source = Path(source)
        identifiers, results = (
            self._stored(source) if manifest_path(source).exists() else self._extracted(source, pad=pad)
        )
        vectors: dict[str, np.ndarray] = {}
        failures: dict[str, str] = {}
        for done, (identifier, result) in enumerate(results, 1):
            if isinstance(result, str):
                failures[identifier] = result
            else:
                vectors[identifier] = self.embed_features(result)
            progress(done, len(identifiers))
        if not vectors:
            name, reason = next(iter(failures.items()))
            raise InputError(f"{source}: none of {len(failures)} files could be embedded; {name}: {reason}")
        return list(vectors), np.stack(list(vectors.values())), failures

    def close(self) -> None:
        """Releases the model."""
        self._servable.close()

    def _stored(self, path: Path) -> tuple[list[str], Iterator[tuple[str, Features | str]]]:
        store = FeatureStore(path)
        model = self.metadata
        validate_digest(store.params.digest, manifest_path(path), model.features.digest, f"the model {model.directory}")
        return store.identifiers, ((name, store.read_clip(i)) for i, name in enumerate(store.identifiers))

    def _extracted(self, path: Path, *, pad: bool) -> tuple[list[str], Iterator[tuple[str, Features | str]]]:
        root, identifiers = audio.library_root(path)

        def work(identifier: str) -> Features | str:
            return features_or_reason(root / identifier, self._extractor, pad=pad)

        return identifiers, in_order(work, identifiers, _WORKERS)


def segments_of(features: Features, numbers: range, params: FeatureParams) -> dict[str, np.ndarray]:
    """Model inputs of some of a clip's segments, each [n, *shape] float32."""
    starts = np.array(numbers) * params.segment_frames
    columns = starts[:, None] + np.arange(params.segment_frames)
    return {
        "mel": np.ascontiguousarray(features.mel[:, columns].swapaxes(0, 1)),
        "onset": features.onset[starts[:, None] + np.arange(params.segment_onsets)],
        "cens": np.ascontiguousarray(features.cens[:, columns].swapaxes(0, 1)),
    }
