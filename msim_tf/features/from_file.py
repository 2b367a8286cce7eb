"""Features of a sound file: decodes it, extracts, and refuses what holds no usable music.

The caller says who decodes: ``audio.decode.read_blocks`` in this process, or that of a
``Decoder``, where no file can harm the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from msim_tf.audio import decode
from msim_tf.audio.sandbox import DecoderUnavailable
from msim_tf.errors import InputError
from msim_tf.features.extractor import Extractor, Features
from msim_tf.performance import row_blocks

_CHECKED_ROWS = 2**14  # at a time, so that a mapped file is not read into memory whole


class BlockReader(Protocol):
    """Decodes a file: ``audio.decode.read_blocks`` or ``audio.sandbox.Decoder.read_blocks``."""

    def __call__(self, path: str | Path, *, sr: int, notes: list[str] | None = None) -> Iterator[np.ndarray]:
        """Blocks of [samples] float32 mono at ``sr``; what is worth knowing of the file is appended to ``notes``."""


def extract_file(
    path: Path, extractor: Extractor, read_blocks: BlockReader = decode.read_blocks, *, pad: bool = False
) -> Features:
    """Features of one audio file, in bounded memory.

    Args:
        path: any sound file that ``audio.decode`` reads.
        extractor: the extractor.
        read_blocks: what decodes.
        pad: lengthen a clip that is shorter than one segment with silence, instead of refusing it.

    Returns:
        The features, all finite, with the decoder's notes.

    Raises:
        InputError: if it cannot be decoded, is silent, or is too short; the message names the file.
    """
    # Peak and length are measured as the samples stream through: the whole waveform is never in memory.
    params = extractor.params
    peak, samples = 0.0, 0
    notes: list[str] = []

    def measured() -> Iterator[np.ndarray]:
        nonlocal peak, samples
        for block in read_blocks(path, sr=params.sr, notes=notes):
            peak = max(peak, float(block.max(initial=0.0)), -float(block.min(initial=0.0)))
            samples += len(block)
            yield block
        if pad and samples < params.segment_samples:
            yield np.zeros(params.segment_samples - samples, np.float32)

    features = extractor(measured())

    # Refuse what has no meaningful embedding; peak and length are known only after the whole file.
    if not samples:
        raise InputError(f"{path}: holds no audio")
    if peak < decode.SILENCE:
        raise InputError(f"{path}: silent (peak {peak:.1e})")
    if features.frames < params.segment_frames:
        raise InputError(
            f"{path}: {samples / params.sr:.2f} s is shorter than one segment of {params.segment_seconds:.2f} s; "
            "pad such clips with silence by --pad"
        )

    # Decoding bounds the samples, so this holds; what a store keeps must never depend on that alone. A sum is finite
    # only if all its terms are.
    for rows in (features.mel.T, features.onset, features.cens.T):
        if not all(np.isfinite(block.sum(dtype=np.float64)) for block in row_blocks(rows, _CHECKED_ROWS)):
            raise InputError(f"{path}: its features are not finite")
    return replace(features, notes=tuple(notes))


def features_or_reason(
    path: Path, extractor: Extractor, read_blocks: BlockReader = decode.read_blocks, *, pad: bool
) -> Features | str:
    """The file's features, or why it has none, without its path.

    Raises:
        DecoderUnavailable: if no file at all can be decoded.
    """
    try:
        return extract_file(path, extractor, read_blocks, pad=pad)
    except DecoderUnavailable:
        raise  # also an InputError, but not a fault of this file
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
