"""Embeddings of the four networks of musicnn (Pons and Serra, 2019), from the weights in the PyPI wheel ``musicnn``.

    pip install --no-deps --target musicnn_wheel musicnn
    python tools/musicnn_embeddings.py --weights musicnn_wheel/musicnn/MSD_musicnn --audio FOLDER --out musicnn.npz

Folders: MSD_musicnn, MSD_vgg (tags of Last.FM), MTT_musicnn, MTT_vgg (tags of MagnaTagATune).

Install the wheel without its dependencies: it pins an old NumPy and TensorFlow, its own code fails under Keras 3, and
under tf_keras it returns the same vector for every clip, silently. Here the network is computed from the checkpoint's
variables by plain TensorFlow operations; vectors that do not differ between clips are an error. The graphs that the
wheel stores beside the weights (``.meta``), run by a TensorFlow 1 session, give the same logits on the same patches:
see ``tests/tools/test_musicnn_networks.py``. The wheel carries the licence of its weights (ISC).

Writes the npz that ``msim evaluate`` reads: one vector per file, the mean over its whole, non-overlapping 3 s patches
of the penultimate layer (200; of vgg, which has no dense one, the last pooling, 256) or of the 50 tag activations.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msim_tf.audio.decode import load_clip
from msim_tf.audio.scan import scan_folder
from msim_tf.embeddings import save_embeddings
from msim_tf.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

SR, N_FFT, HOP, N_MELS, FRAMES = 16000, 512, 256, 96, 187
# Order of the output layers (musicnn/configuration.py, MSD_LABELS and MTT_LABELS), by the prefix of a network's name.
_MSD_TAGS = (
    "rock,pop,alternative,indie,electronic,female vocalists,dance,00s,alternative rock,jazz,beautiful,metal,"
    "chillout,male vocalists,classic rock,soul,indie rock,Mellow,electronica,80s,folk,90s,chill,instrumental,"
    "punk,oldies,blues,hard rock,ambient,acoustic,experimental,female vocalist,guitar,Hip-Hop,70s,party,country,"
    "easy listening,sexy,catchy,funk,electro,heavy metal,Progressive rock,60s,rnb,indie pop,sad,House,happy"
)
_MTT_TAGS = (
    "guitar,classical,slow,techno,strings,drums,electronic,rock,fast,piano,ambient,beat,violin,vocal,synth,female,"
    "indian,opera,male,singing,vocals,no vocals,harpsichord,loud,quiet,flute,woman,male vocal,no vocal,pop,soft,"
    "sitar,solo,man,classic,choir,voice,new age,dance,male voice,female vocal,beats,harp,cello,no voice,weird,"
    "country,metal,female voice,choral"
)
TAGS = {"MSD": tuple(_MSD_TAGS.split(",")), "MTT": tuple(_MTT_TAGS.split(","))}
# Size and stride of the pooling over (time, bands) after each convolution of a vgg network. Those of MSD_vgg are from
# the graph that is stored beside its weights: musicnn/models.py builds it with those of MTT_vgg, which lead to the same
# shapes and to other tags than it learned.
_VGG_POOLS = {
    "MSD": (((4, 1), (4, 1)), ((1, 4), (1, 4)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((4, 4), (4, 4))),
    "MTT": (((4, 1), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((4, 4), (4, 4))),
}
_EPSILON = 1e-3
_BATCH = 16

Forward = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Network:
    """One of the wheel's networks, ready to listen.

    Attributes:
        name: of its folder, "MSD_musicnn".
        tags: what its logits stand for.
        size: coordinates of its penultimate layer.
        forward: patches [n, 187, 96] float32 to ([n, size] penultimate, [n, tags] logits), float32.
    """

    name: str
    tags: tuple[str, ...]
    size: int
    forward: Forward


def load_network(folder: Path) -> Network:
    """The network whose checkpoint a folder of the wheel holds.

    Raises:
        InputError: if there is none, or the folder's name does not say which tags it was trained on.
    """
    name = folder.resolve().name
    prefix = name.partition("_")[0]
    tags = TAGS.get(prefix)
    if tags is None:
        raise InputError(f"{folder}: expected a folder named {' or '.join(f'{known}_...' for known in TAGS)}")
    weights = load_weights(folder)
    kernel = weights["dense/kernel" if _is_vgg(weights) else "dense_1/kernel"]
    if kernel.shape[1] != len(tags):
        raise InputError(f"{folder}: a network of {kernel.shape[1]} tags; {name} has {len(tags)}")
    return Network(name, tags, kernel.shape[0], compiled(weights, prefix))


def _is_vgg(weights: dict[str, np.ndarray]) -> bool:
    return "1CNN/kernel" in weights


def load_weights(folder: Path) -> dict[str, np.ndarray]:
    """The checkpoint's variables by name, without the optimizer's.

    The files are called ``.index`` and ``.data-...``, so the prefix is the folder with a trailing slash; the
    ``checkpoint`` file beside them names a folder of the authors and is of no use.
    """
    import tensorflow as tf

    if not (folder / ".index").is_file():
        raise InputError(
            f"{folder}: no checkpoint of musicnn (.index, .data-00000-of-00001); see the head of this script"
        )
    reader = tf.compat.v1.train.NewCheckpointReader(f"{folder}/")
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if "Adam" not in name}


def log_mel(y: np.ndarray) -> np.ndarray:
    """Log-mel frames of a waveform at 16 kHz, as musicnn computes them: [frames, 96] float32."""
    import librosa

    mel = librosa.feature.melspectrogram(y=y, sr=SR, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS).T
    # float16 first: the network was trained on what that leaves.
    return np.log10(10000 * mel.astype(np.float16).astype(np.float32) + 1).astype(np.float32)


def patches(y: np.ndarray) -> np.ndarray:
    """The whole, non-overlapping patches of a waveform at 16 kHz: [n, 187, 96] float32, none for sound under 3 s."""
    frames = log_mel(y)
    count = len(frames) // FRAMES
    return frames[: count * FRAMES].reshape(count, FRAMES, N_MELS)


def patch_starts(frames: int, count: int) -> np.ndarray:
    """First frames of at most ``count`` patches, evenly spread from the first frame to the
    last and not overlapping: [n] int.
    """
    count = min(count, frames // FRAMES)
    rest = frames - FRAMES
    return np.linspace(0, rest, count).astype(int) if count > 1 else np.full(count, rest // 2)


def patches_at(frames: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The patches that begin at ``starts``: [n, 187, 96] float32."""
    return frames[starts[:, None] + np.arange(FRAMES)]


def _layer(kind: str, number: int) -> str:
    """Name of a variable's layer: TensorFlow 1 counts from the second on."""
    return kind + (f"_{number}" if number else "")


def _normalised(weights: dict[str, np.ndarray], value: tf.Tensor, number: int) -> tf.Tensor:
    import tensorflow as tf

    name = _layer("batch_normalization", number)
    mean, variance, beta, gamma = (
        weights[f"{name}/{part}"] for part in ("moving_mean", "moving_variance", "beta", "gamma")
    )
    return tf.nn.batch_normalization(value, mean, variance, beta, gamma, _EPSILON)


def musicnn(weights: dict[str, np.ndarray], x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The forward pass of MSD_musicnn and MTT_musicnn.

    Args:
        weights: from ``load_weights``; layers are numbered in the order of ``musicnn.models.build_musicnn``.
        x: [n, 187, 96] float32.

    Returns:
        [n, 200] penultimate and [n, 50] tag logits, float32; their sigmoid is what musicnn calls the tags' activation.
    """
    import tensorflow as tf

    def normalised(value: tf.Tensor, number: int) -> tf.Tensor:
        return _normalised(weights, value, number)

    def convolution(value: tf.Tensor, number: int, padding: str = "VALID") -> tf.Tensor:
        return tf.nn.conv2d(value, weights[f"{_layer('conv2d', number)}/kernel"], 1, padding)

    def activated(value: tf.Tensor, number: int) -> tf.Tensor:
        return normalised(tf.nn.relu(value + weights[f"{_layer('conv2d', number)}/bias"]), number + 1)

    def highest(value: tf.Tensor, number: int) -> tf.Tensor:
        # The maximum over the bands, of each channel's lowest and highest value instead of
        # all: a normalisation may turn its sign.
        ends = (tf.reduce_max(value, axis=2), tf.reduce_min(value, axis=2))
        return tf.maximum(*(activated(end, number) for end in ends))

    def padded(value: tf.Tensor) -> tf.Tensor:
        return tf.pad(value, [[0, 0], [3, 3], [0, 0], [0, 0]])

    start = normalised(x[..., None], 0)
    front = [convolution(padded(start), number) for number in (0, 1)] + [
        convolution(start, number, "SAME") for number in (2, 3, 4)
    ]
    features = [tf.concat([highest(part, number) for number, part in enumerate(front)], axis=2)[..., None]]
    for number in (5, 6, 7):
        # [n, t, 1, c] -> [n, t, c, 1]: channels become the axis that the next kernel spans.
        layer = tf.transpose(activated(convolution(padded(features[-1]), number), number), [0, 1, 3, 2])
        features.append(layer if number == 5 else layer + features[-1])
    stacked = tf.concat(features, axis=2)
    pooled = tf.concat([tf.reduce_max(stacked, axis=1), tf.reduce_mean(stacked, axis=1)], axis=2)
    flat = normalised(tf.reshape(pooled, [-1, pooled.shape[1] * pooled.shape[2]]), 9)
    hidden, output = "dense", "dense_1"
    penultimate = normalised(tf.nn.relu(flat @ weights[f"{hidden}/kernel"] + weights[f"{hidden}/bias"]), 10)
    return penultimate, penultimate @ weights[f"{output}/kernel"] + weights[f"{output}/bias"]


def vgg(weights: dict[str, np.ndarray], x: tf.Tensor, tags: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The forward pass of MSD_vgg and MTT_vgg.

    Args:
        weights: from ``load_weights``.
        x: [n, 187, 96] float32; these networks take no other length.
        tags: "MSD" or "MTT"; the two pool differently.

    Returns:
        [n, 256] last pooling and [n, 50] tag logits, float32.
    """
    import tensorflow as tf

    value = _normalised(weights, x[..., None], 0)
    for number, (pool, stride) in enumerate(_VGG_POOLS[tags], start=1):
        value = tf.nn.conv2d(value, weights[f"{number}CNN/kernel"], 1, "SAME") + weights[f"{number}CNN/bias"]
        value = tf.nn.max_pool2d(_normalised(weights, tf.nn.relu(value), number), pool, stride, "VALID")
    # [n, 2, 1, 128] -> [n, 256]
    flat = tf.reshape(value, [-1, np.prod(value.shape[1:])])
    return flat, flat @ weights["dense/kernel"] + weights["dense/bias"]


def compiled(weights: dict[str, np.ndarray], tags: str = "MSD") -> Forward:
    """A network as one graph, arrays to arrays: twice as fast as operation by operation."""
    import tensorflow as tf

    graph = tf.function(
        lambda x: vgg(weights, x, tags) if _is_vgg(weights) else musicnn(weights, x),
        input_signature=[tf.TensorSpec([None, FRAMES, N_MELS], tf.float32)],
    )

    def forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        penultimate, logits = graph(x)
        return penultimate.numpy(), logits.numpy()

    return forward


def track_vectors(forward: Forward, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over a track's patches: [size] penultimate and [tags] activations in [0, 1]."""
    outputs = [forward(x[start : start + _BATCH]) for start in range(0, len(x), _BATCH)]
    penultimate, logits = (np.concatenate(parts) for parts in zip(*outputs))
    return penultimate.mean(axis=0), (1 / (1 + np.exp(-logits))).mean(axis=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--weights", type=Path, required=True, help="a network's folder of the unpacked wheel, MSD_musicnn"
    )
    parser.add_argument("--audio", type=Path, required=True, help="folder of sound, or one file")
    parser.add_argument("--out", type=Path, required=True, help="the npz to write")
    parser.add_argument("--output", choices=("penultimate", "tags"), default="penultimate")
    arguments = parser.parse_args()
    network = load_network(arguments.weights)
    scan = scan_folder(arguments.audio)
    penultimate_wanted = arguments.output == "penultimate"
    kept, vectors = [], []
    for identifier in scan.files:
        try:
            x = patches(load_clip(scan.root / identifier, sr=SR))
        except InputError as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        if not len(x):
            print(f"skipped: {identifier} is shorter than 3 s", file=sys.stderr)
            continue
        penultimate, tags = track_vectors(network.forward, x)
        best = ", ".join(f"{network.tags[tag]} {tags[tag]:.2f}" for tag in np.argsort(-tags)[:3])
        print(f"{identifier}: {best}")
        kept.append(identifier)
        vectors.append(penultimate if penultimate_wanted else tags)
    if not kept:
        raise InputError(f"{arguments.audio}: no file of 3 s or more")
    if len(kept) > 1 and np.ptp(vectors, axis=0).max() < 1e-6:
        raise InputError("all vectors are the same: the network does not listen, nothing was written")
    save_embeddings(
        arguments.out,
        identifiers=kept,
        embeddings=np.stack(vectors),
        meta={"name": network.name + ("" if penultimate_wanted else " tags"), "model": network.name},
    )
    print(f"{arguments.out}: {len(kept)} tracks, {len(scan.files) - len(kept)} skipped")
    return 0 if len(kept) == len(scan.files) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
