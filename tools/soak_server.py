"""How much memory ``msim serve`` holds before, during and after minutes of honest, large and hostile requests.

    python -m tools.soak_server --minutes 10 saved_models/open6

The server runs in a process of its own. Each minute prints its resident memory; the end compares it with that after the
first minute, when TensorFlow has allocated what it keeps. Exit status 1 if it grew by more than ``--most-mb`` since,
if a request got no answer, or if the server logged a traceback.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import psutil

from msim_tf.export.status import ServingError
from msim_tf.serving.client import GrpcClient
from msim_tf.serving.rest_client import RestClient

_SERVE = """
import sys
from msim_tf.serving.server import ServerOptions, serve
options = ServerOptions(grpc_port=0, rest_port=0)
serve({"m": sys.argv[1]}, options, on_start=lambda addresses: print(addresses.grpc, addresses.rest, flush=True))
"""
_SETTLE_SECONDS = 5


def main() -> int:
    """Runs the soak and prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="saved_models/NAME")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-mb", type=float, default=300.0)
    options = parser.parse_args()
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-c", _SERVE, str(options.model)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ)
        try:
            grpc_address, rest_url = process.stdout.readline().split()  # type: ignore[union-attr]
            grown, counts = _soak(process.pid, grpc_address, rest_url, options)
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        tracebacks = log.read().count(b"Traceback")
    print(f"answers: {dict(counts)}; tracebacks: {tracebacks}; seed {options.seed}")
    return int(grown > options.most_mb or tracebacks > 0 or counts["no answer"] > 0)


def _soak(process: int, grpc_address: str, rest_url: str, options: argparse.Namespace) -> tuple[float, Counter[str]]:
    """Megabytes grown after the first minute, and how requests were answered."""
    counts: Counter[str] = Counter()
    stop = threading.Event()
    workers = [
        threading.Thread(target=_honest, args=(GrpcClient(grpc_address), stop, counts, options.seed)),
        threading.Thread(target=_honest, args=(RestClient(rest_url), stop, counts, options.seed + 1)),
        threading.Thread(target=_hostile, args=(rest_url, stop, counts, options.seed + 2)),
    ]
    print(f"at the start {_megabytes(process):.0f} MB")
    for worker in workers:
        worker.start()
    first, ends = 0.0, time.monotonic() + 60 * options.minutes
    while time.monotonic() < ends:
        time.sleep(min(60, max(0.1, ends - time.monotonic())))
        now = _megabytes(process)
        first = first or now
        print(f"{now:.0f} MB, {sum(counts.values())} requests", flush=True)
    stop.set()
    for worker in workers:
        worker.join()
    time.sleep(_SETTLE_SECONDS)
    last = _megabytes(process)
    print(f"after the last request {last:.0f} MB, {last - first:+.0f} MB since the first minute")
    return last - first, counts


def _honest(client: GrpcClient | RestClient, stop: threading.Event, counts: Counter[str], seed: int) -> None:
    """Requests to every signature, of one to three rows, and audio of up to a minute."""
    rng = np.random.default_rng(seed)
    signatures = {name: value for name, value in client.metadata("m").signatures.items() if value.inputs}
    while not stop.is_set():
        name = rng.choice(sorted(signatures))
        inputs, rows = {}, int(rng.integers(1, 4))
        for key, info in signatures[name].inputs.items():
            sizes = [rows, *(size or int(rng.integers(1, 60)) * 22_050 for size in (info.shape or ())[1:])]
            inputs[key] = rng.normal(0, 0.1, sizes[: len(info.shape or ())]).astype(info.dtype or "float32")
        try:
            client.predict("m", inputs, signature=name, timeout=120)
            counts["200"] += 1
        except ServingError as error:
            counts["no answer" if error.code == "UNAVAILABLE" else error.code] += 1


def _hostile(rest_url: str, stop: threading.Event, counts: Counter[str], seed: int) -> None:
    """Bodies that would cost the server much memory."""
    draw = random.Random(seed)
    with httpx.Client(base_url=rest_url, timeout=120, trust_env=False) as http:
        while not stop.is_set():
            count = draw.choice((1_000, 1_000_000, 8_000_000))
            body = draw.choice(
                (
                    b'{"inputs": [' + b"[]," * count + b"[]]}",
                    b'{"instances": [' + b"1.5," * count + b"1]}",
                    b'{"inputs": [',
                )
            )
            zipped = draw.random() < 0.3
            headers = {"content-encoding": "gzip"} if zipped else {}
            try:
                content = gzip.compress(body * draw.choice((1, 10)), 1) if zipped else body
                counts[str(http.post("/v1/models/m:predict", content=content, headers=headers).status_code)] += 1
            except httpx.HTTPError:
                counts["no answer"] += 1
            stop.wait(0.5)


def _megabytes(process: int) -> float:
    return psutil.Process(process).memory_info().rss / 1e6


if __name__ == "__main__":
    sys.exit(main())
