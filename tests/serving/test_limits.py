"""What requests may hold: derived limits by hand arithmetic, and a REST application whose model is a plain object."""

import asyncio
import gc
import gzip
import os
import subprocess
import sys
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from msim_tf.export.signatures import Signature, TensorInfo
from msim_tf.export.status import ServingError
from msim_tf.serving.json_parser import parse_json
from msim_tf.serving.limits import (
    Budget,
    MemoryReturn,
    has_too_many_values,
    most_request_bytes,
    most_values,
    rare_garbage_collection,
)
from msim_tf.serving.rest import RestGuard, rest_app


def info(*shape):
    return TensorInfo(1, shape, "x:0")


def test_limits_follow_from_the_signatures():
    assert most_values(info(None, 128, 129)) == 256 * 128 * 129
    assert most_values(info(None, None)) == most_values(info(None, None, None)) == 256 * 65_536
    assert most_values(info(None)) == 256 and most_values(info(7)) == 7 and most_values(info()) == 1
    assert most_values(TensorInfo(1, None, "x:0")) == 256 * 65_536
    two = {"a": Signature({"x": info(None, 3), "y": info(None)}, {}), "b": Signature({"x": info(2)}, {})}
    assert most_request_bytes([two, {}]) == 64 * 1024 + 16 * (256 * 3 + 256)
    # 12.7 minutes at 22,050 Hz, as the help says.
    assert 12.6 < most_values(info(None, None)) / 22_050 / 60 < 12.7


@pytest.mark.parametrize(
    ("body", "too_many"),
    [
        (b"[" + b"1," * 9_999 + b"1]", False),
        (b"[" + b"1," * 20_000 + b"1]", True),
        (b"[" + b"[1]," * 5_000 + b"[1]]", False),
        (b"[" + b"[]," * 9_000 + b"[]]", True),
        (b"[" * 10_000, True),
        (b'{"a": {"b": {' * 10_000, True),
        (b'"' + b"x" * 1_000_000 + b'"', False),
    ],
)
def test_values_are_counted_before_they_are_parsed(body, too_many):
    assert has_too_many_values(body, 10_000) == too_many


def test_a_budget_is_given_back():
    budget = Budget(100)
    with budget.reservation() as first:
        first.grow(60)
        with budget.reservation() as second:
            second.grow(40)
            with pytest.raises(ServingError, match="RESOURCE_EXHAUSTED: The requests under way fill"):
                second.grow(1)
            assert budget.used == 100
        assert budget.used == 60
    assert budget.used == 0


class Doubling:
    """A model with one input that waits until it may answer."""

    signatures = {"serving_default": Signature({"x": info(None)}, {"y": info(None)})}
    signature_defs = {}

    def __init__(self):
        self.may_answer = None

    def signature(self, name):
        return self.signatures[name or "serving_default"]

    def run(self, name, inputs, timeout):
        if self.may_answer:
            assert self.may_answer.wait(30)
        return {"y": 2 * inputs["x"]}

    @contextmanager
    def lease(self, **which):
        yield 1, self


def application(model, *, max_bytes=100_000, budget=200_000, body_seconds=30.0):
    guard = RestGuard(
        token="",
        loopback=True,
        max_bytes=max_bytes,
        body_seconds=body_seconds,
        run_seconds=30.0,
        budget=Budget(budget),
        memory=MemoryReturn(),
    )
    return rest_app(model, guard), guard


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=60)


PREDICT = "/v1/models/m:predict"


def post(app, content, **headers):
    async def once():
        async with client(app) as http:
            return await http.post(PREDICT, content=content, headers=headers)

    return asyncio.run(once())


async def dripping(parts, seconds):
    for part in parts:
        yield part
        await asyncio.sleep(seconds)


def test_a_body_that_is_too_slow_is_given_up():
    app, guard = application(Doubling(), body_seconds=0.2)
    answer = post(app, dripping([b'{"inputs"'] + [b" "] * 100, 0.05))
    assert answer.status_code == 408 and answer.headers["connection"] == "close"
    assert guard.budget.used == 0


@pytest.mark.parametrize("size", [200_000, 50_000_000])
def test_a_gzip_bomb_is_unzipped_no_further_than_the_limit(size):
    app, guard = application(Doubling())
    taken = []
    take = guard.budget.take
    guard.budget.take = lambda size: (take(size), taken.append(size))
    bomb = gzip.compress(b" " * size)
    answer = post(app, bomb, **{"content-encoding": "gzip"})
    assert answer.status_code == 413
    # The reservation grows by one byte more than the limit, whatever the bomb holds.
    assert sum(taken) == len(bomb) + 100_000 + 1 and guard.budget.used == 0


def test_a_gzip_body_in_many_parts_is_read_whole():
    app, _ = application(Doubling(), max_bytes=3_000_000, budget=6_000_000)
    numbers = np.arange(100_000)
    data = gzip.compress(('{"inputs": [' + ",".join(map(str, numbers)) + "]}").encode())
    parts = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    answer = post(app, dripping(parts, 0), **{"content-encoding": "gzip"})
    assert answer.json()["outputs"] == (2.0 * numbers).tolist()


def test_requests_beyond_the_budget_are_told_to_come_again():
    import threading

    model = Doubling()
    model.may_answer = threading.Event()
    app, guard = application(model, budget=150_000)
    body = b'{"inputs": [1]}' + b" " * 80_000

    async def three():
        async with client(app) as http:
            first = asyncio.create_task(http.post(PREDICT, content=body))
            while guard.budget.used < len(body):
                await asyncio.sleep(0.01)
            refused = await http.post(PREDICT, content=body)
            small = asyncio.create_task(http.post(PREDICT, content=b'{"inputs": [2]}'))
            status = await http.get("/v1/nothing")
            model.may_answer.set()
            return await first, refused, await small, status

    first, refused, small, status = asyncio.run(three())
    assert (first.json(), small.json()) == ({"outputs": [2.0]}, {"outputs": [4.0]})
    assert refused.status_code == 429 and "memory budget" in refused.json()["error"]
    assert status.status_code == 400 and guard.budget.used == 0


def test_slow_uploads_hold_no_budget_and_block_nobody():
    app, guard = application(Doubling(), max_bytes=100_000, budget=100_000)
    slow_headers = {"content-length": "90000"}

    async def many():
        async with client(app) as http:
            slow = [
                asyncio.create_task(http.post(PREDICT, content=dripping([b" "] * 50, 0.1), headers=slow_headers))
                for _ in range(20)
            ]
            await asyncio.sleep(0.1)
            answer = await http.post(PREDICT, content=b'{"inputs": [1]}' + b" " * 50_000)
            for task in slow:
                task.cancel()
            return answer

    assert asyncio.run(many()).json() == {"outputs": [2.0]}


def test_many_lists_are_parsed_without_looking_for_cycles():
    body = b"[" + b"[]," * 400_000 + b"[]]"
    before = gc.get_threshold()
    with rare_garbage_collection():
        collections = [generation["collections"] for generation in gc.get_stats()]
        parsed = parse_json(body)
        more = [generation["collections"] - was for generation, was in zip(gc.get_stats(), collections)]
    assert len(parsed) == 400_001 and sum(more) <= 10, more  # by Python's default some 600
    assert gc.get_threshold() == before


MEMORY = """
import gc, sys
import psutil
sys.path.insert(0, sys.argv[1])
from test_limits import Doubling, application, post
gc.disable()
app, guard = application(Doubling(), max_bytes=400_000_000, budget=800_000_000)
process = psutil.Process()
post(app, b'{"inputs": [1]}')
before = process.memory_info().rss
for body in (b'{"inputs": [' + b"[]," * 3_000_000 + b"1]}", b'{"inputs": [' + b"1.5," * 3_000_000 + b'"x"]}'):
    assert post(app, body).status_code == 400
    del body
guard.memory._run() if guard.memory._trim else None
print((process.memory_info().rss - before) / 1e6)
"""


def test_a_large_request_that_fails_leaves_no_memory_behind():
    """Without the garbage collector, which would hide that an exception kept the parsed request (hundreds of MB)."""
    command = [sys.executable, "-c", MEMORY, os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert float(done.stdout) < 100
