"""The heads that describe music: estimates, calibration, the stage of a training, its files."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from devices import one_device
from synthetic import SMALL
from thin_network import MASK_AND_HEADS

from msim_tf.errors import InputError
from msim_tf.labels import words
from msim_tf.labels.encoding import encode
from msim_tf.model import description_training, word_training
from msim_tf.model.description_heads import (
    build_key_head,
    build_tempo_head,
    copy_network_head,
    described,
    load_heads,
    segment_logits,
)
from msim_tf.model.description_training import (
    _calibrate_classes,
    _key_figures,
    _soft_cross_entropy,
    _tempo_figures,
    tempo_classes,
    train_heads_to_describe,
)
from msim_tf.model.head_fitting import fit_on_crops
from msim_tf.model.network import build_network, embedding_model
from msim_tf.model.params import NETWORK_PRESETS, TrainParams
from msim_tf.model.run import load_model
from msim_tf.model.training import train
from msim_tf.model.word_training import _calibrate_words, _known_cross_entropy, roc_area
from msim_tf.theory import TEMPO_STEPS, parse_key, tempo_estimate

pytestmark = pytest.mark.usefixtures("thin_blocks")

PARAMS = TrainParams(
    network=MASK_AND_HEADS,
    epochs=1,
    steps_per_epoch=1,
    validation_steps=1,
    batch_size=8,
    validation=0.25,
    describe_steps=30,
)


@pytest.fixture(scope="module")
def finished(labelled_store, tmp_path_factory):
    keras.utils.set_random_seed(7)
    return train(labelled_store, tmp_path_factory.mktemp("describing") / "run", PARAMS, strategy=one_device())


def test_tempo_classes_are_read_back_as_the_tempo():
    bpm = np.array([31.0, 60.0, 92.3, 180.0, 250.0])
    estimate, confidence = tempo_estimate(tempo_classes(bpm))
    np.testing.assert_allclose(estimate[:, 0], bpm, rtol=0.004)
    np.testing.assert_allclose(estimate[:, 1:], bpm[:, None] * [0.5, 2.0], rtol=0.004)
    assert (confidence[:, 0] > 0.95).all() and (confidence[:, 1:] < 1e-6).all()
    # Beyond the steps a tempo is moved in by octaves.
    folded = tempo_estimate(tempo_classes(np.array([20.0, 400.0, 700.0, 12.0])))[0][:, 0]
    np.testing.assert_allclose(folded, [40, 200, 175, 48], rtol=0.004)


def test_octaves_are_told_with_their_probability():
    probabilities = 0.6 * tempo_classes(np.array([80.0])) + 0.4 * tempo_classes(np.array([160.0]))
    bpm, confidence = tempo_estimate(probabilities)
    np.testing.assert_allclose(bpm[0], [80, 40, 160], rtol=0.004)
    np.testing.assert_allclose(confidence[0], [0.6, 0, 0.4], atol=0.02)


def test_the_signature_estimates_as_theory_does(rng):
    logits = {"tempo": rng.normal(0, 3, (50, len(TEMPO_STEPS))).astype(np.float32)}
    outputs = described({name: tf.constant(value) for name, value in logits.items()})
    probabilities = scipy.special.softmax(logits["tempo"], axis=1)
    np.testing.assert_allclose(outputs["tempo_probabilities"], probabilities, rtol=1e-4)
    bpm, confidence = tempo_estimate(probabilities.astype(np.float64))
    np.testing.assert_allclose(outputs["tempo_candidates"], bpm, rtol=1e-4)
    np.testing.assert_allclose(outputs["tempo_confidence"], confidence, rtol=1e-3, atol=1e-6)


def test_tempo_figures_take_4_percent_and_fold_octaves():
    bpm = np.array([100.0, 100.0, 100.0, 100.0])
    figures = _tempo_figures(tempo_classes(np.array([103.0, 106.0, 201.0, 49.0])), bpm)
    assert figures == {"within 4 %": 0.25, "octaves folded": 0.75, "tracks": 4}


def test_key_figures_are_those_of_mir_eval():
    mir_eval_key = pytest.importorskip("mir_eval.key")
    from msim_tf.theory import KEYS, key_name

    truth = np.repeat(np.arange(KEYS), KEYS)
    guess = np.tile(np.arange(KEYS), KEYS)
    expected = [mir_eval_key.weighted_score(key_name(int(t)), key_name(int(g))) for t, g in zip(truth, guess)]
    actual = [_key_figures(np.eye(KEYS)[[g]], np.array([t]))["weighted score"] for t, g in zip(truth, guess)]
    np.testing.assert_allclose(actual, expected)


def test_the_area_counts_pairs(rng):
    scores, target = rng.integers(0, 8, 60).astype(float), rng.integers(-1, 2, 60)
    positive, negative = scores[target > 0], scores[target < 0]
    wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    assert roc_area(scores, target) == pytest.approx(wins)
    assert roc_area(scores[:4], np.array([1, 1, -1, -1])) is None


def test_the_loss_of_words_is_over_what_is_known(rng):
    logits, target = rng.normal(size=(6, 4)).astype(np.float32), rng.integers(-1, 2, (6, 4)).astype(np.float32)
    terms = [np.log1p(np.exp(-t * z)) for t, z in zip(target.ravel(), logits.ravel()) if t]
    assert float(_known_cross_entropy(tf.constant(target), tf.constant(logits))) == pytest.approx(
        np.mean(terms), rel=1e-5
    )
    assert float(_known_cross_entropy(tf.zeros((2, 2)), tf.ones((2, 2)))) == 0


def test_calibration_finds_the_scale_of_overconfident_heads(rng):
    # Labels drawn from the true probabilities; the heads say three times the true logits.
    layer = keras.layers.Dense(1)
    layer.build((None, 1))
    layer.set_weights([np.ones((1, 1), np.float32), np.zeros(1, np.float32)])
    true = rng.normal(0, 1.5, 4000)
    sign = np.where(rng.random(4000) < scipy.special.expit(true), 1.0, -1.0)
    _calibrate_words(layer, (3 * true[:, None]).astype(np.float32), sign[:, None])
    assert layer.get_weights()[0][0, 0] == pytest.approx(1 / 3, rel=0.15)

    classes = keras.layers.Dense(5)
    classes.build((None, 5))
    true = rng.normal(0, 1.5, (4000, 5))
    drawn = [rng.choice(5, p=p) for p in scipy.special.softmax(true, axis=1)]
    logits = 3 * true
    kernel = classes.get_weights()[0].copy()
    _calibrate_classes(classes, logits, np.eye(5)[drawn])
    np.testing.assert_allclose(logits, true, rtol=0.15)
    np.testing.assert_allclose(classes.get_weights()[0], kernel / 3, rtol=0.15)


def test_a_training_leaves_heads_that_its_network_can_use(finished, labelled_store):
    heads = load_heads(finished.path)
    assert set(heads.classes) <= set(MASK_AND_HEADS.dimensions) and {"tempo", "key"} <= set(heads.classes)
    assert heads.words == {name: tuple(heads.classes[name]) for name in heads.words}
    model = load_model(finished)
    segments = labelled_store.read_segments(np.arange(3), np.zeros(3, int))
    inputs = {name: tf.cast(value, tf.float32) for name, value in segments.items()}
    logits = segment_logits(heads, MASK_AND_HEADS, inputs, embedding_model(model)(inputs))
    assert list(logits) == list(heads.classes)
    for name, value in logits.items():
        assert value.shape == (3, len(heads.classes[name]))
    outputs = described(logits)
    np.testing.assert_allclose(outputs["key_probabilities"].numpy().sum(1), 1, rtol=1e-5)


def test_words_that_are_all_guessed_leave_no_head(labelled_store, monkeypatch):
    for module in (words, description_training, word_training):
        monkeypatch.setattr(module, "FEWEST", 2)
    monkeypatch.setattr(word_training, "_TELLS_APART", 1.1)
    monkeypatch.setattr(word_training, "roc_area", lambda scores, target: 0.5)
    network = dataclasses.replace(NETWORK_PRESETS["single384"], width=0.03, subspace_width=4)
    model = build_network(network, labelled_store.params)
    labels = encode(labelled_store.labels, labelled_store.identifiers, network.dimensions)
    rows = np.arange(len(labelled_store))
    params = dataclasses.replace(PARAMS, network=network, describe_steps=2)
    heads = train_heads_to_describe(model, labelled_store, labels, {"train": rows, "validation": rows}, params)
    assert heads.models == {} and heads.words == {}


def test_the_stage_changes_no_subspace(finished, labelled_store, tmp_path):
    keras.utils.set_random_seed(7)
    without = train(
        labelled_store, tmp_path / "run", dataclasses.replace(PARAMS, describe_steps=0), strategy=one_device()
    )
    assert load_heads(without.path) is None
    for a, b in zip(load_model(without).get_weights(), load_model(finished).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_damaged_head_is_one_line(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished.path, copy)
    file = copy / "describe_key.keras"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"describe_key.keras: damaged"):
        load_heads(copy)


def test_heads_learn_what_can_be_heard():
    """Key from chroma of chords whose key is known; the stage's own loop, on features made for it."""
    rng = np.random.default_rng(3)
    scale = np.zeros(12)
    scale[[0, 4, 7]] = 1.0, 0.7, 0.8
    minor = np.zeros(12)
    minor[[0, 3, 7]] = 1.0, 0.7, 0.8
    profiles = np.stack([np.roll(profile, tonic) for profile in (scale, minor) for tonic in range(12)])

    def batches():
        while True:
            keys = rng.integers(24, size=32)
            cens = profiles[keys][:, None, :, None] + rng.normal(0, 0.2, (32, 4, 12, SMALL.segment_frames))
            yield cens.astype(np.float32), np.eye(24, dtype=np.float32)[keys]

    keras.utils.set_random_seed(7)
    head = build_key_head(SMALL, 1)
    fit_on_crops(head, batches, _soft_cross_entropy, 100)
    clean = np.repeat(profiles[:, :, None], SMALL.segment_frames, axis=2).astype(np.float32)
    assert (head(clean, training=False).numpy().argmax(1) == np.arange(24)).mean() > 0.9
    assert parse_key("A minor") == 21  # the order of the profiles above is that of the keys' numbers


def test_a_transposed_chroma_is_heard_in_the_transposed_key(rng):
    head = build_key_head(SMALL, 1)
    cens = rng.random((3, 12, SMALL.segment_frames)).astype(np.float32)
    logits = head(cens, training=False).numpy()
    for semitones in (1, 5, 11):
        up = head(np.roll(cens, semitones, axis=1), training=False).numpy()
        for mode in (slice(0, 12), slice(12, 24)):
            np.testing.assert_allclose(up[:, mode], np.roll(logits[:, mode], semitones, axis=1), atol=1e-5)


def test_heads_start_where_those_of_the_network_ended(labelled_store):
    model = build_network(MASK_AND_HEADS, labelled_store.params)
    key, tempo = build_key_head(labelled_store.params, 1), build_tempo_head(labelled_store.params, 1)
    for head, name in ((key, "key"), (tempo, "tempo")):
        copy_network_head(head, model, name)
        expected = model.get_layer(f"{name}_hidden").get_weights()[0]
        np.testing.assert_array_equal(head.get_layer("hidden").get_weights()[0], expected)
    expected = model.get_layer("key_frame_hidden").get_weights()[0]
    np.testing.assert_array_equal(key.get_layer("chords_frame_hidden").get_weights()[0], expected)


def test_a_network_of_one_input_describes_by_words_only(labelled_store, tmp_path, monkeypatch):
    for module in (words, description_training, word_training):
        monkeypatch.setattr(module, "FEWEST", 2)  # the store has but a dozen tracks
    network = dataclasses.replace(NETWORK_PRESETS["single384"], width=0.03, subspace_width=4)
    run = train(labelled_store, tmp_path / "run", dataclasses.replace(PARAMS, network=network), strategy=one_device())
    heads = load_heads(run.path)
    assert set(heads.models) == {"words"} and set(heads.classes) == {"genre", "mood", "instrument", "era"}
    assert all(0 <= area <= 1 for area in heads.held_out["words"].values() if area is not None)
    assert build_network(network, labelled_store.params).get_layer("embedding").output.shape[-1] == 24
