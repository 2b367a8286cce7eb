"""Played faster or in another key, a segment is what theory says, and relations follow."""

import dataclasses

import librosa
import numpy as np
import pytest
import soundfile
from scipy import interpolate

from msim_tf.data import augmentation
from msim_tf.data.batch_sampler import BatchParams, BatchSampler
from msim_tf.data.pipeline import StorePart, make_dataset
from msim_tf.data.store import FeatureStore
from msim_tf.data.writer import extract_folder
from msim_tf.features.tempogram import tempogram
from msim_tf.labels.encoding import encode
from msim_tf.labels.tables import Labels
from msim_tf.params import FeatureParams

INPUTS = ("mel", "onset", "cens")


def test_read_between_frames_as_scipy_interpolates(store, rng):
    clips, stretch = rng.integers(0, len(store), 8), np.exp2(rng.uniform(-0.4, 0.4, 8))
    length, lags = store.params.segment_frames, store.params.tempogram_lags
    room = store.frames[clips] - np.ceil((length - 1) * stretch).astype(int)
    starts = np.array([rng.integers(0, most) for most in room])
    stretch[3] = 1.0
    starts[3] = min(starts[3], store.frames[clips[3]] - length)
    actual = store.read_segments(clips, starts, stretch)
    for row, (clip, start, factor) in enumerate(zip(clips, starts, stretch)):
        whole = store.read_clip(clip)
        frames = start + np.arange(length) * factor
        for name in ("mel", "cens"):
            expected = interpolate.interp1d(np.arange(store.frames[clip]), getattr(whole, name))(frames)
            np.testing.assert_allclose(actual[name][row], expected, atol=2e-3)
        # The centre of the window of frame 0 stands ``lags / 2`` after the start of the padded envelope.
        padded = start + lags // 2 + (np.arange(length + lags - 1) - lags // 2) * factor
        expected = np.interp(padded, np.arange(len(whole.onset)), whole.onset)
        np.testing.assert_allclose(actual["onset"][row], expected, rtol=2e-3, atol=2e-3)


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    """A store of one clip: clicks at 120 beats per minute."""
    folder = tmp_path_factory.mktemp("clicks")
    y = librosa.clicks(times=np.arange(0, 20, 0.5), sr=22050, length=20 * 22050)
    soundfile.write(folder / "clicks.wav", y, 22050)
    extract_folder(folder, folder / "store", FeatureParams())
    return FeatureStore(folder / "store")


@pytest.mark.parametrize("octaves", [-0.4, -0.2, 0.0, 0.3, 0.4])
def test_clicks_are_heard_at_the_tempo_that_was_asked_for(clicks, octaves):
    onset = clicks.read_segments([0], [300], np.array([2.0**octaves]))["onset"].astype(np.float32)
    lags = clicks.params.tempogram_lags
    correlation = tempogram(onset, lags=lags).numpy()[0].mean(axis=1)
    bpm = librosa.tempo_frequencies(lags, sr=clicks.params.sr, hop_length=clicks.params.hop_length)
    near = np.flatnonzero((bpm > 60) & (bpm < 250))
    best = bpm[near[np.argmax(correlation[near])]]
    # Half and double tempo correlate as well; a lag is a whole number of frames.
    apart = abs((np.log2(best / (120 * 2.0**octaves)) + 0.5) % 1.0 - 0.5)
    assert apart < 0.04


def test_chroma_move_up(rng):
    cens = rng.random((2, 12, 5)).astype(np.float16)
    rolled = augmentation.transposed_chroma(cens, np.array([0, 3]))
    np.testing.assert_array_equal(rolled[0], cens[0])
    for pitch_class in range(12):
        np.testing.assert_array_equal(rolled[1][(pitch_class + 3) % 12], cens[1][pitch_class])


def played(clips, stretch, transpose=None):
    return augmentation.AugmentedClips(clips, stretch, np.zeros(len(clips), int) if transpose is None else transpose)


def labels_of(values):
    identifiers = [str(i) for i in range(len(values))]
    return encode(Labels(dict(zip(identifiers, values))), identifiers, ("tempo", "key"))


def test_relations_by_labels_and_by_relative_tempo_and_key():
    labels = labels_of([{"tempo": ("120",), "key": ("C major",)}, {"tempo": ("100",), "key": ("D minor",)}, {}])
    clips = np.array([0, 1, 2, 2, 2])
    stretch = np.array([1.0, 1.2, 1.0, 1.0, 1.1])
    roll = np.array([2, 0, 0, 5, 5])
    tempo = augmentation.relation("tempo", labels, played(clips, stretch, roll), "parallel")
    # 120 and 100 * 1.2 are the same; the unlabelled clip is known to itself only, and 10 % faster is another tempo.
    np.testing.assert_array_equal(
        tempo - np.diag(np.diag(tempo)),
        [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, -1], [0, 0, 1, 0, -1], [0, 0, -1, -1, 0]],
    )
    key = augmentation.relation("key", labels, played(clips, stretch, roll), "parallel")
    # C major two semitones up is D major, parallel to D minor.
    np.testing.assert_array_equal(
        key - np.diag(np.diag(key)),
        [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, -1, -1], [0, 0, -1, 0, 1], [0, 0, -1, 1, 0]],
    )


def test_octaves_are_one_tempo_for_crops_of_one_clip_too():
    labels = labels_of([{}, {}])
    stretch = np.array([2.0**-0.4, 2.0**0.4, 2.0**0.1])
    tempo = augmentation.relation("tempo", labels, played(np.zeros(3, int), stretch), "parallel")
    # .8 of an octave apart is .2 short of the same tempo.
    assert tempo[0, 1] == -1 and tempo[0, 2] == -1
    near = augmentation.relation("tempo", labels, played(np.zeros(2, int), np.array([0.75, 1.5])), "parallel")
    assert near[0, 1] == 1


def test_every_drawn_pair_is_similar(rng):
    values = [
        {"tempo": (f"{bpm:g}",), "key": (key,)}
        for bpm, key in zip(rng.uniform(50, 200, 30), ["C major", "F# minor", "A major", "Bb minor", "E major"] * 6)
    ]
    labels = labels_of(values)
    makers = augmentation.member_draws(labels, np.arange(30), "parallel")
    sizes = set()
    for name, make in makers.items():
        for _ in range(200):
            members = make(rng)
            clips, octaves, roll = (np.array(column) for column in zip(*members))
            assert np.abs(octaves).max() <= augmentation.MAX_OCTAVES
            relation = augmentation.relation(name, labels, played(clips, np.exp2(octaves), roll), "parallel")
            sizes.add(len(clips))
            if len(clips) == 2:
                assert relation[0, 1] == 1
            else:  # one clip: two tempi times two keys, each tempo in both keys
                same_tempo = [[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]]
                same_key = [[1, -1, 1, -1], [-1, 1, -1, 1], [1, -1, 1, -1], [-1, 1, -1, 1]]
                expected = np.array(same_tempo if name == "tempo" else same_key)
                agreed = relation == expected
                # By its bpm, a slow clip may still count as the same within 5 bpm.
                assert agreed.all() or (name == "tempo" and agreed[expected > 0].all())
    assert sizes == {2, 4}


def test_batches_with_augmentation_deliver_what_was_composed(labelled_store):
    names = ("genre", "tempo", "key")
    labels = encode(labelled_store.labels, labelled_store.identifiers, names)
    params = BatchParams(batch_size=16, augment=True)
    sampler = BatchSampler(labels, labelled_store.frames, labelled_store.params.segment_frames, params)
    clips = np.arange(len(labelled_store))
    for step, (inputs, targets) in enumerate(
        make_dataset(StorePart(labelled_store, clips, sampler), INPUTS, first=0, last=4)
    ):
        batch = sampler.batch(step)
        assert (batch.stretch != 1).any() and batch.transpose.any()
        plain = labelled_store.read_segments(batch.clips, batch.starts[:, 0], batch.stretch)
        augmentation.equalise(plain["mel"], batch.equaliser)
        np.testing.assert_array_equal(inputs["mel"], plain["mel"])
        np.testing.assert_array_equal(inputs["cens"], augmentation.transposed_chroma(plain["cens"], batch.transpose))
        for name in ("tempo", "key"):
            assert (targets[name].numpy() > 0).any() and (targets[name].numpy() < 0).any()
    assert (
        not BatchSampler(
            labels,
            labelled_store.frames,
            labelled_store.params.segment_frames,
            dataclasses.replace(params, augment=False),
        )
        .batch(0)
        .transpose.any()
    )


def test_the_equaliser_is_a_gain_of_the_magnitudes(rng):
    mel = np.log10(1 + 10 * rng.random((3, 128, 7)) * 5).astype(np.float16)
    mel[:, :, 0] = 0  # silence stays silent
    magnitudes = (10 ** mel.astype(np.float64) - 1) / 10
    equalisers = np.array([[6.0, 6, 6, 6, 6], [0, 0, 0, 0, 0], [-12, 0, 0, 0, 12]])
    actual = mel.copy()
    augmentation.equalise(actual, equalisers)
    half_a_step = {"rtol": 2**-11 * 1.01, "atol": 1e-6}
    np.testing.assert_allclose(actual[0], np.log10(1 + 10 * magnitudes[0] * 10 ** (6 / 20)), **half_a_step)
    np.testing.assert_array_equal(actual[1], mel[1])
    for band, decibels in ((0, -12.0), (127, 12.0)):
        gain = 10 ** (decibels / 20)
        np.testing.assert_allclose(actual[2, band], np.log10(1 + 10 * magnitudes[2, band] * gain), **half_a_step)
    np.testing.assert_allclose(actual[2, 64], mel[2, 64], atol=0.03)  # next to the middle knot, at 0 dB
    drawn = augmentation.random_equalisers(4000, rng)
    assert np.mean(drawn.any(axis=1)) == pytest.approx(0.5, abs=0.05)
    assert drawn[drawn.any(axis=1)].std() == pytest.approx(np.hypot(4, 4), rel=0.05)


def test_validation_is_heard_as_recorded(labelled_store):
    labels = encode(labelled_store.labels, labelled_store.identifiers, ("tempo",))
    for random_crops in (True, False):
        params = BatchParams(batch_size=16, augment=True, random_crops=random_crops)
        sampler = BatchSampler(labels, labelled_store.frames, labelled_store.params.segment_frames, params)
        assert sampler.batch(0).equaliser.any() == random_crops
