"""What is found in a folder, what is left out and why, and what a comparison with an index asks for."""

import os

import mutagen.aiff
import mutagen.flac
import mutagen.id3
import mutagen.oggvorbis
import mutagen.wave
import pytest
import soundfile
from synthetic import write_clip

from msim_tf.errors import InputError
from msim_tf.library.plan import make_plan
from msim_tf.library.scan import content_hash, scan_folder
from msim_tf.library.tags import canonical_tags, read_tags


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


EXPECTED = {
    "artist": "Björk, Guest",
    "album_artist": "Björk",
    "album": "Post",
    "title": "Army of Me",
    "year": 1995,
    "genre": ["Rock", "Trip hop"],
}


def write_vorbis(path, kind):
    file = kind(path)
    file.update(
        artist=["Björk", "Guest"], albumartist=["Björk"], album=["Post"], title=["Army of Me"], date=["1995-06-13"]
    )
    file["genre"] = ["Rock", "Trip hop"]
    file.save()


def write_id3(path, kind):
    file = kind(path)
    if file.tags is None:
        file.add_tags()
    for name, text in (
        ("TPE1", ["Björk", "Guest"]),
        ("TPE2", "Björk"),
        ("TALB", "Post"),
        ("TIT2", "Army of Me"),
        ("TDRC", "1995"),
        ("TCON", ["17", "Trip hop"]),  # genre 17 of ID3v1 is Rock
    ):
        file.tags.add(getattr(mutagen.id3, name)(encoding=3, text=text))
    file.save()


@pytest.mark.parametrize(
    "suffix, write, kind",
    [
        ("flac", write_vorbis, mutagen.flac.FLAC),
        ("ogg", write_vorbis, mutagen.oggvorbis.OggVorbis),
        ("wav", write_id3, mutagen.wave.WAVE),
        ("aiff", write_id3, mutagen.aiff.AIFF),
        ("mp3", write_id3, None),
    ],
)
def test_tags_of_every_kind_of_file(tmp_path, rng, suffix, write, kind):
    from mutagen.mp3 import MP3

    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, rng.normal(0, 0.1, 22050), 22050)
    assert read_tags(path) in ({}, {"title": "x"})
    write(path, kind or MP3)
    assert read_tags(path) == EXPECTED


def test_tags_of_strangers_are_tamed(tmp_path):
    told = canonical_tags(
        {
            "artist": ["a\x1b[31m\x00b\nc\ud800"],
            "title": "t" * 5000,
            "date": ["soon"],
            "genre": [" ;; ", "x;y", *map(str, range(30))],
            "album": ["\x00"],
        }
    )
    assert told["artist"] == "a [31m b c?" and len(told["title"]) == 300
    assert told["genre"] == ["x", "y", *map(str, range(8))]
    assert "year" not in told and "album" not in told
    (tmp_path / "x.mp3").write_bytes(b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(64))
    assert read_tags(tmp_path / "x.mp3") == {}
    assert read_tags(tmp_path / "missing.mp3") == {}
