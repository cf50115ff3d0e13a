"""From a stream of speech to the bytes of a response; whoever hangs up cancels at once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Literal, Protocol

import numpy as np
import soundfile
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from higgs_rt.audio import pcm16
from higgs_rt.errors import HiggsError
from higgs_rt.server.formats import (
    MEDIA_TYPES,
    Encoder,
    Format,
    Samples,
    change_speed,
)
from higgs_rt.server.problems import body_of, problem_of, response_of
from higgs_rt.server.schemas import RequestReport
from higgs_rt.server.service import Service
from higgs_rt.server.tasks import end_tasks
from higgs_rt.speech import AsyncSpeechStream

Opener = Callable[[], Awaitable[AsyncSpeechStream]]


class Form(Protocol):
    """How samples are written into a response."""

    media_type: str

    def chunk(self, samples: Samples) -> bytes:
        """Bytes for a chunk; there may be none yet."""
        ...

    def end(self, report: RequestReport) -> bytes:
        """The last bytes."""
        ...

    def failure(self, error: Exception) -> bytes | None:
        """How to say that the rest will not come; None: by cutting the response off."""
        ...


class AudioForm:
    """The bytes of a file."""

    def __init__(self, encoder: Encoder, name: Format) -> None:
        self.media_type = MEDIA_TYPES[name]
        self._encoder = encoder

    def chunk(self, samples: Samples) -> bytes:
        return self._encoder.encode(samples)

    def end(self, report: RequestReport) -> bytes:
        return self._encoder.finish()

    def failure(self, error: Exception) -> bytes | None:
        return None


class SseForm:
    """Server-sent events with the bytes of a file in base64, as the OpenAI API has them."""

    media_type = "text/event-stream"

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def chunk(self, samples: Samples) -> bytes:
        return self._delta(self._encoder.encode(samples))

    def end(self, report: RequestReport) -> bytes:
        done = {
            "type": "speech.audio.done",
            "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
            **report.model_dump(),
        }
        return self._delta(self._encoder.finish()) + event(done)

    def failure(self, error: Exception) -> bytes | None:
        return event({"type": "error", **body_of(problem_of(error))})

    def _delta(self, data: bytes) -> bytes:
        if not data:
            return b""
        return event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})


def event(data: dict[str, Any] | str) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


class Listener:
    """Reads a stream for one request, and counts what operators want to know."""

    def __init__(self, service: Service, request_id: str) -> None:
        self._service = service
        self._id = request_id
        self._began = time.monotonic()
        self._first = -1.0
        self._heard = 0.0  # seconds sent
        self.turns = 0

    async def chunks(self, stream: AsyncSpeechStream) -> AsyncGenerator[Samples, None]:
        """The chunks of a stream, which is cancelled when nobody wants the rest."""
        metrics = self._service.metrics
        stream.warns = False  # the answer tells its stop reason
        try:
            async for samples in stream:
                now = time.monotonic()
                if self._first < 0:
                    self._first = now
                    metrics.first_audio.observe(now - self._began)
                elif now - self._first > self._heard:
                    metrics.underruns.inc()
                self._heard = stream.seconds
                yield samples
        finally:
            stream.cancel()

    def report(self, stream: AsyncSpeechStream) -> RequestReport:
        """How it ended; kept for GET /v1/requests."""
        took = time.monotonic() - self._began
        finish = stream.finish or "cancelled"
        metrics = self._service.metrics
        metrics.stops.labels(finish).inc()
        metrics.speech.inc(stream.seconds)
        frames = stream.seconds * self._service.runtime.frame_rate
        if frames >= 1:
            metrics.frame.observe(took / frames)
        report = RequestReport(
            id=self._id,
            finish=finish,
            seed=stream.seed,
            seconds=round(stream.seconds, 3),
            first_audio=round(self._first - self._began if self._first >= 0 else -1.0, 4),
            took=round(took, 4),
            turns=stream.num_turns,
        )
        self._service.reports.put(self._id, report)
        return report


class SpokenResponse(Response):
    """Speaks while it is read.

    The status is sent with the first audio, so that what is wrong gets its own. A client that
    leaves, or does not read for `send_timeout`, cancels its request.
    """

    def __init__(self, service: Service, opener: Opener, form: Form, *, whole: bool) -> None:
        """`whole`: the body is sent at once, with its length."""
        self._service = service
        self._opener = opener
        self._form = form
        self._whole = whole
        super().__init__(media_type=form.media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run until the end, a failure, or a disconnect."""
        speaking = asyncio.create_task(self._speak(scope, receive, send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({speaking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            results = await end_tasks(speaking, leaving)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _speak(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = _Sender(send, self._form.media_type, self._service.settings.send_timeout)
        listener = Listener(self._service, scope["state"]["request_id"])
        stream: AsyncSpeechStream | None = None
        try:
            with self._service.place():
                stream = await self._opener()
                await self._deliver(stream, listener, sender)
            self._service.note(None)
        except Exception as error:
            # Before there is a stream, only the runtime's own errors tell of its device; any other
            # is of a text that could not be prepared.
            if stream is not None or isinstance(error, HiggsError):
                self._service.note(error)
            if not sender.started:
                await response_of(problem_of(error))(scope, receive, send)
                return
            last = None if isinstance(error, asyncio.TimeoutError) else self._form.failure(error)
            if last is None:
                raise  # the server cuts the response off
            await sender.send(last)
            await sender.end()
        finally:
            if stream is not None:
                stream.cancel()
                if stream.finish is None or stream.finish in ("cancelled", "error"):
                    listener.report(stream)

    async def _deliver(
        self, stream: AsyncSpeechStream, listener: Listener, sender: _Sender
    ) -> None:
        sender.headers["X-Higgs-Seed"] = str(stream.seed)
        sender.headers["X-Sample-Rate"] = str(stream.sample_rate)
        body = []
        async with contextlib.aclosing(listener.chunks(stream)) as chunks:
            async for samples in chunks:
                data = self._form.chunk(samples)
                if self._whole:
                    body.append(data)
                else:
                    await sender.send(data)
        report = listener.report(stream)
        last = self._form.end(report)
        if self._whole:
            sender.headers["X-Higgs-Finish"] = report.finish
            await sender.all(b"".join([*body, last]))
        else:
            await sender.send(last)
            await sender.end()


class _Sender:
    """Sends parts of a body; TimeoutError when the reader does not take them."""

    def __init__(self, send: Send, media_type: str, timeout: float) -> None:
        self._send = send
        self._timeout = timeout
        self.headers = {"Content-Type": media_type, "Cache-Control": "no-store"}
        self.started = False

    async def send(self, data: bytes) -> None:
        await self._start()
        if data:
            await self._pass({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._start()
        await self._pass({"type": "http.response.body", "body": b""})

    async def all(self, data: bytes) -> None:
        self.headers["Content-Length"] = str(len(data))
        await self._start()
        await self._pass({"type": "http.response.body", "body": data})

    async def _start(self) -> None:
        if self.started:
            return
        self.started = True
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await self._pass({"type": "http.response.start", "status": 200, "headers": headers})

    async def _pass(self, message: dict[str, Any]) -> None:
        await asyncio.wait_for(self._send(message), self._timeout)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class WholeFile:
    """A WAV or FLAC file whose header knows its length: for answers that are sent at once."""

    def __init__(self, name: Literal["wav", "flac"], sample_rate: int, speed: float) -> None:
        self.media_type = MEDIA_TYPES[name]
        self._name = name
        self._sample_rate = sample_rate
        self._speed = speed
        self._parts: list[Samples] = []

    def encode(self, samples: Samples) -> bytes:
        self._parts.append(samples)
        return b""

    def finish(self) -> bytes:
        samples = np.concatenate([np.zeros(0, np.float32), *self._parts])
        samples = change_speed(samples, self._sample_rate, self._speed)
        file = io.BytesIO()
        soundfile.write(file, pcm16(samples), self._sample_rate, format=self._name.upper())
        return file.getvalue()
