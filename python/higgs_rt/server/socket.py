"""`WS /v1/audio/speech/stream`: text in as it is written, audio out as it is spoken."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ConfigDict, Field, ValidationError

from higgs_rt.narration import LiveTurns
from higgs_rt.server.delivery import Listener
from higgs_rt.server.formats import Format, make_encoder
from higgs_rt.server.problems import Problem, body_of, problem_of
from higgs_rt.server.schemas import SamplingFields, VoiceField
from higgs_rt.server.service import Service
from higgs_rt.server.tasks import end_tasks
from higgs_rt.speech import AsyncSpeechStream


class SessionStart(SamplingFields):
    """The first message."""

    model_config = ConfigDict(extra="forbid")
    type: str = "session.start"
    model: str | None = None
    api_key: str | None = Field(None, max_length=256)
    voice: VoiceField = None
    response_format: Format = "pcm"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    instructions: str | None = Field(None, max_length=5000)


def socket_router(service: Service, knows_key: Callable[[str], bool]) -> APIRouter:
    """The route. `knows_key` is that of `known_keys`."""
    router = APIRouter()

    @router.websocket("/v1/audio/speech/stream")
    async def speak_live(socket: WebSocket) -> None:
        await socket.accept()
        session = _Session(service, socket, knows_key)
        try:
            await session.run()
        except (WebSocketDisconnect, asyncio.TimeoutError):
            pass
        except Exception as error:
            with contextlib.suppress(Exception):
                await socket.send_json({"type": "error", **body_of(problem_of(error))})
        finally:
            with contextlib.suppress(Exception):
                await socket.close()

    return router


class _Session:
    def __init__(
        self, service: Service, socket: WebSocket, knows_key: Callable[[str], bool]
    ) -> None:
        self._service = service
        self._socket = socket
        self._knows_key = knows_key
        self._id = socket.scope["state"]["request_id"]
        self._chars = 0

    async def run(self) -> None:
        """One session: start, text, done."""
        start = await self._start()
        with self._service.place():
            options = await self._service.options(
                start, start.voice, model=start.model, scene=start.instructions
            )
            turns, stream = self._service.runtime.live(**options)
            rate = stream.sample_rate
            await self._send(
                {
                    "type": "session.started",
                    "request_id": self._id,
                    "sample_rate": rate,
                    "seed": stream.seed,
                }
            )
            speaking = asyncio.create_task(self._speak(stream, start))
            writing = asyncio.create_task(self._write(turns))
            try:
                await asyncio.wait({speaking, writing}, return_when=asyncio.FIRST_COMPLETED)
                if writing.done() and writing.exception() is None:
                    leaving = asyncio.create_task(self._left())
                    await asyncio.wait({speaking, leaving}, return_when=asyncio.FIRST_COMPLETED)
                    leaving.cancel()
                for task in (writing, speaking):
                    if task.done():
                        task.result()
            finally:
                stream.cancel()
                await end_tasks(speaking, writing)

    async def _start(self) -> SessionStart:
        message = await self._receive()
        if message.get("type") != "session.start":
            raise Problem(400, "[type] expected session.start first", "invalid_value", "type")
        try:
            start = SessionStart.model_validate(message)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Problem(400, f"[{where}] {first['msg']}", "invalid_value", where) from None
        sent = self._socket.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not self._knows_key(sent or start.api_key or ""):
            raise Problem(401, "expected a valid API key", "invalid_api_key")
        if start.model is not None:
            self._service.check_model(start.model)
        return start

    async def _write(self, turns: LiveTurns) -> None:
        """Text of the client, until it says that it is done."""
        while True:
            message = await self._receive()
            kind = message.get("type")
            if kind == "input_text.append":
                text = message.get("text")
                if not isinstance(text, str):
                    raise Problem(400, "[text] expected a string", "invalid_value", "text")
                self._chars += len(text)
                limit = self._service.settings.max_input_chars
                if self._chars > limit:
                    raise Problem(400, f"[text] expected at most {limit} characters", "too_large")
                turns.feed(text)
            elif kind == "input_text.flush":
                turns.flush()
            elif kind == "input_text.done":
                turns.close()
                return
            else:
                raise Problem(
                    400,
                    "[type] expected input_text.append, input_text.flush or input_text.done",
                    "invalid_value",
                    "type",
                )

    async def _speak(self, stream: AsyncSpeechStream, start: SessionStart) -> None:
        encoder = make_encoder(start.response_format, stream.sample_rate, speed=start.speed)
        listener = Listener(self._service, self._id)
        async with contextlib.aclosing(listener.chunks(stream)) as chunks:
            async for samples in chunks:
                await self._bytes(encoder.encode(samples))
        await self._bytes(encoder.finish())
        report = listener.report(stream)
        await self._send({"type": "speech.done", **report.model_dump()})

    async def _left(self) -> None:
        """Wait until the client leaves; there is nothing more for it to say."""
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            pass

    async def _receive(self) -> dict[str, Any]:
        timeout = self._service.settings.socket_idle_timeout
        received = await asyncio.wait_for(self._socket.receive(), timeout)
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received["code"], received.get("reason"))
        text = received.get("text")
        if text is None:
            raise Problem(400, "expected a text message", "invalid_json")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise Problem(400, "expected JSON", "invalid_json") from None
        if not isinstance(message, dict):
            raise Problem(400, "expected a JSON object", "invalid_json")
        return message

    async def _bytes(self, data: bytes) -> None:
        if data:
            await asyncio.wait_for(
                self._socket.send_bytes(data), self._service.settings.send_timeout
            )

    async def _send(self, message: dict[str, Any]) -> None:
        await asyncio.wait_for(self._socket.send_json(message), self._service.settings.send_timeout)
