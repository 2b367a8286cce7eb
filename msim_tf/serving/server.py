"""The embedded server: TensorFlow Serving's REST and gRPC APIs for exported models, without the real server's binary.

Made for one machine: loopback unless a host is named, no encryption and no authentication (the real server has none of its own either).
Another application, the web page of a library for one, can share the REST port; anywhere but on loopback it needs a token.
Unlike the real server it says at once what is wrong with a model instead of waiting for one.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from msim_tf.errors import InputError
from msim_tf.export.metadata import version_directories
from msim_tf.export.servable import Servable
from msim_tf.serving.grpc_service import add_services
from msim_tf.serving.guard import is_loopback
from msim_tf.serving.rest import rest_app
from msim_tf.serving.versions import Models, Poller, ServedModel

_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class ServerOptions:
    """How a server runs.

    Attributes:
        host: address to listen on; loopback unless the caller names another, e.g. "0.0.0.0".
        grpc_port: 0 takes any free one.
        rest_port: likewise.
        poll_seconds: time between looks for new versions.
        max_request_bytes: a larger request is answered with 413 (REST) or RESOURCE_EXHAUSTED (gRPC).
        timeout: seconds for one REST request's run; gRPC clients bring their own deadline.
        max_load_retries: attempts after the first to load a broken version.
        retry_seconds: pause between them.
        grpc_threads: gRPC requests that run at the same time.
        labels: {model: {label: version}}.
        token: what requests must send; "" for none.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    poll_seconds: float = 1.0
    max_request_bytes: int = 512 * 2**20
    timeout: float = 30.0
    max_load_retries: int = 5
    retry_seconds: float = 60.0
    grpc_threads: int = 8
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    token: str = ""


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
    with ExitStack() as stack:
        served = _load_models(models, options, stack)
        poller = Poller(served, options.poll_seconds)
        grpc_address = _start_grpc(served, options, stack)
        rest_address = _start_rest(served, options, stack, site)
        poller.start()
        stack.callback(poller.stop)
        yield Addresses(grpc_address, f"http://{rest_address}")


def _load_models(models: Mapping[str, str | Path], options: ServerOptions, stack: ExitStack) -> Models:
    """Every model with its latest version loaded."""
    unknown = sorted(set(options.labels) - set(models))
    if unknown or not models:
        raise InputError(f"labels for {unknown[0]}, which is not served" if unknown else "there is no model to serve")
    served = Models({name: _served_model(name, path, options) for name, path in models.items()})
    for model in served:
        stack.callback(model.close)
        _validate_base_path(model)
        model.poll()
        _validate_loaded(model)
    return served


def _served_model(name: str, path: str | Path, options: ServerOptions) -> ServedModel:
    return ServedModel(
        name,
        path,
        Servable.load,
        labels=options.labels.get(name),
        max_load_retries=options.max_load_retries,
        retry_seconds=options.retry_seconds,
    )


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


def _validate_loaded(model: ServedModel) -> None:
    failures = model.failures()
    if failures and all(status.state != "AVAILABLE" for status in model.statuses()):
        version = max(failures)
        raise InputError(f"model {model.name}: version {version} cannot be loaded: {failures[version]}")


def _start_grpc(models: Models, options: ServerOptions, stack: ExitStack) -> str:
    """Starts the gRPC server; returns its "host:port"."""
    limits = [
        ("grpc.max_receive_message_length", options.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        # Without this a second server would silently share the port.
        ("grpc.so_reuseport", 0),
    ]
    pool = ThreadPoolExecutor(options.grpc_threads, thread_name_prefix="msim-grpc")
    server = grpc.server(pool, options=limits)
    add_services(server, models)
    try:
        port = server.add_insecure_port(_address(options.host, options.grpc_port))
    except RuntimeError:
        port = 0
    if not port:
        raise _port_error("gRPC", options.host, options.grpc_port)
    server.start()
    stack.callback(lambda: server.stop(_STOP_SECONDS).wait())
    return _address(options.host, port)


class _RestServer(uvicorn.Server):
    """uvicorn that says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, then ``ready``."""
        await super().startup(sockets)
        self.ready.set()


def _start_rest(models: Models, options: ServerOptions, stack: ExitStack, site: Site | None) -> str:
    """Starts the REST server in a thread; returns its "host:port"."""
    app = rest_app(models, max_request_bytes=options.max_request_bytes, timeout=options.timeout)
    if site:
        app = _beside(app, site(models))
    listener = _listener(options)
    stack.callback(listener.close)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(_STOP_SECONDS),
    )
    server = _RestServer(config)
    # uvicorn leaves the process's signals alone when it does not run in the main thread.
    thread = threading.Thread(target=server.run, args=([listener],), name="msim-rest", daemon=True)
    thread.start()
    stack.callback(lambda: _stop_rest(server, thread))
    if not server.ready.wait(30):
        raise InputError("the REST server did not start within 30 s")
    return _address(options.host, listener.getsockname()[1])


def _beside(rest: ASGIApp, site: ASGIApp) -> ASGIApp:
    """Answers paths below /v1/ by ``rest`` and all others by ``site``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        below_v1 = scope.get("path", "").lower().startswith("/v1/")
        await (rest if below_v1 else site)(scope, receive, send)

    return app


def _stop_rest(server: Any, thread: threading.Thread) -> None:
    server.should_exit = True
    thread.join()


def _listener(options: ServerOptions) -> socket.socket:
    """The bound REST socket: bound here, because uvicorn would end the process if it cannot be."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # With its protocol named, asyncio switches Nagle's algorithm off; else each answer on a kept connection waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.rest_port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise _port_error("REST", options.host, options.rest_port) from error
    return listener


def _port_error(api: str, host: str, port: int) -> InputError:
    return InputError(
        f"the {api} port {_address(host, port)} cannot be had: in use, not allowed, or not an address of this machine; "
        "choose another port (0 takes any free one) or host"
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
