"""Warmup requests of an export: ``assets.extra/tf_serving_warmup_requests``, a TFRecord of
``tensorflow.serving.PredictionLog``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.export.protocol import tensor_array
from msim_tf.export.status import ServingError

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")

# TensorFlow Serving refuses to load a model with more.
MAX_WARMUP_RECORDS = 1000


def warmup_requests(version_path: Path) -> Iterator[tuple[str, dict[str, np.ndarray], list[str]]]:
    """Signature name, inputs and output filter of each warmup request; nothing if the version has no such file.

    Raises:
        ServingError: if the file is not a TFRecord, a record is no predict request, or there are more than 1,000.
    """
    file = version_path / WARMUP_FILE
    if not file.exists():
        return
    for number, record in enumerate(_records(file)):
        if number == MAX_WARMUP_RECORDS:
            raise ServingError("INVALID_ARGUMENT", f"{file}: number of warmup records exceeds {MAX_WARMUP_RECORDS}")
        yield _predict_request(record, f"{file}, record {number}")


def _records(file: Path) -> Iterator[bytes]:
    """The records of a TFRecord file one by one; the reader checks the checksum of each."""
    import tensorflow as tf

    try:
        yield from tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    except tf.errors.DataLossError as error:
        raise ServingError(
            "DATA_LOSS", f"{file}: not a whole TFRecord file ({error.message.splitlines()[0]})"
        ) from error


def _predict_request(record: bytes, where: str) -> tuple[str, dict[str, np.ndarray], list[str]]:
    """Signature name, inputs and output filter of one record; ``where`` stands in its errors."""
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    log: Any = prediction_log_pb2.PredictionLog()
    try:
        log.ParseFromString(record)
    except DecodeError as error:
        raise ServingError("INVALID_ARGUMENT", f"{where}: not a PredictionLog") from error

    # A log also has classify, regress and other requests, none of which these models answer.
    kind = log.WhichOneof("log_type")
    if kind != "predict_log":
        raise ServingError("UNIMPLEMENTED", f"{where}: unsupported log_type for warmup: {kind}")
    request = log.predict_log.request
    try:
        inputs = {name: tensor_array(proto) for name, proto in request.inputs.items()}
    except ValueError as error:
        raise ServingError("INVALID_ARGUMENT", f"{where}: tensor parsing error: {error}") from error
    return request.model_spec.signature_name, inputs, list(request.output_filter)
