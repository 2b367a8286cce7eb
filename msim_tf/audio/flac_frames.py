"""Which samples a FLAC file holds, by the numbers in its frames rather than by its header."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import BinaryIO

from msim_tf.audio.audio_lengths import LEAST_SECONDS, Beyond

_TAIL = 2**17  # holds the last frame of any usual recording
_MOST_BLOCKS = 1000


@dataclass(frozen=True)
class _StreamInfo:
    """The first metadata block (RFC 9639, section 8.2).

    Attributes:
        block_size: samples of a frame, where all have as many.
        rate: in Hz.
        total: samples, more than 0.
    """

    block_size: int
    rate: int
    total: int


def _stream_info(file: BinaryIO, start: int) -> _StreamInfo | None:
    """What the header states; None if it is damaged or states no length."""
    file.seek(start + 4)
    block = file.read(38)
    # Block sizes, frame sizes, then 20 bits of rate, 8 of format, 36 of length.
    if len(block) < 38 or block[0] & 0x7F:
        return None
    word = int.from_bytes(block[14:22], "big")
    rate, total = word >> 44, word & (2**36 - 1)
    return _StreamInfo(int.from_bytes(block[6:8], "big"), rate, total) if rate and total else None


def flac_part_seconds(file: BinaryIO, start: int) -> float | None:
    """Seconds of a file that is the last part of a stream, cut by copying its frames; else None.

    Its header counts from the beginning of the stream, of which the first frame is not the first.

    Args:
        file: the file.
        start: where "fLaC" stands.
    """
    info = _stream_info(file, start)
    if info is None:
        return None
    # Metadata blocks: a byte with the kind, the highest bit of the last one set, and three with the length.
    place = start + 4
    for _ in range(_MOST_BLOCKS):
        file.seek(place)
        head = file.read(4)
        if len(head) < 4:
            return None
        place += 4 + int.from_bytes(head[1:], "big")
        if head[0] & 0x80:
            break
    file.seek(place)
    first = _first_sample(file.read(16), info.block_size)
    return (info.total - first) / info.rate if first and first < info.total else None


def flac_beyond_header(file: BinaryIO, start: int) -> Beyond | None:
    """Of a FLAC file whose last frame lies behind the length in its header; else None.

    Args:
        file: the file.
        start: where "fLaC" stands.
    """
    info = _stream_info(file, start)
    if info is None:
        return None
    size = file.seek(0, os.SEEK_END)
    # A second file behind the first (cat a.flac b.flac) has its own STREAMINFO.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(b"fLaC", start + 42)
        while place >= 0:
            if data[place + 4 : place + 8] in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):
                return Beyond(info.total / info.rate)
            place = data.find(b"fLaC", place + 4)

    # From the end backwards: the first frame header whose checksum is right.
    file.seek(max(start + 42, size - _TAIL))
    tail = file.read(_TAIL)
    offset = tail.rfind(b"\xff")
    while offset >= 0:
        number = _first_sample(tail[offset : offset + 16], info.block_size)
        if number is not None:
            return Beyond(info.total / info.rate) if number - info.total > LEAST_SECONDS * info.rate else None
        offset = tail.rfind(b"\xff", 0, offset)
    return None


def _first_sample(header: bytes, block_size: int) -> int | None:
    """First sample of the frame with this header (RFC 9639, section 9.1); None if it is none."""
    if len(header) < 6 or header[1] & 0xFE != 0xF8 or header[2] >> 4 == 0 or header[2] & 15 == 15 or header[3] & 1:
        return None
    # The number is coded as in UTF-8, with up to seven bytes.
    first = header[4]
    extra = 0 if first < 0x80 else next((bits for bits in range(1, 8) if not first >> (7 - bits) & 1), 8) - 1
    number = first if first < 0x80 else first & (0x7F >> (extra + 1))
    for byte in header[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    # Block size and rate may follow; then comes the checksum.
    length = 5 + extra + {6: 1, 7: 2}.get(header[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if first in range(0x80, 0xC0) or len(header) <= length or _crc8(header[:length]) != header[length]:
        return None
    return number if header[1] & 1 else number * block_size


def _crc8(data: bytes) -> int:
    """CRC-8 with the polynomial x^8 + x^2 + x + 1."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc
