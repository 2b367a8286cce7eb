"""A toy model with every kind of signature the protocol tables need."""

import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from msim_tf.serving.server import ServerOptions

WEIGHTS = np.array([[1.0, 0.5], [-2.0, 0.25], [0.125, 3.0]], np.float32)
ANY_PORTS = ServerOptions(grpc_port=0, rest_port=0, poll_seconds=0.05, retry_seconds=0.05, max_load_retries=1)


def export_toy(path, bias=0.0):
    """Writes a SavedModel whose serving_default is y = x @ WEIGHTS + bias."""
    module = tf.Module()
    module.weights = tf.Variable(WEIGHTS)
    module.bias = tf.Variable(np.float32(bias))
    archive = keras.export.ExportArchive()
    archive.track(module)
    f32, i32, text, flag = tf.float32, tf.int32, tf.string, tf.bool

    def add(name, function, **inputs):
        signature = [tf.TensorSpec(shape, dtype, name=key) for key, (shape, dtype) in inputs.items()]
        archive.add_endpoint(name, fn=function, input_signature=signature)

    add("serving_default", lambda x: {"y": x @ module.weights + module.bias}, x=([None, 3], f32))
    add(
        "mixed",
        lambda a, n, s, b: {
            "product": a * tf.cast(n[:, None], f32),
            "n": n + 1,
            "s": s,
            "s_bytes": s,
            "not_b": tf.logical_not(b),
        },
        a=([None, 2], f32),
        n=([None], i32),
        s=([None], text),
        b=([None], flag),
    )
    add("two", lambda a, b: {"sum": a + b}, a=([None], f32), b=([None], f32))
    add("wav", lambda contents: {"audio": tf.audio.decode_wav(contents).audio}, contents=(None, text))
    add("same", lambda x: {"y": tf.identity(x)}, x=(None, f32))
    add("doubles", lambda x: {"y": x / 3.0}, x=([None], tf.float64))
    add("longs", lambda x: {"y": x + 1}, x=([None], tf.int64))
    add("halves", lambda x: {"y": x + 1}, x=([None], tf.float16))
    add("uneven", lambda x: {"all": tf.identity(x), "first": x[:1]}, x=([None], f32))
    add("total", lambda x: {"all": tf.identity(x), "sum": tf.reduce_sum(x)}, x=([None], f32))
    add(
        "endless",
        lambda x: {"y": tf.while_loop(lambda i: i >= 0.0, lambda i: [tf.abs(i) + 1.0], [x])[0]},
        x=([], f32),
    )
    archive.write_out(str(path))


def publish(version_path: Path, base_path: Path, version: str):
    """Copies an export to ``base_path/version`` the safe way: whole at once."""
    temporary = base_path / f".tmp-{version}"
    shutil.copytree(version_path, temporary)
    return temporary.rename(base_path / version)
