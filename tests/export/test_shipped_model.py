"""The model that ships: whole, described by its card, and it hears tempo and key in sound that nobody trained it on."""

import csv
import json
import re
from pathlib import Path

import librosa
import numpy as np
import pytest

from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.export.documents import DOCUMENTS_FILE, documents
from msim_tf.export.metadata import check_export
from msim_tf.export.model import Model
from msim_tf.export.servable import Servable
from msim_tf.files import load_json
from msim_tf.params import FEATURE_PRESETS
from tools.corpus import card

MODEL = Path(__file__).parents[2] / "saved_models" / "open6"
VERSION = max((path for path in MODEL.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
SR = FEATURE_PRESETS["paper"].sr
CARD = (MODEL / "MODEL_CARD.md").read_text(encoding="utf-8")
README = (MODEL.parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def servable():
    loaded = Servable.load(VERSION)
    yield loaded
    loaded.close()


def heard(servable, y):
    """Subspaces of one clip, each of length 1."""
    actual = servable.run("audio", {"audio": y[None].astype(np.float32)})
    return {name: actual[name][0] / np.linalg.norm(actual[name][0]) for name in DIMENSION_NAMES}


def clicks(bpm, frequency):
    times = np.arange(0.0, 12.0, 60.0 / bpm)
    return 0.5 * librosa.clicks(times=times, sr=SR, click_freq=frequency, length=12 * SR)


def cadence(tonic, seconds=1.0):
    """I IV V I in major, twice, each chord as three plucked notes with four partials."""
    time = np.arange(int(seconds * SR)) / SR
    chords = []
    for root in (0, 5, 7, 0) * 3:
        notes = [48 + tonic + root + step for step in (0, 4, 7, 12)]
        tones = [
            np.sin(2 * np.pi * part * librosa.midi_to_hz(note) * time) / part for note in notes for part in range(1, 5)
        ]
        chords.append(np.sum(tones, axis=0) * np.exp(-2 * time))
    return 0.1 * np.concatenate(chords)


def test_it_is_small_and_its_features_are_the_papers():
    described = json.loads((VERSION / "assets.extra" / "msim.json").read_text())
    assert described["digest"] == FEATURE_PRESETS["paper"].digest and described["dimensions"] == list(DIMENSION_NAMES)
    assert described["digest"] in CARD and f"Version {VERSION.name}, made on" in CARD
    assert sum(file.stat().st_size for file in VERSION.rglob("*") if file.is_file()) < 10e6


def test_every_file_has_its_checksum():
    assert {path.name for path in documents(MODEL)} == set(load_json(MODEL / DOCUMENTS_FILE, "checksums")["files"])
    assert check_export(MODEL) == []


def test_equal_tempi_are_nearer_than_others_whatever_clicks(servable):
    low = {bpm: heard(servable, clicks(bpm, 500.0))["tempo"] for bpm in (80, 95, 120, 144)}
    high = {bpm: heard(servable, clicks(bpm, 2000.0))["tempo"] for bpm in low}
    for bpm, vector in low.items():
        near = vector @ high[bpm]
        assert all(near > vector @ high[other] for other in high if other != bpm), bpm


def test_equal_keys_are_nearer_than_others_at_another_tempo(servable):
    slow = {tonic: heard(servable, cadence(tonic))["key"] for tonic in (0, 3, 6, 10)}
    quick = {tonic: heard(servable, cadence(tonic, 0.75))["key"] for tonic in slow}
    for tonic, vector in slow.items():
        near = vector @ quick[tonic]
        assert all(near > vector @ quick[other] for other in quick if other != tonic), tonic


def test_it_says_what_it_hears_in_real_music_and_in_noise(music, rng):
    with Model(VERSION) as model:
        said = model.describe(music / "wesnoth__northern_mountains.ogg")
        assert {"violin", "strings"} <= set(said.stated("instrument")) and "classical" in said.stated("genre")
        assert "drums" in model.describe(music / "zaz__mus1.ogg").stated("instrument")
        noise = rng.normal(0, 0.1, 8 * SR).astype(np.float32)
        assert str(model.describe(noise, sr=SR)) == "nothing musical (noise)"


def test_the_card_says_how_well_it_describes():
    judged = json.loads((MODEL / "description.json").read_text())
    classes = json.loads((VERSION / "assets.extra" / "msim.json").read_text())["description"]["classes"]
    text = " ".join(CARD.split())
    for words in (classes[name] for name in ("genre", "mood", "instrument", "era")):
        assert all(word in text for word in words)
    figures = [judged["words"]["mean"], judged["tempo"]["within 4 %"]["share"], judged["key"]["exact"]["share"]]
    assert all(card.figure(figure) in CARD for figure in figures)


def test_the_card_and_the_readme_say_what_was_measured():
    judged = json.loads((MODEL / "evaluation.json").read_text())
    tables = card.tables(judged, "open6")
    assert [len(lines) - 2 for lines in tables] == [10, 4, 6]
    for lines in tables:
        assert "\n".join(lines) in CARD
    rows = re.findall(
        r"^\| ([a-z, ]+) \| (?:the teachers|exact), (\d+).*?\| (\.\d+ \([-.\d]+\)) \|", README, re.MULTILINE
    )
    known = {line.split(" | ")[0].removeprefix("| "): line.replace("*", "") for line in tables[0][2:]}
    assert len(rows) == 8
    for kind, number, figures in rows:
        assert f"| {figures} |" in known[kind] and f" {number} " in known[kind]


def test_every_original_has_a_licence():
    with open(MODEL / "ATTRIBUTION.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1456 and "1,456 originals" in CARD
    assert all(row["licence"] and row["source"] for row in rows)
    assert all(re.fullmatch("[0-9a-f]{64}", row["sha256"]) for row in rows if row["builder"] == "games")
