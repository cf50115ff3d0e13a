"""What is refused before an endpoint sees it: size, pace, keys, rates and foreign pages."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from prometheus_client import Counter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from higgs_rt.server.problems import Problem, response_of
from higgs_rt.server.settings import ServerSettings

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_CLIENTS = 10_000


class Counted(Protocol):
    """Where the door counts."""

    requests: Counter
    refused: Counter


class RateLimit:
    """A bucket of tokens for each client; the least recent clients are forgotten."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """0 when the client may go on, else the seconds until it may."""
        if self._per_minute <= 0:
            return 0.0
        now = time.monotonic()
        tokens, since = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(self._per_minute, tokens + (now - since) * self._per_minute / 60)
        wait = 0.0 if tokens >= 1 else (1 - tokens) * 60 / self._per_minute
        self._buckets[client] = (tokens - 1 if wait == 0 else tokens, now)
        while len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return wait


class Door:
    """Pure ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Counted) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._knows = known_keys(settings)
        self._rates = RateLimit(settings.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with an id, a limited body and some headers."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope.setdefault("state", {})["request_id"] = _request_id(headers)
        try:
            self._check(scope, headers)
        except Problem as problem:
            self._metrics.refused.labels(problem.code or str(problem.status)).inc()
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": problem.message})
            else:
                await response_of(problem)(scope, receive, self._labelled(scope, send))
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        body = _LimitedBody(receive, self._settings)
        await self._app(scope, body, self._labelled(scope, send))

    def _check(self, scope: Scope, headers: Headers) -> None:
        hosts = self._settings.allowed_hosts
        if hosts and _name_of(headers.get("host", "")) not in hosts:
            raise Problem(403, "expected another Host header", "host_refused")
        origin = headers.get("origin")
        if origin is not None and not self._may_call(origin, headers.get("host", "")):
            raise Problem(403, "pages of this origin may not call here", "origin_refused")
        path = scope["path"]
        if scope.get("method") == "OPTIONS":  # a browser asks first, without its key
            return
        client = scope["client"][0] if scope.get("client") else "unknown"
        if self._settings.api_keys and path not in OPEN_PATHS:
            key = headers.get("authorization", "").removeprefix("Bearer ").strip()
            # A page's socket cannot send headers; its first message brings the key.
            if not self._knows(key) and not (scope["type"] == "websocket" and not key):
                raise Problem(401, "expected a valid API key as bearer token", "invalid_api_key")
            client = f"key {_digest(key).hex()}" if key else client
        if path not in OPEN_PATHS and (wait := self._rates.take(client)) > 0:
            raise Problem(
                429,
                f"expected at most {self._settings.requests_per_minute} requests a minute",
                "rate_limited",
                retry_after=math.ceil(wait),
            )
        if scope["type"] == "http":
            self._check_body(headers)

    def _check_body(self, headers: Headers) -> None:
        if headers.get("content-encoding", "identity") != "identity":
            raise Problem(415, "expected a body without content-encoding", "content_encoding")
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise Problem(400, "expected a number as content-length", "content_length")
        if len(length) > 18 or int(length) > self._settings.max_body_bytes:
            raise _too_large(self._settings)

    def _may_call(self, origin: str, host: str) -> bool:
        allowed = self._settings.cors_origins
        return "*" in allowed or origin in allowed or urlsplit(origin).netloc == host

    def _labelled(self, scope: Scope, send: Send) -> Send:
        async def labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = scope["state"]["request_id"]
                headers["X-Content-Type-Options"] = "nosniff"
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        return labelled


class _LimitedBody:
    """A `receive` that ends bodies that are too long or too slow."""

    def __init__(self, receive: Receive, settings: ServerSettings) -> None:
        self._receive = receive
        self._settings = settings
        self._left = settings.max_body_bytes
        self._deadline = time.monotonic() + settings.body_timeout
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:  # the next message is a disconnect, whenever it comes
            return await self._receive()
        try:
            wait = max(0.0, self._deadline - time.monotonic())
            message = await asyncio.wait_for(self._receive(), wait)
        except asyncio.TimeoutError:
            raise Problem(408, "the body came too slowly", "body_timeout") from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._left < 0:
                raise _too_large(self._settings)
        return message


def _name_of(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def known_keys(settings: ServerSettings) -> Callable[[str], bool]:
    """Whether a key is one of the API keys; always when there are none."""
    keys = [_digest(key) for key in settings.api_keys]

    def knows(key: str) -> bool:
        digest = _digest(key)
        found = [hmac.compare_digest(digest, one) for one in keys]
        return any(found) or not found

    return knows


def _too_large(settings: ServerSettings) -> Problem:
    limit = settings.max_body_bytes
    return Problem(413, f"expected a body of at most {limit} bytes", "body_too_large")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _request_id(headers: Headers) -> str:
    """The caller's own id where it is harmless, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
