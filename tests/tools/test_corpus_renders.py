"""The renders' plan: pure, held out, decoupled; and, where mma and fluidsynth are installed, what is rendered."""

import dataclasses
import itertools
import json
import math
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from scipy.stats import chi2_contingency

from msim_tf.errors import InputError
from msim_tf.labels.tables import read_labels_csv
from msim_tf.theory import parse_key
from tools.corpus import renders, renders_midi, renders_mix
from tools.corpus.ledger import SR
from tools.corpus.renders_harmony import MODES, Chord, parse_chord, phrases, progressions
from tools.corpus.renders_plan import FAMILIES, NUM_PROGRESSIONS, load_styles, recipe

ROOT = Path(__file__).resolve().parents[2]
MISSING = renders.missing_programs()
installed = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} ({renders.APT_LINE})")
RECIPES = [recipe(index) for index in range(3000)]


def by_part(part):
    return [plan for plan in RECIPES if plan.part == part]


def test_the_plan_is_a_function_of_seed_and_number():
    code = "from tools.corpus.renders_plan import recipe; print([recipe(i) for i in (0, 4, 1234)])"
    fresh = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert fresh.strip() == str([RECIPES[i] for i in (0, 4, 1234)])
    assert recipe(0, seed=1) != RECIPES[0]


def test_no_two_clips_share_a_path_and_a_fifth_is_for_testing():
    assert len({plan.clip for plan in RECIPES}) == len(RECIPES)
    assert len(by_part("test")) == len(RECIPES) // 5
    assert all(plan.clip.startswith(f"{plan.part}/renders/{plan.group}/") for plan in RECIPES)


@pytest.mark.parametrize("what", ["style.name", "group", "progression.name", "progression.bars", "font"])
def test_nothing_of_the_test_clips_is_heard_in_training(what):
    def values(part):
        used = set()
        for plan in by_part(part):
            value = plan
            for name in what.split("."):
                value = getattr(value, name)
            used.add(value)
        return used

    assert values("train") and values("test") and not values("train") & values("test")


def test_phrases_are_held_out_and_none_is_written_twice():
    for mode in MODES:
        train, test = phrases(mode, "train"), phrases(mode, "test")
        assert not set(train) & set(test) and len(set(train)) == len(train) and len(set(test)) == len(test)
        assert all(len(phrase.split()) == 4 for phrase in train + test)
        assert 0.15 < len(test) / len(train + test) < 0.25


def test_held_out_styles_spread_over_the_families():
    styles = load_styles()
    held_out = [style for style in styles if style.test]
    assert 0.17 < len(held_out) / len(styles) < 0.23
    assert len({style.family for style in held_out}) >= 20
    # A genre that nothing was trained on would test another question.
    assert {genre for style in held_out for genre in style.genre} <= {
        genre for style in styles if not style.test for genre in style.genre
    } | {"drum and bass"}


DRAWN = {
    "family": lambda plan: plan.style.family,
    "tempo, octaves folded": lambda plan: int(6 * math.log2(plan.tempo / 50) % 6),
    "tonic": lambda plan: plan.tonic,
    "mode": lambda plan: plan.progression.mode,
    "instrument": lambda plan: plan.families[:1],
    "melody": lambda plan: plan.melody,
    "font": lambda plan: plan.font,
    "colour": lambda plan: plan.progression.colour,
}


def contingency(plans, a, b):
    counts = Counter((a(plan), b(plan)) for plan in plans)
    rows, columns = sorted({row for row, _ in counts}, key=str), sorted({column for _, column in counts}, key=str)
    return np.array([[counts[row, column] for column in columns] for row in rows])


def bits(table):
    """Mutual information, from its definition, less its expected value for independent ones (Miller-Madow)."""
    joint = table / table.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    raw = float(np.sum(joint[joint > 0] * np.log2(joint[joint > 0] / independent[joint > 0])))
    return raw - (table.shape[0] - 1) * (table.shape[1] - 1) / (2 * math.log(2) * table.sum())


# The colour belongs to the progression, as the mode does: with 80 progressions they
# are not independent, and need not be.
PAIRS = [pair for pair in itertools.combinations(DRAWN, 2) if set(pair) != {"mode", "colour"}]


@pytest.mark.parametrize("a, b", PAIRS)
def test_no_dimension_predicts_another(a, b):
    plans = by_part("train")
    table = contingency(plans, DRAWN[a], DRAWN[b])
    assert chi2_contingency(table).pvalue > 0.001
    assert bits(table) < 0.02


def test_the_measure_of_dependence_sees_one():
    table = contingency(by_part("train"), DRAWN["family"], lambda plan: plan.style.genre[0])
    assert chi2_contingency(table).pvalue < 1e-9 and bits(table) > 2


def test_every_key_is_there_and_one_progression_goes_over_many_grooves():
    keys = Counter(plan.key for plan in by_part("train"))
    assert len(keys) == 24 and max(keys.values()) < 2 * min(keys.values())
    styles = {}
    for plan in by_part("train"):
        styles.setdefault(plan.progression.name, set()).add(plan.style.family)
    assert len(styles) == NUM_PROGRESSIONS["train"] and min(len(families) for families in styles.values()) >= 8


def test_compound_metres_are_not_rushed_and_others_span_two_octaves():
    compound = [plan.tempo for plan in RECIPES if plan.style.compound]
    simple = [plan.tempo for plan in RECIPES if not plan.style.compound]
    assert min(compound) >= 50 and max(compound) <= 130
    assert 50 <= min(simple) < 52 and 195 < max(simple) <= 200


@pytest.mark.parametrize(
    "numeral, chord",
    [
        ("I", Chord(0, "major")),
        ("bVII", Chord(10, "major")),
        ("ii0", Chord(2, "diminished")),
        ("V7", Chord(7, "dominant")),
        ("#iv0", Chord(6, "diminished")),
        ("bVI", Chord(8, "major")),
        ("iv", Chord(5, "minor")),
    ],
)
def test_numerals(numeral, chord):
    assert parse_chord(numeral) == chord


def test_tones_of_a_chord():
    assert parse_chord("V7").tones == (7, 11, 2, 5)  # G B D F in C
    assert parse_chord("bVI").tones == (8, 0, 3)  # A flat, C, E flat


def test_progressions_continue_when_more_are_asked_for():
    assert progressions("train", 40, seed=3)[:10] == progressions("train", 10, seed=3)
    assert progressions("train", 10, seed=4) != progressions("train", 10, seed=3)


def test_the_tonic_is_a_good_part_of_every_progression():
    for part, count in NUM_PROGRESSIONS.items():
        for progression in progressions(part, count, seed=0):
            chords = [chord for bar in progression.bars for chord in bar]
            assert len(progression.bars) >= 8 or "A," in progression.name
            tonic = Chord(0, progression.mode)
            share = sum(chord.root == 0 and chord.quality in (tonic.quality, "dominant") for chord in chords) / len(
                chords
            )
            assert share >= 0.25, progression.name


@pytest.mark.parametrize("part", ["train", "test"])
def test_chords_are_spelled_in_the_key(part):
    for progression in progressions(part, 20, seed=0):
        first = progression.bars[0][0]
        if first == Chord(0, "major") and progression.colour == "triads":
            assert progression.symbol(first, 3) == "Eb"
    minor = next(one for one in progressions(part, 60, seed=0) if one.mode == "minor" and one.colour == "sevenths")
    assert minor.symbol(Chord(0, "minor"), 9) == "Am7" and minor.symbol(Chord(7, "dominant"), 9) == "E7"


def note(start, end, role="Chord", program=0, velocity=100):
    return renders_midi.Note(start, end, 60, velocity, role, program)


def test_prominent_families_by_hand():
    # At 60 bpm a beat of 192 ticks is a second. Piano sounds 2 x 1 s (the second second of one note
    # fades), strings 0.5 s, bass is left out.
    notes = (note(0, 384), note(384, 576), note(0, 96, program=48), note(0, 1920, role="bass", program=33))
    song = renders_midi.Song(notes, 60.0)
    assert renders_midi.prominent_families(song, 0.0, 10.0) == ("piano", "strings")  # 0.5 of 2.5 is a fifth
    quieter = renders_midi.Song((*notes[:2], note(0, 96, program=48, velocity=90), notes[3]), 60.0)
    assert renders_midi.prominent_families(quieter, 0.0, 10.0) == ("piano",)
    assert renders_midi.prominent_families(song, 5.0, 5.0) == ()


def test_midi_has_one_tempo_and_a_channel_per_voice(tmp_path):
    notes = (note(0, 192), note(192, 384, role="melody", program=73), note(0, 10, role="drums"))
    renders_midi.write_midi(renders_midi.Song(notes, 90.0), tmp_path / "a.mid", levels={"melody": 77})
    messages = list(mido.merge_tracks(mido.MidiFile(tmp_path / "a.mid").tracks))
    assert [round(mido.tempo2bpm(m.tempo), 3) for m in messages if m.type == "set_tempo"] == [90.0]
    programs = {m.channel: m.program for m in messages if m.type == "program_change"}
    assert sorted(programs.values()) == [0, 0, 73] and 9 in programs
    flute = next(channel for channel, program in programs.items() if program == 73)
    assert [m.value for m in messages if m.type == "control_change" and m.channel == flute] == [77]
    # The last note ends after two beats of 90 bpm.
    assert mido.MidiFile(tmp_path / "a.mid").length == pytest.approx(2 * 60 / 90, abs=1e-3)


def test_mixing_keeps_length_is_loud_enough_and_repeats():
    y = np.sin(2 * np.pi * 440 * np.arange(2 * SR) / SR).astype(np.float32)
    for number in range(20):
        mixed = renders_mix.mixed(y, random.Random(number))
        assert mixed.shape == y.shape and np.isfinite(mixed).all()
        assert 0.1 <= np.abs(mixed).max() <= 0.95
        np.testing.assert_array_equal(mixed, renders_mix.mixed(y, random.Random(number)))


def test_the_room_decays_by_60_db_in_its_reverberation_time():
    click = np.zeros(3 * SR)
    click[0] = 1.0
    room = renders_mix.reverberated(click, seconds=1.0, wet=1.0, rng=np.random.default_rng(0))
    # Schroeder's backward integral: -5 dB to -25 dB takes a third of the reverberation time.
    energy = np.cumsum(room[::-1] ** 2)[::-1]
    decibels = 10 * np.log10(energy[energy > 0] / energy[0])
    fifth, twenty_fifth = (np.argmax(decibels <= level) / SR for level in (-5, -25))
    assert (twenty_fifth - fifth) * 3 == pytest.approx(1.0, rel=0.05)


def test_the_tilt_is_in_decibels_per_octave():
    time = np.arange(SR) / SR
    gains = [
        np.abs(renders_mix._filtered(np.sin(2 * np.pi * hz * time), tilt=3.0, highest=None)).max()
        for hz in (500, 1000, 2000)
    ]
    np.testing.assert_allclose(20 * np.log10(gains), [-3, 0, 3], atol=0.05)


def test_what_is_not_installed_is_named_with_the_line_that_installs_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert renders.main(["--corpus", str(tmp_path / "corpus"), "--clips", "1"]) == 1
    message = capsys.readouterr().err
    assert (
        "not installed: mma, fluidsynth" in message and "apt-get install mma fluidsynth fluid-soundfont-gm" in message
    )
    assert message.count("\n") == 1 and not (tmp_path / "corpus").exists()


@installed
def test_a_corpus_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert renders.main(["--corpus", str(tmp_path / "file" / "corpus"), "--clips", "1"]) == 1
    assert "file/corpus" in (message := capsys.readouterr().err) and message.count("\n") == 1


@installed
def test_every_groove_of_the_plan_is_one_of_mma():
    for style in load_styles():
        text = (renders_midi.LIBRARY / f"{style.name}.mma").read_text(errors="replace")
        defined = set(re.findall(r"(?im)^\s*defgroove\s+(\S+)", text))
        assert set(style.grooves) <= defined, style.name


@installed
def test_mma_knows_every_chord_of_the_plan(tmp_path):
    symbols = set()
    for part, count in NUM_PROGRESSIONS.items():
        for progression in progressions(part, count, seed=0):
            symbols |= {progression.symbol(chord, 1) for bar in progression.bars for chord in bar}

    def status(chords):
        (tmp_path / "chords.mma").write_text("Groove 50sRock\n" + "\n".join(chords))
        return subprocess.run(["mma", "-n", "-w", str(tmp_path / "chords.mma")], capture_output=True).returncode

    assert len(symbols) > 40 and status(sorted(symbols)) == 0
    assert status(["Cxyz"]) != 0


@installed
def test_what_is_composed_is_in_the_key_and_fills_its_bars(tmp_path):
    for plan in [plan for plan in RECIPES if plan.progression.colour == "triads"][:12]:
        song = renders_midi.song(plan, tmp_path)
        weights = np.zeros(12)
        for sounding in song.notes:
            if sounding.role != "drums":
                weights[sounding.pitch % 12] += min(sounding.end - sounding.start, 384) * sounding.velocity
        # Krumhansl and Kessler's profiles, from the source, on the whole excerpt: no further off than a related key.
        major = [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88]
        minor = [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17]
        scores = [
            np.corrcoef(np.roll(profile, tonic), weights)[0, 1] for profile in (major, minor) for tonic in range(12)
        ]
        ranks = np.argsort(scores)[::-1]
        assert parse_key(plan.key) in ranks[:4], (plan.key, ranks[:4], plan.progression.name)
        bar_seconds = plan.style.beats * 60 / (plan.tempo * plan.style.felt)
        last = max(song.seconds(sounding.end) for sounding in song.notes)
        assert last >= plan.seconds + bar_seconds


@installed
def test_a_groove_that_mma_lacks_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=f"{RECIPES[0].style.name}, groove NoSuchGroove"):
        renders_midi.song(dataclasses.replace(RECIPES[0], groove="NoSuchGroove"), tmp_path)


def run(root, clips):
    command = [
        sys.executable,
        "-m",
        "tools.corpus.renders",
        "--corpus",
        str(root),
        "--clips",
        str(clips),
        "--processes",
        "1",
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@installed
def test_a_killed_build_goes_on_and_makes_the_same(tmp_path):
    killed = run(tmp_path, 3)
    ledger = tmp_path / "renders.jsonl"
    while killed.poll() is None and not (ledger.exists() and ledger.read_text().count("\n")):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    first = json.loads(ledger.read_text().splitlines()[0])["clip"]
    stamp = (tmp_path / first).stat().st_mtime_ns
    with ledger.open("a") as file:
        file.write('{"clip": "train/renders/cut of')
    again = run(tmp_path, 3)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert (tmp_path / first).stat().st_mtime_ns == stamp
    records = {record["clip"]: record for record in map(json.loads, ledger.read_text().splitlines())}
    assert set(records) == {plan.clip for plan in RECIPES[:3]}
    for plan in RECIPES[:3]:
        y, sr = soundfile.read(tmp_path / plan.clip)
        assert sr == SR and y.ndim == 1 and len(y) == pytest.approx(plan.seconds * SR, abs=SR / 100)
        assert np.sqrt(np.mean(y**2)) > 0.003
    labels = read_labels_csv(tmp_path / "renders-labels-train.csv")
    for plan in RECIPES[:3]:
        track = plan.clip.removeprefix("train/")
        assert labels.groups[track] == plan.group
        assert labels.values[track]["key"] == (plan.key,)
        assert float(labels.values[track]["tempo"][0]) == plan.tempo
        assert set(labels.values[track]["instrument"]) <= set(FAMILIES)
    # The same recipe gives the same sound, in another process too.
    record, y = renders.render(RECIPES[1])
    assert record.sha256 == records[RECIPES[1].clip]["sha256"]
    np.testing.assert_allclose(soundfile.read(tmp_path / RECIPES[1].clip)[0], y, atol=2 / 2**15)
