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
from collections.abc import Callable, Iterable
from functools import partial
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
            counts: Counter[str] = Counter()
            workers = [
                partial(_honest, GrpcClient(grpc_address), counts, options.seed),
                partial(_honest, RestClient(rest_url), counts, options.seed + 1),
                partial(_hostile, rest_url, counts, options.seed + 2),
            ]
            grown = soak(process.pid, workers, options.minutes)
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        tracebacks = log.read().count(b"Traceback")
    print(f"answers: {dict(counts)}; tracebacks: {tracebacks}; seed {options.seed}")
    return int(grown > options.most_mb or tracebacks > 0 or counts["no answer"] > 0)


def soak(process: int, workers: Iterable[Callable[[threading.Event], None]], minutes: float) -> float:
    """Runs workers against a server for minutes and prints its memory.

    Args:
        process: of the server.
        workers: each runs in a thread until its event is set.
        minutes: how long.

    Returns:
        Megabytes that the process has more at the end than after the first minute.

    Raises:
        RuntimeError: if a worker ended by itself.
    """
    stop = threading.Event()
    threads = [threading.Thread(target=worker, args=(stop,)) for worker in workers]
    print(f"at the start {_megabytes(process):.0f} MB")
    for thread in threads:
        thread.start()
    first = highest = 0.0
    ends, next_line = time.monotonic() + 60 * minutes, time.monotonic() + 60
    while (left := ends - time.monotonic()) > 0 and all(thread.is_alive() for thread in threads):
        time.sleep(min(0.5, left))
        now = _megabytes(process)
        highest = max(highest, now)
        if time.monotonic() >= next_line:
            first, next_line = first or now, next_line + 60
            print(f"{now:.0f} MB", flush=True)
    failed = not all(thread.is_alive() for thread in threads)
    stop.set()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError("a worker ended by itself; its traceback is above")
    time.sleep(_SETTLE_SECONDS)
    last = _megabytes(process)
    first = first or last
    print(
        f"at most {highest:.0f} MB; after the last request {last:.0f} MB, {last - first:+.0f} MB since the first minute"
    )
    return last - first


def _honest(client: GrpcClient | RestClient, counts: Counter[str], seed: int, stop: threading.Event) -> None:
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


def _hostile(rest_url: str, counts: Counter[str], seed: int, stop: threading.Event) -> None:
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
