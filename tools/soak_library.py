"""How much memory the server of a library holds during minutes of searches, uploads and hostile requests.

    python -m tools.soak_library --minutes 5 LIBRARY MUSIC

LIBRARY is one of msim index; files of the folder MUSIC are uploaded, whole and damaged. The server runs in a process of
its own, as ``msim serve --library`` starts it. Exit status 1 if its memory grew by more than ``--most-mb`` since the
first minute, if a request got no answer or one of 500 or 502, or if the server logged a traceback.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tools.soak_server import soak

_START_SECONDS = 300.0
_FAULTS = ("500", "502", "no answer")
_SOUND = {"content-type": "audio/ogg"}


def main() -> int:
    """Runs the soak and prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("music", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-mb", type=float, default=300.0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.NamedTemporaryFile() as log:
        command = [sys.executable, "-m", "msim_tf", "serve", "--library", str(options.library)]
        process = subprocess.Popen([*command, "--grpc-port", "0", "--rest-port", "0"], stdout=log, stderr=log)
        try:
            url = _address(process, Path(log.name))
            workers = [
                partial(_searching, url, counts, random.Random(options.seed)),
                partial(_searching, url, counts, random.Random(options.seed + 1)),
                partial(_uploading, url, counts, random.Random(options.seed + 2), sorted(options.music.glob("*.*"))),
                partial(_hostile, url, counts, random.Random(options.seed + 3)),
            ]
            grown = soak(process.pid, workers, options.minutes)
        finally:
            process.terminate()
            process.wait()
        tracebacks = Path(log.name).read_bytes().count(b"Traceback")
    print(f"answers: {dict(sorted(counts.items()))}; tracebacks: {tracebacks}; seed {options.seed}")
    return int(grown > options.most_mb or tracebacks > 0 or any(counts[fault] for fault in _FAULTS))


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server answers, once it says so."""
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        if match := re.search(r"REST (http\S+)", log.read_text()):
            return match[1]
        time.sleep(0.2)
    raise SystemExit(f"the server does not start: {log.read_text()}")


class _Client:
    """Sends requests and counts their answers."""

    def __init__(self, url: str, counts: Counter[str]) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/v1", timeout=120, trust_env=False)
        self._counts = counts

    def send(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """The answer, None without one."""
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError:
            self._counts["no answer"] += 1
            return None
        self._counts[str(answer.status_code)] += 1
        return answer

    def tracks(self) -> list[str]:
        """Identifiers of up to 500 tracks."""
        answer = self.send("GET", "/tracks", params={"limit": 500})
        return [track["id"] for track in answer.json()["tracks"]] if answer else []

    def dimensions(self) -> list[str]:
        """Names of the dimensions."""
        answer = self.send("GET", "/library")
        return answer.json()["dimensions"] if answer else []


def _searching(url: str, counts: Counter[str], draw: random.Random, stop: threading.Event) -> None:
    """What the page and players ask for."""
    client = _Client(url, counts)
    tracks, dimensions = client.tracks(), client.dimensions()
    while not stop.is_set():
        one, other = draw.choice(tracks), draw.choice(tracks)
        weights = {name: draw.choice((-1, 0, 0.5, 1)) for name in dimensions} | {dimensions[0]: 1}
        query = draw.choice(
            ({"track": one}, {"tracks": [one, other]}, {"mix": {draw.choice(dimensions): {"track": one}}})
        )
        filters = draw.choice(({}, {}, {"years": [1900, 2030]}, {"bpm": [60, 180]}))
        body = {"query": query, "weights": weights, "k": draw.choice((1, 10, 100)), "filters": filters}
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/similar", {"json": body}),
            ("POST", "/explain", {"json": {"query": {"track": one}, "track": other}}),
            ("POST", "/path", {"json": {"from": one, "to": other, "length": draw.randint(3, 20)}}),
            ("GET", "/tracks", {"params": {"search": draw.choice(("a", one[:4], "slow and dark"))}}),
            ("GET", "/playlist.m3u8", {"params": {"track": one, "links": True}}),
            ("GET", "/path.m3u8", {"params": {"from": one, "to": other}}),
            ("GET", "/map", {"params": {"dimension": draw.choice(("", *dimensions))}}),
            ("GET", f"/audio/{one}", {"headers": {"range": f"bytes={draw.randrange(5000)}-"}}),
        ]
        method, path, options = draw.choice(requests)
        client.send(method, path, **options)


def _uploading(url: str, counts: Counter[str], draw: random.Random, files: list[Path], stop: threading.Event) -> None:
    """Files, whole, cut, with flipped bits or of noise; what embeds is queried by."""
    client = _Client(url, counts)
    while not stop.is_set():
        data = bytearray(draw.choice(files).read_bytes())
        damage = draw.choice(("none", "cut", "flipped", "noise"))
        if damage == "cut":
            data = data[: draw.randrange(len(data))]
        elif damage == "flipped":
            for _ in range(5):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif damage == "noise":
            data = bytearray(draw.randbytes(100_000))
        answer = client.send("POST", "/upload", content=bytes(data), headers=_SOUND)
        if answer is not None and answer.status_code == 201:
            client.send("POST", "/similar", json={"query": {"upload": answer.json()["upload"]}})


def _hostile(url: str, counts: Counter[str], draw: random.Random, stop: threading.Event) -> None:
    """Bodies, paths and headers that no page sends."""
    client = _Client(url, counts)
    track = client.tracks()[0]
    while not stop.is_set():
        count = draw.choice((100, 100_000, 5_000_000))
        bodies = [
            b'{"query": {"tracks": [' + b'"a",' * count + b'"a"]}}',
            b'{"query": ' + b"[" * count + b"]" * count + b"}",
            b'{"query": {"mix": {"genre": {"track": "' + b"x" * count + b'"}}}}',
            json.dumps({"query": {"track": track}, "k": 10**400}).encode(),
            json.dumps({"query": {"track": track}, "weights": {"genre": 1e308, "mood": -1e308}}).encode(),
            b'{"query": {"track": "\\ud800"}, "weights": {"genre": NaN}}',
            gzip.compress(b" " * 10 * count, 1),
            draw.randbytes(1000),
        ]
        headers = {
            "content-type": draw.choice(("application/json", "text/plain", "audio/ogg", "")),
            "content-encoding": draw.choice(("identity", "gzip")),
            "origin": draw.choice(("http://[", "null", "http://evil.example", url)),
            "range": draw.choice(("bytes=5-1", "bytes=0-0," * 500 + "1-", f"bytes=-{'9' * 400}")),
        }
        name = draw.choice(list(headers))
        chosen = {"content-type": "application/json", name: headers[name]}
        path = draw.choice(("/similar", "/explain", "/path", "/profile", "/upload", f"/audio/{track}", "/tracks/%00"))
        client.send(draw.choice(("POST", "POST", "PUT", "GET")), path, content=draw.choice(bodies), headers=chosen)
        stop.wait(0.2)


if __name__ == "__main__":
    sys.exit(main())
