"""Readers that do not take what the server sends, over applications that send a lot."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from higgs_rt.server import ServerSettings
from higgs_rt.server.run import _LEAST_BYTES, _Reader
from serving import served_app

SETTINGS = ServerSettings(send_timeout=0.3)
LARGE = 12 << 20  # more than the buffers of the sockets hold
HEADERS = [(b"content-length", str(LARGE).encode())]


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": bytes(LARGE)})


async def in_parts(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    for _ in range(LARGE >> 20):
        part = {"type": "http.response.body", "body": bytes(1 << 20), "more_body": True}
        await asyncio.wait_for(send(part), SETTINGS.send_timeout)
    await send({"type": "http.response.body", "body": b""})


def asked(url: str, buffer: int = 4096) -> socket.socket:
    """A socket with a small buffer that has sent a request."""
    address = urlsplit(url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.connect((address.hostname, address.port))
    raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return raw


@pytest.mark.parametrize("app", [whole, in_parts])
def test_a_reader_that_takes_nothing_loses_its_connection(
    app: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = threading.Event()

    def connection_lost(self: H11Protocol, exc: Exception | None) -> None:
        kept(self, exc)
        lost.set()

    kept = H11Protocol.connection_lost
    monkeypatch.setattr(H11Protocol, "connection_lost", connection_lost)
    with served_app(app, SETTINGS) as url, asked(url):
        assert lost.wait(2.0)


def test_a_reader_that_takes_its_time_gets_all() -> None:
    with served_app(whole, SETTINGS) as url, asked(url, 1 << 16) as raw:
        got, begin = 0, time.monotonic()
        raw.settimeout(2)
        while got < LARGE:
            data = raw.recv(1 << 15)
            assert data, "cut off"
            got += len(data)
            if time.monotonic() - begin < 0.9:
                time.sleep(0.01)


class Transport:
    """Of a socket: what waits, and whether it is closing."""

    waiting, closing = 0, False

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.waiting


def test_who_is_gone() -> None:
    transport: Any = Transport()
    reader = _Reader(transport, 60)
    assert not reader.is_gone(False, 0, False)
    transport.waiting = 1000  # little: more may be sent
    assert not reader.is_gone(False, 100, False)
    assert not reader.is_gone(False, 200, False)
    transport.waiting = 1 << 20
    assert not reader.is_gone(True, 200, True)
    transport.waiting -= _LEAST_BYTES
    assert not reader.is_gone(True, 250, True)
    transport.waiting -= 1000
    assert not reader.is_gone(True, 300, True)
    assert reader.is_gone(True, 310, True)
    reader.took()
    assert not reader.is_gone(True, 320, True)
    transport.closing = True  # a complete answer, or a socket: the timeout goes on
    assert not reader.is_gone(False, 330, False)
    assert reader.is_gone(False, 380, False)
    reader = _Reader(transport, 60)
    assert not reader.is_gone(True, 400, True)  # one that was given up
    assert reader.is_gone(True, 405, True)
    transport.waiting = 0
    assert reader.done
