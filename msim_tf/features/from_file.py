"""Features of a sound file: decodes it, extracts, and refuses what holds no usable music."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from msim_tf.audio import decode
from msim_tf.errors import InputError
from msim_tf.features.extractor import Extractor, Features

_SILENCE = 1e-4  # peak amplitude, -80 dB of full scale: below it there is nothing to hear and only dither to measure


def extract_file(path: Path, extractor: Extractor, *, pad: bool = False) -> Features:
    """Features of one audio file, in bounded memory.

    Args:
        path: any sound file that ``audio.decode`` reads.
        extractor: the extractor.
        pad: lengthen a clip that is shorter than one segment with silence, instead of refusing it.

    Raises:
        InputError: if it cannot be decoded, is silent, or is too short; the message names the file.
    """
    params = extractor.params
    peak, samples = 0.0, 0

    def measured() -> Iterator[np.ndarray]:
        nonlocal peak, samples
        for block in decode.read_blocks(path, sr=params.sr):
            peak = max(peak, float(block.max(initial=0.0)), -float(block.min(initial=0.0)))
            samples += len(block)
            yield block
        if pad and samples < params.segment_samples:
            yield np.zeros(params.segment_samples - samples, np.float32)

    features = extractor(measured())
    if not samples:
        raise InputError(f"{path}: holds no audio")
    if peak < _SILENCE:
        raise InputError(f"{path}: silent (peak {peak:.1e})")
    if features.frames < params.segment_frames:
        raise InputError(
            f"{path}: {samples / params.sr:.2f} s is shorter than one segment of {params.segment_seconds:.2f} s; "
            "pad such clips with silence by --pad"
        )
    return features


def features_or_reason(path: Path, extractor: Extractor, *, pad: bool) -> Features | str:
    """The file's features, or why it has none, without its path."""
    try:
        return extract_file(path, extractor, pad=pad)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
