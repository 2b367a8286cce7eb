"""Sound files in, float32 mono waveforms out: decode, mix down, resample, cut.

libsndfile decodes what it knows (``sndfile``), FFmpeg the rest (``ffmpeg``); a file's first bytes choose, not
its name (``kinds``). Where libsndfile stops at damage, FFmpeg goes on from the same sample. soxr resamples (its
"HQ" recipe). All stream, so hours of audio need the memory of one block. Channels are mixed down *before*
resampling: the result is the same and costs half.

What a caller may rely on:

- Whatever reading a file raises becomes an ``InputError`` that names the file and the reason.
- A file decodes to its end, whatever its header says. If the two disagree, a note says so.
- Damage: what decodes is used if it is at least half of the length in the header, and a
  note gives the share. Less is refused. Where a format has checksums (FLAC, Ogg, WavPack, TTA, Monkey's Audio, TAK,
  AC-3), what fails them is no sound. Flipped bits of other formats (PCM, DSD, ALAC, AAC, MP3, WMA, Musepack) pass
  unless they keep the decoder from going on. Raw streams (AAC, AC-3) that end early are as long as they are.
- Samples are finite and no larger than ``params.LOUDEST``, so that no feature overflows.

A decoder may also crash, hang or eat memory; ``sandbox`` runs this module where that harms nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr

from msim_tf.audio import ffmpeg, kinds, sndfile
from msim_tf.audio.verdict import SILENCE, Progress, TooLong, reasons, too_long, verdict, why_nothing, why_unreadable
from msim_tf.errors import InputError
from msim_tf.params import LOUDEST

__all__ = ["MAX_SECONDS", "SILENCE", "TooLong", "duration", "load_clip", "read_blocks", "resampled_mono"]


MAX_SECONDS = 12 * 3600.0
# Random bytes hold packets of raw formats, but hardly four in a row.
_MOST_LOST_OF_GUESSED = 0.2

# Below 1 kHz nothing above 500 Hz is left, which is no music; 768 kHz is the fastest PCM converter there is. One-bit
# recordings (DSD) have their own rates, up to 2.8 MHz as FFmpeg decodes them.
_RATES = (1_000, 768_000)
# A block of stereo at 44.1 kHz stays in the processor's cache from decoding to resampling: a
# sixth faster than a minute at a time.
_BLOCK_SECONDS = 4.0
# Containers round their length to packets, or state that of a longer picture track.
_CONTAINER_TOLERANCE = 0.5
# A header that states more seconds than this per byte is damaged rather than long.
_SECONDS_PER_BYTE = 1 / 500


def duration(path: str | Path) -> float:
    """Length in seconds: as the header states it, or counted where that would be an estimate.

    Raises:
        InputError: if the file cannot be read or is not audio.
    """
    path = Path(path)
    with reasons(path):
        kind = _kind(path)
        stated = _stated_seconds(path, kind)
        if stated is not None:
            return stated
    return sum(len(block) for block in read_blocks(path, sr=8000)) / 8000


def read_blocks(
    path: str | Path,
    *,
    sr: int,
    block_seconds: float = _BLOCK_SECONDS,
    max_seconds: float = MAX_SECONDS,
    notes: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """Decodes a sound file in blocks.

    Args:
        path: the file.
        sr: rate of the result in Hz.
        block_seconds: seconds decoded at a time; bounds the memory.
        max_seconds: a longer file is refused.
        notes: after the last block, what the user should know of the file is appended:
            its damage, a header that disagrees.

    Yields:
        [samples] float32 mono, none empty; together exactly what resampling the whole file at once would give.

    Raises:
        InputError: on the first or any later block, naming the file and the reason: missing,
            unreadable, not audio, empty, more damaged than whole, an implausible rate, samples that are
            no audio, channels that cancel each other, too long.
    """
    span = _Span(0.0, None, block_seconds, max_seconds)
    return _guarded(Path(path), sr, span, [] if notes is None else notes)


def load_clip(path: str | Path, *, sr: int, offset: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """Part of a sound file, or all of it, in one array.

    Args:
        path: the file.
        sr: rate of the result in Hz.
        offset: where to start, in seconds.
        seconds: how much to read; less where the file ends earlier. ``None`` reads to the end.

    Returns:
        [samples] float32 mono, never empty.

    Raises:
        InputError: as ``read_blocks``, and if the file ends before ``offset``.
    """
    if offset < 0 or (seconds is not None and seconds <= 0):
        raise InputError(
            f"{path}: cannot read {seconds} s from {offset} s on; expected an offset >= 0 and a length > 0"
        )
    y = np.concatenate(list(_guarded(Path(path), sr, _Span(offset, seconds), [])))
    return y if seconds is None else y[: round(seconds * sr)]


def resampled_mono(y: np.ndarray, sr: float, target_sr: int) -> np.ndarray:
    """A waveform as the features take it: one channel, at their sample rate.

    Args:
        y: [samples] or [samples, channels] float, full scale being 1.
        sr: its sample rate in Hz.
        target_sr: the sample rate of the result in Hz.

    Returns:
        [samples] float32, resampled by soxr's "HQ" recipe.

    Raises:
        InputError: if it has another shape or type, is empty, not finite or no sound, or the rate is implausible.
    """
    y = np.asarray(y)
    if y.ndim not in (1, 2) or not y.size or not np.issubdtype(y.dtype, np.floating):
        raise InputError(f"a waveform of {y.dtype} {list(y.shape)}: expected float [samples] or [samples, channels]")
    if not _RATES[0] <= sr <= _RATES[1]:
        raise InputError(f"a waveform at {sr} Hz: expected {_RATES[0]} to {_RATES[1]} Hz")
    peak = max(float(y.max()), -float(y.min()))
    if not peak <= LOUDEST:  # nor NaN
        raise InputError("a waveform with samples that are not finite, or far beyond full scale")
    mono = _mixed(y if y.ndim == 2 else y[:, None]).astype(np.float32, copy=False)
    return mono if sr == target_sr else soxr.resample(mono, sr, target_sr, quality="HQ")


@dataclass(frozen=True)
class _Span:
    """Which part of a file is read, and in what pieces; all in seconds."""

    offset: float = 0.0
    seconds: float | None = None
    block: float = _BLOCK_SECONDS
    longest: float = MAX_SECONDS


class _Stream(Protocol):
    """An open file: ``sndfile.SndfileStream`` or ``ffmpeg.FFmpegStream``."""

    rate: int
    declared: float | None

    def blocks(self, start: int, frames: int) -> Iterator[tuple[int, np.ndarray]]:
        """(rate, [frames, channels] float32) from frame ``start`` on."""


def _guarded(path: Path, sr: int, span: _Span, notes: list[str]) -> Iterator[np.ndarray]:
    with reasons(path):
        yield from _resampled(path, sr, span, notes)


def _resampled(path: Path, sr: int, span: _Span, notes: list[str]) -> Iterator[np.ndarray]:
    """Mono blocks at ``sr``; a stream whose rate changes gets another resampler from there on."""
    progress = Progress()
    resampler: soxr.ResampleStream | None = None
    last_rate, samples = 0, 0
    for rate, y in _mono_blocks(path, span, progress):
        if rate != last_rate:
            # The samples that the filter of the last resampler still holds belong to the end of its rate.
            if resampler is not None and len(tail := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
                samples += len(tail)
                yield tail
            resampler = soxr.ResampleStream(rate, sr, 1, dtype="float32", quality="HQ") if rate != sr else None
            last_rate = rate
        resampled = resampler.resample_chunk(y) if resampler is not None else y
        if len(resampled):
            samples += len(resampled)
            yield resampled
    if resampler is not None and len(tail := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
        samples += len(tail)
        yield tail

    # Nothing decoded, or less than a sample's worth, is an error; notes tell the damage of a whole file.
    if not progress.seconds:
        raise InputError(f"{path}: {why_nothing(progress, span.offset)}")
    if not samples:
        raise InputError(f"{path}: is shorter than one sample at {sr} Hz")
    if span.seconds is None and not span.offset:
        notes.extend(verdict(path, progress))


def _mono_blocks(path: Path, span: _Span, progress: Progress) -> Iterator[tuple[int, np.ndarray]]:
    """(rate, [samples] float32) of the span, checked, mixed down and counted."""
    for rate, block in _channel_blocks(path, span, progress):
        begin = span.offset + progress.seconds
        progress.rates.add(rate)
        if span.seconds is not None:
            # One sample more than asked for, so that rounding at the other rate never leaves the clip short.
            block = block[: max(0, round(span.seconds * rate + 1) - round(progress.seconds * rate))]
            if not len(block):
                return
        # NaN propagates through both extremes, so one comparison finds it.
        peak = max(float(block.max()), -float(block.min()))
        if not np.isfinite(peak):
            raise InputError(f"{path}: holds NaN or infinite samples near {begin:.1f} s")
        if peak > LOUDEST:
            raise InputError(
                f"{path}: holds samples of {peak:.1e} times full scale near {begin:.1f} s; that is no sound"
            )
        # [frames, channels] -> [frames]; the peak before and after tells channels that cancel each other.
        y = _mixed(block)
        progress.peak = max(progress.peak, peak)
        progress.mixed_peak = max(progress.mixed_peak, float(y.max()), -float(y.min()))
        progress.seconds += len(y) / rate
        if progress.seconds > span.longest:
            raise TooLong(f"{path}: {too_long(span.longest)}")
        yield rate, y


def _mixed(block: np.ndarray) -> np.ndarray:
    """[frames, channels] to [frames]; two channels by plain arithmetic, which is 25 times as fast as ``mean``."""
    channels = block.shape[1]
    if channels == 1:
        return block[:, 0]
    if channels == 2:
        return (block[:, 0] + block[:, 1]) * np.float32(0.5)
    return block.mean(axis=1, dtype=np.float32)


def _channel_blocks(path: Path, span: _Span, progress: Progress) -> Iterator[tuple[int, np.ndarray]]:
    """(rate, [frames, channels] float32): from libsndfile as far as it gets, then from FFmpeg."""
    kind = _kind(path)
    if not kind.whole:
        progress.fault = "its last page is missing"
    frames = 0

    # Chained Ogg streams, one after the other, all by libsndfile.
    if kind.links and kind.sndfile:
        with sndfile.opened_chain(path, kind.links) as chain:
            _begin(path, chain, kind, span, progress)
            yield from chain.blocks(round(span.offset * chain.rate), max(1, round(span.block * chain.rate)))
            progress.fault = progress.fault or chain.fault
        return

    # libsndfile up to the end or to the first damage.
    if kind.sndfile:
        try:
            with sndfile.opened(path, kind.patches) as stream:
                _begin(path, stream, kind, span, progress)
                start = round(span.offset * stream.rate)
                for rate, block in stream.blocks(start, max(1, round(span.block * stream.rate))):
                    frames += len(block)
                    yield rate, block
                end = (start + frames) / stream.rate
            missing = progress.declared is not None and progress.declared - end > progress.tolerance
            # PCM that ends early has no more to give; a coded stream may go on behind its damage.
            if not (missing and kind.name in ("flac", "ogg", "mp3")):
                return
        except sndfile.Stopped as error:
            progress.fault = str(error)

    # FFmpeg from the frame at which libsndfile stopped, or all of the file.
    try:
        with ffmpeg.opened(path, to_end=kind.doubted, patches=kind.patches) as stream:
            if not frames:
                progress.fault = "" if kind.whole else progress.fault
                if not kind.sndfile and not kind.doubted:
                    progress.tolerance = max(progress.tolerance, _CONTAINER_TOLERANCE)
                _begin(path, stream, kind, span, progress)
            start = round(span.offset * stream.rate) + frames
            yield from stream.blocks(start, max(1, round(span.block * stream.rate)))
            if stream.faults:
                progress.fault = "damaged packets"
                progress.lost = stream.faults / max(1, stream.packets)
                if kind.name == "other" and stream.guessed and progress.lost > _MOST_LOST_OF_GUESSED:
                    raise InputError(f"{path}: {why_unreadable('its bytes follow no format', '')}")
    except ffmpeg.Unreadable as error:
        if not frames:
            if kind.name == "mp4" and "Invalid data" in str(error):
                raise InputError(f"{path}: truncated or damaged, its index (moov) cannot be read") from error
            raise InputError(f"{path}: {why_unreadable(str(error), progress.fault)}") from error


def _begin(path: Path, stream: _Stream, kind: kinds.Kind, span: _Span, progress: Progress) -> None:
    """Notes what the header states, and refuses what is implausible or too long."""
    lowest, highest = _RATES
    if not lowest <= stream.rate <= highest and not (stream.rate > highest and getattr(stream, "dsd", False)):
        raise InputError(
            f"{path}: its header states a sample rate of {stream.rate} Hz; expected {lowest} to {highest} Hz"
        )
    progress.doubted = kind.doubted
    progress.declared = kind.stated_seconds or (stream.declared and stream.declared / kind.present)
    size = path.stat().st_size
    if progress.declared and span.longest < progress.declared < size * _SECONDS_PER_BYTE and span.seconds is None:
        raise TooLong(f"{path}: {too_long(span.longest)}")


def _kind(path: Path) -> kinds.Kind:
    """What the file is.

    Raises:
        InputError: if it cannot be read, is empty or encrypted.
    """
    if path.is_fifo() or path.is_char_device():
        raise InputError(f"{path}: not a regular file")  # reading one may wait for ever
    with open(path, "rb") as file:
        if not file.read(1):
            raise InputError(f"{path}: is an empty file")
    kind = kinds.sniff(path)
    if kind.protected:
        raise InputError(f"{path}: is protected by DRM")
    return kind


def _stated_seconds(path: Path, kind: kinds.Kind) -> float | None:
    if kind.doubted or kind.stated_seconds:
        return None if kind.doubted else kind.stated_seconds
    if kind.sndfile:
        try:
            if kind.links:
                with sndfile.opened_chain(path, kind.links) as chain:
                    return chain.declared
            with sndfile.opened(path, kind.patches) as stream:
                return stream.declared
        except sndfile.Stopped:
            pass
    try:
        with ffmpeg.opened(path) as stream:
            return stream.declared
    except ffmpeg.Unreadable as error:
        raise InputError(f"{path}: {why_unreadable(str(error), '')}") from error
