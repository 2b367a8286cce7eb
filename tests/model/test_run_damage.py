"""A flipped bit or a cut in what a finished training left is told in one line, or changes nothing."""

import shutil

import pytest

from msim_tf.checksums import file_checksum, save_checked_json
from msim_tf.errors import InputError
from msim_tf.model.params import TrainParams
from msim_tf.model.run import CHECKSUMS_FILE, FORMAT, FORMAT_VERSION, check_run, load_run, validate_model_file

CASES = 120


@pytest.fixture
def run(tmp_path, rng):
    """The files of a finished run; the model is any bytes."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "best.keras").write_bytes(rng.bytes(5000))
    value = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "digest": "0123456789abcdef",
        "params": TrainParams().to_json(),
        "identifiers": {"train": ["a.ogg", "é.ogg"], "validation": ["b.ogg"]},
    }
    save_checked_json(path / "run.json", value)
    save_checked_json(path / CHECKSUMS_FILE, {"best.keras": file_checksum(path / "best.keras")})
    save_checked_json(path / "summary.json", {"epochs": 3, "val_loss": 0.25})
    return path


def contents(path):
    run = load_run(path)
    validate_model_file(run)
    return run.params, run.digest, run.identifiers, run.summary, run.model_path.read_bytes()


def test_damage_anywhere_is_told_or_without_effect(run, tmp_path, rng):
    names = sorted(path.name for path in run.iterdir())
    assert check_run(run) == [] and len(names) == 4
    expected, copy, refused = contents(run), tmp_path / "copy", 0
    for case in range(CASES):
        shutil.copytree(run, copy)
        path = copy / names[case % len(names)]
        data = bytearray(path.read_bytes())
        position = int(rng.integers(len(data)))
        if rng.random() < 0.2:
            del data[position:]
        else:
            data[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        problems = check_run(copy)
        assert all(line.startswith(str(copy)) and "\n" not in line for line in problems)
        if problems:
            refused += 1
            with pytest.raises(InputError):
                contents(copy)
        else:
            assert contents(copy) == expected, (path.name, position)
        shutil.rmtree(copy)
    assert refused > CASES * 0.6


def test_a_missing_model_is_told(run):
    (run / "best.keras").unlink()
    (line,) = check_run(run)
    assert line.startswith(f"{run / 'best.keras'}: cannot be read (No such file")


def test_an_unfinished_run_is_no_fault(run):
    for name in ("summary.json", CHECKSUMS_FILE, "best.keras"):
        (run / name).unlink()
    assert check_run(run) == []
