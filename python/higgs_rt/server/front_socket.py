"""Web sockets of the front: the first message chooses the replica, then all are passed on."""

from __future__ import annotations

import asyncio
import contextlib
import json

from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from higgs_rt.server.dispatch import Dispatch, counted
from higgs_rt.server.limits import known_keys
from higgs_rt.server.problems import Problem, body_of, problem_of
from higgs_rt.server.replicas import Replica
from higgs_rt.server.routing import hint_of
from higgs_rt.server.settings import ServerSettings
from higgs_rt.server.tasks import end_tasks

SOCKET = "/v1/audio/speech/stream"


class FrontSocket:
    """Connections of clients, each joined to one of a replica."""

    def __init__(self, dispatch: Dispatch, settings: ServerSettings) -> None:
        self._dispatch = dispatch
        self._settings = settings
        self._knows = known_keys(settings)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, from its opening to its end."""
        await receive()  # websocket.connect
        if scope["path"] != SOCKET:
            return await send({"type": "websocket.close", "code": 1000})
        await send({"type": "websocket.accept"})
        try:
            first = await asyncio.wait_for(receive(), self._settings.socket_idle_timeout)
            if first["type"] == "websocket.disconnect":
                return
            start = (first.get("text") or "").encode()
            self._check_key(scope, start)
            replica = self._dispatch.choose(hint_of(start), [])
            with counted(replica):
                await self._pump(replica, scope, first, receive, send)
        except asyncio.TimeoutError:
            pass
        except Exception as error:
            message = json.dumps({"type": "error", **body_of(problem_of(error))})
            with contextlib.suppress(Exception):
                await send({"type": "websocket.send", "text": message})
        with contextlib.suppress(Exception):
            await send({"type": "websocket.close", "code": 1000})

    def _check_key(self, scope: Scope, start: bytes) -> None:
        sent = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        key = sent.removeprefix("Bearer ").strip()
        if not key:
            with contextlib.suppress(ValueError, RecursionError):
                fields = json.loads(start)
                key = fields.get("api_key") if isinstance(fields, dict) else ""
        if not self._knows(key if isinstance(key, str) else ""):
            raise Problem(401, "expected a valid API key", "invalid_api_key")

    async def _pump(
        self, replica: Replica, scope: Scope, first: Message, receive: Receive, send: Send
    ) -> None:
        headers = {"X-Request-Id": scope["state"]["request_id"]}
        self._dispatch.answered.put(scope["state"]["request_id"], replica.index)
        try:
            connection = await unix_connect(
                str(replica.path),
                f"ws://replica{SOCKET}",
                additional_headers=headers,
                compression=None,
                max_size=None,
                ping_interval=None,  # a listener that pauses must not cost the replica's answer
            )
        except (OSError, InvalidHandshake) as error:
            replica.fail(str(error))
            raise Problem(503, "the replica failed", "replica_failed", retry_after=1) from None
        async with connection:
            up = asyncio.create_task(_upwards(connection, first, receive))
            down = asyncio.create_task(self._downwards(connection, send))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            results = await end_tasks(up, down)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _downwards(self, connection: ClientConnection, send: Send) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for data in connection:
                kind = "text" if isinstance(data, str) else "bytes"
                message = {"type": "websocket.send", kind: data}
                await asyncio.wait_for(send(message), self._settings.send_timeout)


async def _upwards(connection: ClientConnection, message: Message, receive: Receive) -> None:
    with contextlib.suppress(ConnectionClosed):
        while message["type"] == "websocket.receive":
            text, data = message.get("text"), message.get("bytes")
            await connection.send((data or b"") if text is None else text)
            message = await receive()
