"""Models, voices, reports of requests, health and metrics."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse

from higgs_rt.errors import VoiceError
from higgs_rt.server.problems import RESPONSES, Problem
from higgs_rt.server.schemas import (
    Deleted,
    Health,
    ModelCard,
    ModelList,
    RequestReport,
    VoiceCard,
    VoiceList,
    VoiceUpload,
)
from higgs_rt.server.service import Service

Name = Annotated[str, Path(min_length=1, max_length=128)]

_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": VoiceUpload.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["name", "ref_text", "file"],
                    "properties": {
                        "name": {"type": "string", "minLength": 1, "maxLength": 64},
                        "ref_text": {"type": "string", "minLength": 1, "maxLength": 5000},
                        "file": {"type": "string", "format": "binary"},
                        "replace": {"type": "boolean"},
                    },
                }
            },
        },
    }
}


def catalog_router(service: Service) -> APIRouter:
    """All routes that do not speak."""
    router = APIRouter()
    _add_models(router, service)
    _add_voices(router, service)
    _add_state(router, service)
    return router


def _add_models(router: APIRouter, service: Service) -> None:
    own = service.settings.model_name
    card = ModelCard(id=own, created=service.created)
    adapters = {
        name: ModelCard(id=name, created=service.created, parent=own) for name in service.adapters
    }

    @router.get(
        "/v1/models",
        responses=RESPONSES,
        tags=["models"],
        summary="The loaded model and its adapters",
    )
    async def list_models() -> ModelList:
        return ModelList(data=[card, *adapters.values()])

    @router.get("/v1/models/{model}", responses=RESPONSES, tags=["models"], summary="A model")
    async def get_model(model: Name) -> ModelCard:
        service.check_model(model)
        return adapters.get(model, card)

    @router.get(
        "/v1/requests/{request_id}",
        responses=RESPONSES,
        tags=["models"],
        summary="How a request ended: its stop reason, seed and times",
    )
    async def get_request(request_id: Name) -> RequestReport:
        report = service.reports.get(request_id)
        if report is None:
            raise Problem(404, "expected a request of the last hour that has ended", "not_found")
        return report


def _add_voices(router: APIRouter, service: Service) -> None:
    store = service.runtime.voices

    def card(name: str) -> VoiceCard:
        voice = store.show(name)
        return VoiceCard(
            id=name,
            name=name,
            seconds=round(voice.seconds, 3),
            transcript=voice.transcript,
            packaged=store.is_packaged(name),
            usable=store.usable(voice),
        )

    def cards() -> list[VoiceCard]:
        found = []
        for name in store.names():
            try:
                found.append(card(name))
            except VoiceError:  # a broken file, or one that was just removed
                continue
        return found

    def check_change() -> None:
        if not service.settings.allow_voice_changes:
            raise Problem(403, "this server does not let voices be changed", "voices_fixed")

    @router.get("/v1/audio/voices", responses=RESPONSES, tags=["voices"], summary="Stored voices")
    async def list_voices() -> VoiceList:
        found = await run_in_threadpool(cards)
        return VoiceList(data=found, voices=[one.name for one in found])

    @router.post(
        "/v1/audio/voices",
        status_code=201,
        response_model=VoiceCard,
        responses={**RESPONSES, 409: {**RESPONSES[400], "description": "The name is taken."}},
        tags=["voices"],
        summary="Add a voice",
        openapi_extra=_UPLOAD,
    )
    async def add_voice(request: Request) -> Response:
        check_change()
        name, text, data, replace = await _upload(request, service)
        await service.add_voice(name, data, text, replace=replace, gone=request.is_disconnected)
        added = await run_in_threadpool(card, name)
        return JSONResponse(added.model_dump(), 201)

    @router.delete(
        "/v1/audio/voices/{name}", responses=RESPONSES, tags=["voices"], summary="Remove a voice"
    )
    async def remove_voice(name: Name) -> Deleted:
        check_change()
        if name not in store:
            raise Problem(404, f"[name] expected a stored voice, got {name[:64]!r}", "not_found")
        if store.is_packaged(name):
            raise Problem(403, f"[name] {name} comes with the package and stays", "packaged")
        await run_in_threadpool(store.remove, name)
        return Deleted(id=name)


async def _upload(request: Request, service: Service) -> tuple[str, str, bytes, bool]:
    """Name, words, file and whether to replace, of JSON or of a form."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        try:
            upload = VoiceUpload.model_validate(json.loads(await request.body()))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Problem(400, f"[{where or 'body'}] {first['msg']}", "invalid_value") from None
        except (ValueError, RecursionError):
            raise Problem(400, "[body] expected JSON", "invalid_json") from None
        data = service.decode_base64(upload.ref_audio, "ref_audio")
        return upload.name, upload.ref_text, data, upload.replace
    if kind != "multipart/form-data":
        raise Problem(415, "expected application/json or multipart/form-data", "content_type")
    async with request.form(max_files=1, max_fields=8, max_part_size=64 << 10) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Problem(400, "[file] expected a recording", "invalid_value", "file")
        fields = {key: value for key, value in form.items() if isinstance(value, str)}
        name, text = fields.get("name", ""), fields.get("ref_text", "")
        if not name or not text:
            raise Problem(400, "[name, ref_text] expected both", "invalid_value")
        data = await file.read(service.settings.max_reference_bytes + 1)
        return name, text, data, fields.get("replace", "").lower() in ("1", "true")


def _add_state(router: APIRouter, service: Service) -> None:
    def health() -> dict[str, Any]:
        stats = service.runtime.stats
        return {
            "model": service.settings.model_name,
            "running": stats.running,
            "waiting": stats.waiting,
        }

    @router.get("/healthz", responses=RESPONSES, tags=["state"], summary="The process is alive")
    async def healthz() -> Health:
        if service.broken:
            raise Problem(503, "requests only fail: the process must be started again", "broken")
        return Health(**health())

    @router.get("/readyz", responses=RESPONSES, tags=["state"], summary="There is room for more")
    async def readyz() -> Health:
        if service.broken:
            raise Problem(503, "requests only fail", "broken")
        if service.full:
            raise Problem(503, "all places are taken", "queue_full", retry_after=1)
        return Health(**health())

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **RESPONSES},
        tags=["state"],
        summary="Numbers for Prometheus",
    )
    async def metrics() -> Response:
        text = await run_in_threadpool(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4")
