"""What a decoder learns of a file on the way, and the words for it: notes on what is used, reasons for what is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msim_tf.audio import sndfile
from msim_tf.errors import InputError

SHARE_NEEDED = 0.5
# Peaks, of full scale: below the first there is only dither (-80 dB); the mix of a cancelling
# pair is that far below its channels.
SILENCE = 1e-4
_CANCELLED = 1e-3


class TooLong(InputError):
    """The sound is longer than the caller accepts."""


@contextmanager
def reasons(path: Path) -> Iterator[None]:
    """Makes an ``InputError`` that names the file of whatever is raised inside."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: needs more memory than there is") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:
        raise InputError(f"{path}: cannot be decoded ({str(error) or type(error).__name__})") from error


@dataclass
class Progress:
    """What is known of a file while it is decoded.

    Attributes:
        declared: seconds that the header states, None if it does not.
        seconds: decoded so far.
        fault: why a decoder stopped, "" if none did.
        lost: share of packets that could not be decoded.
        doubted: whether the file contradicts ``declared``.
        peak: of all channels.
        mixed_peak: of the mono signal.
        tolerance: seconds by which a whole file may differ from its header.
        rates: sample rates so far.
    """

    declared: float | None = None
    seconds: float = 0.0
    fault: str = ""
    lost: float = 0.0
    doubted: bool = False
    peak: float = 0.0
    mixed_peak: float = 0.0
    tolerance: float = sndfile.TOLERANCE_SECONDS
    rates: set[int] = field(default_factory=set)


def verdict(path: Path, progress: Progress) -> list[str]:
    """Notes on a file that was read to its end.

    Raises:
        InputError: if less than half of it decodes, or its channels cancel each other.
    """
    if progress.mixed_peak < SILENCE <= progress.peak and progress.mixed_peak < _CANCELLED * progress.peak:
        raise InputError(
            f"{path}: left and right cancel each other (one is the other upside down), so that mono is silent; turn "
            "one over"
        )
    declared, seconds = progress.declared, progress.seconds
    share = 1.0 - progress.lost
    if declared and declared - seconds > progress.tolerance and not progress.doubted:
        share = min(share, seconds / declared)
    if share < SHARE_NEEDED:
        raise InputError(f"{path}: truncated or damaged, only {_percent(share)} of {declared or seconds:.1f} s decodes")
    if share < 1.0:
        return [f"damaged: {_percent(share)} of {declared or seconds:.1f} s decodes"]
    if progress.fault and declared is None or progress.fault == "its last page is missing":
        return [f"damaged: {progress.fault}, {seconds:.1f} s decode"]
    beyond = abs(seconds - declared) if declared and progress.doubted else seconds - (declared or seconds)
    if beyond > max(progress.tolerance, 0.01 * (declared or 0.0)):
        return [f"its header states {declared:.1f} s, {seconds:.1f} s decode"]
    if progress.fault:
        return [f"damaged: {_percent(1 - 1e-9)} of {declared:.1f} s decodes"]
    return []


def _percent(share: float) -> str:
    """ "93 %"; never "100 %" of a file that is not whole."""
    return f"{100 * share:.0f} %" if share < 0.995 else f"{min(99.9, 100 * share):.1f} %"


def why_nothing(progress: Progress, offset: float) -> str:
    """Why a file, or what lies behind ``offset`` seconds, gave no samples."""
    if progress.fault or progress.lost or (progress.declared and progress.declared > offset + progress.tolerance):
        fault = progress.fault or f"its header states {progress.declared:.1f} s"
        return f"truncated or damaged, nothing decodes ({fault})"
    return "holds no samples" + (f" at {offset:g} s" if offset else "")


def why_unreadable(ffmpeg_reason: str, sndfile_reason: str) -> str:
    """Why no decoder opens a file, from what both say; either may be ""."""
    if "needs PyAV" in ffmpeg_reason:
        return f"is not audio that libsndfile decodes; other formats {ffmpeg_reason.replace('needs', 'need')}"
    if "DRM" in ffmpeg_reason or ffmpeg_reason == "holds no sound":
        return ffmpeg_reason
    reasons = "; ".join(dict.fromkeys(reason.strip(". ") for reason in (ffmpeg_reason, sndfile_reason) if reason))
    return f"is not audio that libsndfile or FFmpeg decodes, or its header is damaged ({reasons})"


def too_long(seconds: float) -> str:
    """That a sound is longer than ``seconds``."""
    return (
        f"is longer than {seconds / 3600:g} h; allow more by --max-seconds"
        if seconds >= 3600
        else f"is longer than {seconds:g} s"
    )
