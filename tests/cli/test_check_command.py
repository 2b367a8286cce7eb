"""``msim check`` finds the kind of everything that msim writes, and one flipped bit in each."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from commands import msim
from tiny_model import tiny_model_path

from msim_tf.data.shards import ARRAYS
from msim_tf.errors import InputError
from msim_tf.labels.passages import Passages, load_passages, save_passages
from msim_tf.labels.splits import load_split, make_split, save_split
from msim_tf.settings import SHIPPED_MODEL


def flip(path):
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def check_after(path, file):
    """What the command says of ``path`` after a bit of ``file`` was flipped."""
    assert msim("check", path) == (0, f"{path}: whole\n", "")
    flip(file)
    status, out, err = msim("check", path)
    assert (status, out) == (1, "")
    assert err.startswith("msim: ")
    assert file.name.split("-")[0] in err or path.name in err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("name", [*ARRAYS, "json", "db"])
def test_a_store(store, tmp_path, name):
    path = shutil.copytree(store.path, tmp_path / "store")
    patterns = {"json": "shards/*.json", "db": "store.db"}
    check_after(path, next(path.glob(patterns.get(name, f"shards/*.{name}.f16"))))


@pytest.mark.parametrize("name", ["saved_model.pb", "assets.extra/msim.json", "variables/variables.index"])
def test_an_exported_model(tmp_path, name):
    path = shutil.copytree(tiny_model_path(), tmp_path / "tiny")
    check_after(path, next(path.glob(f"*/{name}")))
    assert msim("check", path / "1")[0] == 1


def test_every_version_of_a_model_and_what_lies_beside_them(tmp_path):
    path = tmp_path / "tiny"
    shutil.copytree(tiny_model_path(), path)
    shutil.copytree(path / "1", path / "2")
    for name in ("evaluation.json", "ATTRIBUTION.csv", "CARD.md"):
        (path / name).write_text("a,b\n1,2\n")
    assert msim("check", path) == (0, f"{path}: whole\n", "")  # as earlier releases wrote it

    # A recorded file that changes is named, until it is restored or taken as it is.
    assert msim("check", "--record", path)[:2] == (
        0,
        f"{path}: recorded ATTRIBUTION.csv, evaluation.json\n{path}: whole\n",
    )
    for name in ("evaluation.json", "ATTRIBUTION.csv", "checksums.json"):
        assert str(path / name) in check_after(path, path / name)
        flip(path / name)
    (path / "evaluation.json").write_text("{}")
    assert msim("check", path)[0] == 1
    assert msim("check", "--record", path)[0] == 0
    (path / "evaluation.json").unlink()
    assert f"{path / 'evaluation.json'}: missing" in msim("check", path)[2]
    assert msim("check", "--record", path)[0] == 0

    # An older version counts, too; the one that is served would hide it.
    check_after(path, path / "1" / "saved_model.pb")
    assert msim("check", path / "2")[0] == 0
    status, _, err = msim("check", "--record", path / "2")
    assert (status, err.count("\n")) == (2, 1) and "--record is for" in err


def test_a_split_and_passages(tmp_path, rng):
    split = tmp_path / "split.json"
    save_split(split, make_split("somewhere", {"train": ["a", "b"], "test": ["c"]}))
    check_after(split, split)
    with pytest.raises(InputError, match="damaged|not valid JSON"):
        load_split(split)
    # Written by hand, without a checksum.
    header = {"format": "msim-split", "format_version": 1}
    split.write_text(json.dumps({**header, "train": ["a"]}))
    assert msim("check", split)[0] == 0 and load_split(split).parts["train"] == ("a",)

    passages = tmp_path / "passages.npz"
    vectors = rng.normal(size=(4, 3)).astype(np.float16)
    save_passages(passages, Passages(("a", "b"), np.array([2, 2]), np.array([0, 3, 0, 3]), vectors, 3.0, (3,)))
    np.testing.assert_array_equal(load_passages(passages).vectors, vectors)
    check_after(passages, passages)


def test_a_model_is_checked_without_tensorflow():
    """Which takes seconds to import, and prints on standard error when nobody keeps it quiet."""
    code = (
        "import sys\nfrom msim_tf.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, "check", SHIPPED_MODEL], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{SHIPPED_MODEL}: whole\nFalse\n", "")


def test_several_paths_and_what_is_none(store, tmp_path):
    damaged = shutil.copytree(store.path, tmp_path / "damaged")
    flip(next(damaged.glob("shards/*.mel.f16")))
    status, out, err = msim("check", store.path, damaged)
    assert status == 1
    assert out == f"{store.path}: whole\n"
    assert str(damaged) in err
    status, out, err = msim("check", tmp_path)
    assert status == 2
    assert "expected a library, a feature store, a run" in err
