"""Checksums against zlib's of the whole, and against every flipped byte."""

import json
import zlib

import numpy as np
import pytest

from msim_tf.checksums import (
    BLOCK_BYTES,
    BlockChecksums,
    block_count,
    damaged_blocks,
    file_checksum,
    load_checked_json,
    save_checked_json,
)
from msim_tf.errors import InputError

DOCUMENT = {"name": "é \x1f", "numbers": [1, 2.5, 1e-300, None, True], "nested": {"1": {"b": [], "a": "x"}}}


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 17])
def test_blocks_have_zlibs_checksums_however_they_are_written(rng, size):
    data = rng.integers(0, 256, size, dtype=np.uint8)
    checksums, start = BlockChecksums(), 0
    while start < size:
        stop = start + int(rng.integers(1, 2 * BLOCK_BYTES))
        checksums.update(data[start:stop].data)
        start = stop
    expected = [zlib.crc32(data[first : first + BLOCK_BYTES]) for first in range(0, size, BLOCK_BYTES)]
    assert checksums.values.tolist() == expected and len(expected) == block_count(size)
    assert damaged_blocks(data, checksums.values).size == 0
    for position in rng.integers(0, max(size, 1), 5) if size else ():
        data[position] ^= 4
        assert damaged_blocks(data, checksums.values).tolist() == [position // BLOCK_BYTES]
        data[position] ^= 4


def test_a_file_has_zlibs_checksum(rng, tmp_path):
    data = rng.bytes(3 * 2**20 + 5)
    (tmp_path / "a").write_bytes(data)
    assert int(file_checksum(tmp_path / "a"), 16) == zlib.crc32(data)


def test_json_comes_back_and_no_flipped_byte_changes_it(tmp_path):
    path = tmp_path / "a.json"
    save_checked_json(path, {**DOCUMENT, "tuple": (1, 2), "keys": {3: "three"}})
    expected = {**DOCUMENT, "tuple": [1, 2], "keys": {"3": "three"}}
    assert load_checked_json(path, "a document", cure="write it again") == expected
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (1, 4, 32):
            flipped = bytearray(whole)
            flipped[position] ^= bit
            path.write_bytes(flipped)
            try:
                assert load_checked_json(path, "a document", cure="write it again") == expected
            except InputError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


def test_json_without_a_checksum_is_accepted_only_where_it_may_be(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(DOCUMENT))
    assert load_checked_json(path, "a document", cure="write it again", optional_without="files") == DOCUMENT
    with pytest.raises(InputError, match="a.json: damaged .*; write it again"):
        load_checked_json(path, "a document", cure="write it again")
    path.write_text(json.dumps({**DOCUMENT, "files": {}}))
    with pytest.raises(InputError, match="a.json: damaged"):
        load_checked_json(path, "a document", cure="write it again", optional_without="files")
    path.write_text("[1]")
    with pytest.raises(InputError, match="holds no JSON object; expected a document"):
        load_checked_json(path, "a document", cure="write it again")
