"""Recordings: cut as the catalogue says, from a folder or from a server, and never from anything else."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from msim_tf.audio.decode import load_clip
from msim_tf.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tools.corpus import recordings  # noqa: E402
from tools.corpus.ledger import SR, Ledger  # noqa: E402

COMMIT = "0123456789" * 4


def _write(path: Path, seconds: float, frequency: float) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    y = 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * SR)) / SR)
    soundfile.write(path, y, SR)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _recording(name: str, sha: str, **changes: object) -> recordings.Recording:
    values = {"part": "train", "excerpts": 2, "cut": "first", "group": name, "title": name, "artist": name.upper()}
    values |= {"repository": "some/where", "commit": COMMIT, "path": f"a folder/{name}.wav", "licence": "CC0 1.0"}
    values |= {"licence_evidence": "LICENSE", "kind": "song", "sha256": sha}
    return recordings.Recording(file=f"src__{name}.wav", **{**values, **changes})


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror"
    shas = {name: _write(folder / f"src__{name}.wav", *how) for name, how in {"a": (50, 440), "b": (33, 880)}.items()}
    return folder, shas


def test_excerpts_are_the_catalogues(tmp_path, mirror):
    folder, shas = mirror
    rows = [_recording("a", shas["a"]), _recording("b", shas["b"], excerpts=1, part="test")]
    rows.append(_recording("speech", "0" * 64, excerpts=0, kind="speech, single voice"))  # not even looked for
    assert recordings.build(tmp_path, rows, recordings.library(tmp_path, folder)) == []
    clips = Ledger(tmp_path, "recordings").clips
    assert sorted(clips) == [
        "test/recordings/src/b-0000.flac",
        "train/recordings/src/a-0000.flac",
        "train/recordings/src/a-0030.flac",
    ]
    second = clips["train/recordings/src/a-0030.flac"]
    assert (second.source, second.version, second.origin) == ("some/where", COMMIT, "a folder/a.wav")
    assert (second.licence, second.sha256, second.group, second.start_seconds) == ("CC0 1.0", shas["a"], "a", 30.0)
    y = load_clip(tmp_path / second.clip, sr=SR)
    np.testing.assert_allclose(y, load_clip(folder / "src__a.wav", sr=SR)[30 * SR :], atol=1e-4)
    # What the catalogue no longer gives goes.
    assert recordings.build(tmp_path, rows[:1], recordings.library(tmp_path, folder)) == []
    assert not (tmp_path / "test/recordings/src/b-0000.flac").exists()


def test_a_changed_or_missing_file_is_named_and_the_rest_built(tmp_path, mirror):
    folder, shas = mirror
    rows = [_recording("a", "f" * 64), _recording("b", shas["b"]), _recording("c", "0" * 64)]
    changed, missing = recordings.build(tmp_path, rows, recordings.library(tmp_path, folder))
    assert "src__a.wav: its checksum is not the catalogue's" in changed and "src__c.wav: not in" in missing
    assert list(Ledger(tmp_path, "recordings").clips) == ["train/recordings/src/b-0000.flac"]  # 3 s are too few
    with pytest.raises(InputError, match="no such folder"):
        recordings.library(tmp_path, tmp_path / "nowhere")


def test_what_is_not_mirrored_is_fetched_once(tmp_path):
    _write(tmp_path / "site/some/where" / COMMIT / "a folder/a.wav", 20, 440)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        library = recordings.Library(tmp_path / "cache", site=f"http://127.0.0.1:{server.server_port}")
        y, checksum = library.sound(_recording("a", "0" * 64))
        with pytest.raises(InputError, match=r"src__b\.wav: cannot fetch http.*a%20folder/b\.wav \(File not found\)"):
            library.sound(_recording("b", "0" * 64))
        server.shutdown()
    assert len(y) == 20 * SR
    assert not list((tmp_path / "cache").glob("*b*.wav"))
    again, _ = library.sound(_recording("a", "0" * 64))  # the server is gone
    np.testing.assert_array_equal(again, y)
    assert checksum == hashlib.sha256(next((tmp_path / "cache").iterdir()).read_bytes()).hexdigest()


def test_the_loudest_part():
    y = np.full(100 * SR, 0.1, np.float32)
    y[40 * SR : 45 * SR] = 0.5
    part = recordings.loudest(y, 10)
    assert len(part) == 10 * SR and (part == 0.5).sum() == 5 * SR
    assert recordings.loudest(y[: 4 * SR], 10) is not y and len(recordings.loudest(y[: 4 * SR], 10)) == 4 * SR


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licence": "CC BY-NC 4.0"}, "licence 'CC BY-NC 4.0' is not an open one"),
        ({"licence": ""}, "licence 'not stated' is not"),
        ({"part": "validation"}, "part 'validation'"),
        ({"commit": "main"}, "commit 'main'"),
    ],
)
def test_wrong_rows_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        _recording("a", "0" * 64, **changes)


def test_the_catalogue_that_ships(tmp_path):
    catalogue = recordings.load_catalogue()
    heard = [one for one in catalogue if one.excerpts]
    assert {one.part for one in heard} == {"train", "test"}
    sources = {part: {one.source for one in heard if one.part == part} for part in ("train", "test")}
    assert not sources["train"] & sources["test"]
    assert not sources["test"] & {"librosa", "vocadito"}  # fixtures of tests elsewhere
    assert {one.group for one in heard if one.source == "everythingisfree"} == {"everythingisfree"}
    assert not any(one.is_speech for one in heard)
    path = tmp_path / "recordings.csv"
    rows = recordings.CATALOGUE.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*rows, rows[1]]), encoding="utf-8")
    with pytest.raises(InputError, match="is there twice"):
        recordings.load_catalogue(path)


def test_a_group_in_both_parts_is_refused(tmp_path):
    rows = [_recording("a", "0" * 64), _recording("b", "0" * 64, group="a", part="test")]
    path = tmp_path / "recordings.csv"
    names = [field.name for field in dataclasses.fields(recordings.Recording)]
    lines = [",".join(str(getattr(row, name)) for name in names) for row in rows]
    path.write_text("\n".join([",".join(names), *lines]), encoding="utf-8")
    with pytest.raises(InputError, match="a is heard in training and in testing"):
        recordings.load_catalogue(path)
