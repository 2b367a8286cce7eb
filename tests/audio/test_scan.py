"""What is found in a folder, what is left out and why, and what a comparison with an index asks for."""

import os

import pytest
from synthetic import write_clip

from msim_tf.audio.scan import content_hash, scan_folder
from msim_tf.errors import InputError
from msim_tf.library.plan import make_plan


def states(root, scan):
    """What an index would know of every file."""
    return {
        name: {"size": state.size, "modified": state.modified, "sha256": content_hash(root / name)}
        for name, state in scan.files.items()
    }


def test_only_sound_files_of_the_folder_are_found(tmp_path):
    root, outside = tmp_path / "music", tmp_path / "outside"
    for name in ("b/2.wav", "a/1.flac", "c#?% ä\n.wav"):
        write_clip(root / name, 1, 0)
    write_clip(outside / "x.wav", 1, 0)
    (root / "cover.jpg").write_bytes(b"no sound")
    write_clip(root / ".hidden" / "3.wav", 1, 0)
    (root / "loop").symlink_to(root)
    (root / "elsewhere").symlink_to(outside)
    (root / "out.wav").symlink_to(outside / "x.wav")
    (root / "in.wav").symlink_to(root / "b" / "2.wav")
    (root / "nowhere.wav").symlink_to(root / "gone.wav")
    os.mkfifo(root / "pipe.wav")
    bad = os.fsencode(root) + b"/\xff.wav"
    os.close(os.open(bad, os.O_CREAT))
    scan = scan_folder(root)
    assert list(scan.files) == ["a/1.flac", "b/2.wav", "c#?% ä\n.wav", "in.wav"]
    assert scan.files["b/2.wav"].size == (root / "b" / "2.wav").stat().st_size
    reasons = {
        "out.wav": "a link out of the music folder",
        "nowhere.wav": "cannot be read (No such file or directory)",
        "pipe.wav": "not a regular file",
        os.fsdecode(b"\xff.wav"): "its name is not valid UTF-8; rename the file",
    }
    assert scan.failures == reasons


def test_an_empty_or_missing_folder_empties_no_library(tmp_path):
    with pytest.raises(InputError, match="holds no audio"):
        scan_folder(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        scan_folder(tmp_path / "missing")


def test_what_cannot_be_listed_is_not_gone(tmp_path, monkeypatch):
    for name in ("a/1.wav", "b/2.wav"):
        write_clip(tmp_path / name, 1, 0)
    known = states(tmp_path, scan_folder(tmp_path))
    scandir = os.scandir

    def refusing(path):
        # The tests may run as root, whom no permission stops.
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    scan = scan_folder(tmp_path)
    assert scan.unreadable == ("b/",) and scan.failures == {"b/": "cannot be read (Permission denied)"}
    plan = make_plan(tmp_path, scan, known)
    assert plan.removed == [] and plan.unchanged == 2


def test_a_plan_knows_new_changed_touched_moved_and_removed(tmp_path):
    for i, name in enumerate(["same", "touched", "changed", "moved", "moved twin", "removed", "grown"]):
        write_clip(tmp_path / f"{name}.wav", 1, i)
    write_clip(tmp_path / "moved twin.wav", 1, 3)  # the same contents as "moved"
    known = states(tmp_path, scan_folder(tmp_path))
    os.utime(tmp_path / "touched.wav", (1, 1))
    content = (tmp_path / "changed.wav").read_bytes()
    (tmp_path / "changed.wav").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "moved.wav").rename(tmp_path / "z.wav")
    (tmp_path / "removed.wav").unlink()
    write_clip(tmp_path / "grown.wav", 2, 9)
    write_clip(tmp_path / "new.wav", 1, 99)
    seen = []
    plan = make_plan(tmp_path, scan_folder(tmp_path), known, progress=lambda done, total: seen.append((done, total)))
    assert plan.new == ["new.wav"] and plan.changed == ["changed.wav", "grown.wav"]
    assert plan.touched == ["touched.wav"] and plan.moved == {"z.wav": "moved.wav"} and plan.removed == ["removed.wav"]
    assert plan.unchanged == 2
    # Only what could have been moved (same size as something gone) and what has the same size is read.
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_two_copies_of_one_lost_track_are_one_move_and_one_new(tmp_path):
    write_clip(tmp_path / "old.wav", 1, 0)
    known = states(tmp_path, scan_folder(tmp_path))
    content = (tmp_path / "old.wav").read_bytes()
    (tmp_path / "old.wav").unlink()
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(content)
    plan = make_plan(tmp_path, scan_folder(tmp_path), known)
    assert plan.moved == {"a.wav": "old.wav"} and plan.new == ["b.wav"] and plan.removed == []
