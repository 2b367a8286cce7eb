"""The features against librosa at the same settings, and against theory.

Tolerances, absolute: both sides compute in float32 and differ in the order of their sums only. mel is log10(1 + 10 S)
<= 5, so 2e-6 is a few units in the last place; the tempogram is normalised to 1 after differences of decibels: 5e-6;
CENS is quantised, so equal but for rounding (1e-6) as long as no chroma value lies within rounding of a quantisation
step, which is true of these clips. The CQT-based chroma uses another half-band filter than librosa, which may move a
value over a step: there the cosine between the two is bounded.
"""

from unittest import mock

import librosa
import numpy as np
import pytest
import tensorflow as tf

from msim_tf.features import extractor, spill_buffer
from msim_tf.features.chroma import cens, cens_in_blocks
from msim_tf.features.segments import segments
from msim_tf.features.spectral import frame_features, halo
from msim_tf.features.tempogram import tempogram
from msim_tf.params import FEATURE_PRESETS, FeatureParams
from msim_tf.performance import release_pages

CLIPS = ["zaz__mus2.ogg", "wesnoth__northerners.ogg", "marsshooter__06_starfall.ogg", "colobot__music010.ogg"]
PAPER = FEATURE_PRESETS["paper"]


@pytest.fixture(scope="module", params=CLIPS)
def y(request, music):
    return librosa.load(music / request.param, sr=PAPER.sr)[0]


def stft_magnitude(y, params):
    return np.abs(librosa.stft(y, n_fft=params.n_fft, hop_length=params.hop_length))


def librosa_mel_db(y, params):
    power = stft_magnitude(y, params) ** 2
    return librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=params.sr, n_mels=params.n_mels))


def librosa_onset(y, params):
    return librosa.onset.onset_strength(
        S=librosa_mel_db(y, params), sr=params.sr, n_fft=params.n_fft, hop_length=params.hop_length
    )


def librosa_cens(y, params):
    """librosa's own CENS chain over the chroma of the shared STFT."""
    power = stft_magnitude(y, params) ** 2
    chroma = librosa.feature.chroma_stft(S=power, sr=params.sr, n_fft=params.n_fft, tuning=0.0)
    with mock.patch("librosa.feature.spectral.chroma_cqt", return_value=chroma):
        return librosa.feature.chroma_cens(y=y)


@pytest.mark.parametrize("preset", ["paper", "literal"])
def test_features_equal_librosa_at_the_same_settings(y, preset):
    params = FEATURE_PRESETS[preset]
    features = extractor.Extractor(params)([y])

    basis = librosa.filters.mel(sr=params.sr, n_fft=params.n_fft, n_mels=params.n_mels)
    mel = np.log10(1 + params.mel_gain * (basis @ stft_magnitude(y, params)))
    np.testing.assert_allclose(features.mel, mel, atol=2e-6)

    onset = librosa_onset(y, params)
    half = params.tempogram_lags // 2
    np.testing.assert_allclose(features.onset, np.pad(onset, half, "linear_ramp", end_values=0), atol=5e-5)

    reference = librosa.feature.tempogram(onset_envelope=onset, win_length=params.tempogram_lags)
    ours = tempogram(tf.constant(features.onset[:-1]), lags=params.tempogram_lags)
    np.testing.assert_allclose(ours, reference, atol=5e-6)

    np.testing.assert_allclose(features.cens, librosa_cens(y, params), atol=1e-6)


@pytest.mark.parametrize(
    "clip", CLIPS[:3]
)  # in the last one's digital silence librosa's resampler rings, and norms blow that up
def test_cqt_chroma_follows_librosa(music, clip):
    params = FEATURE_PRESETS["cqt"]
    y = librosa.load(music / clip, sr=params.sr)[0]
    ours = extractor.Extractor(params)([y]).cens
    reference = librosa.feature.chroma_cens(y=y, sr=params.sr, hop_length=params.hop_length, tuning=0.0)
    cosine = np.sum(ours * reference, 0)
    assert cosine.mean() > 0.9995
    assert cosine.min() > 0.99


@pytest.mark.parametrize("preset", ["paper", "cqt"])
def test_blocks_of_any_length_give_the_same_features(rng, preset):
    extract = extractor.Extractor(FEATURE_PRESETS[preset])
    y = rng.normal(0, 0.1, 22050 * 70 + 123).astype(np.float32)  # longer than one block
    whole = extract([y])
    pieces = extract(np.split(y, [1, 700, 50_000, 50_001, 900_000]))
    for name in ("mel", "onset", "cens"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))
    assert whole.frames == extract.params.frames(len(y))


def test_a_long_clip_that_waits_on_disk_gives_the_same_features(rng, monkeypatch):
    extract = extractor.Extractor(PAPER)
    y = rng.normal(0, 0.1, 22050 * 40).astype(np.float32) * np.linspace(0, 1, 22050 * 40, dtype=np.float32)
    at_once = extract([y])
    monkeypatch.setattr(extractor, "_RISE_FRAMES", 300)
    monkeypatch.setattr(extractor, "_CENS_TILES", 3)
    by_blocks = extract([y])
    # The first block is held, the second sends both to disk.
    monkeypatch.setattr(spill_buffer, "_HELD_BYTES", 4 * 700 * PAPER.n_mels)
    on_disk = extract([y])
    for name in ("mel", "onset", "cens"):
        np.testing.assert_array_equal(getattr(by_blocks, name), getattr(at_once, name))
        np.testing.assert_array_equal(getattr(on_disk, name), getattr(at_once, name))
    assert isinstance(on_disk.mel, np.memmap)
    release_pages(on_disk.mel)
    np.testing.assert_array_equal(on_disk.mel, at_once.mel)


@pytest.mark.parametrize("frames", [1, 40, 41, 42, 82, 122, 123, 124, 163, 164, 165, 1000, 20_000])
@pytest.mark.parametrize("tiles", [1, 3, 256])
def test_cens_in_blocks_has_the_bits_of_cens_at_once(rng, frames, tiles):
    chroma = rng.exponential(1.0, (frames, PAPER.n_chroma)).astype(np.float32)
    chroma[frames // 3 : frames // 2] = 0.0  # silence, where norms are zero
    blocks = []

    def cens_of(block):
        blocks.append(len(block))
        return cens(tf.constant(block), PAPER).numpy()

    in_blocks = cens_in_blocks(cens_of, chroma, tiles=tiles, params=PAPER)

    np.testing.assert_array_equal(in_blocks, cens(tf.constant(chroma), PAPER).numpy())
    assert max(blocks) <= (tiles + 2) * PAPER.cens_smoothing


@pytest.mark.parametrize("bpm", [75.0, 120.0, 168.0])
def test_pulse_train_peaks_at_its_period(bpm):
    sr, hop = PAPER.sr, PAPER.hop_length
    clicks = librosa.clicks(times=np.arange(0, 20, 60 / bpm), sr=sr, hop_length=hop, length=20 * sr)
    onset = extractor.Extractor(PAPER)([clicks.astype(np.float32)]).onset
    mean = tempogram(tf.constant(onset[:-1]), lags=PAPER.tempogram_lags).numpy()[:, 400:460].mean(1)
    period = 60 / bpm * PAPER.frame_rate
    window = slice(int(period * 0.7), int(period * 1.3))
    assert abs(window.start + mean[window].argmax() - period) <= 1


@pytest.mark.parametrize("pitch_class, hertz", [(9, 440.0), (0, 523.25), (4, 329.63)])
def test_sine_lies_in_its_pitch_class(pitch_class, hertz):
    y = 0.5 * np.sin(2 * np.pi * hertz * np.arange(3 * PAPER.sr) / PAPER.sr).astype(np.float32)
    for preset in ("paper", "cqt"):
        cens = extractor.Extractor(FEATURE_PRESETS[preset])([y]).cens
        assert (cens[:, 40:-40].argmax(0) == pitch_class).all()


def test_silence_is_zero_not_nan():
    features = extractor.Extractor(PAPER)([np.zeros(100_000, np.float32)])
    for value in (features.mel, features.onset, features.cens):
        assert not value.any()
    assert not tempogram(tf.zeros([600]), lags=384).numpy().any()


def test_segments_are_cut_from_the_whole_clip(rng):
    params = FeatureParams(n_mels=16, tempogram_lags=32, segment_frames=20)
    features = extractor.Extractor(params)([rng.normal(0, 0.1, 512 * 70).astype(np.float32)])
    batch = {"mel": features.mel.T[None], "onset": features.onset[None], "cens": features.cens.T[None]}
    cut = segments({name: tf.constant(value) for name, value in batch.items()}, params)
    whole = tempogram(tf.constant(features.onset[:-1]), lags=32).numpy()
    assert {name: tuple(value.shape[2:]) for name, value in cut.items()} == params.input_shapes
    assert cut["mel"].shape[1] == 71 // 20
    for i in range(3):
        frames = slice(20 * i, 20 * i + 20)
        np.testing.assert_array_equal(cut["mel"][0, i], features.mel[:, frames])
        np.testing.assert_array_equal(cut["cens"][0, i], features.cens[:, frames])
        np.testing.assert_allclose(tempogram(cut["onset"][0, i], lags=32), whole[:, frames], atol=1e-6)


def test_batches_are_extracted_as_single_clips(rng):
    y = rng.normal(0, 0.1, (3, 40_000)).astype(np.float32)
    margin = halo(PAPER)
    frames = PAPER.frames(y.shape[1])
    padded = np.pad(y, [(0, 0), (margin, margin)])[:, : (frames - 1) * PAPER.hop_length + 2 * margin]
    mel, mel_db, chroma = frame_features(tf.constant(padded), PAPER)
    onset, cens = extractor.clip_features(mel_db, chroma, PAPER)
    extract = extractor.Extractor(PAPER)
    for i in range(3):
        alone = extract([y[i]])
        np.testing.assert_allclose(mel[i], alone.mel.T, atol=1e-6)
        np.testing.assert_allclose(onset[i], alone.onset, atol=1e-5)
        np.testing.assert_allclose(cens[i], alone.cens.T, atol=1e-6)
