"""The application: routes, limits, and the runtime's life."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response

from higgs_rt.runtime import Runtime
from higgs_rt.server.catalog import catalog_router
from higgs_rt.server.chat import chat_router
from higgs_rt.server.limits import Door, known_keys
from higgs_rt.server.metrics import Metrics
from higgs_rt.server.page import POLICY, page
from higgs_rt.server.problems import install
from higgs_rt.server.service import Service
from higgs_rt.server.settings import ServerSettings
from higgs_rt.server.socket import socket_router
from higgs_rt.server.speech import speech_router


def create_app(runtime: Runtime, settings: ServerSettings | None = None) -> FastAPI:
    """An ASGI application that speaks with `runtime`, and closes it when it shuts down."""
    settings = settings or ServerSettings()
    metrics = Metrics(runtime)
    service = Service(runtime, settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        metrics.watch_this_thread()
        yield
        runtime.close()

    app = FastAPI(
        title="higgs_rt",
        description="Text to speech with Higgs Audio v2, compatible with OpenAI's API.",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    install(app)
    app.include_router(speech_router(service))
    app.include_router(chat_router(service))
    app.include_router(catalog_router(service))
    app.include_router(socket_router(service, known_keys(settings)))
    if settings.playground:
        _add_playground(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Request-Id", "X-Higgs-Seed", "X-Higgs-Finish", "X-Sample-Rate"],
        )
    app.add_middleware(Door, settings=settings, metrics=metrics)
    _describe_only_what_happens(app)
    return app


def _add_playground(app: FastAPI) -> None:
    html = page()

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})


def _describe_only_what_happens(app: FastAPI) -> None:
    """Wrong bodies are answered with 400 here: FastAPI's own 422 leaves the document."""
    describe = app.openapi

    def openapi() -> dict[str, object]:
        document = describe()
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation.setdefault("security", [{"bearer": []}, {}])
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["bearer"] = {"type": "http", "scheme": "bearer"}
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _version() -> str:
    import higgs_rt

    return str(higgs_rt.__version__)
