"""Exports of the toy model, and a server for it."""

import pytest
from toy_model import WEIGHTS, export_toy, publish

from msim_tf.serving.server import ServerOptions, running_server


@pytest.fixture(scope="session")
def toy_version(tmp_path_factory):
    """A version directory with bias 0."""
    path = tmp_path_factory.mktemp("toy") / "1"
    export_toy(path)
    return path


@pytest.fixture(scope="session")
def biased_version(tmp_path_factory):
    """The same model with bias 100."""
    path = tmp_path_factory.mktemp("biased") / "2"
    export_toy(path, 100.0)
    return path


@pytest.fixture(scope="session")
def toy_server(toy_version, tmp_path_factory):
    """Addresses of a server that serves the toy model as "m" (label "stable") and as "other"."""
    base = tmp_path_factory.mktemp("served")
    publish(toy_version, base, "0002")
    labels = {"m": {"stable": 2, "old": 1}}
    options = ServerOptions(grpc_port=0, rest_port=0, max_request_bytes=4_000_000, timeout=2.0, labels=labels)
    with running_server({"m": base, "other": base}, options) as addresses:
        yield addresses


@pytest.fixture(scope="session")
def toy_weights():
    """[3, 2] the toy model's weights."""
    return WEIGHTS
