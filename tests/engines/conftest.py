"""Jobs run in the process of the tests, which others share: what they would set for a worker stays out of it."""

import pytest

from msim_tf.engines import work


@pytest.fixture(autouse=True)
def threads_of_the_tests(monkeypatch):
    """A worker gives TensorFlow one thread for as long as the process lives, and sums in another order."""
    monkeypatch.setattr(work, "limit_threads", lambda threads: None)
