"""The scores: what may be used, felt beats, windows and keys; and, where the programs are installed, a clip."""

import json
import random
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tools.corpus import scores, scores_catalogue
from tools.corpus.ledger import SR
from tools.corpus.renders import APT_LINE, missing_programs
from tools.corpus.scores import Tune, felt_beat, player, window
from tools.corpus.scores_catalogue import COLLECTIONS, Collection, sources, stated_licence

try:
    import music21
except ImportError:
    music21 = None

MISSING = [*(name for name in missing_programs() if "mma" not in name), *([] if music21 else ["music21"])]
needs_music21 = pytest.mark.skipif(music21 is None, reason="not installed: music21 (pip install music21)")
installed = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} ({APT_LINE}; pip install music21)"
)

FOLK = Collection("mine", "Anonymous", "", genre="folk")
# C major, four bars of 4/4 repeated: scale and tonic chord, 128 quarters.
C_MAJOR = tuple(
    (bar * 4.0 + beat, bar * 4.0 + beat + 1, pitch)
    for bar in range(32)
    for beat, pitch in enumerate(((60, 64, 67, 72), (65, 69, 67, 71), (72, 67, 64, 60), (62, 67, 64, 60))[bar % 4])
)
TUNE = Tune("Scale", (("Violin", C_MAJOR),), ((0.0, Fraction(1)),))
ABC = "X:1\nT:One\n%% {}\nM:4/4\nL:1/4\nK:G\n" + "G A B c | d B A G |" * 30 + "\n"


@pytest.mark.parametrize(
    "text, licence",
    [
        ("<rights>Public Domain (Encoding by MSAC: CC0)</rights>", "CC0"),
        ("freely distributed under a CC-BY-SA 3.0 license", "CC BY-SA"),
        ("most uses allowed for free (CC-SA-BY).", "CC BY-SA"),
        ("© 2014, Creative Commons License (CC-BY)", "CC BY"),
        ("and assigned to the public domain.", "public domain"),
        (
            "the GNU General Public License as published by\n the FSF; either version 2 of the License, or\n "
            "(at your option) any later",
            "GPL-2+",
        ),
        ("PDF © 2004 Margaret Greentree", ""),
        ("<rights>All Rights Reserved</rights> CC0", None),
        ("!!!YEM: Rights to all derivative electronic formats reserved.", None),
        ("for non-commercial distribution; CC BY", None),
        ("CC BY-NC-SA 4.0", None),
    ],
)
def test_the_licence_is_what_the_file_itself_states(tmp_path, text, licence):
    plain, packed = tmp_path / "a.xml", tmp_path / "a.mxl"
    plain.write_text(text)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("META-INF/container.xml", "CC0 All rights reserved")
        archive.writestr("a.xml", text)
    assert stated_licence(plain) == stated_licence(packed) == licence


def test_what_states_no_licence_needs_the_option_and_what_reserves_rights_never_comes(tmp_path):
    (tmp_path / "josquin").mkdir()
    for name, text in (("free", "CC0"), ("silent", ""), ("reserved", "All rights reserved")):
        (tmp_path / "josquin" / f"{name}.abc").write_text(ABC.format(text))
    assert [one.path.stem for one in sources(tmp_path)] == ["free"]
    assert [one.path.stem for one in sources(tmp_path, unstated=True)] == ["free", "silent"]


def test_composers_are_divided_and_every_tested_era_is_trained():
    assert len({one.folder for one in COLLECTIONS}) == len(COLLECTIONS) == len({one.composer for one in COLLECTIONS})
    eras = {part: {one.era for one in COLLECTIONS if one.part == part} for part in ("train", "test")}
    assert eras["test"] <= eras["train"]


@pytest.mark.parametrize(
    "metre, beat",
    [
        ("4/4", 1),
        ("3/4", 1),
        ("2/2", 2),
        ("6/8", 1.5),
        ("12/8", 1.5),
        ("3/2", 2),
        ("5/4", None),
        ("3/8", None),
        ("7/8", None),
    ],
)
def test_felt_beat(metre, beat):
    assert felt_beat(*map(int, metre.split("/"))) == beat


@pytest.mark.parametrize(
    "name, family",
    [
        ("Violino I.", "strings"),
        ("Violone e Organo", "strings"),
        ("Bb Clarinet", "reed"),
        ("Canto", "voice"),
        ("Bass", "voice"),
    ]
    + [("Klavier", "piano"), ("French Horn", "brass"), ("MusicXML Part", None), ("", None)],
)
def test_players(name, family):
    assert player(name) == family


def test_a_change_of_metre_leaves_the_beat_unknown():
    tune = Tune("", (("", ((0.0, 40.0, 60),)),), ((0.0, Fraction(1)), (20.0, Fraction(3, 2))))
    assert tune.beat(0, 20) == 1 and tune.beat(20, 40) == Fraction(3, 2) and tune.beat(10, 30) is None
    parts_disagree = Tune("", (), ((0.0, Fraction(1)), (0.0, Fraction(2))))
    assert parts_disagree.beat(0, 10) is None


@needs_music21
def test_a_window_is_transposed_timed_and_named_together():
    shifts = set()
    for number in range(12):
        drawn = window(TUNE, FOLK, random.Random(number), own_instruments=True)
        notes = drawn.song.notes
        # The melody, slid along the tune, tells by how much it was transposed: its pitch classes are a major scale's.
        classes = {note.pitch % 12 for note in notes}
        shift = next(k for k in range(12) if {(p + k) % 12 for p in (0, 2, 4, 5, 7, 9, 11)} == classes)
        shifts.add(shift)
        tonic = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")[shift]
        assert drawn.key == f"{tonic} major"
        assert drawn.song.tempo == drawn.tempo and scores.SLOWEST <= drawn.tempo <= scores.FASTEST
        # One note per quarter: onsets are 60 / tempo seconds apart.
        onsets = [drawn.song.seconds(note.start) for note in notes]
        assert np.median(np.diff(onsets)) == pytest.approx(60 / drawn.tempo, rel=0.02)
        assert {note.program in (40, 41, 42, 48, 49) for note in notes} == {True}
    assert len(shifts) > 4


def test_a_tune_too_short_has_no_window():
    short = Tune("", (("", ((0.0, 12.0, 60),)),), ((0.0, Fraction(1)),))
    assert window(short, FOLK, random.Random(0), own_instruments=True) is None


@needs_music21
def test_a_compound_metre_is_played_at_its_dotted_beat():
    jig = Tune("", (("", tuple((i / 2, i / 2 + 0.5, 60 + i % 5) for i in range(600))),), ((0.0, Fraction(3, 2)),))
    drawn = window(jig, FOLK, random.Random(0), own_instruments=False)
    assert drawn.song.tempo == pytest.approx(1.5 * drawn.tempo)
    # Three eighths to the felt beat.
    onsets = [drawn.song.seconds(note.start) for note in drawn.song.notes]
    assert np.median(np.diff(onsets)) == pytest.approx(60 / drawn.tempo / 3, rel=0.03)


@needs_music21
def test_an_unclear_key_is_not_named():
    whole_tones = [(float(i), i + 1.0, 60 + 2 * (i % 6)) for i in range(48)]
    assert scores.clear_key(whole_tones) is None
    assert scores.clear_key(C_MAJOR[:6]) is None  # too few notes to tell
    assert scores.clear_key(C_MAJOR) == "C major"


@needs_music21
def test_music21_reads_parts_metres_and_ties(tmp_path):
    (tmp_path / "a.abc").write_text("X:1\nT:Tied\nM:6/8\nL:1/8\nK:C\nC3-C3 | DEF GAB |\n")
    (tune,) = scores.tunes(tmp_path / "a.abc")
    assert tune.title == "Tied" and tune.beats == ((0.0, Fraction(3, 2)),)
    assert tune.parts[0][1][:2] == ((0.0, 3.0, 60), (3.0, 3.5, 62))


@needs_music21
def test_only_stated_licences_of_the_real_corpus(monkeypatch):
    few = ("josquin", "corelli", "lusitano", "leadSheet", "handel", "schoenberg")
    monkeypatch.setattr(scores_catalogue, "COLLECTIONS", [one for one in COLLECTIONS if one.folder in few])
    actual = list(sources(music21.common.getCorpusFilePath()))
    assert {one.collection.folder for one in actual} == {"josquin", "corelli", "lusitano", "leadSheet"}
    assert not any("berlin" in one.path.name for one in actual)  # "All Rights Reserved"


def test_without_music21_the_line_that_installs_it_is_printed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "music21", raising=False)
    monkeypatch.setattr(sys, "path_importer_cache", {})
    assert scores.main(["--corpus", str(tmp_path / "corpus")]) == 1
    assert capsys.readouterr().err == "not installed: music21. Run: pip install music21\n"


@installed
def test_scores_become_clips_and_nothing_is_made_twice(tmp_path, monkeypatch):
    for folder in ("josquin", "weber"):
        (tmp_path / "scores" / folder).mkdir(parents=True)
        (tmp_path / "scores" / folder / "tune.abc").write_text(ABC.format("CC0"))
    (tmp_path / "scores" / "josquin" / "broken.xml").write_text("<score-partwise> CC0")
    monkeypatch.setattr(scores, "PER_COLLECTION", 2)
    root = tmp_path / "corpus"
    failures = scores.build(root, tmp_path / "scores")
    assert failures and all("broken" in line for line in failures)
    records = {one["clip"]: one for one in map(json.loads, Path(root / "scores.jsonl").read_text().splitlines())}
    assert {Path(clip).parts[:3] for clip in records} == {("train", "scores", "josquin"), ("test", "scores", "weber")}
    for clip, record in records.items():
        y, sr = soundfile.read(root / clip)
        assert sr == SR and y.ndim == 1 and scores._MIN_SECONDS <= len(y) / SR <= scores._MAX_SECONDS + 1
        assert np.sqrt(np.mean(y**2)) > 0.003
        assert record["licence"].startswith("score: CC0; sound font: ")
        assert record["labels"]["era"] == (["Renaissance"] if "josquin" in clip else ["Romantic"])
        assert "key" not in record["labels"] or "weber" in clip
    stamps = {clip: (root / clip).stat().st_mtime_ns for clip in records}
    (root / next(iter(records))).unlink()
    scores.build(root, tmp_path / "scores")
    changed = [clip for clip in records if (root / clip).stat().st_mtime_ns != stamps[clip]]
    assert changed == [next(iter(records))]
