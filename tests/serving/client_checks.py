"""Checks that hold for both clients against any server of any model: the embedded one here,
the real one when its address is given.
"""

import numpy as np
import pytest

from msim_tf.export.status import ServingError


def sample(info, rng):
    """An array that fits an input: 2 where its size is free, one value where its rank is."""
    shape = tuple(2 if size is None else size for size in info.shape or ())
    if info.dtype == "object":
        return np.full(shape, b"text", object)
    if info.dtype.startswith("float"):
        return rng.normal(size=shape).astype(info.dtype)
    return np.ones(shape, info.dtype)


def has_known_shapes(signature):
    """Whether inputs can be made up: only the batch axis is free (a signature for audio of any length is left out)."""
    shapes = [info.shape for info in signature.inputs.values()]
    return bool(shapes) and all(shape is not None and None not in shape[1:] for shape in shapes)


def check_clients_agree(grpc_client, rest_client, model, signatures, rng):
    """Status, metadata, and the numbers of each signature are the same through both clients."""
    for client in (grpc_client, rest_client):
        client.wait_until_ready(model, timeout=60)
    assert grpc_client.status(model) == rest_client.status(model)
    metadata = grpc_client.metadata(model)
    assert rest_client.metadata(model) == metadata
    for name in signatures or [name for name, signature in metadata.signatures.items() if has_known_shapes(signature)]:
        signature = metadata.signatures[name]
        inputs = {key: sample(info, rng) for key, info in signature.inputs.items()}
        by_grpc = grpc_client.predict(model, inputs, signature=name)
        by_rest = rest_client.predict(model, inputs, signature=name)
        assert set(by_grpc) == set(by_rest) == set(signature.outputs)
        for key, array in by_grpc.items():
            assert array.dtype == by_rest[key].dtype == np.dtype(signature.outputs[key].dtype)
            np.testing.assert_array_equal(by_rest[key], array, err_msg=f"{name}.{key}")


def check_errors_are_told(client, model):
    """An unknown model, version and signature, and a missing input."""
    version = client.metadata(model).version
    for code, arguments, options in [
        ("NOT_FOUND", ("no-such-model", {}), {}),
        ("NOT_FOUND", (model, {}), {"version": version + 1000}),
        (
            "FAILED_PRECONDITION|INVALID_ARGUMENT",
            (model, {"x": np.zeros(1, np.float32)}),
            {"signature": "no-such-signature"},
        ),
        ("INVALID_ARGUMENT", (model, {"no-such-input": np.zeros(1, np.float32)}), {}),
    ]:
        with pytest.raises(ServingError, match=f"^({code}): "):
            client.predict(*arguments, **options)
    with pytest.raises(ServingError, match="NOT_FOUND: Could not find any versions of model no-such-model"):
        client.status("no-such-model")
