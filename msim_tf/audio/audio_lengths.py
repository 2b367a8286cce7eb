"""Files that go on behind the length in their header: recorders that died, tools that wrote it before the samples,
files that were joined.

libsndfile stops where the header says, in silence. Both functions look for the end of the file itself.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import BinaryIO

_TAIL = 2**17  # holds the last FLAC frame of any usual recording
_CHUNK = struct.Struct("<4sI")
_PCM = (1, 3, 0xFFFE)  # integers, floats, either of them with more than two channels
_MOST_CHUNKS = 100
_LEAST_SECONDS = 0.1


def wav_beyond_header(file: BinaryIO, start: int) -> float | None:
    """Seconds that the header of a WAV file states, if it has samples behind them; else None.

    Args:
        file: the file.
        start: where "RIFF" stands.
    """
    size = file.seek(0, os.SEEK_END)
    offset, byte_rate = start + 12, 0
    for _ in range(_MOST_CHUNKS):
        file.seek(offset)
        header = file.read(_CHUNK.size)
        if len(header) < _CHUNK.size:
            return None
        name, length = _CHUNK.unpack(header)
        if name == b"fmt ":
            # Format, channels, rate, bytes per second. Recorders write PCM; coded samples have another count ("fact").
            form = file.read(12)
            if int.from_bytes(form[:2], "little") not in _PCM:
                return None
            byte_rate = int.from_bytes(form[8:], "little")
        end = offset + _CHUNK.size + length
        if name == b"data":
            beyond = size - end
            if not byte_rate or beyond < _LEAST_SECONDS * byte_rate or _is_chunk(file, end + length % 2, size):
                return None
            return length / byte_rate
        offset = end + length % 2
    return None


def _is_chunk(file: BinaryIO, offset: int, size: int) -> bool:
    """Whether a chunk begins there: a name in ASCII, or padding, and a length that the file has."""
    file.seek(offset)
    header = file.read(_CHUNK.size)
    if len(header) < _CHUNK.size or not any(header):
        return True
    name, length = _CHUNK.unpack(header)
    if name == b"RIFF":  # another file behind the first
        return False
    return all(32 <= byte < 127 for byte in name) and offset + _CHUNK.size + length <= size + 1


def flac_beyond_header(file: BinaryIO, start: int) -> float | None:
    """Seconds that the header of a FLAC file states, if its last frame lies behind them; else None.

    Args:
        file: the file.
        start: where "fLaC" stands.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(start + 4)
    block = file.read(38)
    # STREAMINFO is the first block: block sizes, frame sizes, then 20 bits of rate, 8 of format, 36 of length (RFC
    # 9639, section 8.2).
    if len(block) < 38 or block[0] & 0x7F:
        return None
    block_size, word = int.from_bytes(block[6:8], "big"), int.from_bytes(block[14:22], "big")
    rate, total = word >> 44, word & (2**36 - 1)
    if not rate or not total:
        return None
    # A second file behind the first (cat a.flac b.flac) has its own STREAMINFO.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(b"fLaC", start + 42)
        while place >= 0:
            if data[place + 4 : place + 8] in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):
                return total / rate
            place = data.find(b"fLaC", place + 4)
    tail_start = max(start + 42, size - _TAIL)
    file.seek(tail_start)
    tail = file.read(_TAIL)
    # From the end backwards: the first frame header whose checksum is right.
    offset = tail.rfind(b"\xff")
    while offset >= 0:
        number = _first_sample(tail[offset : offset + 16], block_size)
        if number is not None:
            return total / rate if number - total > _LEAST_SECONDS * rate else None
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
