"""Lengths that headers state, where the decoders would stop early or state another.

Files go on behind their header when a recorder died, when a tool wrote it before the samples, or when files were
joined. Decoders stop where the header says, in silence; so these functions look for the end of the file itself. Nothing
here decodes. FLAC has ``flac_frames``.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_CHUNK = struct.Struct("<4sI")
_BIG_CHUNK = struct.Struct(">4sI")
_CAF_CHUNK = struct.Struct(">4sq")
# Integers, floats, ADPCM (Microsoft's, IMA), A-law, mu-law, and any of them with more than two channels.
_WAV_FORMATS = (1, 3, 2, 0x11, 6, 7, 0xFFFE)
_AIFC_BYTES = {b"NONE": 0, b"twos": 0, b"sowt": 0, b"fl32": 0, b"FL32": 0, b"fl64": 0, b"ulaw": 1, b"alaw": 1}
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_MOST_CHUNKS = 100
LEAST_SECONDS = 0.1  # beyond the header that count
_MUSEPACK_RATES = (44_100, 48_000, 37_800, 32_000)


@dataclass(frozen=True)
class Beyond:
    """A file that goes on behind its header.

    Attributes:
        seconds: that the header states.
        patches: (place, bytes): how a decoder must read the header to go on to the end; none if it need not be told.
    """

    seconds: float
    patches: tuple[tuple[int, bytes], ...] = ()


class PatchedFile(io.RawIOBase):
    """An open file some of whose bytes are read as others.

    Args:
        file: open for reading.
        patches: (place, bytes) each.
    """

    def __init__(self, file: BinaryIO, patches: tuple[tuple[int, bytes], ...]) -> None:
        self._file, self._patches = file, patches

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As the file."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """As the file, then puts the patches over what was read."""
        begin = self._file.tell()
        data = bytearray(self._file.read(len(buffer)))
        for place, patch in self._patches:
            first, last = max(place, begin), min(place + len(patch), begin + len(data))
            if first < last:
                data[first - begin : last - begin] = patch[first - place : last - place]
        buffer[: len(data)] = data
        return len(data)


def _chunks(file: BinaryIO, offset: int, layout: struct.Struct) -> Iterator[tuple[bytes, int, int]]:
    """(name, where its content begins, length) of the chunks from ``offset`` on; RIFF and AIFF pad to even lengths."""
    size = os.fstat(file.fileno()).st_size
    for _ in range(_MOST_CHUNKS):
        if offset + layout.size > size:
            return
        file.seek(offset)
        name, length = layout.unpack(file.read(layout.size))
        yield name, offset + layout.size, length
        if length < 0:
            return
        offset += layout.size + length + (length % 2 if layout is not _CAF_CHUNK else 0)


def _is_chunk(file: BinaryIO, offset: int, size: int, layout: struct.Struct) -> bool:
    """Whether a chunk begins there: a name in ASCII, or padding, and a length that the file has."""
    file.seek(offset)
    header = file.read(layout.size)
    if len(header) < layout.size or not any(header):
        return True
    name, length = layout.unpack(header)
    if name in (b"RIFF", b"FORM", b"caff"):  # another file behind the first
        return False
    return all(32 <= byte < 127 for byte in name) and length >= 0 and offset + layout.size + length <= size + 1


def _stands_behind(file: BinaryIO, end: int, byte_rate: float, layout: struct.Struct | None) -> bool:
    """Whether more than a moment of samples stands behind the stated end of the data, and no other chunk."""
    size = file.seek(0, os.SEEK_END)
    if byte_rate <= 0 or size - end < LEAST_SECONDS * byte_rate:
        return False
    return layout is None or not _is_chunk(file, end + (end % 2 if layout is not _CAF_CHUNK else 0), size, layout)


def wav_beyond_header(file: BinaryIO, start: int) -> Beyond | None:
    """Of a WAV file (RIFF or RF64) with samples behind those that its header states; else None.

    Args:
        file: the file.
        start: where "RIFF" or "RF64" stands.
    """
    size = file.seek(0, os.SEEK_END)
    byte_rate = block = large = large_place = 0
    for name, place, length in _chunks(file, start + 12, _CHUNK):
        file.seek(place)
        if name == b"ds64":  # sizes of 64 bits: of the file, of the data, and the count of frames
            large, large_place = int.from_bytes(file.read(16)[8:], "little"), place + 8
        elif name == b"fmt ":
            # Format, channels, rate, bytes per second and per frame.
            form = file.read(14)
            if int.from_bytes(form[:2], "little") not in _WAV_FORMATS:
                return None
            byte_rate, block = int.from_bytes(form[8:12], "little"), int.from_bytes(form[12:], "little")
        elif name == b"data":
            length = large or length
            if not _stands_behind(file, place + length, byte_rate, _CHUNK):
                return None
            patches: tuple[tuple[int, bytes], ...] = ()
            if large:
                there = size - place
                patches = ((large_place, struct.pack("<QQ", there, there // max(1, block))),)
            return Beyond(length / byte_rate, patches)
    return None


def aiff_beyond_header(file: BinaryIO, start: int) -> Beyond | None:
    """Of an AIFF file with samples behind those that its header states; else None.

    Args:
        file: the file.
        start: where "FORM" stands.
    """
    size = file.seek(0, os.SEEK_END)
    byte_rate = 0.0
    for name, place, length in _chunks(file, start + 12, _BIG_CHUNK):
        file.seek(place)
        if name == b"COMM":
            # Channels, frames, bits, rate as an 80-bit float, and in AIFF-C how samples are coded.
            common = file.read(22)
            if len(common) < 18 or (coding := common[18:22] if length >= 22 else b"NONE") not in _AIFC_BYTES:
                return None
            channels, _, bits, exponent, mantissa = struct.unpack(">hIhHQ", common[:18])
            frame = channels * (_AIFC_BYTES[coding] or (bits + 7) // 8)
            byte_rate = frame * mantissa * 2.0 ** (min(exponent & 0x7FFF, 16_500) - 16_383 - 63)
        elif name == b"SSND":
            if not _stands_behind(file, place + length, byte_rate, _BIG_CHUNK):
                return None
            sizes = [struct.pack(">I", min(size - begin, 2**32 - 1)) for begin in (start + 8, place)]
            return Beyond(max(0, length - 8) / byte_rate, ((start + 4, sizes[0]), (place - 4, sizes[1])))
    return None


def caf_beyond_header(file: BinaryIO) -> Beyond | None:
    """Of a CAF file of plain samples with some behind those that its header states; else None."""
    byte_rate = 0.0
    for name, place, length in _chunks(file, 8, _CAF_CHUNK):
        file.seek(place)
        if name == b"desc":
            # Rate, format, flags, bytes and frames per packet.
            description = file.read(24)
            if len(description) < 24 or description[8:12] != b"lpcm":
                return None
            rate, packet = struct.unpack(">d", description[:8])[0], int.from_bytes(description[16:20], "big")
            byte_rate = rate * packet if 0 < rate < 1e9 else 0.0
        elif name == b"data":
            if length < 4 or not _stands_behind(file, place + length, byte_rate, _CAF_CHUNK):
                return None
            # Before the samples stands a count of edits. A length of -1 is "to the end".
            return Beyond((length - 4) / byte_rate, ((place - 8, b"\xff" * 8),))
    return None


def au_beyond_header(file: BinaryIO) -> Beyond | None:
    """Of an AU file of plain samples with some behind those that its header states; else None."""
    file.seek(0)
    header = file.read(24)
    order = ">" if header.startswith(b".snd") else "<"
    if len(header) < 24:
        return None
    begin, length, coding, rate, channels = struct.unpack(f"{order}5I", header[4:])
    byte_rate = _AU_BYTES.get(coding, 0) * rate * channels
    if length == 0xFFFFFFFF or not _stands_behind(file, begin + length, byte_rate, None):
        return None
    return Beyond(length / byte_rate, ((8, b"\xff" * 4),))


def musepack_seconds(head: bytes) -> tuple[float | None, tuple[tuple[int, bytes], ...]]:
    """Length that the header of a Musepack file of stream version 8 states, which FFmpeg rounds down to a packet.

    Args:
        head: the first bytes, with "MPCK".

    Returns:
        Seconds, or None. And patches that hide the place of a seek table, which a truncated file does not have any
        more: FFmpeg would decode nothing.
    """
    seconds, patches, place = None, [], 4
    # Packets: two letters, a length that counts itself and them, the content (trac.musepack.net, SV8 specification).
    while head[place : place + 2] not in (b"", b"AP", b"SE"):
        length, begin = _variable(head, place + 2)
        if length < 3:
            break
        if head[place : place + 2] == b"SH":
            # Checksum, version, count of samples, those of silence before the first, rate.
            count, silence_place = _variable(head, begin + 5)
            silence, rate_place = _variable(head, silence_place)
            if rate_place < len(head):
                seconds = max(0, count - silence) / _MUSEPACK_RATES[head[rate_place] >> 5 & 3]
        elif head[place : place + 2] == b"SO":
            patches.append((place, b"XO"))
        place += length
    return seconds, tuple(patches)


def _variable(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the highest first, and where it ends; 0 beyond the data."""
    number = 0
    while place < len(data) and number < 2**56:
        number, place = number << 7 | data[place] & 127, place + 1
        if not data[place - 1] & 128:
            return number, place
    return 0, len(data)


def dsf_seconds(head: bytes) -> float | None:
    """Length that the header of a DSF file states.

    Args:
        head: the first bytes, with "DSD ".
    """
    # Chunk "fmt " at byte 28: rate at 56, then bits per sample, samples per channel.
    if len(head) < 72 or head[28:32] != b"fmt ":
        return None
    rate, _, count = struct.unpack("<IIQ", head[56:72])
    return count / rate if rate and count else None
