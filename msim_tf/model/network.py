"""The network: one branch per input, inception blocks, one embedding, one masked subspace per dimension.

Sources: Ribecky et al., section 3.2 and Figure 1 ("the paper"); Lee et al., ICASSP 2020 (the baseline); Szegedy et al.,
"Going deeper with convolutions", CVPR 2015 (the filter counts, which neither publishes: those of the block 3a sum to
the 256 that Lee states). The model takes ``mel``, ``onset`` and ``cens``, and gives a dict by dimension. Inside, maps
are ``[batch, frequency, frames, channels]``.

*Time-averaged heads* are a variant of ours and off by default. The paper's network stayed at chance for tempo and key
on a few thousand clips, while a small perceptron on the time average of the same tempogram or CENS learned both within
a minute: six blocks of local maxima blur exactly the lag and the pitch class that count. With the option, a dimension
that declares an ``averaged_input`` (tempo, key) is projected from that input's average *instead of* the backbone, not
in addition to it: at chance the backbone adds only noise, and what it knows of genre or mood would leak into subspaces
that should not know it. The key's head also averages features of single frames: they can tell chords, and a key is in
its chords more than in the mean of its notes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Both register what the file of a trained model names, so that importing this module can load it.
import msim_tf.model.losses  # noqa: F401
import msim_tf.model.metrics  # noqa: F401
from msim_tf.dimensions import TAG_DIMENSION_NAMES, TEACHER, TEACHER_SUFFIX, TRACK, EmbeddingLayout, dimension
from msim_tf.errors import InputError
from msim_tf.model.layers import SubspaceMask, Tempogram
from msim_tf.model.params import NetworkParams, layout, network_preset
from msim_tf.params import FeatureParams

EMBEDDING = "embedding"  # layer whose output is the whole embedding

_STEM = 64  # rows and frames after the stem, filters of its convolution
_JOIN = 16  # rows and frames where branches meet
_BRANCH_BLOCKS = 2  # inception blocks of each branch
_BLOCKS = 6  # inception blocks from an input to the backbone, those of its branch included
HEAD_UNITS = {"onset": 128, "cens": 256}  # hidden units of a time-averaged head, by its input
_CHORD_UNITS = 128  # features of a single frame of chroma


def build_network(network: NetworkParams | str, features: FeatureParams | None = None) -> keras.Model:
    """Builds the functional model.

    Args:
        network: which network, or the name of a preset, e.g. "multi384".
        features: gives the input shapes, by default those of the paper; ``paper`` and ``literal`` both lead to the
            paper's 16 x 16 maps where branches meet.

    Returns:
        A model from a dict of the inputs, each [batch, *features.input_shapes[name]] in any float type, to a dict of
        the subspaces, each [batch, subspace_width] float32 under the name of its dimension (and, where the parameters
        say so, "track" [batch, embedding_size] and "teacher" [batch, regression_size]).

    Raises:
        InputError: if there is no such preset, or the features do not fit the maps.
    """
    network = network_preset(network) if isinstance(network, str) else network
    features = features or FeatureParams()

    # Two-dimensional features [batch, rows, frames], under the names of their branches' inputs.
    inputs = {name: keras.Input(features.input_shapes[name], name=name, dtype="float32") for name in network.inputs}
    zscore = keras.layers.Normalization(
        axis=None, mean=network.mel_mean, variance=network.mel_variance, name="mel_zscore", dtype="float32"
    )
    maps = {"mel": zscore(inputs["mel"])}
    if "onset" in inputs:
        maps["onset"] = Tempogram(features.tempogram_lags, network.slow_stride, name="tempogram")(inputs["onset"])
        maps["cens"] = every_frame(inputs["cens"], network.slow_stride)

    # Each branch leads to [batch, 16, 16, channels]. There they are joined, and each of four more blocks halves both
    # axes, down to 1 x 1 (paper, Figure 1).
    strides = {name: 1 if name == "mel" else network.slow_stride for name in maps}
    branches = [_branch(x, name, network.width, strides[name]) for name, x in maps.items()]
    x = keras.layers.Concatenate(name="join")(branches) if len(branches) > 1 else branches[0]
    for number in range(_BRANCH_BLOCKS + 1, _BLOCKS + 1):
        x = _inception_block(x, f"block{number}", network.trunk_width or network.width)
    backbone = keras.layers.Flatten(name="backbone")(x)

    # [batch, embedding_size], layer-normalised as a whole before the masks (paper, section 3.2).
    embedding = layer_normalisation(EMBEDDING)(_projection(backbone, maps, network))

    # One output per dimension, and those that only a training needs.
    slices = layout(network)
    outputs = {name: SubspaceMask(slices.mask([name]), name=name)(embedding) for name in network.dimensions}
    if network.track_output:
        outputs[TRACK] = SubspaceMask(slices.mask(network.dimensions), name=TRACK)(embedding)
    for name in network.teacher_outputs:
        outputs[name + TEACHER_SUFFIX] = SubspaceMask(slices.mask([name]), name=name + TEACHER_SUFFIX)(embedding)
    if network.regression_size:
        tags = [name for name in network.dimensions if name in TAG_DIMENSION_NAMES]
        tag_subspaces = SubspaceMask(slices.mask(tags), name="tag_subspaces")(embedding)
        outputs[TEACHER] = keras.layers.Dense(network.regression_size, name=TEACHER, dtype="float32")(tag_subspaces)
    return keras.Model(inputs, outputs, name="msim")


def embedding_model(model: keras.Model) -> keras.Model:
    """The model from the same inputs to the whole embedding, [batch, embedding_size] float32; shares all weights."""
    return keras.Model(model.input, model.get_layer(EMBEDDING).output, name="msim_embedding")


def embedding_function(model: keras.Model) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """A function that embeds segments.

    Args:
        model: of ``build_network``.

    Returns:
        A function from a dict of segments in any float type, of which it reads the model's inputs, to their embeddings,
        [n, embedding_size] float32.
    """
    embed = tf.function(embedding_model(model), reduce_retracing=True)
    names = tuple(model.input)

    def embedded(segments: Mapping[str, np.ndarray]) -> np.ndarray:
        features = {name: tf.cast(segments[name], tf.float32) for name in names}
        vectors: np.ndarray = embed(features, training=False).numpy()
        return vectors

    return embedded


def head_model(model: keras.Model) -> keras.Model:
    """The time-averaged heads alone, sharing all weights with ``model``.

    Args:
        model: of ``build_network`` with time-averaged heads.

    Returns:
        A model from the heads' inputs to a dict by dimension, each [batch, subspace_width] float32.
    """
    # A head ends in a layer "NAME_norm"; dimensions that the backbone projects have none.
    layers = {layer.name for layer in model.layers}
    outputs = {name: model.get_layer(f"{name}_norm").output for name in model.output if f"{name}_norm" in layers}
    averaged = {dimension(name).averaged_input for name in outputs}
    inputs = {name: tensor for name, tensor in model.input.items() if name in averaged}
    return keras.Model(inputs, outputs, name="msim_heads")


def in_float32(model: keras.Model) -> keras.Model:
    """The same network with the same weights, computed in float32, so that one trained in 16 bits runs on every CPU.

    Args:
        model: of ``build_network``.

    Returns:
        ``model`` itself if it is computed in float32 already.
    """

    def cloned(layer: keras.layers.Layer) -> keras.layers.Layer:
        return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})

    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    # The policy is part of each layer, so the layers are made anew; the weights are float32 under both policies.
    clone = keras.models.clone_model(model, clone_function=cloned)
    clone.set_weights(model.get_weights())
    return clone


def filters(count: int, width: float) -> int:
    """``count`` scaled by ``width``: the nearest multiple of 4, at least 4."""
    return max(4, 4 * round(count * width / 4))


def every_frame(x: Any, stride: int) -> Any:
    """Every ``stride``-th frame: [batch, rows, frames] -> [batch, rows, ceil(frames / stride)]."""
    if stride == 1:
        return x
    # Pooling of size 1 only picks, by a layer that Keras 2 and Keras 3 save alike.
    return keras.layers.MaxPooling1D(1, strides=stride, data_format="channels_first", name="cens_every")(x)


def _branch(x: Any, name: str, width: float, stride: int) -> Any:
    """The stem and two blocks of one input.

    Args:
        x: [batch, rows, frames].
        name: of the input.
        width: scales the filter counts.
        stride: every so many-th frame was kept, so that much less pooling over time is needed.

    Returns:
        [batch, 16, 16, channels].
    """
    rows, frames = x.shape[1:]
    stem_frames = _STEM // stride
    x = keras.layers.Reshape((rows, frames, 1), name=f"{name}_channel")(x)

    # Stem: a 5x5 convolution, then pooling to [64, 64 / stride]. Twelve chroma are too few to be halved: they are
    # padded to the common 16 rows, and only time is pooled.
    halve_rows = name != "cens"
    row_pool = _pool_size(rows, _STEM, f"rows of {name}") if halve_rows else 1
    if not halve_rows:
        if rows > _JOIN:
            raise InputError(f"{rows} rows of {name}: the network takes at most {_JOIN}")
        below = (_JOIN - rows) // 2
        x = keras.layers.ZeroPadding2D(((below, _JOIN - rows - below), (0, 0)), name=f"{name}_pad")(x)
    frame_pool = _pool_size(frames, stem_frames, f"frames of {name}")
    x = _conv(x, filters(_STEM, width), 5, (1, 1), f"{name}_stem_5x5")
    x = keras.layers.MaxPooling2D((row_pool, frame_pool), name=f"{name}_stem_pool")(x)

    # Two blocks halve what is still longer than 16.
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
    """A "naive" module with strides, then a "dimension reduction" module of 256 (times ``width``) channels.

    [batch, rows, frames, channels] -> [batch, ceil(rows / strides[0]), ceil(frames / strides[1]), 256 * width].
    """
    # "Inception module, naive version", figure 2(a) of Szegedy et al.; all four parts have the strides.
    # A 1x1 convolution with strides is written as picking, then convolving: the backward pass of the former writes
    # beyond its buffer on CPUs when channels are fewer than a vector register holds (uxlfoundation/oneDNN, issue 6035),
    # and kills the process.
    picked = keras.layers.MaxPooling2D(1, strides=strides, name=f"{name}_naive_pick")(x)
    x = keras.layers.Concatenate(name=f"{name}_naive")(
        [
            _conv(picked, filters(64, width), 1, (1, 1), f"{name}_naive_1x1"),
            _conv(x, filters(128, width), 3, strides, f"{name}_naive_3x3"),
            _conv(x, filters(32, width), 5, strides, f"{name}_naive_5x5"),
            keras.layers.MaxPooling2D(3, strides=strides, padding="same", name=f"{name}_naive_pool")(x),
        ]
    )

    # "Inception module with dimension reduction", figure 2(b) of Szegedy et al.: 64 + 128 + 32 + 32 channels.
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
    """A square convolution with ReLU; ``count`` channels out, rows and frames divided by the strides."""
    return keras.layers.Conv2D(count, kernel, strides=strides, padding="same", activation="relu", name=name)(x)


def _projection(backbone: Any, maps: dict[str, Any], network: NetworkParams) -> Any:
    """The embedding before its layer normalisation.

    Args:
        backbone: [batch, features].
        maps: the two-dimensional features, each [batch, rows, frames], by input.
        network: which dimensions have heads of their own.

    Returns:
        [batch, embedding_size], the subspaces in the order of the layout.
    """
    if not network.heads:
        return keras.layers.Dense(network.embedding_size, name="projection")(backbone)

    # [batch, subspace_width * dimensions]: one dense layer projects all dimensions of the backbone together.
    names = network.backbone_dimensions
    projected = keras.layers.Dense(network.subspace_width * len(names), name="projection")(backbone)

    # Each part is normalised alone before all are together: else the part with the largest scale would decide the
    # common mean and variance, its mean would be added to every other subspace, and distances over the whole embedding
    # would be its.
    projected = layer_normalisation("projection_norm")(projected)

    # Parts in the order of the layout: runs of neighbouring dimensions that come from the same side.
    parts = []
    for from_backbone, run in itertools.groupby(network.dimensions, key=lambda name: name in names):
        neighbours = tuple(run)
        if not from_backbone:
            parts += [_time_averaged_head(maps[network.heads[name]], network, name) for name in neighbours]
        elif neighbours == names:
            parts.append(projected)
        else:
            # Dimensions with heads stand between these and the rest of the backbone's: pick their coordinates.
            mask = EmbeddingLayout(names, (network.subspace_width,) * len(names)).mask(neighbours)
            parts.append(SubspaceMask(mask, name=f"projection_{neighbours[0]}")(projected))
    return keras.layers.Concatenate(name="parts")(parts)


def _time_averaged_head(x: Any, network: NetworkParams, name: str) -> Any:
    """Projects one dimension from means over time.

    Args:
        x: [batch, rows, frames], the tempogram or the CENS.
        network: gives the input's name and the width.
        name: the dimension.

    Returns:
        [batch, subspace_width].
    """
    # [batch, rows]: what is averaged is standardised over its rows. All entries of an averaged CENS are positive and
    # alike, and the key is in their contrast.
    averaged = network.heads[name]
    mean = keras.layers.GlobalAveragePooling1D(data_format="channels_first", name=f"{name}_time_mean", dtype="float32")
    statistics = layer_normalisation(f"{name}_contrast")(mean(x))

    # [batch, rows + chord units] for the key: the same notes make several keys, their chords tell which.
    if averaged == "cens":
        statistics = keras.layers.Concatenate(name=f"{name}_statistics")([statistics, chord_statistics(x, name)])

    # -> [batch, subspace_width]: a perceptron with one hidden layer, its output on the scale of all other parts.
    hidden = keras.layers.Dense(HEAD_UNITS[averaged], activation="relu", name=f"{name}_hidden")(statistics)
    projected = keras.layers.Dense(network.subspace_width, name=f"{name}_projection")(hidden)
    return layer_normalisation(f"{name}_norm")(projected)


def chord_statistics(x: Any, name: str) -> Any:
    """[batch, rows, frames] -> [batch, units]: the mean over time of a perceptron's response to each frame."""
    # [batch, frames, rows]: each frame is standardised over its pitch classes.
    frames = keras.layers.Permute((2, 1), name=f"{name}_frames")(x)
    frames = layer_normalisation(f"{name}_frame_contrast")(frames)

    # [batch, frames, units] -> [batch, units]: a convolution of length 1 is the same layer for every frame. Its mean
    # says how often a chord sounds; a mean of notes cannot.
    responses = keras.layers.Conv1D(_CHORD_UNITS, 1, activation="relu", name=f"{name}_frame_hidden")(frames)
    mean = keras.layers.GlobalAveragePooling1D(name=f"{name}_frame_mean", dtype="float32")(responses)
    return layer_normalisation(f"{name}_frame_norm")(mean)


def layer_normalisation(name: str) -> keras.layers.Layer:
    """In float32, without affine parameters: a scale per coordinate would be a second, learned mask."""
    return keras.layers.LayerNormalization(center=False, scale=False, name=name, dtype="float32")
