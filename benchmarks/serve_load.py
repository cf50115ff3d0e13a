"""Load on a server: many clients, random disconnects, malformed requests (issue 6, measure 4).

    python benchmarks/serve_load.py --clients 64 --seconds 300 [--json report.json]

Starts `higgs-rt serve` with the demo model as a process of its own, on the loopback, and talks to
it. Each whole answer is compared, byte for byte, with the same request made alone before. Memory,
threads, file descriptors and KV blocks of the server are watched. Exit status 1 when something is
wrong; what counts as wrong is in `verdict`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

VOICES = ("slt", "rms", "awb", "kal16", None)
TEXTS = (
    "The sun rises in the east.",
    "Who is it? It is me, and I am 12 years old.",
    "My brother walks to the harbor every day. A small boat crossed the cold river. " * 2,
    "[SPEAKER0] Who is it? [SPEAKER1] It is me.",
)
MALFORMED: tuple[tuple[bytes | dict[str, Any], int], ...] = (
    (b"{", 400),
    (b"\xff\xfe", 400),
    ({"model": "tts-1"}, 400),
    ({"model": "tts-1", "input": ""}, 400),
    ({"model": "tts-1", "input": "Hi.", "voice": "nobody"}, 400),
    ({"model": "tts-1", "input": "Hi.", "temperature": "hot"}, 400),
    ({"model": "tts-1", "input": "Hi.", "ref_audio": "http://127.0.0.1/", "ref_text": "x"}, 400),
    ({"model": "another", "input": "Hi."}, 404),
    ({"model": "tts-1", "input": "x" * 30_000}, 400),
)
SEEDS = 3


@dataclass
class Tally:
    """What happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    first_audio: list[float] = field(default_factory=list)
    by_client: Counter[int] = field(default_factory=Counter)
    seconds_of_speech: float = 0.0


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--max-queue", type=int, default=24)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with _server(options.max_batch, options.max_queue) as (url, process):
        report = asyncio.run(_load(url, process.pid, options.clients, options.seconds))
        report["stopped"] = _stop(process)
    report["faults"] = verdict(report)
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return report


def verdict(report: dict[str, Any]) -> list[str]:
    """Everything that must not be."""
    faults = list(report["wrong"])
    before, after = report["idle_before"], report["idle_after"]
    if after["free_blocks"] != after["total_blocks"]:
        faults.append(f"KV blocks leaked: {after['free_blocks']} of {after['total_blocks']}")
    if after["in_flight"] or after["running"] or after["waiting"]:
        faults.append(f"requests left over: {after}")
    if after["threads"] > before["threads"] + 8:  # the pool of asyncio grows to its size
        faults.append(f"threads: {before['threads']} to {after['threads']}")
    if after["files"] > before["files"] + 4:
        faults.append(f"file descriptors: {before['files']} to {after['files']}")
    if after["memory_mb"] > report["memory_mb"]["at_half"] * 1.05 + 10:
        faults.append(f"memory: {report['memory_mb']}")
    if report["fairness"]["fewest"] * 3 < report["fairness"]["mean"]:
        faults.append(f"unfair: {report['fairness']}")
    if report["stopped"] != 0:
        faults.append(f"exit status {report['stopped']}")
    return faults


@contextlib.contextmanager
def _server(max_batch: int, max_queue: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "higgs_rt", "serve", "--port", str(port)]
        command += ["--max-batch", str(max_batch), "--max-queue", str(max_queue)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/readyz").status_code == 200:
                        break
                if process.poll() is not None:
                    break
                time.sleep(0.1)
            else:
                raise SystemExit("the server did not start")
            if process.poll() is not None:
                log.seek(0)
                raise SystemExit(log.read().decode(errors="replace"))
            yield url, process
        finally:
            process.kill()
            process.wait()


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    try:
        status = process.wait(20)
    except subprocess.TimeoutExpired:
        return -1
    return 0 if status in (0, -15) else status  # uvicorn raises the signal again when it is done


def _body(text: int, voice: int, seed: int) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "tts-1", "input": TEXTS[text], "seed": seed, "top_k": 50}
    if "[SPEAKER" in TEXTS[text]:
        body["speakers"] = ["slt", "rms"]
    elif VOICES[voice]:
        body["voice"] = VOICES[voice]
    return {**body, "response_format": "pcm"}


async def _load(url: str, pid: int, clients: int, seconds: float) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as http:
        expected: dict[tuple[int, int, int], bytes] = {}
        for text in range(len(TEXTS)):
            for voice in range(len(VOICES)):
                for seed in range(SEEDS):
                    answer = await http.post("/v1/audio/speech", json=_body(text, voice, seed))
                    answer.raise_for_status()
                    expected[text, voice, seed] = hashlib.sha256(answer.content).digest()
        before = await _numbers(http, pid)
        tally = Tally()
        begin = time.monotonic()
        deadline = begin + seconds
        tasks = [
            asyncio.create_task(_client(http, index, deadline, expected, tally))
            for index in range(clients)
        ]
        memory: list[float] = []
        while time.monotonic() < deadline:
            memory.append(_process(pid)["memory_mb"])
            await asyncio.sleep(min(1.0, seconds / 10))
        await asyncio.gather(*tasks)
        passed = time.monotonic() - begin
    async with httpx.AsyncClient(base_url=url) as http:  # the others have hung up
        await _until_idle(http)
        after = await _numbers(http, pid)
    ordered = sorted(tally.first_audio) or [0.0]
    served = [tally.by_client[index] for index in range(clients)]
    return {
        "clients": clients,
        "seconds": round(passed, 1),
        "outcomes": dict(tally.outcomes.most_common()),
        "speech_per_second": round(tally.seconds_of_speech / passed, 1),
        "first_audio_ms": {
            "median": round(1000 * ordered[len(ordered) // 2]),
            "p99": round(1000 * ordered[int(len(ordered) * 0.99)]),
        },
        "fairness": {"fewest": min(served), "mean": statistics.mean(served), "most": max(served)},
        "memory_mb": {
            "first": memory[0],
            "at_half": memory[len(memory) // 2],
            "largest": max(memory),
        },
        "idle_before": before,
        "idle_after": after,
        "wrong": tally.wrong[:20],
    }


async def _client(
    http: httpx.AsyncClient,
    index: int,
    deadline: float,
    expected: dict[tuple[int, int, int], bytes],
    tally: Tally,
) -> None:
    rng = random.Random(index)
    while time.monotonic() < deadline:
        kind = rng.choices(["speak", "leave", "malformed", "slow"], [60, 20, 15, 5])[0]
        key = (rng.randrange(len(TEXTS)), rng.randrange(len(VOICES)), rng.randrange(SEEDS))
        try:
            if kind == "malformed":
                await _malformed(http, rng, tally)
            else:
                await _speak(http, rng, kind, key, expected[key], index, tally)
        except httpx.TransportError as error:
            tally.wrong.append(f"{kind}: {error!r}")


async def _malformed(http: httpx.AsyncClient, rng: random.Random, tally: Tally) -> None:
    body, status = rng.choice(MALFORMED)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await http.post(
        "/v1/audio/speech", content=content, headers={"Content-Type": "application/json"}
    )
    tally.outcomes[f"malformed {answer.status_code}"] += 1
    full = answer.status_code == 503 and "retry-after" in answer.headers  # it has not looked
    if not (full or answer.status_code == status) or "error" not in answer.json():
        shown = repr(body)[:100]
        tally.wrong.append(f"malformed: expected {status}, got {answer.status_code} for {shown}")


async def _speak(
    http: httpx.AsyncClient,
    rng: random.Random,
    kind: str,
    key: tuple[int, int, int],
    expected: bytes,
    index: int,
    tally: Tally,
) -> None:
    begin = time.monotonic()
    patience = rng.uniform(0, 0.5)
    got = hashlib.sha256()
    size = 0
    try:
        async with asyncio.timeout(patience if kind == "leave" else None) as limit:
            async with http.stream("POST", "/v1/audio/speech", json=_body(*key)) as answer:
                if answer.status_code == 503:
                    tally.outcomes["refused 503"] += 1
                    if "retry-after" not in answer.headers:
                        tally.wrong.append("503 without Retry-After")
                    limit.reschedule(None)
                    await asyncio.sleep(rng.uniform(0, 0.2))
                    return
                if answer.status_code != 200:
                    tally.wrong.append(f"speak: {answer.status_code}")
                    return
                async for part in answer.aiter_raw(8192):
                    if not size:
                        tally.first_audio.append(time.monotonic() - begin)
                    size += len(part)
                    got.update(part)
                    if kind == "slow":
                        await asyncio.sleep(0.02)
    except TimeoutError:
        tally.outcomes["left"] += 1
        return
    tally.outcomes["spoken"] += 1
    tally.by_client[index] += 1
    tally.seconds_of_speech += size / 48000
    if got.digest() != expected:
        tally.wrong.append(f"another answer than alone: {key}, {size} bytes")


async def _until_idle(http: httpx.AsyncClient) -> None:
    for _ in range(200):
        health = (await http.get("/healthz")).json()
        if health["running"] == health["waiting"] == 0:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)


async def _numbers(http: httpx.AsyncClient, pid: int) -> dict[str, float]:
    text = (await http.get("/metrics")).text
    numbers = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")
    )
    named = {
        "free_blocks": "higgs_runtime_free_blocks",
        "total_blocks": "higgs_runtime_total_blocks",
        "running": "higgs_runtime_running",
        "waiting": "higgs_runtime_waiting",
        "in_flight": "higgs_in_flight",
        "underruns": "higgs_underruns_total",
    }
    return {**{name: float(numbers[key]) for name, key in named.items()}, **_process(pid)}


def _process(pid: int) -> dict[str, float]:
    """Memory, threads and descriptors of a process, from /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "memory_mb": round(int(fields["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(fields["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


if __name__ == "__main__":
    sys.exit(1 if main()["faults"] else 0)
