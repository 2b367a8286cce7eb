"""Waveform -> the stored features of a clip, in bounded memory: the one implementation, in TensorFlow operations.

Extraction, the front of the model and the exported ``audio`` signature all run the code of this room; librosa at the
same settings is the oracle of its tests (paper, section 3.1; McFee et al., "librosa", SciPy 2015).

The work has two halves. *Frame features* (``spectral``) need only the samples around a frame, so hours of audio pass
through in blocks. *Clip features* (``onset``, ``chroma``) look at the whole clip. Both are cut into segments last
(``segments``); the ``tempogram`` is computed from the onset envelope inside the model.

Inside this room arrays are ``[..., frames, frequency]``, the order in which frames stream; what ``Extractor`` hands out
is ``(frequency, frames)``. It does not open sound (``audio.decode``) and knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from msim_tf.features.chroma import cens, cens_in_blocks
from msim_tf.features.onset import onset, rise
from msim_tf.features.spectral import frame_features, halo
from msim_tf.features.spill_buffer import SpillBuffer
from msim_tf.features.streaming import in_turns, joined, whole_frames
from msim_tf.params import FeatureParams

# Ten seconds: less costs calls, more leaves the processor's own cache and fetches memory anew for each block.
_BLOCK_FRAMES = 432
_RISE_FRAMES = 6 * _BLOCK_FRAMES  # a minute; a frame costs less here, so calls count more
_CENS_TILES = 256  # lengths of the smoothing window, 41 frames each: four minutes
_TURN_SECONDS = 30.0  # decoded before any of it is extracted, see ``streaming.in_turns``


@dataclass(frozen=True)
class Features:
    """The three stored features of one clip.

    Attributes:
        mel: [n_mels, frames] float32, log10(1 + gain * S), >= 0; of a long clip a mapped temporary file, whose memory
            ``performance.release_pages`` gives back.
        onset: [frames + tempogram_lags] float32, >= 0: the onset envelope with half a window's ramp to zero at both
            ends.
        cens: [n_chroma, frames] float32 in [0, 1], L2 norm 1 per frame (0 in silence).
        notes: what the user should know of the file though it is used, e.g. "damaged: 93 % of 215 s decodes".
    """

    mel: np.ndarray
    onset: np.ndarray
    cens: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """Number of frames."""
        return int(self.mel.shape[1])


def clip_features(mel_db: tf.Tensor, chroma: tf.Tensor, params: FeatureParams) -> tuple[tf.Tensor, tf.Tensor]:
    """Features that depend on the whole clip.

    Args:
        mel_db: [..., frames, n_mels] from ``frame_features``.
        chroma: [..., frames, n_chroma] from ``frame_features``.
        params: the feature parameters.

    Returns:
        The padded onset envelope [..., frames + tempogram_lags], and CENS [..., frames, n_chroma].
    """
    # [..., 1, 1]: the loudest band of the whole clip, from which dB are clipped.
    rises = rise(mel_db, tf.reduce_max(mel_db, [-2, -1], keepdims=True))
    return onset(rises, params), cens(chroma, params)


class Extractor:
    """Extracts clips of any length in bounded memory; build one and share it between threads.

    Args:
        params: the feature parameters.
    """

    def __init__(self, params: FeatureParams) -> None:
        # One graph for each step, traced here for clips of any length, so that no clip waits for it.
        self.params = params
        samples, matrix = tf.TensorSpec([None], tf.float32), tf.TensorSpec([None, None], tf.float32)
        peak = tf.TensorSpec([], tf.float32)
        chroma = tf.TensorSpec([None, params.n_chroma], tf.float32)
        self._frame_features = _on_arrays(lambda y: frame_features(y, params), samples)
        self._short_clip_features = _on_arrays(
            lambda mel_db, chroma: clip_features(mel_db, chroma, params), matrix, chroma
        )
        self._rise = _on_arrays(rise, matrix, peak)
        self._onset = _on_arrays(lambda rises: onset(rises, params), samples)
        self._cens = _on_arrays(lambda chroma: cens(chroma, params), chroma)

    def __call__(self, blocks: Iterable[np.ndarray]) -> Features:
        """Features of one clip.

        Args:
            blocks: consecutive [samples] float32 pieces of the clip, mono at ``params.sr``, of any lengths.

        Returns:
            The features; a clip of n samples has 1 + n // hop_length frames.
        """
        with SpillBuffer(self.params.n_mels) as mels, SpillBuffer(self.params.n_mels) as dbs:
            # Frame features: the waveform streams through, [samples] -> [frames of the block, frequency] each.
            chromas = []
            turns = in_turns(blocks, round(_TURN_SECONDS * self.params.sr))
            for block in whole_frames(turns, _BLOCK_FRAMES, hop=self.params.hop_length, margin=halo(self.params)):
                mel, mel_db, chroma = self._frame_features(block)
                mels.append(mel)
                dbs.append(mel_db)
                chromas.append(chroma)

            # Clip features need the peak of the whole clip, which is known only now.
            envelope, smoothed = self._whole_clip(dbs, joined(chromas))

            # Handed out as (frequency, frames).
            return Features(mel=mels.whole().T, onset=envelope, cens=smoothed.T)

    def _whole_clip(self, dbs: SpillBuffer, chroma: np.ndarray) -> list[np.ndarray]:
        """What ``clip_features`` gives, for a long clip block by block."""
        if dbs.rows <= _RISE_FRAMES:
            return self._short_clip_features(dbs.whole(), chroma)

        # [frames, n_mels] -> [frames - 1]: each block also has the last frame of the one before, from which it rises.
        rises, last = [], np.empty((0, self.params.n_mels), np.float32)
        for db in dbs.blocks(_RISE_FRAMES):
            rows = np.concatenate([last, db]) if len(last) else db
            rises += self._rise(rows, dbs.peak)
            last = db[-1:]

        # The rises are one number per frame and fit in memory whole; CENS is smoothed block by block.
        (envelope,) = self._onset(np.concatenate(rises))
        smoothed = cens_in_blocks(lambda block: self._cens(block)[0], chroma, tiles=_CENS_TILES, params=self.params)
        return [envelope, smoothed]


def _on_arrays(function: Callable[..., Any], *specs: tf.TensorSpec) -> Callable[..., list[np.ndarray]]:
    """The function as a graph from arrays to arrays, for these specs only.

    Calling a ``tf.function`` binds and checks its arguments first, which costs a sixth of the features' time; running
    its graph as one operation does not.
    """
    graph = tf.function(function, autograph=False).get_concrete_function(*specs)
    types = [tensor.dtype for tensor in graph.outputs]

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        tensors = tf.raw_ops.PartitionedCall(args=arrays, Tout=types, f=graph)
        # Views of the tensors' own memory; ``numpy()`` would copy it.
        return [np.asarray(memoryview(tensor)) for tensor in tensors]

    return run
