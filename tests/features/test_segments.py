"""Which segments count: silence of every kind stays out of the mean, quiet music does not."""

import numpy as np
import pytest

from msim_tf.audio import decode
from msim_tf.features.extractor import Extractor, Features
from msim_tf.features.segments import audible_segments, segments_at, whole_segments
from msim_tf.params import FEATURE_PRESETS

PAPER = FEATURE_PRESETS["paper"]
SEGMENT = PAPER.segment_frames * PAPER.hop_length


@pytest.fixture(scope="module")
def extractor():
    return Extractor(PAPER)


@pytest.fixture(scope="module")
def song(music):
    return decode.load_clip(music / "zaz__mus4.ogg", sr=PAPER.sr, seconds=15.0)  # the quietest of the excerpts


def silence(kind, samples):
    rng = np.random.default_rng(0)
    t = np.arange(samples) / PAPER.sr
    sounds = {
        "digital": np.zeros(samples),
        "dither": rng.uniform(-1, 1, samples) / 32768,
        "hiss": rng.normal(0, 1e-3, samples),  # -60 dBFS: a record before its music
        "hum": 1e-3 * np.sin(2 * np.pi * 50 * t),
    }
    return sounds[kind].astype(np.float32)


@pytest.mark.parametrize("kind", ["digital", "dither", "hiss", "hum"])
@pytest.mark.parametrize("where", ["before", "between", "after"])
def test_silent_segments_are_left_out(extractor, song, kind, where):
    gap = silence(kind, 10 * SEGMENT)
    half = len(song) // 2
    parts = {"before": [gap, song], "between": [song[:half], gap, song[half:]], "after": [song, gap]}[where]
    features = extractor(parts)

    starts = audible_segments(features, PAPER) * PAPER.hop_length

    # A segment counts if and only if it holds music for more than the reach of a frame.
    y = np.concatenate(parts)
    music = np.concatenate([np.full(len(part), part is not gap) for part in parts])
    for start in whole_segments(features.frames, PAPER) * PAPER.hop_length:
        share = music[start : start + SEGMENT].mean()
        if share > 0.2:
            assert start in starts
        if not music[max(0, start - PAPER.n_fft) : start + SEGMENT + PAPER.n_fft].any():
            assert start not in starts
    assert len(y) > 14 * SEGMENT and len(starts) in (5, 6, 7)


@pytest.mark.parametrize("decibel", [0, -20, -40, -60])
def test_quiet_recordings_are_music(extractor, song, decibel):
    features = extractor([song * np.float32(10 ** (decibel / 20))])
    np.testing.assert_array_equal(audible_segments(features, PAPER), whole_segments(features.frames, PAPER))


def test_a_quiet_passage_is_music(extractor, song):
    features = extractor([song, song * np.float32(10 ** (-25 / 20))])
    np.testing.assert_array_equal(audible_segments(features, PAPER), whole_segments(features.frames, PAPER))


def test_many_segments_are_judged_as_few(rng):
    # More segments than are judged at a time, every third one silent.
    frames = 200 * PAPER.segment_frames + 7
    mel = rng.uniform(0.5, 1.0, (PAPER.n_mels, frames)).astype(np.float32)
    silent = np.arange(frames) // PAPER.segment_frames % 3 == 1
    mel[:, silent] = 0.0
    onset, cens = np.zeros(frames + PAPER.tempogram_lags, np.float32), np.zeros((12, frames), np.float32)

    starts = audible_segments(Features(mel, onset, cens), PAPER)

    numbers = np.arange(200)
    np.testing.assert_array_equal(starts, numbers[numbers % 3 != 1] * PAPER.segment_frames)
    assert segments_at(Features(mel, onset, cens), starts[:2], PAPER)["mel"].shape == (2, 128, PAPER.segment_frames)


def test_a_lone_segment_always_counts(extractor):
    features = extractor([np.zeros(SEGMENT, np.float32)])
    assert audible_segments(features, PAPER).tolist() == [0]
