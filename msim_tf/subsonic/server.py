"""Runs the Subsonic proxy on a port of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import uvicorn

from msim_tf.errors import InputError
from msim_tf.subsonic.proxy import Recommender, subsonic_proxy
from msim_tf.subsonic.upstream import Upstream

_STOP_SECONDS = 5.0  # for songs that are being streamed when the proxy ends


@contextmanager
def running_proxy(server: str, library: Recommender, *, host: str = "127.0.0.1", port: int = 4534) -> Iterator[str]:
    """The proxy in a thread of this process, for the length of the block.

    Args:
        server: address of the Subsonic server, e.g. "http://127.0.0.1:4533".
        library: what answers for similar music.
        host: address to listen on.
        port: 0 takes any free port.

    Yields:
        The address of the proxy, for players.

    Raises:
        InputError: if ``server`` is no HTTP address, or the port is taken.
    """
    try:
        parts = urlsplit(server)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:  # a port that is no number, or half an IPv6 address
        valid = False
    if not valid:
        raise InputError(f"{server!r}: expected the address of a Subsonic server, e.g. http://127.0.0.1:4533")
    listener = _listener(host, port)
    config = uvicorn.Config(
        subsonic_proxy(Upstream(server), library),
        access_log=False,  # addresses hold passwords in this API
        log_level="warning",
        timeout_graceful_shutdown=int(_STOP_SECONDS),
        ws="none",
        server_header=False,
        date_header=False,  # the music server writes its own
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, name="subsonic", daemon=True)
    thread.start()
    try:
        bound = listener.getsockname()
        yield f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"
    finally:
        running.should_exit = True
        thread.join(2 * _STOP_SECONDS)
        listener.close()


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that the address answers as soon as it is known."""
    # With its protocol named, asyncio switches Nagle's algorithm off; else answers on a kept connection wait 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"the Subsonic proxy cannot listen on {host}:{port} ({error.strerror}); choose another --subsonic-port"
        ) from error
    return listener
