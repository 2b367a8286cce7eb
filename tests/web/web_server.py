"""Servers of one application, and a proxy that serves another server below a prefix."""

import threading
from contextlib import contextmanager

import httpx
import uvicorn


@contextmanager
def running(app):
    """The address of ``app``, served by a thread for the length of the block."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


class Proxy:
    """Passes requests below ``prefix`` on, with the prefix or without it, as nginx and Caddy do.

    ``outside`` lists the paths of all other requests, which it answers with 404.
    """

    def __init__(self, upstream, prefix, *, strip):
        self._upstream = upstream
        self._prefix = prefix
        self._strip = strip
        self.outside = []

    async def __call__(self, scope, receive, send):
        path = scope["raw_path"].decode()
        if not (path + "/").startswith(f"{self._prefix}/"):
            self.outside.append(path)
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})
            return
        if self._strip:
            path = path[len(self._prefix) :] or "/"
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        url = httpx.URL(self._upstream + path, query=scope["query_string"])
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            answer = await client.request(scope["method"], url, headers=scope["headers"], content=body)
        headers = [
            pair for pair in answer.headers.raw if pair[0].lower() not in (b"content-encoding", b"transfer-encoding")
        ]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})
