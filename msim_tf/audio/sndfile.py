"""Sound as libsndfile decodes it: PCM of every container, FLAC, Vorbis, Opus and MP3."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from msim_tf.audio.audio_lengths import PatchedFile

# Writers that do not know the length (pipes) leave the size at 0 or put one at or above this into the header.
_STREAMED_BYTES = 0x7FFFF000
_UNKNOWN_FRAMES = 2**62
_SIZES = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
# Whole Vorbis files exist that decode 9 ms short of their header (two of the excerpts that
# ship here), so a little may be missing.
TOLERANCE_SECONDS = 0.1


class Stopped(Exception):
    """libsndfile reads no further; the text says why."""


class SndfileStream:
    """An open file.

    Attributes:
        rate: samples per second and channel.
        declared: seconds that the header states, None if it states none.
    """

    def __init__(self, file: soundfile.SoundFile) -> None:
        self._file = file
        self.rate: int = file.samplerate
        self.declared: float | None = None
        if 0 < file.frames < _UNKNOWN_FRAMES:
            self.declared = file.frames / file.samplerate
            # libsndfile shortens a file whose data end early; its log has both sizes.
            sizes = _SIZES.search(file.extra_info)
            if sizes and 0 < int(sizes[2]) < int(sizes[1]) < _STREAMED_BYTES:
                self.declared *= int(sizes[1]) / int(sizes[2])

    def blocks(self, start: int, frames: int) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes on from frame ``start``.

        Yields:
            (rate, [up to ``frames``, channels] float32).

        Raises:
            Stopped: at damage, or if there is no frame ``start``.
        """
        frames = max(1, min(frames, _BLOCK_SAMPLES // self._file.channels))
        # Move to the start. MP3 is decoded up to it, because libsndfile's MP3 seek lands elsewhere in some files.
        if self._file.format == "MP3":
            while start > 0 and len(block := self._read(min(frames, start))):
                start -= len(block)
        elif start:
            try:
                self._file.seek(start)
            except soundfile.LibsndfileError as error:
                raise Stopped(error.error_string) from error
        while len(block := self._read(frames)):
            yield self.rate, block

    def _read(self, frames: int) -> np.ndarray:
        try:
            return self._file.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise Stopped(error.error_string) from error


_BLOCK_SAMPLES = 2**22  # of all channels: a file may claim a thousand of them


class _SequentialFile(soundfile.SoundFile):
    """Reads on from where it is. soundfile seeks after each read to where it is
    already, which some files do not allow.
    """

    def seekable(self) -> bool:
        """No: only then does soundfile not seek by itself; ``seek`` still works."""
        return False


class _Slice(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self._file, self._start, self._stop, self._position = file, start, stop, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves within the part."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stop - self._start}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Where it is."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads up to the end of the part."""
        self._file.seek(self._start + self._position)
        data = self._file.read(max(0, min(len(buffer), self._stop - self._start - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class ChainedStream:
    """Links of a chained Ogg file, one after the other; a damaged one ends early and the next goes on.

    Attributes:
        rate: samples per second and channel, of the first link.
        declared: seconds of all links together.
        fault: why the first damaged link ended, "" if none did.
    """

    def __init__(self, file: BinaryIO, links: tuple[tuple[int, int], ...]) -> None:
        self._file, self._links = file, links
        self.fault = ""
        self.rate = 0
        self.declared: float | None = None
        for start, stop in links:
            try:
                with _SequentialFile(_Slice(file, start, stop)) as link:
                    stream = SndfileStream(link)
            except soundfile.LibsndfileError as error:
                self.fault = self.fault or error.error_string
                continue
            self.rate = self.rate or stream.rate
            self.declared = (self.declared or 0.0) + (stream.declared or 0.0)
        if not self.rate:
            raise Stopped(self.fault)

    def blocks(self, start: int, frames: int) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes all links, on from frame ``start``.

        Yields:
            (rate, [up to ``frames``, channels] float32).
        """
        for first, last in self._links:
            try:
                with _SequentialFile(_Slice(self._file, first, last)) as link:
                    for rate, block in SndfileStream(link).blocks(0, frames):
                        dropped = min(start, len(block))
                        start -= dropped
                        if dropped < len(block):
                            yield rate, block[dropped:]
            except (soundfile.LibsndfileError, Stopped) as error:
                self.fault = self.fault or str(error)


@contextmanager
def opened_chain(path: Path, links: tuple[tuple[int, int], ...]) -> Iterator[ChainedStream]:
    """Opens a chained Ogg file for one pass.

    Raises:
        Stopped: if libsndfile can open no link.
    """
    with open(path, "rb") as file:
        yield ChainedStream(file, links)


@contextmanager
def opened(path: Path, patches: tuple[tuple[int, bytes], ...] = ()) -> Iterator[SndfileStream]:
    """Opens a file for one pass.

    Args:
        path: the file.
        patches: (place, bytes) that libsndfile reads instead of what stands there.

    Raises:
        Stopped: if libsndfile cannot open it.
    """
    with ExitStack() as stack:
        # A name need not be UTF-8.
        source: Any = os.fsencode(path)
        if patches:
            source = PatchedFile(stack.enter_context(open(path, "rb")), patches)
        try:
            file = stack.enter_context(_SequentialFile(source))
        except (soundfile.LibsndfileError, TypeError) as error:
            # TypeError: soundfile takes the suffix .raw for headerless samples.
            raise Stopped(getattr(error, "error_string", "") or "unknown format") from error
        yield SndfileStream(file)
