"""The networks of musicnn: what NumPy computes layer by layer and, where the wheel is there, what its graphs give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from msim_tf.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tools.musicnn_embeddings import FRAMES, N_MELS, TAGS, compiled, load_network  # noqa: E402

WHEEL = os.environ.get("MUSICNN_WHEEL")  # the folder "musicnn" of the unpacked wheel


def test_musicnn_is_what_numpy_computes_layer_by_layer():
    rng = np.random.default_rng(0)
    weights = _random_weights(rng)
    x = rng.random((2, FRAMES, N_MELS)).astype(np.float32)
    penultimate, logits = compiled(weights)(x)
    for row in range(2):
        expected = _by_hand(weights, x[row].astype(float))
        np.testing.assert_allclose(penultimate[row], expected, atol=1e-4 * np.abs(expected).max())
        expected = expected @ weights["dense_1/kernel"] + weights["dense_1/bias"]
        np.testing.assert_allclose(logits[row], expected, atol=1e-4 * np.abs(expected).max())
    assert logits.min() < 0  # not yet through the sigmoid


def _by_hand(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """[200] penultimate of one patch [187, 96], every activation kept until the last moment."""

    def named(kind: str, number: int, part: str) -> np.ndarray:
        return weights[kind + (f"_{number}" if number else "") + f"/{part}"]

    def normalised(value: np.ndarray, number: int) -> np.ndarray:
        mean, variance, beta, gamma = (
            named("batch_normalization", number, part) for part in ("moving_mean", "moving_variance", "beta", "gamma")
        )
        return (value - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    def layer(value: np.ndarray, number: int) -> np.ndarray:
        kernel = named("conv2d", number, "kernel")[:, :, 0]
        rows = len(kernel) - 1
        padded = np.pad(value, ((rows // 2, rows - rows // 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2])
        summed = np.tensordot(windows, kernel, 2) + named("conv2d", number, "bias")
        return normalised(np.maximum(summed, 0), number + 1)

    start = normalised(x, 0)
    parts = [np.concatenate([layer(start, number).max(axis=1) for number in range(5)], axis=1)]
    parts.append(layer(parts[-1], 5)[:, 0])
    for number in (6, 7):
        parts.append(layer(parts[-1], number)[:, 0] + parts[-1])
    stacked = np.concatenate(parts, axis=1)
    pooled = np.stack([stacked.max(axis=0), stacked.mean(axis=0)], axis=1).ravel()
    dense = normalised(pooled, 9) @ weights["dense/kernel"] + weights["dense/bias"]
    return normalised(np.maximum(dense, 0), 10)


def _random_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    kernels = [(7, 38, 1, 20), (7, 67, 1, 20), (128, 1, 1, 5), (64, 1, 1, 5), (32, 1, 1, 5)]
    kernels += [(7, 55, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)]
    channels = [1] + [shape[-1] for shape in kernels] + [2 * (55 + 3 * 64), 200]
    weights = {}
    for number, shape in enumerate(kernels):
        name = "conv2d" + (f"_{number}" if number else "")
        weights[f"{name}/kernel"] = rng.normal(0, np.prod(shape[:3]) ** -0.5, shape)
        weights[f"{name}/bias"] = rng.normal(0, 0.1, shape[-1])
    for number, size in enumerate(channels):
        name = "batch_normalization" + (f"_{number}" if number else "")
        for part in ("moving_mean", "moving_variance", "beta", "gamma"):
            # The real weights, too, have channels whose normalisation turns the sign.
            sign = rng.choice([-1, 1], size) if part == "gamma" else 1
            weights[f"{name}/{part}"] = sign * rng.uniform(0.5, 1.5, size)
    for name, shape in (("dense", (channels[-2], 200)), ("dense_1", (200, 50))):
        weights[f"{name}/kernel"] = rng.normal(0, shape[0] ** -0.5, shape)
        weights[f"{name}/bias"] = rng.normal(0, 0.1, shape[1])
    return {name: value.astype(np.float32) for name, value in weights.items()}


# Pooling over (time, bands), then its stride, after each convolution.
_POOLS = {
    "MSD": ((4, 1, 4, 1), (1, 4, 1, 4), (2, 2, 2, 2), (2, 2, 2, 2), (4, 4, 4, 4)),
    "MTT": ((4, 1, 2, 2), (2, 2, 2, 2), (2, 2, 2, 2), (2, 2, 2, 2), (4, 4, 4, 4)),
}


@pytest.mark.parametrize("tags", ["MSD", "MTT"])
def test_vgg_is_what_numpy_computes_layer_by_layer(tags):
    rng = np.random.default_rng(1)
    weights = _random_vgg_weights(rng, channels=4)
    x = rng.random((2, FRAMES, N_MELS)).astype(np.float32)
    last, logits = compiled(weights, tags)(x)
    for row in range(2):
        expected = _vgg_by_hand(weights, x[row].astype(float), tags)
        np.testing.assert_allclose(last[row], expected, atol=1e-4 * np.abs(expected).max())
        expected = expected @ weights["dense/kernel"] + weights["dense/bias"]
        np.testing.assert_allclose(logits[row], expected, atol=1e-4 * np.abs(expected).max())


def _vgg_by_hand(weights: dict[str, np.ndarray], x: np.ndarray, tags: str) -> np.ndarray:
    """Last pooling, flat, of one patch [187, 96]."""

    def normalised(value: np.ndarray, number: int) -> np.ndarray:
        name = "batch_normalization" + (f"_{number}" if number else "")
        mean, variance, beta, gamma = (
            weights[f"{name}/{part}"] for part in ("moving_mean", "moving_variance", "beta", "gamma")
        )
        return (value - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    value = normalised(x[..., None], 0)
    for number, (*pool, step, band_step) in enumerate(_POOLS[tags], start=1):
        padded = np.pad(value, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
        summed = np.einsum("tfchw,hwco->tfo", windows, weights[f"{number}CNN/kernel"]) + weights[f"{number}CNN/bias"]
        value = normalised(np.maximum(summed, 0), number)
        windows = np.lib.stride_tricks.sliding_window_view(value, tuple(pool), axis=(0, 1))[::step, ::band_step]
        value = windows.max(axis=(3, 4))
    return value.ravel()


def _random_vgg_weights(rng: np.random.Generator, *, channels: int) -> dict[str, np.ndarray]:
    weights = {"dense/kernel": rng.normal(0, 0.1, (2 * channels, 50)), "dense/bias": rng.normal(0, 0.1, 50)}
    for number in range(6):
        name = "batch_normalization" + (f"_{number}" if number else "")
        size = channels if number else 1
        for part in ("moving_mean", "moving_variance", "beta", "gamma"):
            weights[f"{name}/{part}"] = rng.uniform(0.5, 1.5, size) * (
                rng.choice([-1, 1], size) if part == "gamma" else 1
            )
        if number:
            shape = (3, 3, channels if number > 1 else 1, channels)
            weights[f"{number}CNN/kernel"] = rng.normal(0, 0.3, shape)
            weights[f"{number}CNN/bias"] = rng.normal(0, 0.1, channels)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def test_a_folder_of_unknown_tags_or_without_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a folder named MSD_\.\.\. or MTT_"):
        load_network(tmp_path)
    (tmp_path / "MTT_vgg").mkdir()
    with pytest.raises(InputError, match="no checkpoint of musicnn"):
        load_network(tmp_path / "MTT_vgg")


# The wheel's graph without the training, which today's TensorFlow does not import.
_OWN_GRAPH = """
import sys
import numpy as np, tensorflow as tf
folder, file = sys.argv[1:]
meta = tf.compat.v1.MetaGraphDef.FromString(open(folder + "/.meta", "rb").read())
nodes = [node for node in meta.graph_def.node if not node.name.startswith(("gradients", "save"))]
logits = [node.name for node in nodes if node.op == "BiasAdd" and "dense" in node.name][-1]
wanted = [logits, meta.saver_def.restore_op_name]
graph_def = tf.compat.v1.graph_util.extract_sub_graph(meta.graph_def, wanted)
for node in graph_def.node:
    node.device = ""
    node.attr.pop("_output_shapes", None)
with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
    tf.import_graph_def(graph_def, name="")
    session.run(meta.saver_def.restore_op_name, {meta.saver_def.filename_tensor_name: folder + "/"})
    inputs = [node.outputs[0] for node in graph.get_operations() if node.type == "Placeholder"]
    x, = [tensor for tensor in inputs if tensor.dtype == tf.float32]
    training, = [tensor for tensor in inputs if tensor.dtype == tf.bool]
    np.save(file, session.run(logits + ":0", {x: np.load(file), training: False}))
"""


@pytest.mark.skipif(not WHEEL, reason="MUSICNN_WHEEL names no folder of the unpacked wheel")
@pytest.mark.parametrize("name", ["MSD_musicnn", "MSD_vgg", "MTT_musicnn", "MTT_vgg"])
def test_the_wheels_own_graph_gives_the_same_logits(tmp_path, name):
    x = np.random.default_rng(2).random((3, FRAMES, N_MELS)).astype(np.float32) * [[[1]], [[2]], [[0.3]]]
    network = load_network(Path(WHEEL) / name)
    penultimate, logits = network.forward(x.astype(np.float32))
    assert penultimate.shape == (3, network.size) and network.tags == TAGS[name[:3]]
    file = tmp_path / "patches.npy"
    np.save(file, x)
    subprocess.run([sys.executable, "-c", _OWN_GRAPH, str(Path(WHEEL) / name), str(file)], check=True)
    np.testing.assert_allclose(logits, np.load(file), atol=1e-3)
