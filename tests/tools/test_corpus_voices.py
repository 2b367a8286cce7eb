"""Singing: on the notes it is given, in the accompaniment's key and tempo, as loud as the record says, and heard."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from msim_tf.audio.decode import load_clip
from msim_tf.embeddings import save_embeddings
from msim_tf.errors import InputError
from msim_tf.labels.tables import divided_groups

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tools.corpus import attribution, recordings, voices, voices_kept  # noqa: E402
from tools.corpus.ledger import SR, CorpusClip, Ledger, sha256  # noqa: E402
from tools.corpus.singing import MAJOR, MINOR, Manner, Note, analysed, harmony, melody, sung  # noqa: E402

pyworld = pytest.importorskip("pyworld")
PLAIN = Manner(stretch=2.0, formants=1.0, vibrato_hz=5.5, vibrato_cents=0.0)


def _speech(seconds: float = 3.0, hertz: float = 120.0) -> np.ndarray:
    """A buzz with two resonances whose pitch falls, and a pause in the middle."""
    count = round(seconds * SR)
    pitch = hertz * (1 - 0.2 * np.arange(count) / count)
    phase = 2 * np.pi * np.cumsum(pitch) / SR
    y = sum(np.exp(-(((n * hertz - 700) / 400) ** 2)) * np.sin(n * phase) for n in range(1, 30))
    y[count // 2 : count // 2 + SR // 2] = 0
    return 0.1 * y + 1e-4 * np.random.default_rng(0).standard_normal(count)


def _pitch(y: np.ndarray) -> float:
    """Fundamental in Hz, by autocorrelation."""
    y = y - y.mean()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(y, 2 * len(y))) ** 2)[: len(y)]
    lags = np.arange(SR // 600, SR // 70)
    return SR / lags[correlation[lags].argmax()]


def test_a_voice_sings_the_notes_and_rests_between_them():
    voice = analysed("speech", _speech())
    notes = [Note(0.5, 1.5, 57.0), Note(1.5, 2.5, 52.0), Note(3.0, 4.0, 55.0)]
    y = sung(voice, notes, PLAIN, seconds=5.0)
    assert len(y) == 5 * SR and np.isfinite(y).all()
    for note in notes:
        middle = y[round((note.start + 0.3) * SR) : round((note.end - 0.3) * SR)]
        assert _pitch(middle) == pytest.approx(440 * 2 ** ((note.pitch - 69) / 12), rel=0.02)
    level = [float(np.sqrt(np.mean(np.square(y[round(a * SR) : round(b * SR)])))) for a, b in ((2.6, 2.9), (0.8, 1.2))]
    assert level[0] < 0.01 * level[1]
    # Nobody pauses in the middle of a note, whatever the speech did there.
    assert 0 < voice.register < 128 and len(voice.pitch) < 2.7 / 0.01
    with pytest.raises(InputError, match="less than a second of it is voiced"):
        analysed("noise", 0.1 * np.random.default_rng(0).standard_normal(2 * SR))


@pytest.mark.parametrize(("tonic", "scale"), [(0, MAJOR), (9, MINOR), (6, MAJOR)])
def test_melodies_keep_to_their_scale_and_range(tonic, scale):
    notes = melody(random.Random(tonic), seconds=20, tonic=tonic, scale=scale, bpm=120, middle=60)
    assert {(note.pitch - tonic) % 12 for note in notes} <= set(scale)
    assert all(51 <= note.pitch <= 69 and note.end > note.start for note in notes)
    assert all(a.end <= b.start + 1e-9 for a, b in zip(notes, notes[1:])) and notes[-1].end <= 20
    rests = [b.start - a.end for a, b in zip(notes, notes[1:])]
    assert max(rests) > 0.4 and min(rests) == pytest.approx(0, abs=1e-9)
    third = harmony(notes, tonic=tonic, scale=scale, degrees=2)
    assert {b.pitch - a.pitch for a, b in zip(notes, third)} <= {3.0, 4.0}
    octave = harmony(notes, tonic=tonic, scale=scale, degrees=-7)
    assert {b.pitch - a.pitch for a, b in zip(notes, octave)} == {-12.0}


def test_the_scale_of_what_is_sung_over():
    def chord(pitches: list[int]) -> np.ndarray:
        time = np.arange(4 * SR) / SR
        return sum(np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time) for pitch in pitches).astype(np.float32)

    e_flat = chord([63, 67, 70, 65, 68, 72, 74])  # all seven of E flat major
    assert voices.scale_of(None, e_flat) == (3, MAJOR)
    clip = CorpusClip("train/renders/s/a.flac", "s", "1", "", 0, "", "", "", "", "g", {"key": ("F# minor",)})
    assert voices.scale_of(clip, e_flat) == (6, MINOR)


def test_the_level_counts_where_the_voice_sounds():
    voice = np.zeros(10 * SR, np.float32)
    voice[: 2 * SR] = 0.01 * np.sin(np.arange(2 * SR))
    below = 0.2 * np.sin(0.5 * np.arange(10 * SR))
    louder = voices.at_level(voice, below, 6.0)
    ratio = np.mean(louder[: 2 * SR] ** 2) / np.mean(below**2)
    assert 10 * np.log10(ratio) == pytest.approx(6.0, abs=0.2)  # a frame at the end is half silent


def test_a_stem_is_taken_where_it_sings_and_moved_into_the_key():
    time = np.arange(60 * SR) / SR
    # A C major scale after 35 seconds of rest.
    y = sum(np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time) for pitch in (60, 62, 64, 65, 67, 69, 71))
    y = (0.1 * y * (time > 35)).astype(np.float32)
    part = voices._fitted_stem(y, 2, MAJOR, random.Random(0))
    assert np.sqrt(np.mean(part**2)) > 0.01 and len(part) <= 15 * SR
    assert voices.fullest_scale(part)[0] == 2
    assert voices.fullest_scale(voices._fitted_stem(y, 9, MINOR, random.Random(0)))[0] == 0


@pytest.fixture
def corpus(tmp_path):
    """One accompaniment of known key, and two voices in a mirror: speech and a stem."""
    rows = []
    for name, kind, group in (("talk", "speech, single voice", "reader"), ("lead", "vocal stem alone", "album")):
        path = tmp_path / "mirror" / f"src__{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, _speech(4.0), SR)
        texts = (name, name.upper(), "some/where", "0" * 40, name, "CC0", "LICENSE", kind, sha256(path))
        rows.append(recordings.Recording(path.name, "train", 1 if name == "lead" else 0, "first", group, *texts))
    y = (0.2 * np.sin(2 * np.pi * 110 * np.arange(16 * SR) / SR)).astype(np.float32)
    with Ledger(tmp_path, "renders") as ledger:
        labels = {"key": ("A minor",), "tempo": ("100",), "genre": ("rock",)}
        clip = CorpusClip("train/renders/s/a.flac", "s", "1", "", 0, "B", "", "MIT", "", "style", labels)
        ledger.add(clip, y)
    return tmp_path, voices.Singers(rows, recordings.library(tmp_path, tmp_path / "mirror"))


def test_mixes_are_recorded_resumed_and_labelled_by_what_they_follow(corpus):
    root, singers = corpus
    assert voices.build(root, 12, singers, builders=["renders"]) == 12
    clips = Ledger(root, "voices").clips
    for clip in clips.values():
        stem, over = clip.origin.startswith("stem"), " over " in clip.origin
        assert clip.labels == ({"key": ("A minor",), "tempo": ("100",)} if over and not stem else {})
        expected = {"style"} if over else {"album"} if stem else {"voice src"}
        if over and stem:
            expected = {"style", "album"}
        assert set(divided_groups(clip.group)) == expected
        assert "CC0" in clip.licence and ("MIT" in clip.licence) == over
        y = load_clip(root / clip.clip, sr=SR)
        assert len(y) <= 15 * SR + 1 and np.sqrt(np.mean(y**2)) > 1e-3
    assert {clip.origin.split()[0] for clip in clips.values()} == {"sung", "stem"}
    # A mix that is lost is made again, and only that.
    name = next(iter(clips))
    first = (root / name).read_bytes()
    (root / name).unlink()
    assert voices.build(root, 12, singers, builders=["renders"]) == 1
    assert (root / name).read_bytes() == first


def test_mixes_without_an_audible_voice_are_dropped_for_good(corpus, capsys):
    root, singers = corpus
    voices.build(root, 6, singers, builders=["renders"])
    mixes = sorted(Ledger(root, "voices").clips.values(), key=lambda clip: clip.clip)
    tracks = ["renders/s/a.flac", *(clip.track for clip in mixes)]
    tags = [f"{voices_kept.TEACHER}/{tag}" for tag in voices_kept.SHOWN]
    logits = np.full((7, 4), -4.0, np.float32)
    logits[1:4, 0] = (-2, -5, 1)
    meta = {"tags": tags, "teachers": [voices_kept.TEACHER]}
    save_embeddings(root / "teacher-train-tags.npz", identifiers=tracks, embeddings=logits, meta=meta)
    silent, lines = voices_kept.silent_mixes(root, "renders")
    assert {clip.clip for clip in silent} == {mixes[index].clip for index in (1, 3, 4, 5)}
    kept = next(line for line in lines if line.startswith("kept"))
    # Halfway, and at nine tenths of the way, between sigmoid(-2) and sigmoid(1).
    assert re.search(r"kept\s+2\s+0\.43 \(0\.67\)", kept)
    assert len({len(line) for line in lines}) == 1
    voices_kept.drop(root, silent)
    assert set(Ledger(root, "voices").clips) == {mixes[0].clip, mixes[2].clip}
    assert not (root / mixes[1].clip).exists()
    assert voices.build(root, 6, singers, builders=["renders"]) == 0
    save_embeddings(root / "teacher-train-tags.npz", identifiers=tracks, embeddings=logits, meta={"tags": ["a"] * 4})
    with pytest.raises(InputError, match="no 'vocal' of MTT_musicnn"):
        voices_kept.silent_mixes(root, "renders")


def test_without_music_or_voices_nothing_is_made(corpus):
    root, singers = corpus
    with pytest.raises(InputError, match="no finished clip for training by games"):
        voices.build(root, 2, singers)


def test_whose_voices_a_model_was_trained_on_is_listed(tmp_path):
    first, second = [one for one in recordings.load_catalogue() if one.is_speech and one.part == "train"][:2]
    for number, names in enumerate(([first], [first, second], [second])):
        origin = f"sung {' + '.join(one.file for one in names)} +3.0 dB over train/games/x/track__1.flac"
        clip = CorpusClip(f"train/voices/x/{number}.flac", "x", "1", origin, 0.0, "", "", "CC0", "", "x")
        with Ledger(tmp_path, "voices") as ledger:
            ledger.add(clip, np.zeros(SR, np.float32))
    actual = attribution.originals(tmp_path, {"voices/x/0.flac", "voices/x/1.flac"})  # the third is not in the store
    assert {key[3]: count for key, count in actual.items()} == {first.path: 2, second.path: 1}
    assert {(key[0], key[1], key[6]) for key in actual} == {
        ("voices", one.repository, one.licence) for one in (first, second)
    }
