"""Stretched and shifted clips: the factors measured in the sound itself, and triplets that say what was done."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest

from msim_tf.audio.decode import load_clip
from msim_tf.errors import InputError
from msim_tf.evaluate.triplet_files import read_triplets
from msim_tf.evaluate.triplets import Dropped

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tools.corpus import stretched  # noqa: E402
from tools.corpus.ledger import SR, CorpusClip, Ledger  # noqa: E402

needs_rubberband = pytest.mark.skipif(
    shutil.which("rubberband") is None, reason="rubberband is not installed (apt-get install rubberband-cli)"
)


def _clicks(bpm: float, seconds: float = 20.0) -> np.ndarray:
    return librosa.clicks(times=np.arange(0.1, seconds, 60 / bpm), sr=SR, length=round(seconds * SR))


def _click_period(y: np.ndarray) -> float:
    """Median distance of the attacks, by thresholding the waveform: nothing of librosa's onset code."""
    loud = np.flatnonzero(np.abs(y) > 0.5 * np.abs(y).max())
    starts = loud[np.diff(loud, prepend=-SR) > 0.1 * SR]
    return float(np.median(np.diff(starts)) / SR)


def _frequency(y: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y))))
    return float(spectrum.argmax() * SR / len(y))


@needs_rubberband
@pytest.mark.parametrize("tempo", [0.76, 0.95, 1.31])
def test_tempo_and_length_change_by_the_factor_and_pitch_does_not(tempo):
    y = _clicks(100)
    actual = stretched.stretched(y, tempo=tempo)
    assert len(actual) == pytest.approx(len(y) / tempo, abs=2)
    assert _click_period(actual) == pytest.approx(0.6 / tempo, rel=2e-3)
    sine = librosa.tone(440.0, sr=SR, duration=6).astype(np.float32)
    assert _frequency(stretched.stretched(sine, tempo=tempo)) == pytest.approx(440, abs=1)


@needs_rubberband
@pytest.mark.parametrize("semitones", [-5, 1, 6])
def test_pitch_changes_by_whole_semitones_and_length_does_not(semitones):
    y = librosa.tone(440.0, sr=SR, duration=6).astype(np.float32)
    actual = stretched.stretched(y, semitones=semitones)
    assert len(actual) == len(y)
    assert _frequency(actual) == pytest.approx(440 * 2 ** (semitones / 12), rel=1e-3)


def test_a_missing_stretcher_is_one_line_with_the_cure(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install rubberband-cli"):
        stretched.stretched(_clicks(100))


@needs_rubberband
def test_a_failing_stretcher_is_an_error_with_its_words():
    with pytest.raises(InputError, match=r"rubberband .*failed"):
        stretched.stretched(_clicks(100), tempo=-1.0)


def test_profiles_turn_by_what_was_done():
    # 100 to 120 bpm is log2(1.2) of an octave's 60 bins; the slow one has the longer lags.
    slow, fast = stretched.tempo_profile(_clicks(100)), stretched.tempo_profile(_clicks(120))
    turned = stretched.circular_match(fast[0], slow[0]).argmax()
    assert turned == pytest.approx(60 * np.log2(1.2), abs=1)
    octave = stretched.tempo_profile(_clicks(200))
    assert stretched.circular_match(octave[0], slow[0]).argmax() in (59, 0, 1)
    # A major triad on C and the same a fourth up.
    c, f = (
        stretched.key_profile(
            sum(librosa.tone(440 * 2 ** ((n + up - 69) / 12), sr=SR, duration=3) for n in (60, 64, 67))
        )
        for up in (0, 5)
    )
    assert stretched.circular_match(f[0], c[0]).argmax() == (-5) % 12


def test_what_cannot_be_compared_is_found():
    noise = np.random.default_rng(0).standard_normal(20 * SR).astype(np.float32)
    steady, other = (stretched.tempo_profile(_clicks(bpm)) for bpm in (100, 112))
    assert stretched.objection("tempo", steady, steady) is None
    assert stretched.objection("tempo", steady, other) == "excerpts differ"
    assert stretched.objection("tempo", steady, stretched.tempo_profile(noise)) == "no steady beat"
    rng = np.random.default_rng(1)
    scale = np.array([5, 0, 2, 0, 3, 2, 0, 4, 0, 2, 0, 1.0])
    assert stretched.objection("key", (scale, 1.0), (scale + rng.uniform(0, 0.5, 12), 1.0)) is None
    assert stretched.objection("key", (scale, 1.0), (np.roll(scale, 7), 1.0)) == "excerpts differ"
    assert stretched.objection("key", (scale, 1.0), (np.zeros(12), 0.0)) == "silence"


def test_amounts_keep_their_distance():
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b = stretched.amounts("tempo", rng)
        ratio = max(a, b) / min(a, b)
        assert min(a, b) >= 2**-0.4 - 1e-3 and max(a, b) <= 2**0.4 + 1e-3
        # The octave of 1 / 1.08 is 1.85: none comes near.
        assert 1.08 - 2e-3 <= ratio <= 1.85
        p, q = stretched.amounts("key", rng)
        assert p != q and {p, q} <= set(range(-5, 7))


def _corpus(root: Path, music: Path, names: tuple[str, ...]) -> None:
    with Ledger(root, "games") as ledger:
        for name in names:
            (path,) = music.rglob(f"*{name}*.ogg")
            for start in (0, 15):
                source = path.stem.split("__")[0]
                clip = f"test/games/{source}/{path.stem}-{start:04d}.flac"
                record = CorpusClip(clip, source, "1", path.name, start, "", "", "CC0", f"{path.stem:064}", source)
                ledger.add(record, load_clip(path, sr=SR, offset=start, seconds=15))


@needs_rubberband
def test_triplets_of_real_music_say_what_was_done(tmp_path, music, capsys):
    _corpus(tmp_path, music, ("zaz__mus1", "hedgewars__art", "wesnoth__heroes_rite"))
    assert stretched.build_part(tmp_path, "test", count=5) == 16
    said = capsys.readouterr().out
    assert "tempo: 3 of 3 tracks looked at: taken 2, no steady beat 1" in said
    assert "key: 3 of 3 tracks looked at: taken 2, excerpts differ 1" in said
    path = tmp_path / "stretched-triplets-test.csv"
    triplets, dropped = read_triplets(path)
    assert len(triplets) == 16 and dropped == Dropped()
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        anchor, positive, negative = (_original(tmp_path, row, name) for name in ("anchor", "positive", "negative"))
        assert anchor != positive
        assert negative == (anchor if row["negative_excerpt"] == "anchor's" else positive)
        _check_factors(tmp_path, row)
    manifest = (tmp_path / "stretched-manifest.csv").read_text()
    assert "--fine" in manifest and manifest.count("CC0") == 16


def _original(root: Path, row: dict[str, str], member: str) -> Path:
    changed = Path(row[member])
    stem = changed.stem.partition(f"-{row['dimension']}")[0]
    return root / "test/games" / changed.parent.name / f"{stem}.flac"


def _check_factors(root: Path, row: dict[str, str]) -> None:
    """From lengths of the files (tempo) and from their chroma (key), beside the originals'."""
    for member, column in (("anchor", "factor"), ("positive", "factor"), ("negative", "negative_factor")):
        factor = float(row[column])
        y, before = (load_clip(path, sr=SR) for path in (root / "test" / row[member], _original(root, row, member)))
        if row["dimension"] == "tempo":
            assert len(before) / len(y) == pytest.approx(factor, abs=1e-3)
        else:
            assert len(before) == len(y)
            chroma, as_was = stretched.key_profile(y)[0], stretched.key_profile(before)[0]
            assert stretched.circular_match(as_was, chroma).argmax() == factor % 12


@needs_rubberband
def test_a_second_run_makes_only_what_is_missing(tmp_path, music, monkeypatch):
    _corpus(tmp_path, music, ("zaz__mus1",))
    stretched.build_part(tmp_path, "test", count=1)
    table = (tmp_path / "stretched-triplets-test.csv").read_text()
    lost = sorted(tmp_path.glob("test/stretched/*/*.flac"))[0]
    lost.unlink()
    calls = []
    genuine = stretched.stretched
    monkeypatch.setattr(stretched, "stretched", lambda y, **how: (calls.append(how), genuine(y, **how))[1])
    stretched.build_part(tmp_path, "test", count=1)
    assert len(calls) == 1 and lost.is_file()
    assert (tmp_path / "stretched-triplets-test.csv").read_text() == table


def test_an_empty_corpus_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(stretched, "rubberband_version", lambda: "3.1.2")
    with pytest.raises(InputError, match="no track has two excerpts"):
        stretched.build_part(tmp_path, "test", count=1)
    assert not list(tmp_path.glob("*triplets*"))


def test_every_source_comes_before_any_source_comes_twice():
    def clip(source: str, number: int) -> CorpusClip:
        name = f"test/games/{source}/{number}.flac"
        return CorpusClip(name, source, "1", "", 0.0, "", "", "CC0", str(number), source)

    many = [clip("big", number) for number in range(9)] + [clip(source, 0) for source in ("b", "c")]
    order = [excerpts[0].source for excerpts in stretched.tracks(many, seed=0)]
    assert sorted(order[:3]) == ["b", "big", "c"] and order[3:] == ["big"] * 8
    assert stretched.tracks(many[::-1], seed=0) == stretched.tracks(many, seed=0) != stretched.tracks(many, seed=1)
