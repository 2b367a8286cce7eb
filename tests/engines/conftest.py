"""What a job leaves in its process does not reach the tests after it."""

import os

import pytest


@pytest.fixture(autouse=True)
def same_environment():
    """A worker gives TensorFlow one thread by variables, which later processes of the tests would inherit."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
