"""What is found in a folder, what is left out and why, and what a comparison with an index asks for."""

import os

import pytest
from synthetic import write_clip

from msim_tf.audio.scan import content_hash, scan_folder
from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.library.file_table import FileRecord, FileTable
from msim_tf.library.plan import Remembered, make_plan
from msim_tf.search.schema import SCHEMA


def states(root, scan):
    """What a library would know of every file."""
    return Remembered({name: FileRecord(state, content_hash(root / name)) for name, state in scan.files.items()})


def test_every_sound_file_is_listed_or_has_a_reason(tmp_path):
    root = tmp_path / "music"
    for name in ("b/2.wav", "a/1.flac", "c#?% ä\n.wav"):
        write_clip(root / name, 1, 0)
    (root / "cover.jpg").write_bytes(b"no sound")
    (root / "in.wav").symlink_to(root / "b" / "2.wav")
    (root / "nowhere.wav").symlink_to(root / "gone.wav")
    (root / "circle.wav").symlink_to(root / "circle.wav")
    (root / "device.wav").symlink_to("/dev/zero")
    (root / "folder.mp3").mkdir()
    (root / "album.mp3").mkdir()
    write_clip(root / "album.mp3" / "3.wav", 1, 0)
    os.mkfifo(root / "pipe.wav")
    os.close(os.open(os.fsencode(root) + b"/\xff.wav", os.O_CREAT))
    os.mkdir(os.fsencode(root) + b"/\xfe")
    os.close(os.open(os.fsencode(root) + b"/\xfe/4.wav", os.O_CREAT))

    scan = scan_folder(root)

    assert list(scan.files) == ["a/1.flac", "album.mp3/3.wav", "b/2.wav", "c#?% ä\n.wav", "in.wav"]
    assert scan.root == root and scan.hidden == 0 and scan.unsupported == {}
    assert scan.files["b/2.wav"].size == (root / "b" / "2.wav").stat().st_size
    assert scan.failures == {
        "nowhere.wav": "cannot be read (No such file or directory)",
        "circle.wav": "cannot be read (Too many levels of symbolic links)",
        "device.wav": "not a regular file",
        "folder.mp3/": "a folder, not a sound file",
        "pipe.wav": "not a regular file",
        os.fsdecode(b"\xff.wav"): "its name is not valid UTF-8; rename the file",
        os.fsdecode(b"\xfe") + "/": "its name is not valid UTF-8; rename the folder",
    }


def test_dots_in_front_of_music_hide_nothing(tmp_path):
    music = ("...And Justice for All/1.wav", ".38 Special/2.wav", "..Hits/3.wav", "a/...Baby.wav", ".O.rang/4.wav")
    hidden = (
        ".git/x.wav",
        "a/._1.wav",
        ".Trash-1000/y.wav",
        ".DS_Store",
        "@eaDir/z.wav",
        ".nfs00ab.wav",
        "#recycle/1.wav",
    )
    hidden += ("$RECYCLE.BIN/1.wav", ".Trashes/1.wav", ".Spotlight-V100/1.wav", "__MACOSX/._b.wav")
    for name in (*music, *hidden):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    scan = scan_folder(tmp_path)

    assert list(scan.files) == sorted(music)
    assert scan.hidden == len(hidden) and scan.failures == {}
    assert scan.notices() == [f"hidden: {len(hidden)}"]


def test_music_of_other_kinds_is_counted_by_type(tmp_path):
    write_clip(tmp_path / "1.wav", 1, 0)
    for name in ("a.mid", "b.MID", "c/d.mp4", "e.ofr", "f.txt", "g.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    scan = scan_folder(tmp_path)

    assert scan.unsupported == {".mid": 2, ".mp4": 1, ".ofr": 1}
    assert scan.notices() == ["of a kind that is not decoded: 2 .mid, 1 .mp4, 1 .ofr"]
    (tmp_path / "1.wav").unlink()
    with pytest.raises(InputError, match=r"holds no audio.*left out: of a kind that is not decoded: 2 \.mid"):
        scan_folder(tmp_path)


def test_links_are_followed_once_and_loops_end(tmp_path):
    root, outside = tmp_path / "music", tmp_path / "outside"
    write_clip(root / "z" / "1.wav", 1, 0)
    write_clip(outside / "2.wav", 1, 1)
    write_clip(outside / "deep" / "3.wav", 1, 1)
    (root / "loop").symlink_to(root)
    (root / "a second way").symlink_to(root / "z")
    (root / "usb").symlink_to(outside)
    (root / "usb again").symlink_to(outside)
    (outside / "back").symlink_to(root / "z")
    (outside / "deep" / "up").symlink_to(outside)
    (root / "file.wav").symlink_to(outside / "2.wav")

    scan = scan_folder(root)

    assert list(scan.files) == ["file.wav", "usb/2.wav", "usb/deep/3.wav", "z/1.wav"]
    assert scan.failures == {}


def test_a_single_file_needs_no_suffix(tmp_path):
    write_clip(tmp_path / "song.wav", 1, 0)
    (tmp_path / "song.wav").rename(tmp_path / "song")

    scan = scan_folder(tmp_path / "song")

    assert list(scan.files) == ["song"] and scan.root == tmp_path
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(InputError, match=r"pipe\.wav: not a regular file"):
        scan_folder(tmp_path / "pipe.wav")


def test_an_empty_or_missing_folder_empties_no_library(tmp_path):
    with pytest.raises(InputError, match="holds no audio"):
        scan_folder(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        scan_folder(tmp_path / "missing")


def test_what_cannot_be_listed_is_not_gone(tmp_path, monkeypatch):
    for name in ("a/1.wav", "b/2.wav"):
        write_clip(tmp_path / name, 1, 0)
    known = states(tmp_path, scan_folder(tmp_path))
    listdir = os.listdir

    def refusing(path):
        # The tests may run as root, whom no permission stops.
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)
    scan = scan_folder(tmp_path)
    assert scan.unreadable == ("b/",) and scan.failures == {"b/": "cannot be read (Permission denied)"}
    plan = make_plan(tmp_path, scan, known)
    assert plan.missing == [] and plan.unchanged == 2


def test_a_plan_knows_new_changed_touched_moved_and_missing(tmp_path):
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
    assert plan.touched == ["touched.wav"] and plan.moved == {"z.wav": "moved.wav"} and plan.missing == ["removed.wav"]
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
    assert plan.moved == {"a.wav": "old.wav"} and plan.new == ["b.wav"] and plan.missing == []


def test_a_time_beyond_64_bits_is_kept(tmp_path):
    """Some file systems hold years after 2262, whose nanoseconds no database does; one such file ended a run."""
    file = tmp_path / "a.mp3"
    file.touch()
    os.utime(file, (10_413_792_000, 10_413_792_000))  # the year 2300
    if file.stat().st_mtime < 10**10:
        pytest.skip("this file system does not hold such a time")
    states = scan_folder(tmp_path).files
    with Database(None, SCHEMA) as database:
        table = FileTable(database)
        table.put({name: FileRecord(state) for name, state in states.items()})
        assert table.record("a.mp3").state == states["a.mp3"] == scan_folder(tmp_path).files["a.mp3"]
