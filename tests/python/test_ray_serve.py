"""`examples/ray_serve` with two replicas on this machine."""

from __future__ import annotations

import importlib
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

ray = pytest.importorskip("ray", reason="pip install 'higgs-rt[ray]'")
pytestmark = pytest.mark.ray
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ray_serve"
BODY: dict[str, Any] = {"model": "tts-1", "input": "The sun rises.", "response_format": "pcm"}


def start_ray() -> None:
    """Ray gives its own processes 30 s to start, which a busy machine may not."""
    for last in (False, False, True):
        try:
            ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=100 << 20)
            return
        except Exception as error:
            ray.shutdown()
            if last or "timed out during startup" not in str(error):
                raise


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(EXAMPLE), *(path for path in sys.path if path)]
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", ":".join(paths))  # of Ray's workers
        patch.syspath_prepend(str(EXAMPLE))
        start_ray()
        serve = importlib.import_module("ray.serve")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            app = importlib.import_module("speech_app")
            arguments = {"replicas": 2, "device": "cpu", "threads": 1}
            serve.run(app.build({**arguments, "max_batch": 4, "max_queue": 16, "slack": 2}))
            yield f"http://127.0.0.1:{port}"
        finally:
            serve.shutdown()
            ray.shutdown()


def speak(url: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/audio/speech", json={**BODY, **fields}, timeout=60)


def test_two_replicas_speak(url: str) -> None:
    one = speak(url, seed=1)
    assert one.status_code == 200
    assert len(one.content) > 10_000
    voices = ("slt", "rms", "awb", "kal16")
    homes = {
        voice: {speak(url, voice=voice).headers["x-replica"] for _ in range(3)} for voice in voices
    }
    assert all(len(home) == 1 for home in homes.values()), homes  # affinity
    with ThreadPoolExecutor(12) as pool:  # more than one replica's slack, all with one voice
        answers = list(pool.map(lambda _: speak(url, voice="slt"), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    shares = Counter(answer.headers["x-replica"] for answer in answers)
    assert len(shares) == 2, shares
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: speak(url, seed=1), range(6)))
    assert {answer.content for answer in answers} == {one.content}
    assert len({answer.headers["x-replica"] for answer in answers}) == 2
    assert speak(url, voice="nobody").status_code == 400


def test_audio_comes_while_it_is_made_and_leaving_cancels(url: str) -> None:
    text = "The old man opens the door. She can hear the music from the garden. " * 200
    body = {**BODY, "input": text, "first_chunk_frames": 4, "max_chunk_frames": 8}
    with httpx.stream("POST", f"{url}/v1/audio/speech", json=body, timeout=60) as answer:
        assert answer.status_code == 200
        parts = answer.iter_raw()
        first = next(parts)
        assert 0 < len(first) < 1_000_000
    deadline = time.monotonic() + 20
    running = 1.0
    while running:
        texts = [httpx.get(f"{url}/metrics").text for _ in range(6)]  # of either replica
        running = max(
            float(line.split()[1])
            for text in texts
            for line in text.splitlines()
            if line.startswith("higgs_runtime_running ")
        )
        assert time.monotonic() < deadline
