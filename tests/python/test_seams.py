"""Streamed equals whole: many texts, chunk policies and ways to cut (issue 6, measure 2)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from higgs_rt import Runtime
from higgs_rt.prompt import SpeechSettings
from higgs_rt.server import ServerSettings
from higgs_rt.server.pacing import Pacer
from serving import served

pytestmark = pytest.mark.usefixtures("quiet")
NUM_TEXTS = 100  # with each model
WORDS = Path(__file__).resolve().parents[1] / "data" / "vocabulary.txt"


@pytest.fixture(scope="module")
def runtime(endless_model: Path) -> Iterator[Runtime]:
    with Runtime.load(endless_model, threads=1, max_batch=4) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def brief(random_model: Path) -> Iterator[Runtime]:
    """A model that ends its turns by itself, soon."""
    with Runtime.load(random_model, threads=1, max_batch=4) as loaded:
        yield loaded


def random_request(rng: random.Random) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A text, its options, and how it is streamed."""
    words = WORDS.read_text().split()
    sentences = [
        " ".join(rng.choices(words, k=rng.randint(1, 9))) + rng.choice([".", "!", "?", ";", ""])
        for _ in range(rng.randint(1, 4))
    ]
    first = rng.choice([1, 2, 3, 5, 8, 13, 40])
    options = {
        "seed": rng.randrange(1000),
        "max_seconds": rng.uniform(0.1, 3),
        "max_turn_chars": rng.choice([0, 10, 20, 60]),
        "context_turns": rng.choice([0, 1]),
        "temperature": rng.choice([0.0, 0.7]),
        "top_k": 10,
    }
    chunks = {"first_chunk_frames": first, "max_chunk_frames": rng.choice([first, 64])}
    return " ".join(sentences), options, chunks


def largest_step(samples: NDArray[np.float32], at: int) -> float:
    near = samples[max(0, at - 2) : at + 2]
    return float(np.abs(np.diff(near)).max())


@pytest.mark.parametrize("ends", [False, True])
def test_streams_equal_the_whole(runtime: Runtime, brief: Runtime, ends: bool) -> None:
    rng = random.Random(6)
    seams = turns = 0
    runtime = brief if ends else runtime
    for _ in range(NUM_TEXTS):
        text, options, chunks = random_request(rng)
        whole = runtime.speak(text, **options)
        parts = list(runtime.stream(text, **options, **chunks))
        joined = np.concatenate([np.zeros(0, np.float32), *parts])
        np.testing.assert_allclose(joined, whole.samples, atol=1e-6, rtol=0)
        for at in np.cumsum([len(part) for part in parts])[:-1]:
            seams += 1
            assert largest_step(joined, at) <= largest_step(whole.samples, at) + 1e-6
        turns += len(whole.turns)
    assert turns > 2 * NUM_TEXTS if ends else seams > 2 * NUM_TEXTS


def test_bytes_over_http_equal_the_whole(runtime: Runtime) -> None:
    rng = random.Random(7)
    with served(runtime, ServerSettings()) as url, httpx.Client(base_url=url) as http:
        for _ in range(20):
            text, options, chunks = random_request(rng)
            if not options["max_turn_chars"]:
                del options["max_turn_chars"]
            body = {"model": "tts-1", "input": text, "response_format": "pcm", **options}
            whole = http.post("/v1/audio/speech", json={**body, "stream": False})
            streamed = http.post("/v1/audio/speech", json={**body, **chunks})
            assert whole.status_code == 200, whole.text
            both = [np.frombuffer(one.content, "<i2").astype(int) for one in (whole, streamed)]
            assert len(both[0]) == len(both[1]) > 0
            assert np.abs(both[0] - both[1]).max() <= 1  # of 32767: rounding


class FakeRuntime:
    max_batch, frame_rate = 8, 25.0

    def __init__(self) -> None:
        self.stats = SimpleNamespace(running=4, waiting=0, columns=100, step_seconds=1.0)


@pytest.mark.parametrize(
    ("times_real_time", "expected"), [(10, (8, 64)), (1.5, (16, 16)), (0.5, (50, 50))]
)
def test_chunks_follow_the_load(
    times_real_time: float, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime: Any = FakeRuntime()
    pacer = Pacer(runtime)
    assert pacer.chunk_frames(ServerSettings()) == (8, 64)  # nothing is known yet
    monkeypatch.setattr("higgs_rt.server.pacing._WINDOW", 0.0)
    runtime.stats.columns += round(5 * 25 * times_real_time * 10)  # five requests, ten seconds
    runtime.stats.step_seconds += 10
    assert pacer.chunk_frames(ServerSettings()) == expected
    fixed = ServerSettings(first_chunk_frames=3, max_chunk_frames=5)
    assert pacer.chunk_frames(fixed) == (3, 5)


def test_settings_are_those_of_the_model(runtime: Runtime) -> None:
    assert runtime.settings == SpeechSettings()
