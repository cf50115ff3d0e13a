"""Running the application with uvicorn."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from higgs_rt.server.settings import ServerSettings

_LOOK_SECONDS = 5.0  # between looks at what waits to be sent
_LEAST_BYTES = 48 << 10  # what the marks of asyncio's buffer ask of a reader before the next part


def make_config(app: ASGIApp, settings: ServerSettings, **options: Any) -> uvicorn.Config:
    """uvicorn's configuration; `options` are its own (host, port, uds, …)."""
    defaults: dict[str, Any] = {
        "http": _protocol(settings.header_timeout, settings.send_timeout),
        "ws": "websockets-sansio",
        "ws_max_size": settings.socket_message_bytes,
        "ws_per_message_deflate": False,  # a small message must not become a large one
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": max(1, round(settings.drain_seconds)),
        "server_header": False,
        "log_level": "warning",
        "access_log": False,
    }
    return uvicorn.Config(app, **{**defaults, **options})


def _protocol(head_timeout: float, send_timeout: float) -> type[asyncio.Protocol]:
    look_seconds = min(_LOOK_SECONDS, send_timeout)

    class TimedProtocol(H11Protocol):
        """Drops connections that do not finish the head of their first request in time.

        And those that do not take what they are sent: closing them would wait for it.
        """

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head = self.loop.call_later(head_timeout, self._late)
            self._reader = _Reader(transport, send_timeout)
            self._look = self.loop.call_later(look_seconds, self._watch)

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._head.cancel()
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head.cancel()
            self._look.cancel()
            super().connection_lost(exc)

        def resume_writing(self) -> None:
            self._reader.took()
            super().resume_writing()

        def _late(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

        def _watch(self) -> None:
            """Look again and again, as long as the connection lasts; also that of a socket."""
            answering = self.cycle is not None and not self.cycle.response_complete
            if self._reader.is_gone(self.flow.write_paused, self.loop.time(), answering):
                self.transport.abort()
            elif not self._reader.done:
                self._look = self.loop.call_later(look_seconds, self._watch)

    return TimedProtocol


class _Reader:
    """Whether the other end takes what waits to be sent, seen from time to time."""

    def __init__(self, transport: asyncio.Transport, timeout: float) -> None:
        self._transport = transport
        self._timeout = timeout
        self._waiting: tuple[int, float] | None = None  # bytes, and when there were as many
        self._closing = False

    @property
    def done(self) -> bool:
        """Whether the connection is closed and all was sent."""
        return self._transport.is_closing() and not self._transport.get_write_buffer_size()

    def took(self) -> None:
        """So much was taken that more can be sent."""
        self._waiting = None

    def is_gone(self, paused: bool, now: float, answering: bool) -> bool:
        """paused: nothing is sent until something is taken. answering: the answer is not complete.

        An answer that was given up gets until the next look, any other the timeout for each of
        `_LEAST_BYTES`.
        """
        closing, waiting = self._transport.is_closing(), self._transport.get_write_buffer_size()
        was_closing, self._closing = self._closing, closing
        if not waiting or not (paused or closing):
            self._waiting = None
            return False
        if was_closing and answering:
            return True
        if self._waiting is None or waiting <= self._waiting[0] - _LEAST_BYTES:
            self._waiting = (waiting, now)
        return now - self._waiting[1] >= self._timeout
