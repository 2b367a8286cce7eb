"""Training step and embedding by width, against the floating-point work of the network
and the machine's matrix-product peak.

The work is counted, not estimated: two operations per multiply-add of every convolution and dense layer,
three times that for a training step (forward, gradient to the input, gradient to the weights). Tempogram,
pooling, normalisation and loss are not counted, so per cent of peak is what the whole step achieves of the
best matrix product that ran in the same rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tools.bench import frame
from tools.bench.training_step import compiled_network, noise_batch

_PEAK_SIZE = 1536
_PARTS = ("mel", "onset", "cens")


def run(options: frame.Options) -> list[frame.Figure]:
    """The section."""
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    figures = []
    for width in (0.25,) if options.quick else (0.25, 1.0):
        figures += _width(width, options)
    return figures


def multiply_adds(model: Any) -> int:
    """Multiply-adds of convolutions and dense layers for one example."""
    total = 0
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            positions = math.prod(layer.output.shape[1:-1])
            total += positions * math.prod(kernel.shape)
    return total


def _width(width: float, options: frame.Options) -> list[frame.Figure]:
    import keras
    import tensorflow as tf

    from msim_tf.model.network import EMBEDDING, embedding_model

    batch = 16 if width > 0.5 else 32 if options.quick else 64  # at width 1 a batch of 32 takes 5 GB
    rounds = 3 if options.quick else 5
    inputs, targets = noise_batch(batch)
    plain, mixed = compiled_network(width), compiled_network(width, mixed=True)
    calls = {
        "peak": _matrix_product(tf.float32),
        "peak bfloat16": _matrix_product(tf.bfloat16),
        "step": lambda: plain.train_on_batch(inputs, targets),
        "step mixed": lambda: mixed.train_on_batch(inputs, targets),
        "embed": _forward(embedding_model(plain), inputs),
        "embed mixed": _forward(embedding_model(mixed), inputs),
    }
    if not options.quick:
        calls["embed XLA"] = _forward(embedding_model(plain), inputs, jit=True)
    parts = {name: keras.Model(plain.input[name], plain.get_layer(f"{name}_block2").output) for name in _PARTS}
    parts["tempogram"] = keras.Model(plain.input["onset"], plain.get_layer("tempogram").output)
    joined = keras.Model(plain.get_layer("join").output, plain.get_layer(EMBEDDING).output)
    maps = tf.random.uniform([batch, *joined.input.shape[1:]])
    for name, part in parts.items():
        calls[f"part {name}"] = _forward(part, inputs["onset" if name == "tempogram" else name])
    calls["part trunk"] = _forward(joined, maps)
    seconds = frame.measure(calls, rounds)

    work = 2 * multiply_adds(plain) * batch
    product = 2 * _PEAK_SIZE**3
    label = f"width {width:g}, "
    figures = [
        frame.rate(label + "matrix product", seconds["peak"], product / 1e9, "GFLOP/s", note="the peak, float32"),
        frame.rate(
            label + "training",
            seconds["step"],
            batch,
            "seg/s",
            note=f"batch {batch}, {3 * work / batch / 1e9:.2f} GFLOP/segment",
        ),
        _per_cent(label + "training, of peak", seconds, "step", "peak", 3 * work / product),
        frame.rate(
            label + "embedding", seconds["embed"], batch, "seg/s", note=f"{work / batch / 1e9:.2f} GFLOP/segment"
        ),
        _per_cent(label + "embedding, of peak", seconds, "embed", "peak", work / product),
        frame.ratio(
            label + "bfloat16 / float32 product",
            seconds["peak"],
            seconds["peak bfloat16"],
            note="what mixed precision could give here",
        ),
        frame.ratio(label + "mixed / float32 training", seconds["step"], seconds["step mixed"]),
        frame.ratio(label + "mixed / float32 embedding", seconds["embed"], seconds["embed mixed"]),
    ]
    if "embed XLA" in seconds:
        figures.append(frame.ratio(label + "XLA / plain embedding", seconds["embed"], seconds["embed XLA"]))
    works = {name: 2 * multiply_adds(part) * batch for name, part in {**parts, "trunk": joined}.items()}
    for name, part_work in works.items():
        share = [100 * a / b for a, b in zip(seconds[f"part {name}"], seconds["embed"])]
        peaks = [100 * part_work / product * a / b for a, b in zip(seconds["peak"], seconds[f"part {name}"])]
        note = (
            f"{100 * part_work / work:.0f} % of the work, {sorted(peaks)[len(peaks) // 2]:.0f} % of peak"
            if part_work
            else "not counted as work; within onset"
        )
        figures.append(frame.spread(label + f"embedding, {name}", share, unit="% of time", note=note))
    return figures


def _per_cent(name: str, seconds: dict[str, list[float]], what: str, peak: str, products: float) -> frame.Figure:
    """The rate of ``what``, which is the work of ``products`` matrix products, in per cent of the peak."""
    return frame.ratio(name, seconds[peak], seconds[what], scale=100 * products, unit="%")


def _matrix_product(dtype: Any) -> Callable[[], object]:
    import tensorflow as tf

    left, right = (tf.cast(tf.random.normal([_PEAK_SIZE, _PEAK_SIZE]), dtype) for _ in range(2))
    product = tf.function(lambda: tf.reduce_max(tf.matmul(left, right)))
    return lambda: product().numpy()


def _forward(model: Any, inputs: Any, *, jit: bool = False) -> Callable[[], object]:
    import tensorflow as tf

    call = tf.function(lambda values: model(values, training=False), jit_compile=jit)
    return lambda: call(inputs).numpy()
