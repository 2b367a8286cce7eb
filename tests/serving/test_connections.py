"""Connections that stay silent, drip, or are too many; few file descriptors; and how fast the server ends.

All on real sockets.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from toy_model import publish

from msim_tf.export.status import ServingError
from msim_tf.serving.client import GrpcClient
from msim_tf.serving.http_server import OncePerMinute, RestServer, connection_limit, listening_socket
from msim_tf.serving.rest_client import RestClient

GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def hello(scope, receive, send):
    """Answers at once, or with the path /wait when the whole body is there."""
    if scope["path"] == "/wait":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def server():
    """A server of at most four connections whose headers must arrive within half a second."""
    running = RestServer(hello, max_connections=4, stop_seconds=0.3, header_seconds=0.5)
    listener = listening_socket("127.0.0.1", 0)
    running.start(listener)
    running.address = listener.getsockname()
    yield running
    running.stop()
    listener.close()


def connect(address, data=b""):
    connection = socket.create_connection(address, timeout=30)
    connection.sendall(data)
    return connection


def read(connection):
    """Everything until the server closes or resets."""
    data = b""
    try:
        while block := connection.recv(65536):
            data += block
    except ConnectionResetError:
        pass
    return data


def answers(connection):
    """Whether a request on the connection is answered."""
    try:
        connection.sendall(GET)
        return connection.recv(65536).startswith(b"HTTP/1.1 200")
    except (ConnectionResetError, BrokenPipeError):
        return False


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost:", b"GET /"])
def test_a_header_that_does_not_come_closes_the_connection(server, data):
    with connect(server.address, data) as silent:
        assert read(silent) == b""
    with connect(server.address) as connection:
        assert answers(connection)


def test_a_header_that_drips_does_not_live_longer(server):
    begun = time.monotonic()
    with connect(server.address) as dripping:
        try:
            for byte in GET * 10:
                dripping.sendall(bytes([byte]))
                time.sleep(0.1)
            pytest.fail("the connection lived on")
        except (ConnectionResetError, BrokenPipeError):
            assert time.monotonic() - begun < 10


def test_a_new_connection_takes_the_place_of_the_longest_idle_one(server):
    idle = []
    for _ in range(4):
        idle.append(connect(server.address))
        time.sleep(0.02)
    with connect(server.address) as fifth:
        assert answers(fifth)
        assert not answers(idle[0]) and answers(idle[3])
    for connection in idle:
        connection.close()


def test_connections_at_work_are_not_closed_for_new_ones(server):
    post = b"POST /wait HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    working = [connect(server.address, post) for _ in range(4)]
    for connection in working:
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")  # the request has begun
    refused = read_new(server.address)
    assert refused.startswith(b"HTTP/1.1 503")
    assert b'{"error": "too many connections; try again"}' in refused
    time.sleep(1.5)  # longer than a header may take: a body has its own time
    for connection in working:
        connection.sendall(b"cd")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.close()


def read_new(address):
    with connect(address, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as connection:
        return read(connection)


@pytest.mark.parametrize("state", ["idle", "header", "body"])
def test_no_connection_holds_up_the_end(server, state):
    data = {"idle": b"", "header": b"GET", "body": b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"}[
        state
    ]
    connections = [connect(server.address, data) for _ in range(3)]
    time.sleep(0.1)
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 5
    for connection in connections:
        read(connection)
        connection.close()


def test_a_request_under_way_is_finished_at_the_end(server):
    with connect(server.address, b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na") as connection:
        time.sleep(0.1)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        connection.sendall(b"b")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        stopping.join()


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100,
        b"\xff\xfe\xfd\r\n\r\n",
        b"GET /\r\n\r\n",  # HTTP/0.9
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: nonsense\r\n\r\n",
        b"POST /wait HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
    ],
)
def test_what_is_no_http_is_refused(server, data):
    with connect(server.address, data) as connection:
        answer = read(connection)
    assert answer == b"" or 400 <= int(answer.split()[1]) < 500
    assert read_new(server.address).startswith(b"HTTP/1.1 200")


def test_an_upgrade_is_answered_like_any_request(server):
    upgrade = GET.replace(
        b"\r\n\r\n",
        b"\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    )
    with connect(server.address, upgrade) as connection:
        assert read(connection).startswith(b"HTTP/1.1 200")


def test_the_limit_follows_the_file_descriptors(monkeypatch, caplog):
    used = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 32 + 300, 10_000))
    assert 99 <= connection_limit(512) <= 101
    assert "ulimit -n" in caplog.text
    assert connection_limit(50) == 50


def test_a_repeated_fault_is_logged_once_a_minute():
    import logging

    once = OncePerMinute(seconds=0.3)

    def record(line):
        return logging.LogRecord("x", logging.ERROR, "file", line, "text", None, None)

    assert [once.filter(record(line)) for line in (1, 1, 2, 1, 2)] == [True, False, True, False, False]
    time.sleep(0.35)
    assert once.filter(record(1))


SERVE = """
import os, resource, sys
from msim_tf.serving.server import ServerOptions, serve
used = len(os.listdir("/dev/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 120, used + 120))
options = ServerOptions(grpc_port=0, rest_port=0)
serve({"m": sys.argv[1]}, options, on_start=lambda addresses: print(addresses.grpc, addresses.rest, flush=True))
"""


@pytest.fixture
def starved(tmp_path, toy_version):
    """A server process that may open 120 files more than it has, its addresses, and its log."""
    base, log = tmp_path / "served", tmp_path / "log"
    base.mkdir()
    publish(toy_version, base, "1")
    with open(log, "wb") as errors:
        command = [sys.executable, "-c", SERVE, str(base)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ)
    with process:
        grpc_address, rest = process.stdout.readline().split()
        yield process, grpc_address, rest, log
        process.kill()


def test_few_file_descriptors_and_many_idle_connections(starved):
    """Idle connections to both APIs, more than the process may have files, do not end the service or fill the log."""
    process, grpc_address, rest, log = starved
    rest_port = urlsplit(rest).port
    grpc_port = int(grpc_address.rsplit(":", 1)[1])
    idle = [connect(("127.0.0.1", port)) for _ in range(150) for port in (rest_port, grpc_port)]
    time.sleep(1)
    for _ in range(5):
        assert httpx.get(f"{rest}/v1/models/m", timeout=30, trust_env=False).status_code == 200
    with GrpcClient(grpc_address) as client:
        client.wait_until_ready("m", 60)  # gRPC has room again once the silent ones did not shake hands
    assert log.stat().st_size < 20_000, log.read_text()[:2000]
    for connection in idle:
        connection.close()


def test_requests_that_never_end_do_not_hold_up_the_end(starved):
    process, grpc_address, rest, log = starved
    endings = []

    def ask(client):
        with client, pytest.raises(ServingError) as caught:
            client.predict("m", {"x": np.float32(0)}, signature="endless", timeout=600)
        endings.append(caught.value.code)

    threads = [threading.Thread(target=ask, args=(client,)) for client in (GrpcClient(grpc_address), RestClient(rest))]
    for thread in threads:
        thread.start()
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0  # a run of the model by REST would last 30 s, one by gRPC for ever
    for thread in threads:
        thread.join()
    assert endings == ["UNAVAILABLE"] * 2 and "Traceback" not in log.read_text()
