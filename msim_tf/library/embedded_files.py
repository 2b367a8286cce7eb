"""From sound files to what a library keeps of them: vector, metadata, hash, or the reason why a file cannot be used.

The one way in which files come into a library, whether ``msim index`` embeds them here or jobs of it do elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from msim_tf.audio.scan import FileState, content_hash
from msim_tf.data.outcome import is_machine_fault
from msim_tf.errors import InputError, unforeseen
from msim_tf.export.description import Description
from msim_tf.export.embedding_job import PartTrack
from msim_tf.export.metadata import ModelMetadata
from msim_tf.features.extractor import Features
from msim_tf.library.descriptions import with_description
from msim_tf.parallel import READ_AHEAD, in_order


class TrackEmbedder(Protocol):
    """What embeds: ``export.embedder.Embedder``."""

    metadata: ModelMetadata

    def extract(self, path: str | Path, *, pad: bool = False) -> Features | str:
        """The features of an audio file, or why it has none."""

    def read_tags(self, path: str | Path) -> dict[str, Any]:
        """Artist, album, title, year and genre as the file's tags tell them."""

    def hear(self, features: Features) -> tuple[np.ndarray, Description | None]:
        """The track embedding, [size] float32, and what the model says of the track."""


def embedded_files(
    files: Mapping[str, FileState], music: Path, embedder: TrackEmbedder, *, pad: bool
) -> Iterator[tuple[str, PartTrack]]:
    """Embeds files in their order; a few are read ahead while the model works.

    Args:
        files: identifier -> state, as the scan saw it.
        music: the folder that they are in.
        embedder: the model.
        pad: lengthen tracks shorter than one segment with silence.

    Yields:
        Each identifier with its track. What one file raises is its reason and ends nothing.

    Raises:
        InputError: if no file at all can be decoded.
        OSError: if the disk is full, or the machine has no more memory or files.
    """

    def read(name: str) -> tuple[str, dict[str, Any], Features | str]:
        """Hash, tags, and features or the reason why there are none."""
        path, sha256 = music / name, ""
        try:
            sha256 = content_hash(path)
            features = embedder.extract(path, pad=pad)
            tags = {} if isinstance(features, str) else embedder.read_tags(path)
            return sha256, tags, features
        except OSError as error:
            if is_machine_fault(error):
                raise
            return sha256, {}, f"cannot be read ({error.strerror})"
        except InputError:
            raise  # not this file's fault
        except Exception as error:  # one file never ends a run
            return sha256, {}, unforeseen(error)

    # Reading runs ahead in threads, the model in this one.
    for name, (sha256, tags, features) in in_order(read, files, READ_AHEAD):
        state = files[name]
        outcome = features if isinstance(features, str) else _vector_and_description(embedder, features)
        if isinstance(outcome, str):
            yield name, PartTrack(state, None, outcome, sha256=sha256)
            continue
        assert not isinstance(features, str)
        vector, description = outcome
        seconds = round(features.frames / embedder.metadata.features.frame_rate, 2)
        metadata = with_description({**tags, "seconds": seconds}, description)
        yield name, PartTrack(state, vector, notes=tuple(features.notes), sha256=sha256, metadata=metadata)


def _vector_and_description(embedder: TrackEmbedder, features: Features) -> tuple[np.ndarray, Description | None] | str:
    """The vector [size] float32 and the description, or why an index cannot hold the track."""
    try:
        vector, description = embedder.hear(features)
    except Exception as error:  # one file never ends a run
        return unforeseen(error)
    if not np.isfinite(vector).all():
        return "the model's output is not finite"
    # A subspace of zeros has no direction, so no distance in it means anything.
    slices = embedder.metadata.layout.slices
    flat = [name for name, part in slices.items() if not np.linalg.norm(vector[part]) > 1e-9]
    return f"the model says nothing about its {', '.join(flat)}" if flat else (vector, description)
