"""`POST /v1/audio/speech`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from higgs_rt.server.delivery import AudioForm, Form, SpokenResponse, SseForm, WholeFile
from higgs_rt.server.formats import MEDIA_TYPES, Encoder, make_encoder
from higgs_rt.server.problems import RESPONSES
from higgs_rt.server.schemas import SpeechRequest
from higgs_rt.server.service import Service
from higgs_rt.speech import AsyncSpeechStream

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The audio, as it is made.",
        "content": {
            **dict.fromkeys(MEDIA_TYPES.values(), _BINARY),
            "text/event-stream": {},
        },
        "headers": {
            "X-Higgs-Seed": {"schema": {"type": "integer"}, "description": "Repeats the answer."},
            "X-Request-Id": {"schema": {"type": "string"}},
        },
    }
}


def speech_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["speech"])

    @router.post(
        "/v1/audio/speech",
        responses={**_ANSWER, **RESPONSES},
        response_class=Response,
        summary="Text to speech",
    )
    async def create_speech(body: SpeechRequest, request: Request) -> Response:
        service.refuse_when_full()
        service.check_model(body.model)
        service.check_input(body.input)

        async def opener() -> AsyncSpeechStream:
            options = await service.options(
                body, body.voice, model=body.model, scene=body.instructions
            )
            return await service.runtime.asubmit(body.input, stream=True, **options)

        return SpokenResponse(service, opener, _form(service, body), whole=not body.stream)

    return router


def _form(service: Service, body: SpeechRequest) -> Form:
    rate, name = service.runtime.info.sample_rate, body.response_format
    encoder: Encoder
    if not body.stream and name in ("wav", "flac"):
        encoder = WholeFile(name, rate, body.speed)
    else:
        encoder = make_encoder(name, rate, speed=body.speed)
    return SseForm(encoder) if body.stream_format == "sse" else AudioForm(encoder, name)
