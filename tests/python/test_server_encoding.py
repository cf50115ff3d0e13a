"""Recordings in requests are encoded once, one at a time, and for clients that wait for it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from higgs_rt import Runtime
from higgs_rt.server import ServerSettings
from higgs_rt.server.encoding import EncodingQueue, to_its_end
from higgs_rt.server.service import Service
from higgs_rt.voices.encode import VoiceEncoder
from serving import served
from waiting import until

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def runtime(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    voices = tmp_path_factory.mktemp("voices")
    with Runtime.load(random_model, threads=1, max_batch=4, max_queue=8, voices=voices) as loaded:
        yield loaded


class Encoder:
    """In place of the real one: counts, and waits until it may go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.decoded = self.encoded = 0

    def decode(self, *_: object) -> None:
        self.decoded += 1

    def encode(self, *_: object, **__: object) -> Any:
        self.encoded += 1
        self.go_on.wait(10)
        return SimpleNamespace(codes=np.zeros((8, 5), np.int32))


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    encoder = Encoder()
    monkeypatch.setattr(Service, "read_recording", encoder.decode)
    monkeypatch.setattr(VoiceEncoder, "encode", encoder.encode)
    return encoder


def body_with(recording: bytes) -> dict[str, Any]:
    return {
        **{"model": "tts-1", "input": "A b.", "max_seconds": 1, "ref_text": "So it is."},
        "ref_audio": base64.b64encode(recording).decode(),
    }


def in_flight(url: str) -> float:
    found = re.search(r"^higgs_in_flight (\S+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    assert found
    return float(found.group(1))


def posted(url: str, path: str, body: dict[str, Any]) -> socket.socket:
    """A client that does not wait for its answer."""
    address = urlsplit(url)
    raw = socket.create_connection((address.hostname, address.port))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return raw


def test_equal_recordings_are_encoded_once(runtime: Runtime, encoder: Encoder) -> None:
    async def ask(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            body = body_with(b"the same")
            asking = [http.post("/v1/audio/speech", json=body) for _ in range(6)]
            answers = asyncio.gather(*asking)
            while not encoder.encoded:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            encoder.go_on.set()
            return await answers

    with served(runtime) as url:
        answers = asyncio.run(ask(url))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert (encoder.decoded, encoder.encoded) == (1, 1)


def test_equal_recordings_on_disk_are_encoded_once(
    runtime: Runtime, encoder: Encoder, tmp_path: Path
) -> None:
    encoder.go_on.set()
    settings = ServerSettings(recordings=tmp_path / "recordings")
    with served(runtime, settings) as url:
        for words in ("So it is.", "Other words."):
            body = {**body_with(b"the same"), "ref_text": words}
            assert httpx.post(f"{url}/v1/audio/speech", json=body).status_code == 200
    assert encoder.encoded == 1


def test_clients_that_have_gone_are_not_encoded(runtime: Runtime, encoder: Encoder) -> None:
    with served(runtime, ServerSettings(max_requests=2)) as url:
        clients = [
            posted(url, "/v1/audio/speech", body_with(f"{index}".encode())) for index in range(12)
        ]
        until(lambda: encoder.encoded > 0 and in_flight(url) == 2)
        for client in clients:
            client.close()
        until(lambda: in_flight(url) == 1)  # a thread cannot be stopped
        encoder.go_on.set()
        until(lambda: in_flight(url) == 0)
        assert (encoder.decoded, encoder.encoded) == (1, 1)


def test_voices_wait_for_the_encoder_and_only_so_many(
    runtime: Runtime, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues: list[EncodingQueue] = []
    lost: list[H11Protocol] = []
    added: list[str] = []

    def queue(*args: Any) -> EncodingQueue:
        queues.append(EncodingQueue(*args))
        return queues[0]

    def connection_lost(self: H11Protocol, exc: Exception | None) -> None:
        kept(self, exc)
        lost.append(self)

    def add(name: str, *_: object, **__: object) -> None:
        encoder.encode()
        added.append(name)

    kept = H11Protocol.connection_lost
    monkeypatch.setattr(H11Protocol, "connection_lost", connection_lost)
    monkeypatch.setattr("higgs_rt.server.service.EncodingQueue", queue)
    monkeypatch.setattr(runtime.voices, "add", add)
    voice = {"ref_text": "So it is.", "ref_audio": base64.b64encode(b"x").decode()}
    with served(runtime, ServerSettings(max_requests=2)) as url:
        first = posted(url, "/v1/audio/voices", {**voice, "name": "a"})
        until(lambda: encoder.encoded == 1)
        second = posted(url, "/v1/audio/voices", {**voice, "name": "b"})
        until(lambda: queues[0]._asked == 2)
        refused = httpx.post(f"{url}/v1/audio/voices", json={**voice, "name": "c"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        error = refused.json()["error"]
        assert error["code"] == "queue_full"
        assert "at most 2 recordings" in error["message"]
        assert encoder.decoded == 1  # those that wait hold no samples
        second.close()
        until(lambda: len(lost) == 2)  # with that of the refused one
        encoder.go_on.set()
        until(lambda: queues[0]._asked == 0)
        first.close()
    assert added == ["a"]
    assert (encoder.decoded, encoder.encoded) == (1, 1)


def test_a_failing_encoder_is_no_failing_model(
    runtime: Runtime, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(VoiceEncoder, "encode", fail)
    with served(runtime) as url:
        for _ in range(4):
            answer = httpx.post(f"{url}/v1/audio/speech", json=body_with(b"x"))
            assert answer.status_code == 500
            assert "secret" not in answer.text
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_a_turn_lasts_as_long_as_its_thread() -> None:
    metrics: Any = None  # nothing is refused
    queue = EncodingQueue(2, metrics)
    ended: list[str] = []

    def run(name: str, seconds: float) -> None:
        time.sleep(seconds)
        ended.append(name)

    async def work(name: str, seconds: float) -> None:
        async with queue.turn():
            await to_its_end(lambda: run(name, seconds))

    async def main() -> None:
        first = asyncio.create_task(work("first", 0.3))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(work("second", 0.0))
        first.cancel()
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert first.cancelled()

    asyncio.run(main())
    assert ended == ["first", "second"]
