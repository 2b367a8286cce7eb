"""A server for the toy model."""

import pytest
from toy_model import publish

from msim_tf.serving.server import ServerOptions, running_server


@pytest.fixture(scope="session")
def toy_server(toy_version, tmp_path_factory):
    """Addresses of a server that serves the toy model as "m" (label "stable") and as "other"."""
    base = tmp_path_factory.mktemp("served")
    publish(toy_version, base, "0002")
    labels = {"m": {"stable": 2, "old": 1}}
    options = ServerOptions(grpc_port=0, rest_port=0, max_request_bytes=4_000_000, timeout=2.0, labels=labels)
    with running_server({"m": base, "other": base}, options) as addresses:
        yield addresses
