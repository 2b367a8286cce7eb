"""Mixes: the excerpts that the record names, at the speeds and levels that it names, and nobody else's group."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest

from msim_tf.audio.decode import load_clip
from msim_tf.errors import InputError
from msim_tf.labels.encoding import read_labels_csv, split_by_group
from msim_tf.labels.tables import divided_groups

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tools.corpus import mixes  # noqa: E402
from tools.corpus.ledger import SR, CorpusClip, Ledger  # noqa: E402

TONES = {"a": 330.0, "b": 1100.0, "c": 2950.0}  # Hz; within a quarter octave up or down they do not meet


@pytest.fixture
def corpus(tmp_path):
    """One tone of 6 s by each of three artists, and one of the test part that must not be heard."""
    with Ledger(tmp_path, "games") as ledger:
        for name, frequency in TONES.items():
            y = 0.3 * librosa.tone(frequency, sr=SR, duration=6).astype(np.float32)
            clip = f"train/games/{name}/{name}.flac"
            ledger.add(CorpusClip(clip, name, "1", f"{name}.ogg", 0.0, name.upper(), "", "CC0", "0" * 64, name), y)
        record = CorpusClip("test/games/t/t.flac", "t", "1", "t.ogg", 0.0, "T", "", "CC0", "1" * 64, "t")
        ledger.add(record, np.zeros(SR, np.float32))
    return tmp_path


def _peaks(y: np.ndarray, speeds: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Frequency of the highest peak within 5 % of where each tone should be, and the amplitude of what is there."""
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y))))
    frequency = np.fft.rfftfreq(len(y), 1 / SR)
    peaks = {}
    for name, speed in speeds.items():
        near = np.flatnonzero(np.abs(frequency / (TONES[name] * speed) - 1) < 0.05)
        best = near[spectrum[near].argmax()]
        peaks[name] = (float(frequency[best]), float(np.linalg.norm(spectrum[near])))
    return peaks


def test_a_mix_is_what_its_record_says(corpus):
    assert mixes.build(corpus, 24) == 24
    ledger = Ledger(corpus, "mixes")
    seconds = 0
    for clip in ledger.clips.values():
        played = re.findall(r"train/games/\w/(\w)\.flac x ([\d.]+)", clip.origin)
        speeds = {name: float(speed) for name, speed in played}
        assert set(divided_groups(clip.group)) == set(speeds) and not clip.labels
        y = load_clip(corpus / clip.clip, sr=SR)
        assert len(y) / SR == pytest.approx(6 / max(float(speed) for _, speed in played), abs=0.01)
        softer = re.search(r" - ([\d.]+) dB", clip.origin)
        with_itself = len(speeds) < len(played)
        if "in a room" in clip.origin or with_itself:
            continue
        seconds += len(speeds) == 2
        peaks = _peaks(y, speeds)
        for name, (frequency, _) in peaks.items():
            assert frequency == pytest.approx(TONES[name] * speeds[name], rel=7e-4)  # three decimals
        if softer:
            first, second = clip.source, next(name for name in speeds if name != clip.source)
            ratio = 20 * np.log10(peaks[first][1] / peaks[second][1])
            assert ratio == pytest.approx(float(softer[1]), abs=0.5)
    assert seconds >= 4
    assert any("in a room" in clip.origin for clip in ledger.clips.values())


def test_mixes_depend_on_seed_and_number_alone(corpus, tmp_path):
    mixes.build(corpus, 6)
    first = {clip.clip: (clip, load_clip(corpus / clip.clip, sr=SR)) for clip in Ledger(corpus, "mixes").clips.values()}
    gone = next(iter(first))
    (corpus / gone).unlink()
    assert mixes.build(corpus, 8) == 3  # the one that was lost, and two more
    for clip in Ledger(corpus, "mixes").clips.values():
        if clip.clip in first:
            assert clip == first[clip.clip][0]
            np.testing.assert_array_equal(load_clip(corpus / clip.clip, sr=SR), first[clip.clip][1])
    clips = sorted((c for c in Ledger(corpus, "games").clips.values() if c.part == "train"), key=lambda c: c.clip)
    assert mixes.Mix.drawn(clips, 0, seed=1).record(0) != mixes.Mix.drawn(clips, 0, seed=0).record(0)


def test_mixes_of_another_plan_are_removed(corpus, capsys):
    mixes.build(corpus, 6)
    assert mixes.build(corpus, 4, seed=1) == 4
    assert "6 removed" in capsys.readouterr().out
    ledger = Ledger(corpus, "mixes")
    assert len(ledger.clips) == 4 and all(name in ledger for name in ledger.clips)
    assert sorted(corpus.glob("train/mixes/**/*.flac")) == sorted(corpus / name for name in ledger.clips)
    assert set(read_labels_csv(corpus / "mixes-labels-train.csv").groups) == {c.track for c in ledger.clips.values()}


def test_one_builder_at_a_time(corpus):
    with Ledger(corpus, "mixes"), pytest.raises(InputError, match="another process is building mixes"):
        mixes.build(corpus, 1)


def test_no_split_hears_one_sides_music_on_the_other(corpus):
    mixes.build(corpus, 24)
    groups = read_labels_csv(corpus / "mixes-labels-train.csv").groups
    groups |= {f"games/{name}/{name}.flac": name for name in TONES}
    identifiers = sorted(groups)
    parts = split_by_group(identifiers, groups, validation=0.3, seed=0)
    heard = {
        name: {artist for index in indices for artist in divided_groups(groups[identifiers[index]])}
        for name, indices in parts.items()
    }
    assert heard["train"] and heard["validation"] and not heard["train"] & heard["validation"]
    assert sum(map(len, parts.values())) < len(identifiers)  # some mixes hold both sides


def test_blending_is_exact_and_silence_stays():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=500), 5 * rng.normal(size=400)
    blended = mixes.blended(first, second, 6.0)
    added = blended - first[:400]
    assert len(blended) == 400
    assert np.mean(added**2) == pytest.approx(np.mean(first[:400] ** 2) / 10**0.6, rel=1e-5)
    np.testing.assert_array_equal(mixes.blended(np.zeros(9), np.ones(9), 3.0), np.ones(9))


def test_nothing_to_mix_is_said(tmp_path):
    with pytest.raises(InputError, match="no finished clip for training by games"):
        mixes.build(tmp_path, 3)


def test_a_mix_of_silence_is_silence(tmp_path):
    with Ledger(tmp_path, "games") as ledger:
        record = CorpusClip("train/games/s/s.flac", "s", "1", "s.ogg", 0.0, "", "", "CC0", "0" * 64, "s")
        ledger.add(record, np.zeros(5 * SR, np.float32))
    clips = list(Ledger(tmp_path, "games").clips.values())
    for number in range(6):
        assert not mixes.Mix.drawn(clips, number, seed=0).sound(tmp_path).any()
