"""The embedded server: TensorFlow Serving's REST and gRPC APIs for exported models, without the real server's binary.

Made for one machine: loopback unless a host is named, no encryption and no authentication (the real server has none of
its own either). Another application, the web page of a library for one, can share the REST port; anywhere but on
loopback it needs a token. Unlike the real server it says at once what is wrong with a model instead of waiting for one.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from msim_tf import settings
from msim_tf.errors import InputError
from msim_tf.export.metadata import version_directories
from msim_tf.export.servable import Servable
from msim_tf.serving import monitoring
from msim_tf.serving.arrivals import Arrivals
from msim_tf.serving.grpc_service import GrpcGuard, add_services
from msim_tf.serving.guard import is_loopback
from msim_tf.serving.http_server import (
    RestServer,
    connection_limit,
    listening_socket,
    repeated_faults_once_a_minute,
)
from msim_tf.serving.limits import Budget, MemoryReturn, most_request_bytes, rare_garbage_collection, values_within
from msim_tf.serving.monitoring import Monitoring
from msim_tf.serving.rest import RestGuard, rest_app
from msim_tf.serving.versions import Models, Poller, ServedModel

# For requests under way when the server is stopped, by each API.
_STOP_SECONDS = 0.5


@dataclass(frozen=True)
class ServerOptions:
    """How a server runs.

    Attributes:
        host: address to listen on; loopback unless the caller names another, e.g. "0.0.0.0".
        grpc_port: 0 takes any free one.
        rest_port: likewise.
        poll_seconds: time between looks for new versions.
        max_request_bytes: a larger request is answered with 413 (REST) or RESOURCE_EXHAUSTED (gRPC), and so is one with
            more values than a 16th of it; None derives it from the models' signatures, see ``limits``.
        budget_bytes: of all requests under way together; beyond it a request is answered with 429 or
            RESOURCE_EXHAUSTED. None is twice ``max_request_bytes``.
        max_connections: open at the same time, for REST and for gRPC; fewer if the process may open few files.
        body_seconds: in which the body of a REST request or the message of a gRPC request must arrive.
        root_path: below which a proxy shows the server, e.g. "/msim".
        timeout: seconds for one REST request's run; gRPC clients bring their own deadline.
        max_load_retries: attempts after the first to load a broken version.
        retry_seconds: pause between them.
        grpc_threads: gRPC requests that run at the same time.
        labels: {model: {label: version}}.
        token: what requests must send; "" for none.
        monitoring: whether Prometheus finds counts and latencies of requests at ``monitoring.PATH``.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    poll_seconds: float = 1.0
    max_request_bytes: int | None = None
    budget_bytes: int | None = None
    max_connections: int = 512
    body_seconds: float = 120.0
    root_path: str = ""
    timeout: float = 30.0
    max_load_retries: int = 5
    retry_seconds: float = 60.0
    grpc_threads: int = 64
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    token: str = ""
    monitoring: bool = False


@dataclass(frozen=True)
class _Limits:
    """What both APIs share: bytes of a request and of all requests, connections of each
    API, the way back for memory, and the counts of requests.
    """

    request_bytes: int
    connections: int
    budget: Budget
    memory: MemoryReturn
    monitoring: Monitoring | None


# Makes the application that answers what is not TensorFlow Serving's on the REST port: a web page and its API.
Site = Callable[[Models], ASGIApp]


@dataclass(frozen=True)
class Addresses:
    """Where a running server listens.

    Attributes:
        grpc: "host:port", for ``GrpcClient``.
        rest: "http://host:port", for ``RestClient``.
    """

    grpc: str
    rest: str


def serve(
    models: Mapping[str, str | Path],
    options: ServerOptions = ServerOptions(),
    *,
    site: Site | None = None,
    on_start: Callable[[Addresses], None] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, then finishes the requests under way. Call it from the main thread.

    Args:
        models: base path of each model by name.
        options: how.
        site: as ``running_server``.
        on_start: called with the addresses once requests are answered.

    Raises:
        InputError: as ``running_server``.
    """
    stop = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with running_server(models, options, site) as addresses:
            if on_start:
                on_start(addresses)
            stop.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def running_server(
    models: Mapping[str, str | Path], options: ServerOptions = ServerOptions(), site: Site | None = None
) -> Iterator[Addresses]:
    """A server in threads of this process, for the length of the block.

    Args:
        models: base path of each model by name.
        options: how; for tests take port 0 twice.
        site: makes the application that answers every REST path outside /v1; None answers them with 404.

    Yields:
        The addresses, once requests are answered.

    Raises:
        InputError: if a base path is missing or has no version that loads, or a port or host cannot be had.
    """
    if site and not options.token and not is_loopback(options.host):
        raise InputError(f"the library on {options.host} can be reached by other machines and needs a token")
    # What is entered first ends last: polling and requests end before the models are closed.
    with ExitStack() as stack:
        stack.enter_context(repeated_faults_once_a_minute())
        stack.enter_context(rare_garbage_collection())
        served = _load_models(models, options, stack)
        # What the options leave out follows from the signatures of the loaded models.
        signatures = []
        for model in served:
            with model.lease() as (_, servable):
                signatures.append(servable.signatures)
        request_bytes = options.max_request_bytes or most_request_bytes(signatures)
        limits = _Limits(
            request_bytes=request_bytes,
            connections=connection_limit(options.max_connections),
            budget=Budget(options.budget_bytes or 2 * request_bytes),
            memory=MemoryReturn(),
            monitoring=Monitoring() if options.monitoring else None,
        )
        stack.callback(limits.memory.stop)
        poller = Poller(served, options.poll_seconds)
        grpc_address = _start_grpc(served, options, limits, stack)
        rest_address = _start_rest(served, options, limits, site, stack)
        poller.start()
        stack.callback(poller.stop)
        yield Addresses(grpc_address, f"http://{rest_address}")


def _load_models(models: Mapping[str, str | Path], options: ServerOptions, stack: ExitStack) -> Models:
    """Every model with its latest version loaded."""
    unknown = sorted(set(options.labels) - set(models))
    if unknown or not models:
        raise InputError(f"labels for {unknown[0]}, which is not served" if unknown else "there is no model to serve")
    load = functools.partial(Servable.load, precision=settings.default_precision())
    served = Models(
        {
            name: ServedModel(
                name,
                path,
                load,
                labels=options.labels.get(name),
                max_load_retries=options.max_load_retries,
                retry_seconds=options.retry_seconds,
            )
            for name, path in models.items()
        }
    )
    for model in served:
        stack.callback(model.close)
        _validate_base_path(model)
        # Later a broken version waits for its next attempt; at the start, with nothing to serve, it ends the server.
        model.poll()
        failures = model.failures()
        if failures and all(status.state != "AVAILABLE" for status in model.statuses()):
            version = max(failures)
            raise InputError(f"model {model.name}: version {version} cannot be loaded: {failures[version]}")
    return served


def _validate_base_path(model: ServedModel) -> None:
    path = model.base_path
    if not path.is_dir():
        raise InputError(
            f"model {model.name}: {path} not found; expected a directory with versions, e.g. saved_models/NAME"
        )
    if version_directories(path):
        return
    hint = (
        f"; did you mean its parent, {path.parent}?"
        if (path / "saved_model.pb").exists()
        else "; export a model there first"
    )
    raise InputError(f"model {model.name}: {path} has no version directory (a whole number, e.g. 1){hint}")


def _start_grpc(models: Models, options: ServerOptions, limits: _Limits, stack: ExitStack) -> str:
    """Starts the gRPC server; returns its "host:port"."""
    channel_options = [
        ("grpc.max_receive_message_length", limits.request_bytes),
        ("grpc.max_send_message_length", -1),
        # Without this a second server would silently share the port.
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        # Peers that are gone without a word, and those that connect and never speak.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.max_connection_idle_ms", 600_000),
        # Else one connection could take all threads.
        ("grpc.max_concurrent_streams", options.grpc_threads),
    ]
    # A request takes a thread while its message arrives, while it waits for its turn, and while it runs.
    requests = 4 * options.grpc_threads
    pool = ThreadPoolExecutor(requests, thread_name_prefix="msim-grpc")
    server = grpc.server(pool, options=channel_options, maximum_concurrent_rpcs=requests)
    guard = GrpcGuard(
        token=options.token,
        max_values=values_within(limits.request_bytes),
        budget=limits.budget,
        memory=limits.memory,
        arrivals=Arrivals(options.body_seconds, requests // 2),
        running=threading.Semaphore(options.grpc_threads),
        monitoring=limits.monitoring,
    )
    stack.callback(guard.arrivals.stop)
    add_services(server, models, guard)
    try:
        port = server.add_insecure_port(_address(options.host, options.grpc_port))
    except RuntimeError:
        port = 0
    if not port:
        raise _port_error("gRPC", options.host, options.grpc_port)
    server.start()
    stack.callback(lambda: server.stop(_STOP_SECONDS).wait())
    return _address(options.host, port)


def _start_rest(models: Models, options: ServerOptions, limits: _Limits, site: Site | None, stack: ExitStack) -> str:
    """Starts the REST server in a thread; returns its "host:port"."""
    guard = RestGuard(
        token=options.token,
        loopback=is_loopback(options.host),
        max_bytes=limits.request_bytes,
        body_seconds=options.body_seconds,
        run_seconds=options.timeout,
        budget=limits.budget,
        memory=limits.memory,
        monitoring=limits.monitoring,
    )
    app = _routed(rest_app(models, guard), site(models) if site else None, options.root_path.rstrip("/"))
    try:
        listener = listening_socket(options.host, options.rest_port)
    except (OSError, OverflowError) as error:
        raise _port_error("REST", options.host, options.rest_port) from error
    stack.callback(listener.close)
    server = RestServer(app, max_connections=limits.connections, stop_seconds=_STOP_SECONDS)
    stack.callback(server.stop)
    server.start(listener)
    return _address(options.host, listener.getsockname()[1])


def _routed(rest: ASGIApp, site: ASGIApp | None, root_path: str) -> ASGIApp:
    """Paths below /v1/ and the metrics go to ``rest``, all others to ``site`` if there is one; /healthz is answered
    here, to everybody.

    A proxy may send the path with ``root_path`` before it or without; both mean the same.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if root_path and path == root_path:
            # Relative addresses of the page count from its last slash.
            await RedirectResponse(f"{root_path}/")(scope, receive, send)
            return
        if root_path and path.startswith(root_path + "/"):
            raw_path = scope["raw_path"][len(root_path.encode()) :]
            scope = {**scope, "path": path[len(root_path) :], "raw_path": raw_path}
        if scope["path"] == "/healthz":
            await PlainTextResponse("ok\n")(scope, receive, send)
        elif site is None or scope["path"].lower().startswith("/v1/") or scope["path"] == monitoring.PATH:
            await rest(scope, receive, send)
        else:
            await site({**scope, "root_path": root_path}, receive, send)

    return app


def _port_error(api: str, host: str, port: int) -> InputError:
    return InputError(
        f"the {api} port {_address(host, port)} cannot be had: in use, not allowed, or not an address of this machine; "
        "choose another port (0 takes any free one) or host"
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
