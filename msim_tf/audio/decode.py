"""Sound files in, float32 mono waveforms out: decode, mix down, resample, cut.

The only module that opens sound. libsndfile decodes (by soundfile), soxr resamples (its "HQ" recipe); both stream, so hours of audio need
the memory of one block. Channels are mixed down *before* resampling: the result is the same and costs half.

A file that is there but not whole is an error, never a shorter clip: a WAV whose data chunk promises more than the file holds, an Ogg
stream without its end-of-stream page, a decoder that stops before the length in the header. MP3 is the exception: its header may be an
estimate, so what decodes counts. One limit stays there: libsndfile never decodes beyond that estimate, which for a variable bit rate
*without* a Xing header may be too short.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr

from msim_tf.errors import InputError

AUDIO_SUFFIXES: tuple[str, ...] = (
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aiff",
    ".aif",
    ".aifc",
    ".au",
    ".snd",
    ".caf",
    ".w64",
    ".rf64",
)

# Whole Vorbis files exist that decode 9 ms short of their header (two of the excerpts that ship here), so a little may be missing.
_MISSING_SECONDS = 0.1
# Writers that do not know the length (pipes) put a size at or above this into a WAV header.
_STREAMED_WAV_BYTES = 0x7FFFF000
_LAST_OGG_PAGE = 65307 * 2
# A block of stereo at 44.1 kHz stays in the processor's cache from decoding to resampling: a sixth faster than a minute at a time.
_BLOCK_SECONDS = 4.0


def find_audio(folder: str | Path) -> list[str]:
    """Identifiers of all sound files below ``folder``: POSIX paths relative to it, sorted.

    Hidden files and folders are skipped; links to folders are not followed. A single file gives its own name.

    Raises:
        InputError: if there is no such path, a folder cannot be read, no sound file is in it, or a name is not valid UTF-8.
    """
    return library_root(folder)[1]


def library_root(path: str | Path) -> tuple[Path, list[str]]:
    """A folder or a single sound file, as (root, identifiers): every file is ``root / identifier``.

    Raises:
        InputError: as ``find_audio``.
    """
    path = Path(path)
    try:
        folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected a folder of music or a sound file"
        ) from error
    if not folder:
        return path.parent, [path.name]
    identifiers = sorted(_walk(path))
    if not identifiers:
        raise InputError(f"{path}: holds no audio; looked below it for {' '.join(AUDIO_SUFFIXES)}")
    return path, identifiers


def _walk(folder: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or not name.lower().endswith(AUDIO_SUFFIXES):
                continue
            identifier = (Path(parent) / name).relative_to(folder).as_posix()
            try:
                identifier.encode()
            except UnicodeEncodeError:
                raise InputError(f"{folder}: the name {identifier!a} is not valid UTF-8; rename the file") from None
            yield identifier


def duration(path: str | Path) -> float:
    """Length in seconds as the header states it (for MP3 without a Xing header an estimate).

    Raises:
        InputError: if the file cannot be read or is not audio.
    """
    with _opened(path) as file:
        return file.frames / file.samplerate


def read_blocks(path: str | Path, *, sr: int, block_seconds: float = _BLOCK_SECONDS) -> Iterator[np.ndarray]:
    """Decodes a sound file in blocks.

    Args:
        path: the file.
        sr: rate of the result in Hz.
        block_seconds: seconds decoded at a time; bounds the memory.

    Yields:
        [samples] float32 mono, none empty; together exactly what resampling the whole file at once would give.

    Raises:
        InputError: on the first or any later block, naming the file and the reason: missing, unreadable, not audio, empty, truncated or
            damaged, or samples that are NaN or infinite.
    """
    yield from _blocks(path, sr=sr, block_seconds=block_seconds, offset=0.0, seconds=None)


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
    y = np.concatenate(list(_blocks(path, sr=sr, block_seconds=_BLOCK_SECONDS, offset=offset, seconds=seconds)))
    return y if seconds is None else y[: round(seconds * sr)]


def _blocks(
    path: str | Path, *, sr: int, block_seconds: float, offset: float, seconds: float | None
) -> Iterator[np.ndarray]:
    if offset < 0 or block_seconds <= 0 or (seconds is not None and seconds <= 0):
        raise InputError(
            f"{path}: cannot read {seconds} s from {offset} s on; expected an offset >= 0 and a length > 0"
        )
    with _opened(path) as file:
        native = _native_blocks(file, path, block_seconds=block_seconds, offset=offset, seconds=seconds)
        if file.samplerate == sr:
            yield from native
            return
        stream = soxr.ResampleStream(file.samplerate, sr, 1, dtype="float32", quality="HQ")
        heard = False
        for block in native:
            resampled = stream.resample_chunk(block)
            heard = heard or len(resampled) > 0
            if len(resampled):
                yield resampled
        tail = stream.resample_chunk(np.zeros(0, np.float32), last=True)
        if len(tail):
            yield tail
        elif not heard:
            raise InputError(f"{path}: is shorter than one sample at {sr} Hz")


def _native_blocks(
    file: soundfile.SoundFile, path: str | Path, *, block_seconds: float, offset: float, seconds: float | None
) -> Iterator[np.ndarray]:
    """Mono blocks at the file's own rate."""
    rate = file.samplerate
    size = max(1, round(block_seconds * rate))
    start = round(offset * rate)
    wanted = file.frames - start if seconds is None else min(round(seconds * rate + 1), file.frames - start)
    _skip(file, path, start, size)
    done = 0
    while done < wanted:
        block = _read(file, path, min(size, wanted - done), start + done)
        if not len(block):
            break
        y = _mono(block)
        if not np.isfinite(y).all():
            raise InputError(f"{path}: holds NaN or infinite samples near {(start + done) / rate:.1f} s")
        done += len(block)
        yield y
    if not done:
        raise InputError(f"{path}: holds no samples" + (f" at {offset:g} s" if start else ""))
    if file.format != "MP3" and wanted - done > _MISSING_SECONDS * rate:
        raise InputError(
            f"{path}: truncated or damaged, decoding stops at {(start + done) / rate:.1f} of {file.frames / rate:.1f} s"
        )


def _skip(file: soundfile.SoundFile, path: str | Path, start: int, size: int) -> None:
    """Moves to a frame; MP3 is decoded up to it, because libsndfile's MP3 seek lands elsewhere in some files."""
    if file.format != "MP3":
        file.seek(min(start, file.frames))
        return
    done = 0
    while done < start:
        block = _read(file, path, min(size, start - done), done)
        if not len(block):
            return
        done += len(block)


def _read(file: soundfile.SoundFile, path: str | Path, frames: int, position: int) -> np.ndarray:
    try:
        return file.read(frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{path}: truncated or damaged, decoding fails after {position / file.samplerate:.1f} s ({error.error_string})"
        ) from error


def _mono(block: np.ndarray) -> np.ndarray:
    """[frames, channels] to [frames]; two channels by plain arithmetic, which is 25 times as fast as ``mean``."""
    channels = block.shape[1]
    if channels == 1:
        return block[:, 0]
    if channels == 2:
        return (block[:, 0] + block[:, 1]) * np.float32(0.5)
    return block.mean(axis=1, dtype=np.float32)


class _SequentialFile(soundfile.SoundFile):
    """Reads on from where it is. soundfile seeks after each read to where it is already, which MP3 decoders do not always find again."""

    def seekable(self) -> bool:
        """No: only then does soundfile not seek by itself; ``seek`` still works."""
        return False


@contextmanager
def _opened(path: str | Path) -> Iterator[soundfile.SoundFile]:
    path = Path(path)
    try:
        # Python's own errors say what is wrong with a path; libsndfile's "System error" does not.
        with open(path, "rb") as plain:
            empty = not plain.read(1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if empty:
        raise InputError(f"{path}: is an empty file")
    try:
        file = _SequentialFile(str(path))
    except (soundfile.LibsndfileError, TypeError) as error:
        # TypeError: soundfile takes the suffix .raw for headerless samples.
        raise InputError(
            f"{path}: is not audio that libsndfile decodes, or its header is damaged; convert it, e.g. to FLAC"
        ) from error
    with file:
        _validate_whole(file, path)
        yield file


def _validate_whole(file: soundfile.SoundFile, path: Path) -> None:
    """Refuses what libsndfile silently shortens: a WAV or an Ogg stream whose end is missing."""
    if file.format == "OGG" and not _has_last_ogg_page(path):
        raise InputError(f"{path}: truncated, its last Ogg page is missing")
    found = re.search(r"^data\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if found and int(found[2]) < int(found[1]) < _STREAMED_WAV_BYTES:
        raise InputError(f"{path}: truncated, holds {found[2]} of {found[1]} bytes of samples")


def _has_last_ogg_page(path: Path) -> bool:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LAST_OGG_PAGE))
        tail = file.read()
    # Page header (RFC 3533): flags at byte 5 (4 = end of stream), lacing table from byte 27, its length at byte 26.
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return False
    lacing = tail[page + 27 : page + 27 + tail[page + 26]]
    return bool(tail[page + 5] & 4) and page + 27 + tail[page + 26] + sum(lacing) <= len(tail)
