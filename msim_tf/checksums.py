"""Checksums of the files that msim writes (CRC-32): of whole files, of the blocks of large arrays, of JSON objects.

They find what disks and copies do to bytes, not what an attacker does. A JSON file of ours carries the
checksum of its own content under the key ``checksum``. A large array has one per block of 64 KiB, so
that a reader verifies only what it reads.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.errors import InputError
from msim_tf.files import load_json, save_json, validate_format

BLOCK_BYTES = 2**16
_READ_BYTES = 2**20
_KEY = "checksum"


class BlockChecksums:
    """The checksums of a file's blocks, computed while it is written."""

    def __init__(self) -> None:
        self._finished: list[int] = []
        self._crc = 0
        self._filled = 0

    def update(self, data: bytes | memoryview) -> None:
        """Takes the next bytes of the file."""
        # Block by block: what completes one, then what begins the next.
        rest = memoryview(data).cast("B")
        while len(rest):
            part = rest[: BLOCK_BYTES - self._filled]
            self._crc = zlib.crc32(part, self._crc)
            self._filled += len(part)
            rest = rest[len(part) :]
            if self._filled == BLOCK_BYTES:
                self._finished.append(self._crc)
                self._crc = self._filled = 0

    @property
    def values(self) -> np.ndarray:
        """[blocks] uint32, the last block being as long as the file leaves it."""
        return np.array([*self._finished, *([self._crc] if self._filled else [])], np.uint32)


def block_count(size: int) -> int:
    """Blocks of a file of ``size`` bytes."""
    return -(-size // BLOCK_BYTES)


def damaged_blocks(data: np.ndarray, expected: np.ndarray, blocks: np.ndarray | None = None) -> np.ndarray:
    """Which blocks of a file do not have their checksum.

    Args:
        data: [size] uint8, the file's bytes.
        expected: [blocks] uint32.
        blocks: [n] int, those to look at; None for all.

    Returns:
        [m] int, numbers of damaged blocks.
    """
    numbers = np.arange(len(expected)) if blocks is None else blocks
    starts = numbers * BLOCK_BYTES
    actual = [zlib.crc32(data[start : start + BLOCK_BYTES].data) for start in starts.tolist()]
    return numbers[np.array(actual, np.uint32) != expected[numbers]]


def file_checksum(path: str | Path) -> str:
    """CRC-32 of a file, eight hex digits.

    Raises:
        OSError: if it cannot be read.
    """
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def save_checked_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with the checksum of its content, atomically."""
    # JSON turns keys into text and tuples into lists; the checksum is of what a reader gets.
    content = json.loads(json.dumps(value))
    save_json(path, {**content, _KEY: _content_checksum(content)})


def load_checked_json(
    path: str | Path,
    what: str,
    *,
    cure: str,
    header: tuple[str, int] | None = None,
    optional_without: str | None = None,
) -> dict[str, Any]:
    """Reads what ``save_checked_json`` wrote, without the checksum.

    Args:
        path: the file.
        what: what it should be, for the error text.
        cure: what to do about a damaged file, for the error text.
        header: the format's name and version, refused as such before the checksum is looked at.
        optional_without: a key that earlier releases, which wrote no checksum, did not write either: an object that has
            neither is accepted.

    Raises:
        InputError: if it is missing, unreadable, no JSON object, or not as it was written.
    """
    value = load_json(path, what)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object; expected {what}")
    if header is not None:
        validate_format(value, path, name=header[0], version=header[1])
    checksum = value.pop(_KEY, None)
    if checksum is None and optional_without is not None and optional_without not in value:
        return value
    if checksum != _content_checksum(value):
        raise InputError(f"{path}: damaged (its content does not have its checksum); {cure}")
    return value


def _content_checksum(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"
