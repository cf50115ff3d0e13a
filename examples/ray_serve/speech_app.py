"""higgs_rt on Ray Serve: a replica for each GPU, the whole HTTP API, voices that stay put.

    pip install 'higgs-rt[serve,voices,ray]'
    serve run speech_app:build replicas=4 model=DIR          # a GPU each
    serve run speech_app:build replicas=2 device=cpu         # the demo voice, on one machine

`Front` takes a request and looks at its voice, `VoiceRouter` chooses the replica, `Speaker` answers
with the application of `higgs-rt serve`; audio is passed on as it is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from higgs_rt.server.routing import Hint, State, choose, hint_of

Head = tuple[int, list[tuple[str, str]]]
_ON_THEIR_WAY = 10.0  # seconds after which a request that was chosen for has been given up
_SPOKEN = ("/v1/audio/speech", "/v1/chat/completions")


@dataclass
class Candidate:
    """A replica, as `choose` looks at it."""

    replica: RunningReplica
    index: int
    in_flight: int
    state: State = "ready"


class VoiceRouter(RequestRouter):
    """A voice's replica unless it is clearly more loaded; without a voice, the least loaded."""

    def initialize_state(self, slack: int = 4) -> None:  # type: ignore[override]
        """slack: how many more requests a voice's replica may run."""
        self._slack = slack
        self._running: Counter[ReplicaID] = Counter()
        # On their way, by request: Ray counts a request when its replica has taken it, which is
        # too late for those that are chosen meanwhile.
        self._chosen: dict[str, tuple[ReplicaID, float]] = {}

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The best first; the others, should it refuse."""
        voice = None if pending_request is None else pending_request.kwargs.get("voice")
        load = self._load()
        candidates = [candidate(one, load[one.replica_id]) for one in candidate_replicas]
        places = max((one.replica.max_ongoing_requests for one in candidates), default=0)
        best = choose(candidates, Hint(voice), places, self._slack)
        if best is None:
            return [candidate_replicas]
        if pending_request is not None:
            request_id = pending_request.metadata.internal_request_id
            self._chosen[request_id] = best.replica.replica_id, time.monotonic()
        others = [one.replica for one in candidates if one is not best]
        return [[best.replica], others] if others else [[best.replica]]

    def _load(self) -> Counter[ReplicaID]:
        oldest = time.monotonic() - _ON_THEIR_WAY
        self._chosen = {key: one for key, one in self._chosen.items() if one[1] > oldest}
        return self._running + Counter(replica_id for replica_id, _ in self._chosen.values())

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """A replica has a request more …"""
        self._chosen.pop(pending_request.metadata.internal_request_id, None)
        self._running[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """… or one less."""
        self._running[replica_id] -= 1


def candidate(replica: RunningReplica, in_flight: int) -> Candidate:
    """A replica under a number of its own."""
    digest = hashlib.blake2b(replica.replica_id.unique_id.encode(), digest_size=6).digest()
    return Candidate(replica, int.from_bytes(digest, "big"), in_flight)


@serve.deployment
class Speaker:
    """One runtime on one device, behind the application of `higgs-rt serve`."""

    def __init__(self, device: str, runtime: dict[str, Any]) -> None:
        """device: "cuda" is the GPU that Ray gave to this replica."""
        from higgs_rt import Runtime
        from higgs_rt.server import ServerSettings, create_app

        self._runtime = Runtime.load(device=device, **runtime)
        # Ray's proxy is in front: it is the one to check keys and names.
        self._app = create_app(self._runtime, ServerSettings(playground=False))
        self._name = serve.get_replica_context().replica_id.unique_id

    def check_health(self) -> None:
        """Ray starts a replica again when this raises."""
        if self._app.state.service.broken:
            raise RuntimeError("requests only fail")

    async def answer(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        voice: str | None = None,
    ) -> AsyncIterator[Head | bytes]:
        """Status and headers, then the parts of the body as they are made.

        `voice` is for the router. When nobody takes the rest, the request is cancelled.
        """
        messages: asyncio.Queue[Any] = asyncio.Queue(2)
        left = asyncio.Event()
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if unread:
                return unread.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            scope: dict[str, Any] = {"type": "http", "method": method, "path": path}
            scope |= {"raw_path": path.encode(), "query_string": query, "headers": headers}
            scope |= {"http_version": "1.1"}
            scope |= {"scheme": "http", "client": None, "server": None, "root_path": ""}
            scope |= {"asgi": {"version": "3.0", "spec_version": "2.3"}}
            try:
                await self._app(scope, receive, messages.put)
            finally:
                if not left.is_set():  # somebody reads
                    await messages.put(None)

        running = asyncio.create_task(run())
        try:
            while (message := await messages.get()) is not None:
                if message["type"] == "http.response.start":
                    named = [(key.decode(), value.decode()) for key, value in message["headers"]]
                    yield message["status"], [*named, ("x-replica", self._name)]
                elif message.get("body"):
                    yield message["body"]
            await running  # what broke the answer off
        finally:
            left.set()
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await running

    def __del__(self) -> None:
        """The replica ends."""
        with contextlib.suppress(AttributeError):
            self._runtime.close()


@serve.deployment
class Front:
    """Takes requests and chooses replicas; runs no model."""

    def __init__(self, speaker: Any) -> None:
        self._speaker = speaker.options(stream=True)

    async def __call__(self, request: Request) -> Response:
        """Pass a request on, and its answer back as it comes."""
        body = await request.body()
        path = request.url.path
        voice = hint_of(body).voice if path in _SPOKEN else None
        parts = self._speaker.answer.remote(
            request.method,
            path,
            request.url.query.encode(),
            [pair for pair in request.headers.raw if pair[0] != b"origin"],
            body,
            voice=voice,
        )
        status, headers = await anext(parts)

        async def rest() -> AsyncIterator[bytes]:
            try:
                async for part in parts:
                    yield part
            finally:
                parts.cancel()  # no effect on an answer that is complete

        response = StreamingResponse(rest(), status)
        response.raw_headers = [(key.encode(), value.encode()) for key, value in headers]
        return response


def build(arguments: dict[str, Any]) -> serve.Application:
    """replicas, device (cuda or cpu), max_batch, max_queue, slack; others go to Runtime.load."""
    options = dict(arguments)
    replicas, device = int(options.pop("replicas", 1)), str(options.pop("device", "cuda"))
    max_batch, max_queue = int(options.pop("max_batch", 64)), int(options.pop("max_queue", 64))
    router = RequestRouterConfig(
        request_router_class=VoiceRouter,  # type: ignore[arg-type]  # a class, or its path
        request_router_kwargs={"slack": int(options.pop("slack", max(2, max_batch // 4)))},
    )
    speaker = Speaker.options(  # type: ignore[attr-defined]
        num_replicas=replicas,
        ray_actor_options={"num_gpus": 1} if device != "cpu" else {"num_cpus": 0.5},
        max_ongoing_requests=max_batch + max_queue,
        request_router_config=router,
        graceful_shutdown_timeout_s=30,
    ).bind(device, {**options, "max_batch": max_batch, "max_queue": max_queue})
    front = Front.options(  # type: ignore[attr-defined]
        max_ongoing_requests=replicas * (max_batch + max_queue), ray_actor_options={"num_cpus": 0.5}
    )
    application: serve.Application = front.bind(speaker)
    return application


if __name__ == "__main__":
    ray.init()
    serve.run(build({"replicas": 2, "device": "cpu"}), blocking=True)
