"""Export: a trained model becomes one SavedModel that stock TensorFlow Serving calls by signature.

=================  =======================================  ==============================================
signature          arguments                                results
=================  =======================================  ==============================================
serving_default    mel, onset, cens of segments             embedding [batch, size]
genre, mood, ...   the same                                 that subspace, under its name [batch, width]
all                the same                                 every subspace, under its name
describe           the same as genre                        embedding, and what the model hears in words, bpm and
                                                            key (``model.description_heads``)
audio              audio [batch, samples] at the model's    embedding and every subspace of whole tracks,
                   sample rate                              the mean over their segments (paper, section 4.1), and
                                                            their description
=================  =======================================  ==============================================

A model whose training made no heads has no ``describe``. One without tempogram and chroma takes ``mel`` only. Written
by ``keras.export.ExportArchive``: ``tf.saved_model.save`` of a Keras 3 model loads in Python and fails in the real
server. Before it is published the export is loaded the way the server loads it, and every signature is compared with
the model in memory. ``assets.extra`` holds ``msim.json`` (what this model is) and the server's warm-up requests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import msim_tf
from msim_tf.checksums import save_checked_json
from msim_tf.errors import InputError
from msim_tf.export.metadata import FORMAT, FORMAT_VERSION, METADATA_FILE, checksums_of_files, next_version
from msim_tf.export.servable import Servable
from msim_tf.features.extractor import clip_features
from msim_tf.features.segments import segments
from msim_tf.features.spectral import frame_features, halo
from msim_tf.files import atomic_directory
from msim_tf.model.description_heads import DescriptionHeads, described, load_heads, segment_logits
from msim_tf.model.network import embedding_model
from msim_tf.model.params import NetworkParams, layout
from msim_tf.model.run import Run, load_model
from msim_tf.params import LOUDEST, FeatureParams

_CHUNK = 32  # segments embedded at a time: bounds the memory of the audio signature for long tracks
# The server's kernels may sum in another order. Embeddings are layer-normalised, so their scale is 1; what is larger is
# compared relatively.
_TOLERANCE = 1e-4


def export_run(run: Run, features: FeatureParams, base: str | Path) -> Path:
    """Exports the best model of a finished training as the next version below ``base``.

    Args:
        run: the training.
        features: how its features were made.
        base: ``saved_models/NAME``.

    Returns:
        The new version directory.

    Raises:
        InputError: if the run is unfinished or of other features.
    """
    # Only a finished run on these features; loading compares its model and heads with their checksums.
    if not run.summary:
        raise InputError(f"{run.path}: this training is unfinished; run the same msim train command again, it resumes")
    if run.digest != features.digest:
        raise InputError(f"{run.path} was trained on features {run.digest}, not {features.digest}")
    model = load_model(run)
    training = {
        "params": run.params.to_json(),
        "summary": run.summary,
        "tracks": {split: len(tracks) for split, tracks in run.identifiers.items()},
    }
    heads = load_heads(run.path)

    # The parameters of the command have the preset's statistics of the mel-spectrogram, the model those of its split.
    zscore = model.get_layer("mel_zscore")
    mean, variance = (float(np.ravel(value)[0]) for value in (zscore.mean, zscore.variance))
    network = dataclasses.replace(run.params.network, mel_mean=mean, mel_variance=variance)
    return export_model(model, network, features, base, training=training, heads=heads)


def export_model(
    model: keras.Model,
    network: NetworkParams,
    features: FeatureParams,
    base: str | Path,
    *,
    training: Mapping[str, Any],
    heads: DescriptionHeads | None = None,
) -> Path:
    """Writes, verifies and publishes ``base/<next version>``.

    Args:
        model: a model of ``build_network``.
        network: its parameters.
        features: the parameters of its features.
        base: ``saved_models/NAME``.
        training: what to say of the training in ``msim.json``.
        heads: what describes music beside it, if anything does.

    Returns:
        The new version directory.
    """
    base = Path(base)
    version = next_version(base)
    endpoints = _endpoints(model, network, features, heads)
    with atomic_directory(base / str(version)) as directory:
        # The SavedModel itself, without Keras' printed summary of every endpoint.
        archive = keras.export.ExportArchive()
        for name, (function, specs) in endpoints.items():
            archive.add_endpoint(name, function, input_signature=specs)
        with contextlib.redirect_stdout(io.StringIO()):
            archive.write_out(str(directory))

        # What stands beside it: requests to warm up with, and what the model says of itself.
        (directory / "assets.extra").mkdir(exist_ok=True)
        examples = _examples(network, features)
        _write_warmup(directory, base.name, endpoints, examples)
        metadata: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": base.name,
            "digest": features.digest,
            "feature_params": features.to_json(),
            **layout(network).to_json(),
            "inputs": list(network.inputs),
            "network": network.to_json(),
            "training": dict(training),
            "versions": {"msim_tf": msim_tf.__version__, "tensorflow": tf.__version__, "keras": keras.__version__},
            "exported": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }
        if heads is not None:
            metadata["description"] = heads.to_json()

        # The checksums of all other files, which are whole by now. The version is published when the block ends, so one
        # that does not compute what the model does is never seen.
        save_checked_json(directory / METADATA_FILE, {**metadata, "files": checksums_of_files(directory)})
        _verify(directory, model, endpoints, examples)
    return base / str(version)


Endpoint = tuple[Callable[..., dict[str, tf.Tensor]], list[tf.TensorSpec]]


def _endpoints(
    model: keras.Model, network: NetworkParams, features: FeatureParams, heads: DescriptionHeads | None
) -> dict[str, Endpoint]:
    """Functions and argument specs by signature name."""
    embed = embedding_model(model)
    slices = layout(network).slices
    specs = [tf.TensorSpec([None, *features.input_shapes[name]], tf.float32, name=name) for name in network.inputs]

    # One graph function that all signatures call: without it the file would hold the whole network once for each of
    # them.
    @tf.function(input_signature=specs)
    def embedding(*values: tf.Tensor) -> tf.Tensor:
        return embed(dict(zip(network.inputs, values)), training=False)

    # From segments, [batch, *shape] each: the whole embedding, every subspace, or a single one.
    def full(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": embedding(*values)}

    def every(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        return _subspaces(embedding(*values), slices)

    def single(name: str) -> Callable[..., dict[str, tf.Tensor]]:
        return lambda *values: {name: embedding(*values)[:, slices[name]]}

    def logits_of(values: Sequence[tf.Tensor], vectors: tf.Tensor) -> dict[str, tf.Tensor]:
        return segment_logits(heads, network, dict(zip(network.inputs, values)), vectors) if heads else {}

    # The embedding of segments and the logits of their description, side by side: [batch, size + classes].
    @tf.function(input_signature=specs)
    def embedding_and_logits(*values: tf.Tensor) -> tf.Tensor:
        vectors = embedding(*values)
        return tf.concat([vectors, *logits_of(values, vectors).values()], axis=1)

    def describe(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        vectors = embedding(*values)
        return {"embedding": vectors, **described(logits_of(values, vectors))}

    widths = {name: len(own) for name, own in heads.classes.items()} if heads else {}

    def audio(audio: tf.Tensor) -> dict[str, tf.Tensor]:
        # [batch, size + classes] means over the segments of each track, split into embedding and logits again.
        size = layout(network).size
        parts = tf.split(
            _hear_waveform(audio, embedding_and_logits, network, features, size + sum(widths.values())),
            [size, *widths.values()],
            axis=1,
        )
        description = described(dict(zip(widths, parts[1:])))
        return {"embedding": parts[0], **_subspaces(parts[0], slices), **description}

    return {
        "serving_default": (full, specs),
        **{name: (single(name), specs) for name in network.dimensions},
        "all": (every, specs),
        **({"describe": (describe, specs)} if heads else {}),
        "audio": (audio, [tf.TensorSpec([None, None], tf.float32, name="audio")]),
    }


def _subspaces(embedding: tf.Tensor, slices: Mapping[str, slice]) -> dict[str, tf.Tensor]:
    return {name: embedding[:, part] for name, part in slices.items()}


def _hear_waveform(
    y: tf.Tensor, hear: Callable[..., tf.Tensor], network: NetworkParams, features: FeatureParams, size: int
) -> tf.Tensor:
    """[batch, samples] -> [batch, size]: features of the whole waveforms, cut into segments, heard, averaged.

    Args:
        y: the waveforms.
        hear: the network's inputs of n segments -> [n, size].
        network: which inputs.
        features: how to make them.
        size: of what is averaged.
    """
    # A server takes whatever is sent: refuse what would give no segment, or embeddings that are not finite.
    margin, hop = halo(features), features.hop_length
    frames = 1 + tf.shape(y)[1] // hop
    too_short = f"audio is shorter than one segment of {features.segment_samples} samples"
    no_sound = "audio holds samples that are not finite, or far beyond full scale"
    checks = [
        tf.debugging.assert_greater_equal(frames, features.segment_frames, too_short),
        tf.debugging.assert_less_equal(tf.abs(y), LOUDEST, no_sound),  # NaN is not less
    ]

    # [batch, (frames - 1) * hop + 2 * margin]: silence around the clip, and whole frames only, as in extraction.
    with tf.control_dependencies(checks):
        padded = tf.pad(y, [[0, 0], [margin, margin]])[:, : (frames - 1) * hop + 2 * margin]

    # Features of whole clips, then the segments of all clips in one batch: [batch * count, *shape].
    mel, mel_db, chroma = frame_features(padded, features)
    onset, cens = clip_features(mel_db, chroma, features)
    cut = segments({"mel": mel, "onset": onset, "cens": cens}, features)
    count = tf.shape(cut["mel"])[1]
    flat = {name: tf.reshape(cut[name], [-1, *features.input_shapes[name]]) for name in network.inputs}

    # [batch * count, size] -> [batch, count, size] -> [batch, size]: a track is the mean of its segments (paper, 4.1).
    return tf.reduce_mean(tf.reshape(_in_chunks(flat, hear, size), [-1, count, size]), 1)


def _in_chunks(inputs: dict[str, tf.Tensor], hear: Callable[..., tf.Tensor], size: int) -> tf.Tensor:
    """Hears [n, ...] inputs a chunk at a time, so that an hour of audio needs no more memory than a minute."""
    # Short clips make one chunk of their own length, so that nothing is computed for padding.
    count = tf.shape(next(iter(inputs.values())))[0]
    chunk = tf.minimum(count, _CHUNK)
    chunks = -(-count // chunk)

    def chunked(value: tf.Tensor) -> tf.Tensor:
        # [n, ...] -> [chunks, chunk, ...], the last one filled up with zeros.
        rest = chunks * chunk - count
        padded = tf.pad(value, [[0, rest]] + [[0, 0]] * (value.shape.rank - 1))
        return tf.reshape(padded, tf.concat([[chunks, chunk], tf.shape(value)[1:]], 0))

    def hear_chunk(part: dict[str, tf.Tensor]) -> tf.Tensor:
        # Slices of map_fn have lost the static shape, which the network's layers need.
        for name, value in part.items():
            value.set_shape([None, *inputs[name].shape[1:]])
        return hear(*part.values())

    # [chunks, chunk, size] -> [n, size]: one chunk after the other, without what filled the last one.
    spec = tf.TensorSpec([None, size], tf.float32)
    stacked = {name: chunked(value) for name, value in inputs.items()}
    chunk_outputs = tf.map_fn(hear_chunk, stacked, fn_output_signature=spec, parallel_iterations=1)
    return tf.reshape(chunk_outputs, [-1, size])[:count]


def _examples(network: NetworkParams, features: FeatureParams) -> dict[str, np.ndarray]:
    """Arguments for every signature: plausible noise, always the same."""
    # One segment for the signatures of segments, one waveform of two segments for ``audio``.
    rng = np.random.default_rng(0)
    shapes = {name: (1, *features.input_shapes[name]) for name in network.inputs}
    examples = {name: rng.uniform(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    examples["audio"] = rng.normal(0, 0.1, (1, 2 * features.segment_samples)).astype(np.float32)
    return examples


def _write_warmup(
    directory: Path, name: str, endpoints: Mapping[str, Endpoint], examples: Mapping[str, np.ndarray]
) -> None:
    """One request per signature, which the server runs before it says that the model is available."""
    from tensorflow_serving.apis import prediction_log_pb2

    # A TFRecord of PredictionLogs, each with the arguments of one signature.
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, (_, specs) in endpoints.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            for spec in specs:
                request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(examples[spec.name]))
            writer.write(log.SerializeToString())


def _verify(
    directory: Path, model: keras.Model, endpoints: Mapping[str, Endpoint], examples: Mapping[str, np.ndarray]
) -> None:
    """Runs every signature through the server's loader (and the warm-up with it) against the model in memory."""
    # Loaded as the server loads it: what ``tf.saved_model.load`` accepts may fail there.
    servable = Servable.load(directory)
    try:
        for signature, (function, specs) in endpoints.items():
            feeds = {spec.name: examples[spec.name] for spec in specs}
            expected = function(*(tf.constant(value) for value in feeds.values()))
            outputs = servable.run(signature, feeds)
            for name, value in expected.items():
                # Relative to what is above 1, such as beats per minute.
                scale = np.maximum(1, np.abs(value))
                worst = float((np.abs(outputs[name] - np.asarray(value)) / scale).max())
                if not worst <= _TOLERANCE:  # NaN is not less
                    raise RuntimeError(
                        f"exported signature {signature!r} differs from the model by {worst} in {name!r}"
                    )
    finally:
        servable.close()
