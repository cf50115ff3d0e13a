"""Running the application with uvicorn."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from higgs_rt.server.settings import ServerSettings


def make_config(app: ASGIApp, settings: ServerSettings, **options: Any) -> uvicorn.Config:
    """uvicorn's configuration; `options` are its own (host, port, uds, …)."""
    defaults: dict[str, Any] = {
        "http": _protocol(settings.header_timeout),
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


def _protocol(timeout: float) -> type[asyncio.Protocol]:
    class TimedProtocol(H11Protocol):
        """Drops connections that do not finish the head of their first request in time."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head = self.loop.call_later(timeout, self._late)

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._head.cancel()
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head.cancel()
            super().connection_lost(exc)

        def _late(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return TimedProtocol
