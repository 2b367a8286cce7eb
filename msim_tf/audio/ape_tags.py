"""APEv2 tags, as WavPack, Monkey's Audio, Musepack, TAK and some MP3 files carry them (Hydrogenaudio, "APEv2
specification").

Here rather than by FFmpeg, which passes on only the first of several values, and in Python, where no file can crash it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"APETAGEX"
_FOOTER = struct.Struct("<8sIIII8x")
ID3V1_BYTES = 128
_MOST_BYTES = 2**24  # pictures count as well
_MOST_ITEMS = 1000
_KIND_BITS, _TEXT = 0b110, 0  # of an item's flags


def read_ape_tags(path: Path) -> dict[str, list[str]]:
    """The texts of a file's APEv2 tag by key in lower case; empty without one, or if it is damaged.

    Raises:
        OSError: if the file cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        # An ID3v1 tag may follow it.
        for end in (size, size - ID3V1_BYTES):
            items = _items_before(file, end)
            if items:
                return items
    return {}


def _items_before(file: BinaryIO, end: int) -> dict[str, list[str]]:
    """The items of the tag whose footer ends at ``end``."""
    if end < _FOOTER.size:
        return {}
    file.seek(end - _FOOTER.size)
    magic, _, size, count, _ = _FOOTER.unpack(file.read(_FOOTER.size))
    # The size counts the footer and not the header.
    if magic != _MAGIC or not _FOOTER.size <= size <= min(end, _MOST_BYTES):
        return {}
    file.seek(end - size)
    data = file.read(size - _FOOTER.size)
    items: dict[str, list[str]] = {}
    offset = 0
    for _ in range(min(count, _MOST_ITEMS)):
        # Length of the value, flags, key in ASCII up to a zero, value.
        key_end = data.find(b"\0", offset + 8)
        if key_end < 0:
            break
        length, flags = struct.unpack_from("<II", data, offset)
        key = data[offset + 8 : key_end].decode("latin-1").lower()
        value = data[key_end + 1 : key_end + 1 + length]
        offset = key_end + 1 + length
        if flags & _KIND_BITS == _TEXT and len(value) == length:
            items.setdefault(key, []).extend(text.decode("utf-8", "replace") for text in value.split(b"\0"))
    return items
