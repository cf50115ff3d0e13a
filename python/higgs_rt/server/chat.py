"""`POST /v1/chat/completions`: the last user message is spoken, after the conversation so far."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response

from higgs_rt.options import SpeakOptions
from higgs_rt.prompt import Reference
from higgs_rt.prompt.layouts import INSTRUCTION, MULTISPEAKER_INSTRUCTION
from higgs_rt.prompt.tokenizer import SCENE_END, SCENE_START
from higgs_rt.server.delivery import SpokenResponse, WholeFile, event
from higgs_rt.server.formats import Encoder, Samples, make_encoder
from higgs_rt.server.problems import RESPONSES, Problem, body_of, problem_of
from higgs_rt.server.schemas import ChatMessage, ChatRequest, RequestReport
from higgs_rt.server.service import Service
from higgs_rt.speech import AsyncSpeechStream

_KEPT_SECONDS = 3600
_FINISH = {"stop": "stop", "length": "length", "silence": "stop", "loop": "stop"}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A chat completion whose message has audio.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {},
        },
    }
}


@dataclass(frozen=True)
class _Answer:
    """An assistant's message, and the words of the user's before it."""

    message: ChatMessage
    asked: str
    where: str


@dataclass
class _Conversation:
    scene: str | None = None
    answers: list[_Answer] = field(default_factory=list)
    text: str = ""


def chat_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["chat"])

    @router.post(
        "/v1/chat/completions",
        responses={**_ANSWER, **RESPONSES},
        response_class=Response,
        summary="Speech as a conversation",
    )
    async def create_completion(body: ChatRequest, request: Request) -> Response:
        service.refuse_when_full()
        service.check_model(body.model)
        if "audio" not in body.modalities:
            raise Problem(
                400, "[modalities] expected audio among them", "invalid_value", "modalities"
            )
        talk = _read(body.messages)
        service.check_input(talk.text, "messages")
        wanted = body.audio.format
        if body.stream and wanted not in ("pcm16", "pcm", "mp3", "opus", "aac", "flac"):
            raise Problem(
                400,
                f"[audio.format] expected pcm16 or a coded format with stream, got {wanted}",
                "invalid_value",
                "audio.format",
            )
        name = "pcm" if wanted == "pcm16" else wanted
        rate = service.runtime.info.sample_rate
        form: _Whole | _Events
        if body.stream:
            form = _Events(service, body.model, talk.text, make_encoder(name, rate))
        else:
            encoder: Encoder
            if name == "wav" or name == "flac":
                encoder = WholeFile(name, rate, 1.0)
            else:
                encoder = make_encoder(name, rate)
            form = _Whole(service, body.model, talk.text, encoder)

        async def opener() -> AsyncSpeechStream:
            options = await _options(service, body, talk)
            stream = await service.runtime.asubmit(talk.text, stream=True, **options)
            stream.keep_frames()
            form.transcript = await asyncio.to_thread(
                service.runtime.transcript, talk.text, **options
            )
            form.stream = stream
            return stream

        return SpokenResponse(service, opener, form, whole=not body.stream)

    return router


async def _options(service: Service, body: ChatRequest, talk: _Conversation) -> SpeakOptions:
    """The request as options of the runtime, with what was said before."""
    spoken = [await _spoken(service, answer) for answer in talk.answers]
    options = await service.options(body, body.audio.voice, model=body.model, scene=talk.scene)
    tokens = body.max_completion_tokens or body.max_tokens
    if tokens is not None and body.max_seconds is None:
        options["max_seconds"] = tokens / service.runtime.frame_rate
    if history := [one for one in spoken if one is not None]:
        options["history"] = history
    return options


def _read(messages: list[ChatMessage]) -> _Conversation:
    """System text is the scene; pairs of user text and assistant audio are what was said."""
    talk = _Conversation()
    asked: str | None = None
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if message.role in ("system", "developer"):
            talk.scene = _scene(_text(message, where)) or talk.scene
        elif message.role == "user":
            asked = _text(message, where)
        else:
            if asked is None:
                raise Problem(400, f"[{where}] expected a user message before it", "invalid_value")
            talk.answers.append(_Answer(message, asked, where))
            asked = None
    if not asked:
        raise Problem(
            400, "[messages] expected a user message with text last", "invalid_value", "messages"
        )
    talk.text = asked
    return talk


def _text(message: ChatMessage, where: str) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = message.content or []
    if any(part.type != "text" for part in parts):
        raise Problem(
            400,
            f"[{where}] expected text; a recording belongs to the assistant's message behind "
            "the words that are spoken in it",
            "invalid_value",
            where,
        )
    return " ".join(part.text or "" for part in parts)


async def _spoken(service: Service, answer: _Answer) -> Reference | None:
    message, where = answer.message, answer.where
    if message.audio is not None:
        known = service.spoken.get(message.audio.id)
        if known is None:
            raise Problem(
                404,
                f"[{where}.audio.id] expected an answer of the last hour, got none of that id",
                "audio_not_found",
                f"{where}.audio.id",
            )
        return known
    if isinstance(message.content, list):
        for part in message.content:
            if part.input_audio is not None:
                return await service.reference(part.input_audio.data, answer.asked, where)
    return None  # words without sound: nothing to go on from


def _scene(text: str) -> str | None:
    """The scene in a system message; instructions and markers of the prompt format are left out."""
    for known in (MULTISPEAKER_INSTRUCTION, INSTRUCTION):
        text = text.replace(known, "")
    text = re.sub(f"{re.escape(SCENE_START)}|{re.escape(SCENE_END)}", "", text)
    return text.strip() or None


class _Completion:
    media_type = "application/json"

    def __init__(self, service: Service, model: str, text: str, encoder: Encoder) -> None:
        self._service = service
        self._model = model
        self._text = text
        self._encoder = encoder
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        number = service.settings.replica  # the front finds the answer by it
        self._audio_id = f"audio_{'' if number is None else f'{number}_'}{secrets.token_hex(12)}"
        self._created = int(time.time())
        self.stream: AsyncSpeechStream | None = None
        self.transcript = text  # as the prompt has it

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
        }

    def _keep(self) -> None:
        """For a message that goes on from this answer."""
        frames = None if self.stream is None else self.stream.kept_frames
        if frames is not None:
            self._service.spoken.put(self._audio_id, Reference(frames, self.transcript))

    def _usage(self, report: RequestReport) -> dict[str, Any]:
        frames = round(report.seconds * self._service.runtime.frame_rate)
        return {"prompt_tokens": 0, "completion_tokens": frames, "total_tokens": frames}


class _Whole(_Completion):
    """One JSON object."""

    def __init__(self, service: Service, model: str, text: str, encoder: Encoder) -> None:
        super().__init__(service, model, text, encoder)
        self._data: list[bytes] = []

    def chunk(self, samples: Samples) -> bytes:
        self._data.append(self._encoder.encode(samples))
        return b""

    def end(self, report: RequestReport) -> bytes:
        self._keep()
        last = self._encoder.finish()
        audio = {
            "id": self._audio_id,
            "data": base64.b64encode(b"".join([*self._data, last])).decode(),
            "expires_at": self._created + _KEPT_SECONDS,
            "transcript": self._text,
        }
        choice = {
            "index": 0,
            "finish_reason": _FINISH.get(report.finish, "stop"),
            "logprobs": None,
            "message": {"role": "assistant", "content": None, "refusal": None, "audio": audio},
        }
        body = {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": self._usage(report),
            "higgs": report.model_dump(),
        }
        return json.dumps(body).encode()

    def failure(self, error: Exception) -> bytes | None:
        return None


class _Events(_Completion):
    """Server-sent chunks."""

    media_type = "text/event-stream"
    _begun = False

    def chunk(self, samples: Samples) -> bytes:
        return self._audio(self._encoder.encode(samples))

    def end(self, report: RequestReport) -> bytes:
        self._keep()
        data = self._audio(self._encoder.finish())
        data += self._delta({"audio": {"expires_at": self._created + _KEPT_SECONDS}})
        last = self._chunk({}, _FINISH.get(report.finish, "stop"))
        last["higgs"] = report.model_dump()
        return data + event(last) + event("[DONE]")

    def failure(self, error: Exception) -> bytes | None:
        return event(body_of(problem_of(error)))

    def _audio(self, data: bytes) -> bytes:
        begin = b""
        if not self._begun:
            self._begun = True
            audio = {"id": self._audio_id, "transcript": self._text}
            begin = self._delta({"role": "assistant", "content": None, "audio": audio})
        if not data:
            return begin
        return begin + self._delta({"audio": {"data": base64.b64encode(data).decode()}})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return event(self._chunk(delta, None))

    def _chunk(self, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}
