"""Tracker modules and MIDI files, written here byte by byte, become the sound that their notes say."""

import io
import os
import shutil
import struct

import mido
import numpy as np
import pytest
import soundfile

from msim_tf.errors import InputError
from tools.corpus import playable
from tools.corpus.debian import unpack
from tools.corpus.ledger import SR, sha256

fonts = [playable.SOUND_FONTS[name] for name in playable.FONTS]
needs_openmpt = pytest.mark.skipif(shutil.which("openmpt123") is None, reason=f"needs {playable.APT_LINE}")
needs_fluidsynth = pytest.mark.skipif(
    shutil.which("fluidsynth") is None or not all(font.path.is_file() for font in fonts),
    reason=f"needs {playable.APT_LINE}",
)
ROW_SECONDS = 6 * 2.5 / 125  # a row is 6 ticks, a tick 2.5 / tempo seconds, and modules begin at 125


def module(*, rows=64, orders=4, title=b"A title", last_effect=0):
    """A ProTracker module: a looped square wave of 32 samples, at the rate 3546895 / 428 Hz of
    its middle C, in every pattern's first row.

    Args:
        rows: after which a pattern breaks off.
        orders: how often the pattern is played.
        title: of the module.
        last_effect: 12 bits, effect of the last row.
    """
    sample = b"square".ljust(22, b"\0") + struct.pack(">HBBHH", 16, 0, 64, 0, 16)
    empty = bytes(22) + struct.pack(">HBBHH", 0, 0, 0, 0, 1)
    head = title.ljust(20, b"\0") + sample + empty * 30 + bytes([orders, 127]) + bytes(128) + b"M.K."
    assert len(head) == 1084
    cells = [[bytes(4)] * 4 for _ in range(64)]
    cells[0][0] = struct.pack(">HH", 428, 0x1000)
    cells[rows - 1][1] = struct.pack(">HH", 0, last_effect or (0x0D00 if rows < 64 else 0))
    return head + b"".join(cell for row in cells for cell in row) + bytes([100] * 16 + [156] * 16)


def midi(seconds, note=69):
    """A file of one organ tone, at the default tempo of 120."""
    file = mido.MidiFile(ticks_per_beat=480)
    track = mido.MidiTrack()
    track.append(mido.Message("program_change", program=19))
    track.append(mido.Message("note_on", note=note, velocity=100))
    track.append(mido.Message("note_off", note=note, time=round(seconds * 960)))
    file.tracks.append(track)
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def played(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return soundfile.read(playable.playable(path, sha256(path), tmp_path / "cache"))


def strongest(y):
    """Frequency of the largest peak of a spectrum, in Hz."""
    return np.abs(np.fft.rfft(y * np.hanning(len(y)))).argmax() * SR / len(y)


@needs_openmpt
def test_a_module_sounds_as_long_and_as_high_as_its_bytes_say(tmp_path):
    y, rate = played(tmp_path, "a.mod", module())
    assert rate == SR
    assert len(y) / SR == pytest.approx(4 * 64 * ROW_SECONDS, abs=0.2)
    assert strongest(y[: 20 * SR]) == pytest.approx(3546895 / 428 / 32, rel=0.005)
    assert np.abs(y).max() == pytest.approx(0.9, abs=0.01)


@needs_openmpt
def test_a_module_that_loops_for_ever_is_played_once_and_a_long_one_cut(tmp_path, monkeypatch):
    jump = 0x0B00  # to order 0
    y, _ = played(tmp_path, "loop.mod", module(orders=1, last_effect=jump))
    assert len(y) / SR == pytest.approx(64 * ROW_SECONDS, abs=0.2)
    monkeypatch.setattr(playable, "MAX_SECONDS", 20)
    y, _ = played(tmp_path, "long.mod", module(orders=120))
    assert len(y) / SR == pytest.approx(20, abs=0.1)


@needs_fluidsynth
def test_a_midi_file_sounds_as_high_as_its_note(tmp_path):
    y, rate = played(tmp_path, "a.mid", midi(22))
    assert rate == SR
    assert 22 <= len(y) / SR < 30  # with what the last note leaves
    heard = strongest(y[2 * SR : 20 * SR])
    assert min(abs(np.log2(heard / (440 * 2**octave))) for octave in (-1, 0, 1, 2)) < 0.01


def test_both_sound_fonts_of_training_are_used_and_never_the_third(tmp_path):
    checksums = [f"{number:064x}" for number in range(10)]
    heard = {playable.sound_font(tmp_path / "a.mid", checksum).package for checksum in checksums}
    assert heard == {"fluid-soundfont-gm", "timgm6mb-soundfont"}
    assert playable.sound_font(tmp_path / "a.xm", checksums[0]) is None


@needs_openmpt
def test_what_is_played_is_kept(tmp_path):
    path = tmp_path / "a.mod"
    path.write_bytes(module())
    target = playable.playable(path, "0" * 64, tmp_path / "cache")
    written = target.stat().st_mtime_ns
    assert playable.playable(path, "0" * 64, tmp_path / "cache") == target
    assert target.stat().st_mtime_ns == written


def test_sound_needs_no_playing(tmp_path):
    assert playable.playable(tmp_path / "a.ogg", "0" * 64, tmp_path / "cache") == tmp_path / "a.ogg"
    assert not (tmp_path / "cache").exists()


@needs_openmpt
@pytest.mark.parametrize("name", ["a.mod", "a.xm", "a.it"])
def test_a_damaged_module_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="openmpt123 cannot play it"):
        played(tmp_path, name, b"this is no module" * 9)


@needs_openmpt
def test_a_silent_module_is_refused(tmp_path):
    content = module()
    with pytest.raises(InputError, match="silent"):
        played(tmp_path, "a.mod", content[:1084] + bytes(1024) + content[-32:])


@needs_fluidsynth
def test_a_damaged_midi_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="fluidsynth|silent|a.mid"):
        played(tmp_path, "a.mid", b"this is no MIDI file" * 9)


def test_a_missing_program_gives_the_apt_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "openmpt123" in playable.missing_programs(["music/*.xm"])
    assert "fluidsynth" in playable.missing_programs(["music/*.MID"])
    assert playable.missing_programs(["music/*", "music/*.ogg"]) == []
    with pytest.raises(InputError, match="openmpt123 not found: apt-get install openmpt123 fluidsynth"):
        played(tmp_path, "a.mod", module())


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("a.mod", module(title=b"Four  words in here"), "Four words in here"),
        ("a.xm", b"Extended Module: " + b"Theme\0rubbish".ljust(20, b"\0") + b"\x1a", "Theme"),
        ("a.it", b"IMPM" + b"Theme of it".ljust(26, b"\0") + bytes(9), "Theme of it"),
        ("a.s3m", b"S3M theme".ljust(28, b"\0") + b"\x1a", "S3M theme"),
        ("a.ogg", b"OggS", ""),
    ],
)
def test_titles_of_modules(tmp_path, name, content, title):
    (tmp_path / name).write_bytes(content)
    assert playable.module_title(tmp_path / name) == title


def wad(lumps):
    """A Doom WAD of (name, bytes)."""
    data, directory, at = b"", b"", 12
    for name, content in lumps:
        directory += struct.pack("<ii8s", at + len(data), len(content), name)
        data += content
    return struct.pack("<4sii", b"IWAD", len(lumps), 12 + len(data)) + data + directory


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_midi_files_are_found_in_wads_and_scores_only_when_asked_for(tmp_path):
    tune = midi(1)
    tree = tmp_path / "tree"
    files = {
        "usr/share/games/doom/free.wad": wad([(b"E1M1", b""), (b"D_E1M1", tune), (b"DSPISTOL", b"RIFFxxxx")]),
        "usr/share/alpha/music/a.mod": module(),
        "usr/share/doc/alpha/copyright": b"GPL",
        "DEBIAN/control": b"Package: alpha\nVersion: 1\nArchitecture: all\n"
        b"Maintainer: x <x@example.org>\nDescription: x\n",
    }
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    deb = tmp_path / "alpha_1_all.deb"
    assert os.spawnlp(os.P_WAIT, "dpkg-deb", "dpkg-deb", "-Zgzip", "-b", str(tree), str(deb)) == 0
    actual, _ = unpack(deb, ["usr/share/games/doom/free.wad/*.mid", "usr/share/alpha/music/*"], tmp_path / "into")
    assert [(name, path.read_bytes()) for name, path in actual.items()] == [
        ("usr/share/games/doom/free.wad/D_E1M1.mid", tune)
    ]
    actual, _ = unpack(deb, ["usr/share/alpha/music/*.mod"], tmp_path / "into")
    assert list(actual) == ["usr/share/alpha/music/a.mod"]
