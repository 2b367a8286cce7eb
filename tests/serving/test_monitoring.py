"""Metrics for Prometheus: what was asked is counted, and read here as Prometheus reads it."""

import re
import time

import httpx
import numpy as np
import pytest
from toy_model import ANY_PORTS, publish

from msim_tf.export.status import ServingError
from msim_tf.serving.client import GrpcClient
from msim_tf.serving.monitoring import Monitoring
from msim_tf.serving.server import running_server

PLAIN = (("model_name", "m"), ("API", "predict"), ("entrypoint", "REST"))
PATH = "/monitoring/prometheus/metrics"
# The grammar of Prometheus' text format 0.0.4.
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\} ([0-9.e+-]+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')


def samples(text):
    """(name, labels) -> value."""
    values = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# TYPE [a-zA-Z_:][a-zA-Z0-9_:]* (counter|histogram)", line)
            continue
        name, labels, value = SAMPLE.fullmatch(line).groups()
        pairs = LABEL.findall(labels)
        assert LABEL.sub("", labels) == ""
        values[name, tuple(pairs)] = float(value)
    return values


def served(version_path, folder, **more):
    publish(version_path, folder, "1")
    return running_server({"m": folder, "idle": folder}, type(ANY_PORTS)(**{**vars(ANY_PORTS), **more}))


def post(url, model, body):
    return httpx.post(f"{url}/v1/models/{model}:predict", json=body, trust_env=False).status_code


def test_requests_are_counted_by_model_and_status_and_timed(toy_version, tmp_path):
    with served(toy_version, tmp_path, monitoring=True) as addresses:
        begun = time.perf_counter()
        assert [post(addresses.rest, "m", {"instances": [[1, 0, 0]]}) for _ in range(3)] == [200] * 3
        assert post(addresses.rest, "m", {"instances": [["a"]]}) == 400
        assert post(addresses.rest, "made-up", {"instances": [[1]]}) == 404
        assert httpx.get(f"{addresses.rest}/v1/models/m", trust_env=False).status_code == 200
        with GrpcClient(addresses.grpc) as client:
            client.predict("m", {"x": np.float32([[1, 0, 0]])})
            with pytest.raises(ServingError):
                client.predict("m", {"x": np.float32([[1, 0, 0]])}, signature="nope")
            with pytest.raises(ServingError):
                client.predict("made-up", {"x": np.float32([[1, 0, 0]])})
        microseconds = 1e6 * (time.perf_counter() - begun)
        answer = httpx.get(addresses.rest + PATH, trust_env=False)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = samples(answer.text)

    counts = {labels: value for (name, labels), value in values.items() if name == ":tensorflow:serving:request_count"}
    assert counts == {
        (("model_name", "m"), ("status", "OK")): 4,
        (("model_name", "m"), ("status", "INVALID_ARGUMENT")): 1,
        (("model_name", "m"), ("status", "FAILED_PRECONDITION")): 1,
    }
    for api, entrypoint, count in (("predict", "REST", 3), ("Predict", "GRPC", 1)):
        labels = (("model_name", "m"), ("API", api), ("entrypoint", entrypoint))
        assert values[":tensorflow:serving:request_latency_count", labels] == count
        assert 0 < values[":tensorflow:serving:request_latency_sum", labels] < microseconds
        buckets = [
            (dict(pairs)["le"], value)
            for (name, pairs), value in values.items()
            if name == ":tensorflow:serving:request_latency_bucket" and pairs[:3] == labels
        ]
        assert [bound for bound, _ in buckets][:3] == ["10", "18", "32.4"] and buckets[-1] == ("+Inf", count)
        # As a dashboard for the real server asks for them.
        assert "708235" in dict(buckets) and len(buckets) == 34
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)


def test_without_the_option_there_is_no_such_page(toy_server):
    answer = httpx.get(toy_server.rest + PATH, trust_env=False)
    assert answer.status_code == 404 and "<HTML>" in answer.text


def test_a_token_guards_the_metrics(toy_version, tmp_path):
    with served(toy_version, tmp_path, monitoring=True, token="secret") as addresses:
        assert httpx.get(addresses.rest + PATH, trust_env=False).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        assert httpx.get(addresses.rest + PATH, headers=headers, trust_env=False).status_code == 200


def test_an_observation_falls_into_the_first_bucket_that_holds_it():
    monitoring = Monitoring()
    for microseconds in (0.0, 10.0, 10.1, 18.0, 1e12):
        monitoring.record(("m", "predict", "REST"), "OK", microseconds)
    values = samples(monitoring.text())
    buckets = {dict(pairs)["le"]: value for (name, pairs), value in values.items() if name.endswith("_bucket")}
    assert [buckets[bound] for bound in ("10", "18", "32.4", "+Inf")] == [2, 4, 4, 5]
    assert values[":tensorflow:serving:request_latency_count", PLAIN] == 5


def test_names_of_models_are_escaped():
    monitoring = Monitoring()
    monitoring.record(('a"b\\c\nd', "predict", "REST"), "NOT_FOUND", 1.0)
    assert samples(monitoring.text()) == {
        (":tensorflow:serving:request_count", (("model_name", r"a\"b\\c\nd"), ("status", "NOT_FOUND"))): 1
    }
