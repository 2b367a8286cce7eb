"""Requests that are joined: their answers are those of requests alone, and there are fewer runs.

``Counting`` stands for the model, so that the order of events is certain: it tells each run and can be held up.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from msim_tf.errors import InputError
from msim_tf.export.signatures import Signature, TensorInfo
from msim_tf.export.status import ServingError
from msim_tf.serving.batching import BatchingOptions, BatchingServable


class Counting:
    """A model that doubles, notes the shape of every run, and waits for ``go``; 13 is its unlucky number."""

    def __init__(self):
        free = TensorInfo(1, (None, None), "x:0")
        self.signatures = {"double": Signature({"x": free}, {"y": free}), "other": Signature({"x": free}, {"y": free})}
        self.signature_defs = {}
        self.path = "a path"
        self.shapes, self.closed, self.go, self.entered = [], False, threading.Event(), threading.Event()
        self.go.set()

    def signature(self, name):
        return self.signatures[name]

    def run(self, signature, feeds, output_filter=(), *, timeout=None):
        self.shapes.append(feeds["x"].shape)
        self.entered.set()
        assert self.go.wait(30) and not self.closed
        if 13 in feeds["x"]:
            raise ServingError("INVALID_ARGUMENT", "an unlucky number")
        return {"y": 2 * feeds["x"]}

    def close(self):
        self.closed = True


class Joined:
    """A batching servable over ``Counting`` with requests from threads."""

    def __init__(self, **options):
        self.model = Counting()
        self.batching = BatchingServable(self.model, BatchingOptions(**options))
        self.pool = ThreadPoolExecutor(64)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.model.go.set()
        self.pool.shutdown()
        self.batching.close()

    def ask(self, x, signature="double", **options):
        """Sends a request while the model is held; it has been put in line when this returns."""
        before = self.waiting()
        answer = self.pool.submit(self.batching.run, signature, {"x": np.asarray(x, np.float32)}, **options)
        until(lambda: self.waiting() > before)
        return answer

    def now(self, x):
        """Sends a request and waits for its answer."""
        return self.batching.run("double", {"x": np.asarray(x, np.float32)})["y"].tolist()

    def waiting(self):
        return sum(len(batch.requests) for batch in self.batching._batches)

    def hold(self):
        """Keeps the model busy with a request of its own, whose answer is returned."""
        self.model.go.clear()
        self.model.entered.clear()
        answer = self.pool.submit(self.batching.run, "double", {"x": np.float32([[0]])})
        assert self.model.entered.wait(30)
        return answer


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "30 s"
        time.sleep(0.001)


def test_what_waits_while_the_model_is_busy_is_one_run():
    with Joined(max_batch_size=32) as joined:
        joined.hold()
        rows = [1, 2, 1, 3, 1]
        xs = [np.full((n, 2), i, np.float32) + np.arange(n)[:, None] for i, n in enumerate(rows)]
        answers = [joined.ask(x) for x in xs]
        joined.model.go.set()
        for x, answer in zip(xs, answers, strict=True):
            np.testing.assert_array_equal(answer.result(30)["y"], 2 * x)
        assert joined.model.shapes == [(1, 1), (8, 2)]


def test_batches_are_not_larger_than_the_limit_and_keep_their_order():
    with Joined(max_batch_size=4) as joined:
        joined.hold()
        answers = [joined.ask(np.full((n, 2), n)) for n in (1, 2, 3, 4, 1)]
        alone = joined.pool.submit(joined.batching.run, "double", {"x": np.ones((5, 2), np.float32)})
        joined.model.go.set()
        assert [answer.result(30)["y"].shape for answer in [*answers, alone]] == [(n, 2) for n in (1, 2, 3, 4, 1, 5)]
        assert [shape for shape in joined.model.shapes if shape[0] < 5] == [(1, 1), (3, 2), (3, 2), (4, 2), (1, 2)]


def test_only_requests_of_one_kind_are_mixed():
    with Joined() as joined:
        joined.hold()
        asked = [
            joined.ask([[1, 2]]),
            joined.ask([[1, 2]], "other"),
            joined.ask([[1, 2, 3]]),
            joined.ask([[1, 2]], output_filter=["y"]),
            joined.ask([[3, 4]]),
        ]
        doubles = joined.pool.submit(joined.batching.run, "double", {"x": np.array([[1.0, 2.0]])})
        until(lambda: joined.waiting() == 6)
        joined.model.go.set()
        assert [answer.result(30)["y"].tolist() for answer in asked] == [
            [[2, 4]],
            [[2, 4]],
            [[2, 4, 6]],
            [[2, 4]],
            [[6, 8]],
        ]
        assert doubles.result(30)["y"].dtype == np.float64
        assert sorted(joined.model.shapes) == [(1, 1), (1, 2), (1, 2), (1, 2), (1, 3), (2, 2)]


def test_a_request_that_fails_fails_alone():
    with Joined() as joined:
        joined.hold()
        good, bad, also_good = joined.ask([[1]]), joined.ask([[13]]), joined.ask([[2], [3]])
        joined.model.go.set()
        assert good.result(30)["y"].tolist() == [[2]] and also_good.result(30)["y"].tolist() == [[4], [6]]
        with pytest.raises(ServingError, match="INVALID_ARGUMENT: an unlucky number"):
            bad.result(30)
        assert joined.now([[5]]) == [[10]]


def test_a_batch_waits_for_company_until_its_time_is_over_or_it_is_full():
    with Joined(max_batch_size=3, batch_timeout_micros=60_000_000) as joined:
        answers = [joined.pool.submit(joined.batching.run, "double", {"x": np.float32([[i]])}) for i in range(3)]
        assert [answer.result(30)["y"].tolist() for answer in answers] == [[[0]], [[2]], [[4]]]
        assert joined.model.shapes == [(3, 1)]
    with Joined(max_batch_size=3, batch_timeout_micros=50_000) as joined:
        begun = time.monotonic()
        assert joined.now([[1]]) == [[2]]
        assert time.monotonic() - begun >= 0.05


def test_padding_repeats_the_first_row_and_is_cut_from_the_answers():
    fed = []
    with Joined(max_batch_size=8, allowed_batch_sizes=(2, 4, 8)) as joined:
        run = joined.model.run
        joined.model.run = lambda *a, **k: fed.append(a[1]["x"].tolist()) or run(*a, **k)
        joined.hold()
        answers = [joined.ask([[1]]), joined.ask([[2], [3]])]
        joined.model.go.set()
        assert [answer.result(30)["y"].tolist() for answer in answers] == [[[2]], [[4], [6]]]
    assert fed == [[[0], [0]], [[1], [2], [3], [1]]]


def test_a_request_that_is_late_is_left_out():
    with Joined() as joined:
        held = joined.hold()
        late, patient = joined.ask([[7]], timeout=0.05), joined.ask([[1]])
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
            late.result(30)
        joined.model.go.set()
        assert patient.result(30)["y"].tolist() == [[2]] and held.result(30)
        assert joined.model.shapes == [(1, 1), (1, 1)]


def test_closing_answers_what_waits_and_then_refuses():
    joined = Joined(batch_timeout_micros=60_000_000)
    answer = joined.ask([[1]])
    joined.batching.close()
    assert answer.result(30)["y"].tolist() == [[2]] and joined.model.closed
    assert not any(thread.is_alive() for thread in joined.batching._threads)
    with pytest.raises(ServingError, match="UNAVAILABLE"):
        joined.batching.run("double", {"x": np.float32([[1]])})
    joined.pool.shutdown()


def test_several_threads_run_several_batches_at_once():
    with Joined(num_batch_threads=2) as joined:
        joined.hold()
        joined.pool.submit(joined.now, [[1]])
        until(lambda: len(joined.model.shapes) == 2)


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch_size": 0},
        {"batch_timeout_micros": -1},
        {"num_batch_threads": 0},
        {"max_batch_size": 8, "allowed_batch_sizes": (4, 2, 8)},
        {"max_batch_size": 8, "allowed_batch_sizes": (2, 4)},
    ],
)
def test_wrong_options(options):
    with pytest.raises(InputError, match="at least|must increase and end with max_batch_size"):
        BatchingOptions(**options)
