"""Streamed equals whole on any device, with the packaged voice (issue 6, measure 2).

HIGGS_RT_TEST_DEVICE=cuda:0 runs 200 texts there; the CPU has 200 of its own in test_seams.py.
A stream is compared with the whole decoding of its own frames: in bf16 on a GPU, the columns
of a request may depend on what runs beside it. On the CPU they may not.
"""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from higgs_rt import LengthStopWarning, Runtime
from higgs_rt.speech import SpeechStream

DEVICE = os.environ.get("HIGGS_RT_TEST_DEVICE", "cpu")
NUM_TEXTS = 8 if DEVICE == "cpu" else 200
TOGETHER = 8  # streams at a time, so that windows of several share a batch
WORDS = Path(__file__).resolve().parents[1] / "data" / "vocabulary.txt"


def random_request(rng: random.Random) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A text, its options, and how it is streamed."""
    words = WORDS.read_text().split()
    sentences = [
        " ".join(rng.choices(words, k=rng.randint(1, 9))) + rng.choice([".", "!", "?"])
        for _ in range(rng.randint(1, 3))
    ]
    first = rng.choice([1, 2, 3, 5, 8, 13, 40])
    options = {
        "seed": rng.randrange(1000),
        "max_seconds": rng.uniform(0.5, 6),
        "voice": rng.choice([None, "slt", "rms"]),
        "guards": False,
    }
    chunks = {"first_chunk_frames": first, "max_chunk_frames": rng.choice([first, 25, 64])}
    chunks["max_chunk_frames"] = max(chunks.values())
    return " ".join(sentences), {k: v for k, v in options.items() if v is not None}, chunks


def joined(stream: SpeechStream) -> tuple[NDArray[np.float32], int]:
    """All samples, and in how many chunks they came."""
    parts = list(stream)
    return np.concatenate([np.zeros(0, np.float32), *parts]), len(parts)


def test_streams_of_the_packaged_voice_equal_the_whole() -> None:
    rng = random.Random(26)
    worst, chunks_seen, seconds = 0.0, 0, 0.0
    with warnings.catch_warnings(), Runtime.load(device=DEVICE, max_batch=TOGETHER) as runtime:
        warnings.simplefilter("ignore", LengthStopWarning)
        for _ in range(NUM_TEXTS // TOGETHER):
            requests = [random_request(rng) for _ in range(TOGETHER)]
            streams = [runtime.stream(text, **own, **chunks) for text, own, chunks in requests]
            for stream in streams:
                stream.keep_frames()
            for (text, own, _), stream in zip(requests, streams, strict=True):
                samples, parts = joined(stream)
                frames = stream.kept_frames
                assert frames is not None, text
                whole = runtime._native.decode_frames(np.ascontiguousarray(frames))
                assert samples.shape == whole.shape, text
                worst = max(worst, float(np.abs(samples - whole).max(initial=0)))
                if DEVICE == "cpu":
                    np.testing.assert_array_equal(runtime.speak(text, **own).samples, samples)
                chunks_seen += parts
                seconds += len(whole) / 24000
    print(f"{NUM_TEXTS} texts, {seconds:.0f} s, {chunks_seen} chunks, largest difference {worst}")
    assert worst <= 1e-6
    assert chunks_seen > 2 * NUM_TEXTS
