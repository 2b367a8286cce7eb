"""Serving: requests per second and latency at several numbers of concurrent clients.

The embedded server runs in a process of its own; clients are threads here. Limit: the bare call of the SavedModel
without server, from as many threads. The real TensorFlow Serving takes part when its address is given.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tools.bench import frame

_AUDIO_SECONDS = 10
_TIMEOUT = 120.0


def run(options: frame.Options) -> list[frame.Figure]:
    """The section."""
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    from msim_tf.export.metadata import load_metadata
    from msim_tf.export.servable import Servable
    from msim_tf.serving.client import GrpcClient
    from msim_tf.serving.rest_client import RestClient

    base = Path(options.model) if options.model else untrained_model(Path(options.scratch) / "bench")
    metadata = load_metadata(base)
    figures = []
    with ExitStack() as stack:
        servable = stack.enter_context(Servable.load(metadata.directory))

        def asked(client: Any) -> Callable[[str, Any], Any]:
            return lambda signature, feeds: client.predict(base.name, feeds, signature=signature, timeout=_TIMEOUT)

        ways: dict[str, Callable[[str, Any], Any]] = {"bare call": servable.run}
        addresses = stack.enter_context(_server(base))
        ways["gRPC"] = asked(stack.enter_context(GrpcClient(addresses.grpc)))
        ways["REST"] = asked(stack.enter_context(RestClient(addresses.rest)))
        if options.serving:
            ways["TensorFlow Serving"] = asked(stack.enter_context(GrpcClient(options.serving)))
        for signature, feeds in _requests(metadata).items():
            for clients in (1, 8) if options.quick else (1, 8, 64):
                figures += _signature(ways, signature, feeds, clients, options)
        figures += _batches(ways, metadata, options)
    return figures


def _signature(
    ways: dict[str, Callable[[str, Any], Any]], signature: str, feeds: Any, clients: int, options: frame.Options
) -> list[frame.Figure]:
    """Every way to ask one signature from ``clients`` threads."""
    requests = max(clients, 16 if options.quick else 64)
    rounds = 2 if options.quick else 5
    latencies: dict[str, list[list[float]]] = {name: [] for name in ways}
    with ThreadPoolExecutor(clients) as pool:

        def load(name: str) -> None:
            def ask(_: int) -> float:
                begun = time.perf_counter()
                ways[name](signature, feeds)
                return time.perf_counter() - begun

            latencies[name].append(list(pool.map(ask, range(requests))))

        def loaded(name: str) -> Callable[[], None]:
            return lambda: load(name)

        for ask_once in ways.values():
            ask_once(signature, feeds)
        seconds = frame.measure({name: loaded(name) for name in ways}, rounds, warmup=0)
    figures = []
    for name in ways:
        label = f"{signature}, {clients} client{'s' * (clients > 1)}, {name}"
        p50, p99 = (statistics.median(_percentile(row, share) for row in latencies[name]) for share in (0.5, 0.99))
        note = f"p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms"
        figures.append(frame.rate(label, seconds[name], requests, "req/s", note=note))
    label = f"{signature}, {clients} client{'s' * (clients > 1)}, "
    figures.append(frame.ratio(label + "gRPC / bare", seconds["gRPC"], seconds["bare call"], note="time; the floor: 1"))
    figures.append(frame.ratio(label + "REST / gRPC", seconds["REST"], seconds["gRPC"], note="time"))
    return figures


def _batches(ways: dict[str, Callable[[str, Any], Any]], metadata: Any, options: frame.Options) -> list[frame.Figure]:
    """Sixteen segments one by one against all in one request."""
    import numpy as np

    signature, one = next(iter(_requests(metadata).items()))
    many = {name: np.repeat(value, 16, 0) for name, value in one.items()}

    def single(name: str) -> Callable[[], object]:
        return lambda: [ways[name](signature, one) for _ in range(16)]

    def batch(name: str) -> Callable[[], object]:
        return lambda: ways[name](signature, many)

    calls = {name + " single": single(name) for name in ("gRPC", "REST")}
    calls |= {name + " batch": batch(name) for name in ("gRPC", "REST")}
    seconds = frame.measure(calls, 2 if options.quick else 5)
    return [
        frame.ratio(
            f"{signature}, 16 in one request, {name}",
            seconds[name + " single"],
            seconds[name + " batch"],
            note="faster than one by one",
        )
        for name in ("gRPC", "REST")
    ]


def _percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]


def _requests(metadata: Any) -> dict[str, dict[str, Any]]:
    """Arguments by signature: one segment for the first dimension, ten seconds of noise for ``audio``."""
    import numpy as np

    rng, features = np.random.default_rng(0), metadata.features
    segment = {
        name: rng.uniform(0, 1, (1, *features.input_shapes[name])).astype(np.float32) for name in metadata.inputs
    }
    audio = rng.normal(0, 0.1, (1, _AUDIO_SECONDS * features.sr)).astype(np.float32)
    return {metadata.layout.names[0]: segment, "audio": {"audio": audio}}


def untrained_model(base: Path) -> Path:
    """Exports a network of width 0.25 as it is initialised; returns ``base``."""
    import dataclasses

    from msim_tf.export.export import export_model
    from msim_tf.model.network import build_network
    from msim_tf.model.params import NETWORK_PRESETS
    from msim_tf.params import FEATURE_PRESETS

    network, features = dataclasses.replace(NETWORK_PRESETS["multi384"], width=0.25), FEATURE_PRESETS["paper"]
    export_model(build_network(network, features), network, features, base, training={})
    return base


@contextmanager
def _server(base: Path) -> Iterator[Any]:
    """The embedded server in a process of its own, so that it does not share the clients' interpreter."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(str(base), theirs))
    process.start()
    try:
        while not ours.poll(0.2):
            if not process.is_alive():
                raise RuntimeError("the server ended before it was ready")
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def _serve(base: str, pipe: Any) -> None:
    """Serves until the other end of ``pipe`` closes."""
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    from msim_tf.serving.server import ServerOptions, running_server

    options = ServerOptions(grpc_port=0, rest_port=0, timeout=_TIMEOUT)
    with running_server({Path(base).name: base}, options) as addresses:
        pipe.send(addresses)
        try:
            pipe.recv()
        except EOFError:
            return
