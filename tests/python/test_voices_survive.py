"""kill -9 at random moments: no voice that the server acknowledged is lost (issue 6, measure 4)."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from higgs_rt.voices import VoiceStore, read_voice
from higgs_rt.voices.voice import SUFFIX
from recordings import make_recording

pytest.importorskip("torch")  # encodes the recordings
ROUNDS = int(os.environ.get("HIGGS_RT_KILLS", "2"))


def upload(seed: int) -> str:
    """Half a second of a recording of its own."""
    file = io.BytesIO()
    noise = np.random.default_rng(seed).normal(0, 0.01, 8000)
    soundfile.write(file, make_recording(0.5, 16000) + noise, 16000, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


def start(model: Path, voices: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "higgs_rt", "serve", "--model", str(model)]
    command += ["--port", str(port), "--threads", "1", "--log-level", "warning"]
    environment = {**os.environ, "HIGGS_RT_VOICES": str(voices), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return process, url
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError("the server did not start")


class Writer(threading.Thread):
    """Adds, replaces and removes voices until the server is gone; knows what it was told."""

    def __init__(self, url: str, name: str, seed: int, known: dict[str, str | None]) -> None:
        super().__init__(daemon=True)
        self.url, self.prefix, self.rng, self.known = url, name, random.Random(seed), known
        # The change that nobody has acknowledged yet: before and after it are both right.
        self.open: tuple[str, str | None] | None = None
        self.added = 0

    def run(self) -> None:
        with contextlib.suppress(httpx.TransportError), httpx.Client(timeout=30) as http:
            while True:
                name = f"{self.prefix}{self.rng.randrange(6)}"
                if self.known.get(name) and self.rng.random() < 0.2:
                    self.open = name, None
                    answer = http.delete(f"{self.url}/v1/audio/voices/{name}")
                    assert answer.status_code == 200, answer.text
                    self.known[name] = None
                else:
                    self.add(http, name)
                self.open = None

    def add(self, http: httpx.Client, name: str) -> None:
        words = f"take {self.rng.randrange(10**9)}"
        self.open = name, words
        body: dict[str, Any] = {"name": name, "ref_text": words, "replace": True}
        body["ref_audio"] = upload(self.rng.randrange(100))
        answer = http.post(f"{self.url}/v1/audio/voices", json=body)
        assert answer.status_code == 201, answer.text
        self.known[name] = words
        self.added += 1


def test_killed_servers_lose_no_voice(random_model: Path, tmp_path: Path) -> None:
    voices = tmp_path / "voices"
    rng = random.Random(9)
    known: dict[str, str | None] = {}
    added = 0
    for round_number in range(ROUNDS + 1):
        process, url = start(random_model, voices)
        try:
            found = httpx.get(f"{url}/v1/audio/voices").json()["data"]
            listed = {one["name"]: one["transcript"] for one in found if not one["packaged"]}
            check(listed, known, voices)
            if round_number == ROUNDS:
                break
            writers = [Writer(url, name, rng.randrange(10**9), known) for name in "ab"]
            for writer in writers:
                writer.start()
            deadline = time.monotonic() + 30  # the first encoding loads torch
            while not any(writer.added for writer in writers):
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.4))
        finally:
            process.kill()
            process.wait()
        for writer in writers:
            writer.join(30)
            assert not writer.is_alive()
            added += writer.added
            if writer.open is not None:
                name, wanted = writer.open
                found_words = on_disk(voices, name)
                assert found_words in (known.get(name), wanted)
                known[name] = found_words
    assert added > ROUNDS


def on_disk(voices: Path, name: str) -> str | None:
    """What a voice that was being changed is now; it must be whole, or not there."""
    path = voices / f"{name}{SUFFIX}"
    return read_voice(path).transcript if path.exists() else None


def check(listed: dict[str, str], known: dict[str, str | None], voices: Path) -> None:
    assert listed == {name: words for name, words in known.items() if words is not None}
    for path in voices.glob(f"*{SUFFIX}"):
        read_voice(path)
    assert set(VoiceStore(voices, packaged=None).names()) == set(listed)


def test_leftovers_of_killed_writers_are_removed(random_model: Path, tmp_path: Path) -> None:
    old, new = tmp_path / ".x.1.writing", tmp_path / ".x.2.writing"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    store = VoiceStore(tmp_path, codec_dir=random_model / "codec", packaged=None)
    store.add("x", make_recording(0.5, 16000), "a take", sample_rate=16000)
    assert store.names() == ["x"]
    assert not old.exists()
    assert new.exists()  # somebody may be writing it
