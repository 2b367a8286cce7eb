"""The teacher's vectors: right for each clip, resumable after a kill, and picked up while a builder still runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from msim_tf.embeddings import load_embeddings
from msim_tf.errors import InputError
from msim_tf.labels.passages import load_passages
from msim_tf.labels.teacher import tag_columns

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tools.corpus import teacher  # noqa: E402
from tools.corpus.ledger import CorpusClip, Ledger  # noqa: E402
from tools.musicnn_embeddings import (  # noqa: E402
    FRAMES,
    HOP,
    N_MELS,
    SR,
    TAGS,
    Network,
    log_mel,
    patch_starts,
    patches_at,
)


def _clip(name: str, *, part: str = "train", sha: str = "0" * 64) -> CorpusClip:
    return CorpusClip(f"{part}/games/pkg/{name}.flac", "pkg", "1", "x.ogg", 0.0, "", "", "CC0", sha, "group")


def _noise(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 22050)).astype(np.float32)


def _add(root: Path, **names: np.ndarray) -> None:
    with Ledger(root, "games") as ledger:
        for name, y in names.items():
            ledger.add(_clip(name), y)


def _forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stands for the network: 50 and 200 numbers that depend on the patch alone."""
    mean = x.mean(axis=(1, 2))[:, None]
    return mean * np.arange(1, 201), mean - np.arange(50)


def _other_forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A second network: 3 and 50 numbers that depend on the patch alone, otherwise than those of the first."""
    spread = x.std(axis=(1, 2))[:, None]
    return spread * np.arange(1, 4), spread + np.arange(50)


def _networks(forward=_forward) -> list[Network]:
    return [Network("MSD_musicnn", TAGS["MSD"], 200, forward)]


def _run(root: Path, forward=_forward, **options: object) -> tuple[int, int]:
    return teacher.teach(root, "train", **{"networks": _networks(forward), "segments": 2, **options})


def test_patches_are_spread_from_the_first_frame_to_the_last():
    y = np.random.default_rng(0).standard_normal(SR * 16).astype(np.float32)
    frames = log_mel(y)
    actual = patches_at(frames, patch_starts(len(frames), 3))
    middle = (len(frames) - FRAMES) // 2
    for patch, start in zip(actual, (0, middle, len(frames) - FRAMES), strict=True):
        np.testing.assert_array_equal(patch, frames[start : start + FRAMES])
    # 16 s hold five patches that do not overlap; what is under 3 s holds none.
    every = patches_at(frames, patch_starts(len(frames), 99))
    assert every.shape == (len(frames) // FRAMES, FRAMES, N_MELS) == (5, FRAMES, N_MELS)
    assert not len(patch_starts(len(log_mel(y[: SR * 2])), 3))


def test_vectors_are_those_of_each_clips_own_patches_and_their_means(tmp_path):
    _add(tmp_path, a=_noise(13, 1), b=_noise(4, 2) * 3, c=_noise(7, 3))
    assert _run(tmp_path) == (3, 0)
    tags, penultimate = (load_embeddings(tmp_path / f"teacher-train-{stem}.npz") for stem in ("tags", "penultimate"))
    assert tags.identifiers == penultimate.identifiers == tuple(f"games/pkg/{name}.flac" for name in "abc")
    passages = load_passages(tmp_path / "teacher-train-passages.npz")
    assert passages.identifiers == tags.identifiers and passages.widths == (50, 200)
    assert passages.seconds == pytest.approx(3.0, abs=0.01)
    assert tags.meta["tags"] == list(TAGS["MSD"]) and tags.meta["model"] == "MSD_musicnn"
    for row, name in enumerate("abc"):
        y = teacher.load_clip(tmp_path / "train" / tags.identifiers[row], sr=SR)
        frames = log_mel(y)
        starts = patch_starts(len(frames), 2)
        means = [patch.mean() for patch in patches_at(frames, starts)]
        assert len(means) == {"a": 2, "b": 1, "c": 2}[name]
        own = passages.take([tags.identifiers[row]])
        np.testing.assert_allclose(own.starts, starts * HOP / SR, atol=1e-3)
        expected = [[*(mean - np.arange(50)), *(mean * np.arange(1, 201))] for mean in means]
        np.testing.assert_allclose(own.vectors, expected, rtol=1e-3)  # float16
        np.testing.assert_allclose(tags.embeddings[row], np.mean(means) - np.arange(50), rtol=1e-6)
        np.testing.assert_allclose(penultimate.embeddings[row], np.mean(means) * np.arange(1, 201), rtol=1e-6)


def test_two_networks_hear_the_same_patches_side_by_side(tmp_path):
    _add(tmp_path, a=_noise(13, 1), b=_noise(4, 2) * 3)
    two = [*_networks(), Network("MTT_musicnn", TAGS["MTT"], 3, _other_forward)]
    assert _run(tmp_path, networks=two) == (2, 0)
    tags = load_embeddings(tmp_path / "teacher-train-tags.npz")
    assert tags.meta["teachers"] == ["MSD_musicnn", "MTT_musicnn"] and len(set(tags.meta["tags"])) == 100
    columns = tag_columns(tags)
    assert [(column.teacher, column.tag) for column in columns] == [
        *(("MSD_musicnn", tag) for tag in TAGS["MSD"]),
        *(("MTT_musicnn", tag) for tag in TAGS["MTT"]),
    ]
    passages = load_passages(tmp_path / "teacher-train-passages.npz")
    assert passages.widths == (50, 50, 200, 3)
    alone = {}
    for network in two:
        # What each says is what it says alone, of the same patches.
        own = tmp_path / network.name
        _add(own, a=_noise(13, 1), b=_noise(4, 2) * 3)
        _run(own, networks=[network])
        for kind in ("tags", "penultimate"):
            first = load_embeddings(own / f"teacher-train-{kind}.npz")
            second = load_embeddings(tmp_path / f"teacher-train-{network.name}-{kind}.npz")
            np.testing.assert_array_equal(first.embeddings, second.embeddings)
            assert first.meta == second.meta
            alone[network.name, kind] = first.embeddings
    both = [alone[network.name, "tags"] for network in two]
    np.testing.assert_array_equal(tags.embeddings, np.concatenate(both, axis=1))
    penultimate = load_embeddings(tmp_path / "teacher-train-penultimate.npz").embeddings
    for block, network in zip(np.split(penultimate, [200], axis=1), two):
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, rtol=1e-6)
        vectors = alone[network.name, "penultimate"]
        cosine = (block * vectors).sum(axis=1) / np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(cosine, 1, rtol=1e-6)
    with pytest.raises(InputError, match=r"MSD_musicnn \+ MTT_musicnn.*not with.*'model': 'MSD_musicnn'"):
        _run(tmp_path)


def test_new_and_changed_clips_are_done_and_others_not_again(tmp_path):
    _add(tmp_path, a=_noise(4, 1), b=_noise(4, 2))
    _run(tmp_path)
    seen = []

    def counting(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(x))
        return _forward(x)

    with Ledger(tmp_path, "games") as ledger:
        ledger.add(_clip("c"), _noise(4, 3))
        ledger.add(_clip("a", sha="1" * 64), _noise(4, 4))
        ledger.add(_clip("other", part="test"), _noise(4, 5))
    before = load_embeddings(tmp_path / "teacher-train-tags.npz")
    assert _run(tmp_path, forward=counting) == (3, 0)
    assert sum(seen) == 2
    after = load_embeddings(tmp_path / "teacher-train-tags.npz")
    assert after.identifiers[1:] == ("games/pkg/b.flac", "games/pkg/c.flac")
    np.testing.assert_array_equal(after.embeddings[1], before.embeddings[1])
    assert not np.allclose(after.embeddings[0], before.embeddings[0])


def test_a_torn_line_is_done_again_and_other_settings_are_refused(tmp_path):
    _add(tmp_path, a=_noise(4, 1), b=_noise(4, 2))
    _run(tmp_path)
    whole = load_embeddings(tmp_path / "teacher-train-tags.npz").embeddings
    journal = tmp_path / "teacher-train.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    with journal.with_suffix(".f32").open("ab") as file:
        file.write(b"half a vec")
    assert _run(tmp_path) == (2, 0)
    np.testing.assert_array_equal(load_embeddings(tmp_path / "teacher-train-tags.npz").embeddings, whole)
    with pytest.raises(InputError, match="'segments': 2.*not with.*'segments': 3"):
        _run(tmp_path, segments=3)
    with journal.with_suffix(".f32").open("r+b") as file:
        file.truncate(500)
    with pytest.raises(InputError, match=r"\.f32: shorter than"):
        _run(tmp_path)


def test_unreadable_and_short_clips_are_named_and_left_out(tmp_path, capsys):
    _add(tmp_path, a=_noise(4, 1), b=_noise(4, 2), c=_noise(2, 3))
    (tmp_path / "train/games/pkg/a.flac").write_bytes(b"no sound")
    assert _run(tmp_path) == (1, 2)
    assert load_embeddings(tmp_path / "teacher-train-tags.npz").identifiers == ("games/pkg/b.flac",)
    error = capsys.readouterr().err
    assert "a.flac" in error and "c.flac is shorter than 3 s" in error


def test_a_network_that_does_not_listen_writes_nothing(tmp_path):
    _add(tmp_path, a=_noise(4, 1), b=_noise(4, 2))
    with pytest.raises(InputError, match="does not listen"):
        _run(tmp_path, forward=lambda x: (np.ones((len(x), 200)), np.ones((len(x), 50))))
    assert not list(tmp_path.glob("*.npz"))


_SLOW = """
import sys, time
from pathlib import Path
sys.path[:0] = [{repository!r}, {tests!r}]
from test_corpus_teacher import _forward, _networks
from tools.corpus import teacher
teacher._BATCH = 1
networks = _networks(lambda x: (time.sleep(0.2), _forward(x))[1])
teacher.teach(Path({root!r}), "train", segments=2, networks=networks)
"""


def test_what_was_done_before_a_kill_stays_done(tmp_path):
    _add(tmp_path, **{f"t{n}": _noise(4, n) for n in range(30)})
    source = _SLOW.format(repository=str(REPOSITORY), tests=str(Path(__file__).parent), root=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.DEVNULL)
    journal = tmp_path / "teacher-train.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    known = len(teacher.Journal(journal, _networks(), segments=2).entries)
    assert 3 <= known < 30
    seen = []
    assert _run(tmp_path, forward=lambda x: (seen.append(len(x)), _forward(x))[1]) == (30, 0)
    assert sum(seen) == 30 - known


def test_one_process_at_a_time_hears_a_part(tmp_path):
    _add(tmp_path, t0=_noise(4, 0), t1=_noise(4, 1))
    with teacher.Journal(tmp_path / "teacher-train.jsonl", _networks(), segments=2):
        before = (tmp_path / "teacher-train.jsonl").read_bytes()
        with pytest.raises(InputError, match="another process is hearing clips for teacher-train.jsonl"):
            teacher.teach(tmp_path, "train", segments=2, networks=_networks())
    assert (tmp_path / "teacher-train.jsonl").read_bytes() == before
    assert _run(tmp_path) == (2, 0)
