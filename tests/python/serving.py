"""A server in a thread of the tests, on a port of the loopback interface."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from higgs_rt import Runtime
from higgs_rt.server import ServerSettings, create_app
from higgs_rt.server.run import make_config


@contextmanager
def served(runtime: Runtime, settings: ServerSettings | None = None) -> Iterator[str]:
    """The address of a server over `runtime`, until the end of the block."""
    settings = settings or ServerSettings()
    with served_app(create_app(runtime, settings), settings) as address:
        yield address


@contextmanager
def served_app(app: ASGIApp, settings: ServerSettings) -> Iterator[str]:
    """The same for any application."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(make_config(app, settings, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
