"""The toy model's export, shared with the tests of the server."""

import pytest
from toy_model import WEIGHTS, export_toy


@pytest.fixture(scope="session")
def toy_version(tmp_path_factory):
    """A version directory with bias 0."""
    path = tmp_path_factory.mktemp("toy") / "1"
    export_toy(path)
    return path


@pytest.fixture(scope="session")
def toy_weights():
    """[3, 2] the toy model's weights."""
    return WEIGHTS
