"""A flipped bit or a cut anywhere in an exported model or a training run is told in one line, or changes nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from msim_tf.errors import InputError
from msim_tf.export.metadata import METADATA_FILE, check_export, load_metadata, version_directory
from msim_tf.export.servable import Servable

CASES = 120


@pytest.fixture(scope="module")
def version():
    return version_directory(Path(__file__).parents[2] / "saved_models" / "open6")


def damage(path, rng):
    data = bytearray(path.read_bytes())
    position = int(rng.integers(len(data)))
    if rng.random() < 0.2:
        del data[position:]
    else:
        data[position] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def test_damage_anywhere_is_told_or_without_effect(version, tmp_path, rng):
    names = [path.relative_to(version) for path in sorted(version.rglob("*")) if path.is_file()]
    assert len(names) >= 5 and check_export(version) == []
    expected, copy, refused = load_metadata(version), tmp_path / "1", 0
    for case in range(CASES):
        shutil.copytree(version, copy)
        name = names[case % len(names)]
        damage(copy / name, rng)
        problems = check_export(copy)
        assert all(line.startswith(str(copy)) and "\n" not in line for line in problems), name
        try:
            metadata = load_metadata(copy)
        except InputError as error:
            assert problems == [str(error)]
            refused += 1
            # The loader refuses it, too, before TensorFlow sees a byte of it.
            with pytest.raises(InputError):
                Servable.load(copy)
        else:
            assert problems == [] and (copy / name).name == "msim.json"
            assert (metadata.name, metadata.features, metadata.layout, metadata.inputs, metadata.training) == (
                expected.name,
                expected.features,
                expected.layout,
                expected.inputs,
                expected.training,
            )
        shutil.rmtree(copy)
    assert refused > CASES * 0.7


def test_a_missing_file_is_told(version, tmp_path):
    shutil.copytree(version, tmp_path / "1")
    (tmp_path / "1" / "variables" / "variables.index").unlink()
    (line,) = check_export(tmp_path / "1")
    assert line.startswith(f"{tmp_path / '1' / 'variables' / 'variables.index'}: cannot be read (No such file")
    with pytest.raises(InputError, match="variables.index"):
        load_metadata(tmp_path)


def test_an_export_without_checksums_is_read_as_before(version, tmp_path):
    """As msim 0.1 wrote it."""
    shutil.copytree(version, tmp_path / "1")
    value = json.loads((version / METADATA_FILE).read_text())
    del value["files"], value["checksum"]
    (tmp_path / "1" / METADATA_FILE).write_text(json.dumps(value))
    assert load_metadata(tmp_path).features == load_metadata(version).features
    metadata = load_metadata(version)
    feeds = {name: np.ones((1, *metadata.features.input_shapes[name]), np.float32) for name in metadata.inputs}
    outputs = []
    for path in (version, tmp_path / "1"):
        servable = Servable.load(path, warmup=False)
        outputs.append(servable.run("serving_default", feeds)["embedding"])
        servable.close()
    np.testing.assert_array_equal(*outputs)
