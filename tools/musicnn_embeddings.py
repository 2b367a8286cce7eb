"""Embeddings of MSD_musicnn (Pons and Serra, 2019) for comparison, from the weights inside the PyPI wheel ``musicnn``.

    pip install --no-deps --target musicnn_wheel musicnn
    python tools/musicnn_embeddings.py --weights musicnn_wheel/musicnn/MSD_musicnn --audio FOLDER --out musicnn.npz

Install the wheel without its dependencies: it pins an old NumPy and TensorFlow, its own code fails under Keras 3, and
under tf_keras it returns the same vector for every clip, silently. Here the network is computed from the checkpoint's
variables by plain TensorFlow operations; vectors that do not differ between clips are an error. Beside the wheel's own
extractor under TensorFlow 2.15 the tags of all patches agree to 1e-6; of the penultimate layer only the first patch can
be compared, because that extractor repeats it for all others. The wheel carries the licence of its weights (ISC).

Writes the npz that ``msim evaluate`` reads: one vector per file, the mean over its whole, non-overlapping 3 s patches
of the penultimate layer (200) or of the 50 tag activations.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
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
# Order of the output layer (musicnn/configuration.py, MSD_LABELS).
_TAG_LIST = (
    "rock,pop,alternative,indie,electronic,female vocalists,dance,00s,alternative rock,jazz,beautiful,metal,"
    "chillout,male vocalists,classic rock,soul,indie rock,Mellow,electronica,80s,folk,90s,chill,instrumental,"
    "punk,oldies,blues,hard rock,ambient,acoustic,experimental,female vocalist,guitar,Hip-Hop,70s,party,country,"
    "easy listening,sexy,catchy,funk,electro,heavy metal,Progressive rock,60s,rnb,indie pop,sad,House,happy"
)
TAGS = tuple(_TAG_LIST.split(","))
_EPSILON = 1e-3
_BATCH = 16

Forward = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def load_weights(folder: Path) -> dict[str, np.ndarray]:
    """The checkpoint's variables by name, without the optimizer's.

    The files are called ``.index`` and ``.data-...``, so the prefix is the folder with a trailing slash; the
    ``checkpoint`` file beside them names a folder of the authors and is of no use.
    """
    import tensorflow as tf

    if not (folder / ".index").is_file():
        raise InputError(
            f"{folder}: no checkpoint of MSD_musicnn (.index, .data-00000-of-00001); see the head of this script"
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


def network(weights: dict[str, np.ndarray], x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The forward pass.

    Args:
        weights: from ``load_weights``; layers are numbered in the order of ``musicnn.models.build_musicnn``.
        x: [n, 187, 96] float32.

    Returns:
        [n, 200] penultimate and [n, 50] tag logits, float32; their sigmoid is what musicnn calls the tags' activation.
    """
    import tensorflow as tf

    def named(kind: str, number: int) -> str:
        return kind + (f"_{number}" if number else "")

    def normalised(value: tf.Tensor, number: int) -> tf.Tensor:
        name = named("batch_normalization", number)
        mean, variance, beta, gamma = (
            weights[f"{name}/{part}"] for part in ("moving_mean", "moving_variance", "beta", "gamma")
        )
        return tf.nn.batch_normalization(value, mean, variance, beta, gamma, _EPSILON)

    def convolution(value: tf.Tensor, number: int, padding: str = "VALID") -> tf.Tensor:
        return tf.nn.conv2d(value, weights[f"{named('conv2d', number)}/kernel"], 1, padding)

    def activated(value: tf.Tensor, number: int) -> tf.Tensor:
        return normalised(tf.nn.relu(value + weights[f"{named('conv2d', number)}/bias"]), number + 1)

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
    hidden, output = named("dense", 0), named("dense", 1)
    penultimate = normalised(tf.nn.relu(flat @ weights[f"{hidden}/kernel"] + weights[f"{hidden}/bias"]), 10)
    return penultimate, penultimate @ weights[f"{output}/kernel"] + weights[f"{output}/bias"]


def compiled(weights: dict[str, np.ndarray]) -> Forward:
    """``network`` as one graph, arrays to arrays: twice as fast as operation by operation."""
    import tensorflow as tf

    graph = tf.function(
        lambda x: network(weights, x), input_signature=[tf.TensorSpec([None, FRAMES, N_MELS], tf.float32)]
    )

    def forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        penultimate, logits = graph(x)
        return penultimate.numpy(), logits.numpy()

    return forward


def track_vectors(forward: Forward, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over a track's patches: [200] penultimate and [50] tag activations in [0, 1]."""
    outputs = [forward(x[start : start + _BATCH]) for start in range(0, len(x), _BATCH)]
    penultimate, logits = (np.concatenate(parts) for parts in zip(*outputs))
    return penultimate.mean(axis=0), (1 / (1 + np.exp(-logits))).mean(axis=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder MSD_musicnn of the unpacked wheel")
    parser.add_argument("--audio", type=Path, required=True, help="folder of sound, or one file")
    parser.add_argument("--out", type=Path, required=True, help="the npz to write")
    parser.add_argument("--output", choices=("penultimate", "tags"), default="penultimate")
    arguments = parser.parse_args()
    forward = compiled(load_weights(arguments.weights))
    scan = scan_folder(arguments.audio)
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
        penultimate, tags = track_vectors(forward, x)
        best = ", ".join(f"{TAGS[tag]} {tags[tag]:.2f}" for tag in np.argsort(-tags)[:3])
        print(f"{identifier}: {best}")
        kept.append(identifier)
        vectors.append(penultimate if arguments.output == "penultimate" else tags)
    if not kept:
        raise InputError(f"{arguments.audio}: no file of 3 s or more")
    if len(kept) > 1 and np.ptp(vectors, axis=0).max() < 1e-6:
        raise InputError("all vectors are the same: the network does not listen, nothing was written")
    save_embeddings(
        arguments.out,
        identifiers=kept,
        embeddings=np.stack(vectors),
        meta={"name": "musicnn" if arguments.output == "penultimate" else "musicnn tags", "model": "MSD_musicnn"},
    )
    print(f"{arguments.out}: {len(kept)} tracks, {len(scan.files) - len(kept)} skipped")
    return 0 if len(kept) == len(scan.files) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
