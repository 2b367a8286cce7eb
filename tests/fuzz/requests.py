"""Requests made by hypothesis, against both APIs of one running ``msim serve``: TensorFlow Serving's and the library's.

Fails if an answer is 500 or 502, or UNKNOWN or INTERNAL over gRPC; if a connection is dropped without an answer, or an
answer takes more than ten seconds; if the log has a traceback; if the memory of the server grows and grows; or if a
good request afterwards is answered with other numbers than at first. Hypothesis shrinks what fails and prints it.
"""

import contextlib
import gzip
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc
import httpx
import numpy as np
import soundfile
from commands import msim
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2
from tiny_model import tiny_model_path

from fuzz.audio import tone
from fuzz.cases import Case, Target

_EXAMPLES = 40  # of each kind of request in one case
_TIMEOUT = 10.0
_MOST_GROWTH = 400e6  # bytes of resident memory over all cases of a run
_SERVER_FAULTS = (500, 502)
_GRPC_FAULTS = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True)
class _Server:
    """A running ``msim serve`` of the tiny model and a small library."""

    pid: int
    rest: str
    grpc: str
    log: Path

    def memory(self) -> float:
        """Bytes that are resident."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * float(re.search(r"VmRSS:\s+(\d+)", status)[1])


@contextlib.contextmanager
def _serving(shared: Path) -> Iterator[_Server]:
    music = shared / "music"
    music.mkdir()
    for name in ("a", "b", "c"):
        soundfile.write(music / f"{name}.wav", tone(ord(name)), 16_000)
    status, _, err = msim("index", music, shared / "library", "--model", tiny_model_path())
    assert status == 0, err
    command = ["serve", tiny_model_path(), "--library", shared / "library", "--grpc-port", 0, "--rest-port", 0]
    log = shared / "server.log"
    with open(log, "w") as file:
        process = subprocess.Popen([sys.executable, "-m", "msim_tf", *map(str, command)], stdout=file, stderr=file)
    try:
        yield _started(process, log)
    finally:
        process.terminate()
        process.wait(30)


def _started(process: subprocess.Popen, log: Path) -> _Server:
    end = time.monotonic() + 200
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        if match := re.search(r"gRPC ([^,\s]+), REST ([^,\s]+)", log.read_text()):
            return _Server(process.pid, match[2], match[1], log)
        time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text()}")


# --- what requests are made of ---------------------------------------------------------------------------------------

_NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.sampled_from([10**309, -(10**400), 1e308, 5e-324, 2**63, -(2**63), 2**64]),
)
_WORDS = st.one_of(
    st.sampled_from(["mel", "onset", "cens", "audio", "b64", "track", "tracks", "mix", "genre", "serving_default", ""]),
    st.text(max_size=12),
    st.sampled_from(["\x00", "..", "%2e%2e", "a.wav", "\U0001f600", "9" * 5000]),
)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _WORDS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=20,
)
_PREDICT = st.fixed_dictionaries(
    {},
    optional={
        "instances": _VALUES,
        "inputs": _VALUES | st.dictionaries(st.sampled_from(["mel", "onset", "cens", "audio"]), _VALUES, max_size=3),
        "signature_name": _WORDS | _VALUES,
        "examples": _VALUES,
    },
)
_TRACK = st.sampled_from(["a.wav", "b.wav", "c.wav"]) | _WORDS
_QUERY = st.one_of(
    st.fixed_dictionaries({"track": _TRACK}),
    st.fixed_dictionaries({"tracks": st.lists(_TRACK, max_size=3)}),
    st.fixed_dictionaries({"mix": st.dictionaries(_WORDS, st.fixed_dictionaries({"track": _TRACK}), max_size=3)}),
    st.fixed_dictionaries({"upload": _WORDS}),
    _VALUES,
)
_LIBRARY = st.fixed_dictionaries(
    {},
    optional={
        "query": _QUERY,
        "track": _TRACK,
        "weights": st.dictionaries(st.sampled_from(["genre", "mood", "tempo", "x"]), _NUMBERS, max_size=3) | _VALUES,
        "k": _NUMBERS,
        "filters": st.dictionaries(st.sampled_from(["bpm", "years", "keys", "tags", "artists"]), _VALUES, max_size=3),
        "diversity": _VALUES,
        "from": _TRACK,
        "to": _TRACK,
        "length": _NUMBERS,
        "choices": _VALUES,
    },
)


@st.composite
def _bodies(draw, values) -> bytes:
    """JSON of a value, sometimes damaged, nested deep, zipped or not JSON at all."""
    text = json.dumps(draw(values))
    kind = draw(st.sampled_from(["whole"] * 6 + ["cut", "inserted", "deep", "gzip", "bytes", "doubled"]))
    if kind == "cut":
        text = text[: draw(st.integers(0, len(text)))]
    elif kind == "inserted":
        place = draw(st.integers(0, len(text)))
        text = (
            text[:place]
            + draw(st.sampled_from(['"', "{", "]", ",", "1e999", "NaN", "\\u", "\x00", "//"]))
            + text[place:]
        )
    elif kind == "deep":
        depth = draw(st.sampled_from([64, 65, 1000, 100_000]))
        text = '{"instances": ' + "[" * depth + "]" * depth + "}"
    elif kind == "doubled":
        text = text[:-1] + ", " + text[1:] if text.startswith("{") else text + text
    data = text.encode("utf-8", "surrogatepass")
    if kind == "gzip":
        return gzip.compress(data)[: draw(st.integers(1, 2000))]
    return draw(st.binary(max_size=200)) if kind == "bytes" else data


_HEADERS = st.dictionaries(
    st.sampled_from(
        ["content-encoding", "content-type", "origin", "accept", "range", "if-none-match", "authorization"]
    ),
    st.sampled_from(
        ["gzip", "GZIP", "deflate", "http://[", "null", "application/json", "bytes=5-1", "*/*;q=x", "Bearer x", ""]
    ),
    max_size=2,
)
_PATHS = st.one_of(
    st.sampled_from(
        [
            "/v1/models/tiny:predict",
            "/v1/models/tiny/versions/1:predict",
            "/v1/models/tiny:classify",
            "/v1/models/tiny/metadata",
            "/v1/models/none:regress",
        ]
    ),
    st.builds("/v1/models/tiny/versions/{}:predict".format, st.sampled_from(["0", "9" * 30, "9" * 5000, "-1", "x"])),
    st.builds("/v1/models/{}:{}".format, _WORDS.map(quote), _WORDS.map(quote)),
)
_API_PATHS = st.one_of(
    st.sampled_from(
        [f"/api/v1/{name}" for name in ("similar", "explain", "path", "profile", "tracks", "map", "library")]
    ),
    st.builds("/api/v1/tracks/{}".format, _WORDS.map(quote)),
    st.builds("/api/v1/audio/{}".format, _WORDS.map(quote)),
    st.builds("/{}".format, _WORDS.map(quote)),
)
_METHODS = st.sampled_from(["POST"] * 5 + ["GET", "PUT", "HEAD", "OPTIONS", "FOO"])

_DTYPES = st.sampled_from([0, 1, 2, 3, 6, 7, 9, 10, 14, 19, 21, 101, 9999])
_SIZES = st.lists(st.sampled_from([-1, 0, 1, 2, 64, 129, 2**31, 2**62, -(2**63)]), max_size=5)


@st.composite
def _messages(draw) -> predict_pb2.PredictRequest:
    """A PredictRequest whose tensors need not be what they say."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = draw(st.sampled_from(["tiny", "tiny", "tiny", "none", ""]))
    request.model_spec.signature_name = draw(st.sampled_from(["", "all", "genre", "audio", "none", "\u00e9" * 2000]))
    for key in draw(st.lists(st.sampled_from(["mel", "onset", "cens", "audio", "x", ""]), max_size=4)):
        tensor = request.inputs[key]
        tensor.dtype = draw(_DTYPES)
        for size in draw(_SIZES):
            tensor.tensor_shape.dim.add().size = size
        tensor.tensor_shape.unknown_rank = draw(st.sampled_from([False] * 5 + [True]))
        tensor.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
        tensor.string_val.extend(draw(st.lists(st.binary(max_size=8), max_size=2)))
        tensor.int64_val.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2)))
        tensor.tensor_content = draw(st.binary(max_size=32))
    return request


# --- sending them ----------------------------------------------------------------------------------------------------


def _prepare(shared: Path, stack: contextlib.ExitStack) -> Callable[[Case], Counter]:
    server = stack.enter_context(_serving(shared))
    http = stack.enter_context(httpx.Client(base_url=server.rest, timeout=_TIMEOUT, trust_env=False))
    channel = stack.enter_context(grpc.insecure_channel(server.grpc))
    predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    reference = _good_answers(http)
    memory = server.memory()

    def run(case: Case) -> Counter:
        counts: Counter = Counter()

        def send(method, path, body, headers):
            answer = http.request(method, path, content=body, headers=headers)
            counts[f"HTTP {answer.status_code}"] += 1
            assert answer.status_code not in _SERVER_FAULTS, answer.text
            # TensorFlow Serving answers a version beyond int64 with 400 and no body; so do we.
            as_json = "json" in answer.headers.get("content-type", "")
            if answer.status_code >= 400 and as_json and answer.content:
                assert set(answer.json()) == {"error"}, answer.text

        def call(message: bytes):
            try:
                predict(message, timeout=_TIMEOUT)
                counts["gRPC OK"] += 1
            except grpc.RpcError as error:
                counts["gRPC errors"] += 1
                # gRPC itself says INTERNAL to what is no message at all.
                unreadable = error.details() == "Exception deserializing request!"
                assert unreadable or error.code() not in _GRPC_FAULTS, f"{error.code()}: {error.details()}"

        _examples(case, send, _METHODS, _PATHS, _bodies(_PREDICT), _HEADERS)
        _examples(case, send, _METHODS, _API_PATHS, _bodies(_LIBRARY), _HEADERS)
        _examples(case, call, _messages().map(lambda message: message.SerializeToString()) | st.binary(max_size=60))
        assert _good_answers(http) == reference, "a good request is answered otherwise than at first"
        log = server.log.read_text()
        assert "Traceback" not in log, log[-4000:]
        growth = server.memory() - memory
        assert growth < _MOST_GROWTH, f"the server grew by {growth / 1e6:.0f} MB"
        return counts

    return run


def _examples(case: Case, check: Callable, *strategies: st.SearchStrategy) -> None:
    """Runs ``check`` on examples that depend on the case only."""
    configured = settings(
        max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    seed(case.random.getrandbits(32))(configured(given(*strategies)(check)))()


def _good_answers(http: httpx.Client) -> list:
    """What the server says to requests that are right, through both APIs."""
    audio = np.random.default_rng(0).normal(0, 0.1, (1, 16_000)).round(3).tolist()
    predicted = http.post("/v1/models/tiny:predict", json={"signature_name": "audio", "inputs": {"audio": audio}})
    similar = http.post("/api/v1/similar", json={"query": {"track": "a.wav"}, "k": 2})
    assert (predicted.status_code, similar.status_code) == (200, 200), predicted.text + similar.text
    return [predicted.json(), similar.json()["hits"]]


TARGET = Target(_prepare, share=0.3, longest=100.0)
