"""``FeatureParams``: the one description of the features, from which every shape is derived.

The parameters are passed, never global. Their ``digest`` travels with every artefact (store, model, export, index), and
a reader that expects other features refuses, naming both digests.

Conventions: axes are ``(frequency, frames)``; a *frame* is one hop; a *segment* is one input of the model; names of
inputs are ``mel``, ``onset`` and ``cens`` from the store to the signature.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msim_tf.errors import InputError

# The largest sample: 32-bit integers written as float without scaling. A power spectrogram of more could overflow
# float32.
LOUDEST = 2.0**31


@dataclass(frozen=True)
class FeatureParams:
    """How a waveform becomes mel-spectrogram, onset envelope, tempogram and CENS chroma (paper, section 3.1).

    Attributes:
        sr: sample rate in Hz.
        n_fft: window of the one STFT that all features share, in samples; a multiple of ``hop_length``.
        hop_length: samples between frames.
        n_mels: mel bands (Slaney scale and norm, 0 Hz to sr / 2).
        mel_gain: the 10 in log10(1 + 10 * S), S the mel of the magnitude spectrogram.
        tempogram_lags: length of the onset autocorrelation window, in frames; rows of the tempogram.
        n_chroma: chroma bins.
        cens_smoothing: length of CENS' Hann smoother, in frames.
        cens_source: what the chroma is folded from: "stft" (the shared STFT, the paper's words) or "cqt" (as librosa's
            chroma_cens).
        segment_frames: frames of one segment.
    """

    sr: int = 22050
    n_fft: int = 1024
    hop_length: int = 512
    n_mels: int = 128
    mel_gain: float = 10.0
    tempogram_lags: int = 384
    n_chroma: int = 12
    cens_smoothing: int = 41
    cens_source: str = "stft"
    segment_frames: int = 129

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and value <= 0:
                raise InputError(f"FeatureParams.{field.name} is {value}, expected > 0")
        if self.n_fft % self.hop_length or self.n_fft % 2:
            raise InputError(
                f"FeatureParams.n_fft is {self.n_fft}, expected an even multiple of hop_length {self.hop_length}"
            )
        if self.tempogram_lags % 2:
            raise InputError(f"FeatureParams.tempogram_lags is {self.tempogram_lags}, expected an even number")
        if self.cens_smoothing % 2 == 0:
            raise InputError(f"FeatureParams.cens_smoothing is {self.cens_smoothing}, expected an odd number")
        if self.cens_source not in ("stft", "cqt"):
            raise InputError(f"FeatureParams.cens_source is {self.cens_source!r}, expected 'stft' or 'cqt'")

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sr / self.hop_length

    @property
    def segment_samples(self) -> int:
        """Fewest samples of one whole segment; frames are centred: the first and last reach half a window outside."""
        return (self.segment_frames - 1) * self.hop_length

    @property
    def segment_seconds(self) -> float:
        """Duration of one segment, counted in hops."""
        return self.segment_frames * self.hop_length / self.sr

    @property
    def segment_onsets(self) -> int:
        """Values of the padded onset envelope that one segment's tempogram needs: frames + lags - 1."""
        return self.segment_frames + self.tempogram_lags - 1

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each model input for one segment, without the batch axis."""
        return {
            "mel": (self.n_mels, self.segment_frames),
            "onset": (self.segment_onsets,),
            "cens": (self.n_chroma, self.segment_frames),
        }

    def frames(self, samples: int) -> int:
        """Frames of a clip of ``samples`` samples: 1 + samples // hop_length, as librosa with centred frames."""
        return 1 + samples // self.hop_length

    def segments(self, frames: int) -> int:
        """Whole, non-overlapping segments in ``frames`` frames."""
        return frames // self.segment_frames

    @property
    def digest(self) -> str:
        """Sixteen hex digits that change whenever any parameter changes."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """The parameters as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FeatureParams:
        """The inverse of ``to_json``.

        Raises:
            InputError: if a name is unknown or missing.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(value) != names:
            raise InputError(f"feature parameters differ in names: {sorted(names ^ set(value))}")
        return cls(**value)


# "literal" reads the paper's "23 ms window, 50 % overlap" as it stands; "paper" is the reading that gives its 16x16
# feature maps.
FEATURE_PRESETS: dict[str, FeatureParams] = {
    "paper": FeatureParams(),
    "literal": FeatureParams(n_fft=512, hop_length=256, segment_frames=259),
    "cqt": FeatureParams(cens_source="cqt"),
}


def validate_digest(digest: str, origin: str | Path, expected: str, expected_by: str | Path) -> None:
    """Refuses features made with other parameters.

    Raises:
        InputError: naming both digests and both files.
    """
    if digest != expected:
        raise InputError(
            f"{origin} holds features with digest {digest}, {expected_by} expects {expected}: "
            "extract again with the parameters of the latter, or use what belongs to the former"
        )
