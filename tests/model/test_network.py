"""The network: shapes, parameter counts by arithmetic, masks, round trips, distribution and mixed precision."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from msim_tf.errors import InputError
from msim_tf.model.losses import ConditionalTripletLoss, loss_weights
from msim_tf.model.metrics import triplet_metrics
from msim_tf.model.network import build_network, embedding_model, filters, in_float32
from msim_tf.model.params import NETWORK_PRESETS, NetworkParams, layout
from msim_tf.params import FEATURE_PRESETS, FeatureParams

FEATURES = FeatureParams(n_mels=64, tempogram_lags=64, segment_frames=64)  # the smallest that fit
NARROW = NetworkParams(subspace_width=4, width=0.01)  # 4 filters everywhere
WITH_HEADS = dataclasses.replace(NARROW, time_averaged_heads=True)


def some_inputs(rng, features, network, batch=4, dtype=np.float32):
    shapes = features.input_shapes
    return {name: rng.uniform(0, 1, (batch, *shapes[name])).astype(dtype) for name in network.inputs}


def some_relations(rng, names, batch, block):
    return {name: rng.integers(-1, 2, (batch, block)).astype(np.int8) for name in names}


@pytest.mark.parametrize("features", ["paper", "literal"])
@pytest.mark.parametrize(
    ("preset", "inputs", "dimensions", "size"),
    # Table 1 of the paper.
    [
        ("baseline", 1, 4, 256),
        ("multi4", 3, 4, 256),
        ("single258", 1, 6, 258),
        ("single384", 1, 6, 384),
        ("multi384", 3, 6, 384),
    ],
)
def test_presets_have_the_shapes_of_the_paper(features, preset, inputs, dimensions, size):
    network = dataclasses.replace(NETWORK_PRESETS[preset], width=0.01)
    model = build_network(network, FEATURE_PRESETS[features])
    assert len(model.input) == inputs
    shapes = {name: tuple(tensor.shape) for name, tensor in model.output.items()}
    assert shapes == dict.fromkeys(network.dimensions, (None, size // dimensions))
    for name in network.inputs:
        assert tuple(model.get_layer(f"{name}_block1").output.shape[1:3]) == ((16, 32) if name == "cens" else (32, 32))
        assert tuple(model.get_layer(f"{name}_block2").output.shape[1:3]) == (16, 16)
    assert tuple(model.get_layer("block6").output.shape[1:3]) == (1, 1)
    assert tuple(embedding_model(model).output.shape) == (None, size)


def test_filter_counts_of_the_paper_at_width_one():
    """Szegedy et al., Table 1, inception (3a): 64 + 128 + 32 + 32 = 256, after a naive 64 + 128 + 32 and the pooled."""
    model = build_network(NETWORK_PRESETS["multi384"], FEATURE_PRESETS["paper"])

    def convolution(kernel, before, after):
        return (kernel * kernel * before + 1) * after

    before = 3 * 256  # three branches joined
    naive = convolution(1, before, 64) + convolution(3, before, 128) + convolution(5, before, 32)
    between = 64 + 128 + 32 + before
    reduction = (
        convolution(1, between, 64)
        + convolution(1, between, 96)
        + convolution(3, 96, 128)
        + convolution(1, between, 16)
        + convolution(5, 16, 32)
        + convolution(1, between, 32)
    )
    counted = sum(layer.count_params() for layer in model.layers if layer.name.startswith("block3"))
    assert counted == naive + reduction
    assert model.get_layer("block6").output.shape[-1] == 256
    assert model.get_layer("projection").count_params() == (256 + 1) * 384
    for name in ("mel", "onset", "cens"):
        assert model.get_layer(f"{name}_stem_5x5").count_params() == 64 * (25 + 1)


@pytest.mark.parametrize(("count", "width", "expected"), [(64, 1.0, 64), (64, 0.25, 16), (16, 0.05, 4), (96, 0.3, 28)])
def test_width_scales_filters_to_multiples_of_four(count, width, expected):
    assert filters(count, width) == expected


@pytest.mark.parametrize("network", [NARROW, WITH_HEADS], ids=["paper", "heads"])
def test_masks_are_disjoint_and_together_the_whole_embedding(rng, network):
    model = build_network(dataclasses.replace(network, track_output=True), FEATURES)
    inputs = some_inputs(rng, FEATURES, network)
    subspaces, embedding = model(inputs), embedding_model(model)(inputs).numpy()
    np.testing.assert_array_equal(np.concatenate([subspaces[name] for name in network.dimensions], 1), embedding)
    np.testing.assert_array_equal(subspaces["track"], embedding)
    for name, where in layout(network).slices.items():
        np.testing.assert_array_equal(subspaces[name], embedding[:, where])
    np.testing.assert_allclose(embedding.mean(1), 0.0, atol=1e-6)  # layer normalisation
    before = keras.Model(model.input, model.get_layer("embedding").input)(inputs).numpy()
    spread = np.sqrt(before.var(1, keepdims=True) + 1e-3)  # Keras' epsilon
    np.testing.assert_allclose(embedding, (before - before.mean(1, keepdims=True)) / spread, atol=1e-5)


def test_mel_is_standardised_by_the_given_statistics(rng):
    plain = dataclasses.replace(NETWORK_PRESETS["single384"], width=0.01, mel_mean=0.0, mel_variance=1.0)
    models = [build_network(p, FEATURES) for p in (plain, dataclasses.replace(plain, mel_mean=0.5, mel_variance=0.04))]
    models[1].set_weights(models[0].get_weights())
    mel = some_inputs(rng, FEATURES, plain)["mel"]
    expected = models[0]({"mel": (mel - 0.5) / 0.2})
    for name, subspace in models[1]({"mel": mel}).items():
        np.testing.assert_allclose(subspace, expected[name], atol=1e-5)


@pytest.mark.parametrize("network", [NARROW, WITH_HEADS], ids=["paper", "heads"])
def test_half_precision_inputs_are_taken_as_they_are_stored(rng, network):
    model = build_network(network, FEATURES)
    stored = some_inputs(rng, FEATURES, network, dtype=np.float16)
    whole = model({name: value.astype(np.float32) for name, value in stored.items()})
    for name, subspace in model(stored).items():
        assert subspace.dtype == tf.float32
        np.testing.assert_allclose(subspace, whole[name], atol=1e-6)
    for name, subspace in model.predict(stored, verbose=0).items():
        np.testing.assert_allclose(subspace, whole[name], atol=1e-5)


def test_time_averaged_heads_hear_nothing_but_the_mean_over_time_of_their_input(rng):
    model = build_network(WITH_HEADS, FEATURES)
    inputs = some_inputs(rng, FEATURES, WITH_HEADS)

    def directions(**changed):  # all that the cosine distance inside a subspace sees
        return {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in model({**inputs, **changed}).items()}

    before = directions()
    for name, changed, moves in [
        ("key", {"cens": inputs["cens"][:, :, rng.permutation(FEATURES.segment_frames)]}, False),
        ("key", {"mel": inputs["mel"] ** 4, "onset": inputs["onset"] ** 4}, False),
        ("key", {"cens": np.roll(inputs["cens"], 5, axis=1)}, True),
        ("tempo", {"mel": inputs["mel"] ** 4, "cens": inputs["cens"] ** 4}, False),
        ("tempo", {"onset": inputs["onset"] ** 4}, True),
        ("genre", {"mel": inputs["mel"] ** 4}, True),
    ]:
        moved = np.abs(directions(**changed)[name] - before[name]).max()
        assert moved > 0.01 if moves else moved < 1e-5, (name, list(changed), moved)


def test_a_trained_model_loads_in_another_process_without_custom_objects(rng, tmp_path):
    network = dataclasses.replace(WITH_HEADS, track_output=True)
    names = (*network.dimensions, "track")
    model = build_network(network, FEATURES)
    model.compile(
        optimizer="adam",
        loss={name: ConditionalTripletLoss(margin=0.3) for name in names},
        loss_weights={**loss_weights(network.dimensions), "track": 0.5},
        metrics={name: triplet_metrics(margin=0.3) for name in network.dimensions},
        jit_compile=False,
    )
    model.set_weights([weights + rng.normal(0, 0.05, weights.shape) for weights in model.get_weights()])
    inputs = some_inputs(rng, FEATURES, network)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "inputs.npz", **inputs)
    program = (
        "import sys, numpy as np; from msim_tf.model.network import embedding_model, keras\n"
        "model = keras.models.load_model(sys.argv[1] + '/model.keras')\n"
        "inputs = dict(np.load(sys.argv[1] + '/inputs.npz'))\n"
        "assert model.optimizer is not None and model.loss['genre'].margin == 0.3\n"
        "outputs = {name: value.numpy() for name, value in model(inputs).items()}\n"
        "np.savez(sys.argv[1] + '/outputs.npz', embedding=embedding_model(model)(inputs).numpy(), **outputs)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True)
    loaded = np.load(tmp_path / "outputs.npz")
    expected = {**model(inputs), "embedding": embedding_model(model)(inputs)}
    assert set(loaded.files) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(loaded[name], value)


def test_one_step_on_two_replicas_reaches_every_weight(rng, two_replicas):
    # With four filters a layer is dead by chance too often. One dimension is a mask on the whole, two are heads.
    network = dataclasses.replace(WITH_HEADS, dimensions=("genre", "tempo", "key"), width=0.1)
    with two_replicas.scope():
        keras.utils.set_random_seed(1)
        model = build_network(network, FEATURES)
        model.compile(
            optimizer=keras.optimizers.Adam(1e-3),
            loss={name: ConditionalTripletLoss(margin=1.0) for name in network.dimensions},
            loss_weights=loss_weights(network.dimensions),
            jit_compile=False,
        )
    before = [weights.numpy() for weights in model.trainable_variables]
    inputs = some_inputs(rng, FEATURES, network, batch=16, dtype=np.float16)
    targets = some_relations(rng, network.dimensions, 16, 8)
    data = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(16, drop_remainder=True)
    history = model.fit(data, shuffle=False, verbose=0).history
    assert 0 < history["loss"][0] < 3
    still = [w.name for w, value in zip(model.trainable_variables, before) if (w.numpy() == value).all()]
    assert not still


def test_mixed_precision_computes_in_half_and_answers_in_float32(rng):
    full = build_network(WITH_HEADS, FEATURES)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        half = build_network(WITH_HEADS, FEATURES)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    half.set_weights(full.get_weights())
    assert half.get_layer("block3_3x3").compute_dtype == "bfloat16"
    assert {half.get_layer(name).compute_dtype for name in ("tempogram", "mel_zscore", "embedding", "key")} == {
        "float32"
    }
    inputs = some_inputs(rng, FEATURES, WITH_HEADS)
    expected = full(inputs)
    for name, subspace in half(inputs).items():
        assert subspace.dtype == tf.float32
        np.testing.assert_allclose(subspace, expected[name], atol=0.15)
    again = in_float32(half)
    assert {layer.compute_dtype for layer in again.layers} == {"float32"} and in_float32(full) is full
    for name, subspace in again(inputs).items():
        np.testing.assert_allclose(subspace, expected[name], atol=1e-5)


@pytest.mark.parametrize(("stride", "frames", "after"), [(1, 129, 32), (2, 65, 16), (4, 33, 16)])
def test_slow_stride_leaves_out_frames_and_changes_no_weight(rng, stride, frames, after):
    features = FEATURE_PRESETS["paper"]
    network = dataclasses.replace(NARROW, slow_stride=stride)
    model = build_network(network, features)
    full = build_network(NARROW, features)
    assert [w.shape for w in model.get_weights()] == [w.shape for w in full.get_weights()]
    inputs = some_inputs(rng, features, network)
    maps = {
        name: keras.Model(m.input, m.get_layer("tempogram").output)(inputs)
        for name, m in (("all", full), ("few", model))
    }
    assert maps["few"].shape[-1] == frames
    np.testing.assert_allclose(maps["few"], maps["all"][..., ::stride], atol=1e-6)
    if stride > 1:
        cens = keras.Model(model.input, model.get_layer("cens_every").output)(inputs)
        np.testing.assert_array_equal(cens, inputs["cens"][..., ::stride])
    assert tuple(model.get_layer("onset_block1").output.shape[1:3]) == (32, after)
    for name in ("onset_block2", "cens_block2"):
        assert tuple(model.get_layer(name).output.shape[1:3]) == (16, 16)


def test_params_survive_json():
    for network in (
        *NETWORK_PRESETS.values(),
        dataclasses.replace(WITH_HEADS, mel_mean=1 / 3, teacher_outputs=("mood",)),
    ):
        assert NetworkParams.from_json(json.loads(json.dumps(network.to_json()))) == network
    older = {name: value for name, value in NARROW.to_json().items() if name != "trunk_width"}
    assert NetworkParams.from_json(older) == NARROW
    with pytest.raises(InputError, match="unknown network parameters: depth; made by another version"):
        NetworkParams.from_json({**NARROW.to_json(), "depth": 3})


def test_trunk_width_scales_the_blocks_after_the_join_only():
    narrow, wide = (build_network(net, FEATURES) for net in (NARROW, dataclasses.replace(NARROW, trunk_width=0.5)))
    channels = {
        name: (narrow.get_layer(name).output.shape[-1], wide.get_layer(name).output.shape[-1])
        for name in ("mel_block2", "onset_block2", "cens_block2", "block3", "block6")
    }
    assert all(before == after for name, (before, after) in channels.items() if "_" in name)
    assert channels["block3"][1] == channels["block6"][1] == 128  # half of 64 + 128 + 32 + 32
    assert wide.get_layer("backbone").output.shape == (None, 128)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"inputs": ("cens",)}, "inputs is .*expected"),
        ({"width": 0.0}, r"width is 0\.0, expected > 0"),
        ({"mel_variance": -1.0}, "mel_variance is -1"),
        ({"dimensions": ("tempo", "key"), "regression_size": 3}, "a teacher's regression with dimensions"),
        ({"trunk_width": -0.5}, r"trunk_width is -0\.5, expected >= 0"),
        ({"slow_stride": 3}, "slow_stride is 3, expected 1, 2 or 4"),
        ({"subspace_width": 0}, "one positive width for each"),
        ({"dimensions": ("genre", "smell")}, "smell"),
        ({"inputs": ("mel",), "time_averaged_heads": True}, "time_averaged_heads with inputs"),
        ({"dimensions": ("tempo", "key"), "time_averaged_heads": True}, "a dimension that the backbone projects"),
    ],
)
def test_networks_that_cannot_be_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        dataclasses.replace(NARROW, **change)


@pytest.mark.parametrize(
    ("features", "match"),
    [
        (dataclasses.replace(FEATURES, n_mels=40), "40 rows of mel cannot be pooled to 64"),
        (dataclasses.replace(FEATURES, segment_frames=200), "200 frames of mel cannot be pooled to 64"),
        (dataclasses.replace(FEATURES, n_chroma=24), "24 rows of cens: the network takes at most 16"),
    ],
)
def test_features_that_do_not_fit_are_refused(features, match):
    with pytest.raises(InputError, match=match):
        build_network(NARROW, features)
