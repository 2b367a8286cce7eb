"""The network: one branch per input, inception blocks, one embedding, one masked subspace per dimension.

Paper, section 3.2 and Figure 1; Lee et al., ICASSP 2020 (the baseline); Szegedy et al., "Going deeper with convolutions", CVPR 2015 (the filter
counts, which neither publishes: those of the block 3a sum to the 256 that Lee states). What the model takes is named ``mel``, ``onset``, ``cens``;
what it gives is a dict by dimension. Inside, maps are ``[batch, frequency, frames, channels]``.

``direct_paths`` is a variant of ours and off by default. The paper's network stayed at chance for tempo and key on a few thousand clips, while
a small perceptron on the *time-mean* of the same tempogram or CENS learned both within a minute: six blocks of local maxima blur exactly the
lag and the pitch class that count. With it, tempo and key are projected from those alone, *in the place of* the backbone, not added to it: at
chance the backbone adds only noise, and what it knows of genre or mood would leak into subspaces that should not know it. For the key, features
of single frames are averaged too: they can tell chords, and a key is in its chords more than in the mean of their notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Both register what the file of a trained model names, so that importing this module can load it.
import msim_tf.model.losses  # noqa: F401
import msim_tf.model.metrics  # noqa: F401
from msim_tf.dimensions import TAG_DIMENSION_NAMES, TEACHER, TEACHER_SUFFIX, TRACK
from msim_tf.errors import InputError
from msim_tf.model.layers import SubspaceMask, Tempogram
from msim_tf.model.params import DIRECT_INPUTS, NetworkParams, layout
from msim_tf.params import FeatureParams

EMBEDDING = "embedding"  # layer whose output is the whole embedding

_STEM = 64  # rows and frames after the stem, filters of its convolution
_JOIN = 16  # rows and frames where branches meet
_BRANCH_BLOCKS = 2
_BLOCKS = 6
_DIRECT_UNITS = {"tempo": 128, "key": 256}
_CHORD_UNITS = 128


def build_network(network: NetworkParams, features: FeatureParams) -> keras.Model:
    """Builds the functional model.

    Args:
        network: which network.
        features: gives the input shapes; ``paper`` and ``literal`` both lead to the paper's 16 x 16 maps where branches meet.

    Returns:
        A model from a dict of the inputs, each [batch, *features.input_shapes[name]] in any float type, to a dict of the subspaces, each
        [batch, width] float32 under the name of its dimension (and, when asked for, "track" [batch, embedding_size] and "teacher"
        [batch, regression_size]).

    Raises:
        InputError: if the features do not fit the maps.
    """
    inputs = {name: keras.Input(features.input_shapes[name], name=name, dtype="float32") for name in network.inputs}
    # Two-dimensional features [batch, rows, frames], under the names of their branches' inputs.
    maps = {"mel": _standardised(inputs["mel"], network)}
    if "onset" in inputs:
        maps["onset"] = Tempogram(features.tempogram_lags, network.slow_stride, name="tempogram")(inputs["onset"])
        maps["cens"] = _every(inputs["cens"], network.slow_stride)

    strides = {name: 1 if name == "mel" else network.slow_stride for name in maps}
    branches = [_branch(x, name, network.width, strides[name]) for name, x in maps.items()]
    x = keras.layers.Concatenate(name="join")(branches) if len(branches) > 1 else branches[0]
    for number in range(_BRANCH_BLOCKS + 1, _BLOCKS + 1):
        x = _inception_block(x, f"block{number}", network.trunk_width or network.width)
    backbone = keras.layers.Flatten(name="backbone")(x)

    projection = _projection(backbone, maps, network)
    embedding = _layer_normalisation(EMBEDDING)(projection)
    slices = layout(network)
    outputs = {name: SubspaceMask(slices.mask([name]), name=name)(embedding) for name in network.dimensions}
    if network.track_output:
        outputs[TRACK] = SubspaceMask(slices.mask(network.dimensions), name=TRACK)(embedding)
    for name in network.teacher_outputs:
        outputs[name + TEACHER_SUFFIX] = SubspaceMask(slices.mask([name]), name=name + TEACHER_SUFFIX)(embedding)
    if network.regression_size:
        tags = [name for name in network.dimensions if name in TAG_DIMENSION_NAMES]
        heard = SubspaceMask(slices.mask(tags), name="tag_subspaces")(embedding)
        outputs[TEACHER] = keras.layers.Dense(network.regression_size, name=TEACHER, dtype="float32")(heard)
    return keras.Model(inputs, outputs, name="msim")


def embedding_model(model: keras.Model) -> keras.Model:
    """The model from the same inputs to the whole embedding, [batch, embedding_size] float32; shares all weights with ``model``."""
    return keras.Model(model.input, model.get_layer(EMBEDDING).output, name="msim_embedding")


def embedding_function(model: keras.Model) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """A function from a dict of segments, any float type, to their embeddings [n, embedding_size] float32; takes what the model needs of it."""
    embed = tf.function(embedding_model(model), reduce_retracing=True)
    names = tuple(model.input)

    def embedded(segments: Mapping[str, np.ndarray]) -> np.ndarray:
        return embed({name: tf.cast(segments[name], tf.float32) for name in names}, training=False).numpy()

    return embedded


def direct_model(model: keras.Model) -> keras.Model:
    """The direct paths alone, from their inputs to a dict of tempo and key, each [batch, width] float32; shares all weights with ``model``."""
    outputs = {name: model.get_layer(f"{name}_norm").output for name in DIRECT_INPUTS if name in model.output}
    inputs = {DIRECT_INPUTS[name]: model.input[DIRECT_INPUTS[name]] for name in outputs}
    return keras.Model(inputs, outputs, name="msim_direct")


def in_float32(model: keras.Model) -> keras.Model:
    """The same network with the same weights, computed in float32: one that was trained in 16 bits runs on every CPU then.

    Args:
        model: of ``build_network``.

    Returns:
        ``model`` itself if it is computed in float32 already.
    """

    def cloned(layer: keras.layers.Layer) -> keras.layers.Layer:
        return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})

    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    clone = keras.models.clone_model(model, clone_function=cloned)
    clone.set_weights(model.get_weights())
    return clone


def filters(count: int, width: float) -> int:
    """``count`` scaled by ``width``: the nearest multiple of 4, at least 4."""
    return max(4, 4 * round(count * width / 4))


def _standardised(mel: Any, network: NetworkParams) -> Any:
    return keras.layers.Normalization(
        axis=None, mean=network.mel_mean, variance=network.mel_variance, name="mel_zscore", dtype="float32"
    )(mel)


def _every(x: Any, stride: int) -> Any:
    """Every ``stride``-th frame: [batch, rows, frames] -> [batch, rows, ceil(frames / stride)]."""
    if stride == 1:
        return x
    return keras.layers.MaxPooling1D(1, strides=stride, data_format="channels_first", name="cens_every")(x)


def _branch(x: Any, name: str, width: float, stride: int) -> Any:
    """Stem and two blocks: [batch, rows, frames] -> [batch, 16, 16, channels]; ``stride`` says what was left out of the frames before."""
    rows, frames = x.shape[1:]
    stem_frames = _STEM // stride
    x = keras.layers.Reshape((rows, frames, 1), name=f"{name}_channel")(x)
    halve_rows = name != "cens"
    if halve_rows:
        pool = (_pool_size(rows, _STEM, f"rows of {name}"), _pool_size(frames, stem_frames, f"frames of {name}"))
    else:
        # Twelve chroma are too few to be halved: padded to the common 16 rows, and only time is pooled.
        if rows > _JOIN:
            raise InputError(f"{rows} rows of {name}: the network takes at most {_JOIN}")
        below = (_JOIN - rows) // 2
        pad = ((below, _JOIN - rows - below), (0, 0))
        x = keras.layers.ZeroPadding2D(pad, name=f"{name}_pad")(x)
        pool = (1, _pool_size(frames, stem_frames, f"frames of {name}"))
    x = _conv(x, filters(_STEM, width), 5, (1, 1), f"{name}_stem_5x5")
    x = keras.layers.MaxPooling2D(pool, name=f"{name}_stem_pool")(x)
    for number in range(1, _BRANCH_BLOCKS + 1):
        halve_frames = stem_frames >> (number - 1) > _JOIN
        strides = (2 if halve_rows else 1, 2 if halve_frames else 1)
        x = _inception_block(x, f"{name}_block{number}", width, strides=strides)
    return x


def _pool_size(length: int, target: int, what: str) -> int:
    """Size of the pooling that takes ``length`` to ``target``; 129 frames to 64 by 2, 259 by 4, 384 lags by 6."""
    size = length // target
    if size < 1 or length // size != target:
        raise InputError(
            f"{length} {what} cannot be pooled to {target} for the network; see FEATURE_PRESETS for shapes that fit"
        )
    return size


def _inception_block(x: Any, name: str, width: float, *, strides: tuple[int, int] = (2, 2)) -> Any:
    """A "naive" module with strides, then a "dimension reduction" module of 256 (times ``width``) channels."""
    # A 1x1 convolution with strides is written as picking, then convolving: the backward pass of the former writes beyond its buffer on CPUs
    # when channels are fewer than a vector register holds (uxlfoundation/oneDNN, issue 6035), and kills the process.
    picked = keras.layers.MaxPooling2D(1, strides=strides, name=f"{name}_naive_pick")(x)
    x = keras.layers.Concatenate(name=f"{name}_naive")(
        [
            _conv(picked, filters(64, width), 1, (1, 1), f"{name}_naive_1x1"),
            _conv(x, filters(128, width), 3, strides, f"{name}_naive_3x3"),
            _conv(x, filters(32, width), 5, strides, f"{name}_naive_5x5"),
            keras.layers.MaxPooling2D(3, strides=strides, padding="same", name=f"{name}_naive_pool")(x),
        ]
    )
    reduced3 = _conv(x, filters(96, width), 1, (1, 1), f"{name}_3x3_reduce")
    reduced5 = _conv(x, filters(16, width), 1, (1, 1), f"{name}_5x5_reduce")
    pooled = keras.layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    return keras.layers.Concatenate(name=name)(
        [
            _conv(x, filters(64, width), 1, (1, 1), f"{name}_1x1"),
            _conv(reduced3, filters(128, width), 3, (1, 1), f"{name}_3x3"),
            _conv(reduced5, filters(32, width), 5, (1, 1), f"{name}_5x5"),
            _conv(pooled, filters(32, width), 1, (1, 1), f"{name}_pool_1x1"),
        ]
    )


def _conv(x: Any, count: int, kernel: int, strides: tuple[int, int], name: str) -> Any:
    return keras.layers.Conv2D(count, kernel, strides=strides, padding="same", activation="relu", name=name)(x)


def _projection(backbone: Any, maps: dict[str, Any], network: NetworkParams) -> Any:
    """The embedding before its layer normalisation: [batch, embedding_size]."""
    direct = [name for name in network.dimensions if network.direct_paths and name in DIRECT_INPUTS]
    if not direct:
        return keras.layers.Dense(network.embedding_size, name="projection")(backbone)
    width = network.embedding_size // len(network.dimensions)
    rest = keras.layers.Dense(network.embedding_size - width * len(direct), name="projection")(backbone)
    # Each part is normalised alone before all are together: else the part with the largest scale would decide the common mean and
    # variance, its mean would be added to every other subspace, and distances over the whole embedding would be its distances.
    parts = [_layer_normalisation("projection_norm")(rest)]
    for name in direct:
        parts.append(_direct_path(maps[DIRECT_INPUTS[name]], width, name))
    # The directly projected dimensions are the last of ``DIMENSIONS``, so this is the order of the layout.
    return keras.layers.Concatenate(name="parts")(parts)


def _direct_path(x: Any, width: int, name: str) -> Any:
    """[batch, rows, frames] -> [batch, width], from means over time.

    What is averaged is standardised over its rows. All entries of an averaged CENS are positive and alike, and the key is in their contrast.
    """
    mean = keras.layers.GlobalAveragePooling1D(data_format="channels_first", name=f"{name}_time_mean", dtype="float32")
    found = _layer_normalisation(f"{name}_contrast")(mean(x))
    if name == "key":
        found = keras.layers.Concatenate(name=f"{name}_statistics")([found, _chords(x, name)])
    found = keras.layers.Dense(_DIRECT_UNITS[name], activation="relu", name=f"{name}_hidden")(found)
    found = keras.layers.Dense(width, name=f"{name}_projection")(found)
    return _layer_normalisation(f"{name}_norm")(found)


def _chords(x: Any, name: str) -> Any:
    """[batch, rows, frames] -> [batch, units]: the mean over time of what a perceptron hears in each frame."""
    frames = keras.layers.Permute((2, 1), name=f"{name}_frames")(x)
    frames = _layer_normalisation(f"{name}_frame_contrast")(frames)
    heard = keras.layers.Conv1D(_CHORD_UNITS, 1, activation="relu", name=f"{name}_frame_hidden")(frames)
    mean = keras.layers.GlobalAveragePooling1D(name=f"{name}_frame_mean", dtype="float32")(heard)
    return _layer_normalisation(f"{name}_frame_norm")(mean)


def _layer_normalisation(name: str) -> keras.layers.Layer:
    """Without affine parameters (a scale per coordinate would be a second, learned mask), in float32 under every policy."""
    return keras.layers.LayerNormalization(center=False, scale=False, name=name, dtype="float32")
