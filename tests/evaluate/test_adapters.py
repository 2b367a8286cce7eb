"""The scripts that embed with other systems: their features, and one clear line when weights are missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import librosa
import numpy as np
import pytest

from msim_tf.errors import InputError

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def test_musicnn_patches_are_its_log_mel_without_the_rest():
    musicnn = _tool("musicnn_embeddings")
    y = np.random.default_rng(0).standard_normal(16000 * 7).astype(np.float32) * 0.1
    actual = musicnn.patches(y)
    # 438 frames hold two patches of 187.
    assert actual.shape == (2, 187, 96)
    power = np.abs(librosa.stft(y, n_fft=512, hop_length=256)) ** 2
    mel = librosa.filters.mel(sr=16000, n_fft=512, n_mels=96) @ power
    np.testing.assert_allclose(actual[1], np.log10(1e4 * mel + 1).T[187:374], atol=2e-3)
    assert len(musicnn.patches(y[: 16000 * 2])) == 0
    assert all(len(tags) == len(set(tags)) == 50 for tags in musicnn.TAGS.values())


def test_missing_weights_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no checkpoint of musicnn"):
        _tool("musicnn_embeddings").load_weights(tmp_path)
    monkeypatch.setitem(sys.modules, "openl3", None)
    with pytest.raises(InputError, match="openl3 is not installed"):
        _tool("openl3_embeddings").load_openl3()


def test_the_script_says_so_and_writes_nothing(tmp_path):
    command = [
        sys.executable,
        str(TOOLS / "musicnn_embeddings.py"),
        "--weights",
        str(tmp_path),
        "--audio",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out.npz")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TOOLS.parent)},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
