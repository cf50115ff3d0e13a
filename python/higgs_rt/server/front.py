"""The front of several replicas: checks, chooses, and passes requests and answers on."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from higgs_rt.server.dispatch import Dispatch, counted
from higgs_rt.server.fleet_metrics import FrontMetrics, merged
from higgs_rt.server.front_socket import SOCKET, FrontSocket
from higgs_rt.server.limits import Door
from higgs_rt.server.page import POLICY, page
from higgs_rt.server.problems import Problem, problem_of, response_of
from higgs_rt.server.relay import Exchange, ReplicaError, UnreachableError, fetch
from higgs_rt.server.replicas import Fleet, Replica
from higgs_rt.server.routing import Hint, hint_of
from higgs_rt.server.settings import ServerSettings
from higgs_rt.server.tasks import end_tasks

_SPOKEN = ("/v1/audio/speech", "/v1/chat/completions")
_VOICES = "/v1/audio/voices"
_EXACT = (*_SPOKEN, SOCKET, "/healthz", "/readyz", "/metrics", "/openapi.json", "/")
_BEGINNINGS = (_VOICES, "/v1/models", "/v1/requests")
_TRIES = 2  # replicas that a request is passed to when the first one breaks


def create_front(fleet: Fleet, settings: ServerSettings) -> ASGIApp:
    """An ASGI application over the replicas, which it starts and ends."""
    metrics = FrontMetrics(fleet)
    app: ASGIApp = _Front(fleet, settings, metrics)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Request-Id", "X-Higgs-Seed", "X-Higgs-Finish", "X-Sample-Rate"],
        )
    return _Problems(Door(app, settings=settings, metrics=metrics))


class _Problems:
    """Answers what is raised before the answer has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            await response_of(problem_of(error))(scope, receive, send)


class _Front:
    def __init__(self, fleet: Fleet, settings: ServerSettings, metrics: FrontMetrics) -> None:
        self._fleet = fleet
        self._settings = settings
        self._metrics = metrics
        self._dispatch = Dispatch(fleet, metrics)
        self._socket = FrontSocket(self._dispatch, settings)
        self._page = page() if settings.playground else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        path = scope["path"]
        beginning = next((one for one in _BEGINNINGS if path.startswith(one)), "other")
        scope["route"] = SimpleNamespace(path=path if path in _EXACT else beginning)
        if scope["type"] == "websocket":
            return await self._socket.serve(scope, receive, send)
        try:
            response = await self._own(scope["path"]) if scope["method"] == "GET" else None
            if response is not None:
                return await response(scope, receive, send)
            await self._pass(scope, receive, send)
        except Problem as problem:
            await response_of(problem)(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start with the server, end with it."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._fleet.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._fleet.close(self._settings.drain_seconds)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _own(self, path: str) -> Response | None:
        """Answers about all replicas."""
        if path == "/" and self._page is not None:
            return HTMLResponse(self._page, headers={"Content-Security-Policy": POLICY})
        if path in ("/healthz", "/readyz"):
            if path == "/readyz":
                self._dispatch.check_ready()
            body = {"status": "ok", "model": self._settings.model_name}
            return JSONResponse(
                {**body, "replicas": [one.summary() for one in self._fleet.replicas]}
            )
        if path == "/metrics":
            return Response(await self._all_metrics(), media_type="text/plain; version=0.0.4")
        return None

    async def _all_metrics(self) -> bytes:
        async def of(replica: Replica) -> tuple[int, str]:
            status, text = await fetch(replica.path, "/metrics", 5.0)
            if status != 200:
                raise ReplicaError(f"[replica {replica.index}] /metrics answers {status}")
            return replica.index, text.decode()

        found = await asyncio.gather(*map(of, self._fleet.ready), return_exceptions=True)
        texts = dict(one for one in found if not isinstance(one, BaseException))
        return self._metrics.text() + await asyncio.to_thread(merged, texts)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To a replica, and to another one when it breaks before it has answered."""
        path, method = scope["path"], scope["method"]
        body = await _body_of(receive)
        # Of what will be refused, the body is not passed on: nobody would read it.
        if path not in _SPOKEN and not (path == _VOICES and self._settings.allow_voice_changes):
            body = b""
        hint = await self._hint(path, method, body)
        repeatable = method == "GET" or path in _SPOKEN
        tried: list[int] = []
        while True:
            replica = self._dispatch.choose(hint, tried, speaks=path in _SPOKEN)
            try:
                with counted(replica) if path in _SPOKEN else contextlib.nullcontext():
                    return await self._exchange(replica, scope, receive, send, body)
            except _BrokenEarlyError as error:
                if error.unreachable:  # what else it may be, its watch finds out
                    replica.fail(str(error))
                tried.append(replica.index)
                if not repeatable or len(tried) == _TRIES:
                    message = "the replica failed; it is not known whether it did what was asked"
                    raise Problem(503, message, "replica_failed", retry_after=1) from None
                self._metrics.moved.inc()

    async def _hint(self, path: str, method: str, body: bytes) -> Hint:
        if path in _SPOKEN:
            # A recording in the body takes a while to read.
            return await asyncio.to_thread(hint_of, body) if len(body) > 1 << 17 else hint_of(body)
        if path.startswith("/v1/requests/"):
            return Hint(replica=self._dispatch.answered.get(path.removeprefix("/v1/requests/")))
        if path.startswith(_VOICES) and method != "GET" and self._fleet.ready:
            # All changes in one process: two of a name meet there.
            return Hint(replica=self._fleet.ready[0].index)
        return Hint()

    async def _exchange(
        self, replica: Replica, scope: Scope, receive: Receive, send: Send, body: bytes
    ) -> None:
        request_id = scope["state"]["request_id"]
        exchange = Exchange(replica.path)
        target: bytes = scope.get("raw_path") or scope["path"].encode()
        if scope.get("query_string"):
            target += b"?" + scope["query_string"]
        headers = [pair for pair in scope["headers"] if pair[0] != b"x-request-id"]
        headers.append((b"x-request-id", request_id.encode()))

        async def work() -> None:
            try:
                await exchange.open(scope["method"], target, headers, body)
            except ReplicaError as error:
                raise _BrokenEarlyError(error) from None
            if scope["path"] in _SPOKEN:
                self._dispatch.answered.put(request_id, replica.index)
            start = {"type": "http.response.start", "status": exchange.status}
            await self._sent(send, {**start, "headers": exchange.headers})
            async for part in exchange.body():
                message = {"type": "http.response.body", "body": part, "more_body": True}
                await self._sent(send, message)
            await self._sent(send, {"type": "http.response.body", "body": b""})

        working = asyncio.create_task(work())
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            exchange.close()  # a client that leaves cancels its request
            results = await end_tasks(working, leaving)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _sent(self, send: Send, message: dict[str, Any]) -> None:
        await asyncio.wait_for(send(message), self._settings.send_timeout)


class _BrokenEarlyError(ReplicaError):
    """No answer has begun: another replica may be asked."""

    def __init__(self, error: ReplicaError) -> None:
        super().__init__(str(error))
        self.unreachable = isinstance(error, UnreachableError)


async def _body_of(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "the client left", "disconnected")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _left(receive: Receive) -> None:
    """Wait until the client leaves; its body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
