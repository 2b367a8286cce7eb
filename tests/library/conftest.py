"""A tiny exported model, and folders of music that tests may change."""

import shutil

import pytest
from synthetic import write_clip
from tiny_model import tiny_model_path


@pytest.fixture(scope="session")
def tiny_model():
    return tiny_model_path()


@pytest.fixture(scope="session")
def embedder(tiny_model):
    from msim_tf.export.embedder import Embedder

    return Embedder(tiny_model)


@pytest.fixture
def folder(tmp_path, music):
    """Six real excerpts in two folders."""
    root = tmp_path / "Music"
    for place, path in enumerate(sorted(music.glob("*.ogg"))[:6]):
        target = root / f"Artist {place % 2}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return root


@pytest.fixture
def clips(tmp_path):
    """Ten synthetic clips of a few seconds."""
    root = tmp_path / "Clips"
    for i in range(10):
        write_clip(root / f"artist{i % 3}" / f"{i:02d}.wav", 2 + i % 3, i)
    return root
