"""What the server costs: the same load through HTTP and through `higgs_bench` (issue 6, measure 5).

    python benchmarks/serve_gpu.py --bench build/csrc/bench/higgs_bench --device cuda \
        --shape higgs-v2-3b --model scratch/model --concurrency 1,16,64 --json report.json

Random weights of the shape are written to --model, where they are not yet there, and never end
a speech by themselves: every request is limited. The prompt of the requests is counted, and
`higgs_bench` gets as many ids. Then `higgs-rt serve` runs as a process of its own, and
benchmarks/serve_client.py, another one, loads it. Chunks grow from 8 to --max-chunk-frames frames
in the server, from 8 to 64 in `higgs_bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from higgs_rt.checkpoint.random_tokenizer import write_byte_tokenizer
from higgs_rt.prompt import TextTokenizer, build_prompt, num_positions

VOCAB = {"higgs-v2-3b": 128256, "demo": 288}
CLIENT = Path(__file__).with_name("serve_client.py")
# As `higgs_bench` samples, so that a random model does not end.
SAMPLING = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "ras_window": 0, "normalize": False}


def main(arguments: list[str] | None = None) -> int:
    """Measure both, compare; 1 when the server costs more than the issue allows."""
    options = parse(arguments)
    body, prompt_tokens = prepare(options)
    bench = run_bench(options, prompt_tokens)
    with serving(options) as (url, process):
        check_length(options, url, body)
        runs = [
            run_client(options, url, body, many, most)
            for most in options.max_chunk_frames
            for many in options.concurrency
        ]
        status = Path(f"/proc/{process.pid}/status").read_text()
    report = {
        "device": options.device,
        "prompt_tokens": prompt_tokens,
        "frames": options.frames,
        "rounds": options.rounds,
        "max_chunk_frames": options.max_chunk_frames,
        "guards": options.guards,
        "server_memory_mb": int(field(status, "VmRSS")) // 1024,
        "runs": [
            compare(one["speech"], run)
            for one, run in zip(bench["runs"] * len(options.max_chunk_frames), runs, strict=True)
        ],
    }
    show(report)
    write(options, report)
    if options.front:
        with serving(options, front=True) as (url, _):
            runs = [
                run_client(options, url, body, many, options.max_chunk_frames[0])
                for many in options.concurrency
            ]
        print("\nthrough the front of --devices:")
        report["front"] = [
            compare(one["speech"], run) for one, run in zip(bench["runs"], runs, strict=True)
        ]
        show({**report, "runs": report["front"]})
        write(options, report)
    return 0 if all(run["within"] for run in report["runs"]) else 1


def write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    """The report so far."""
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, required=True, help="higgs_bench")
    parser.add_argument("--shape", choices=sorted(VOCAB), default="higgs-v2-3b")
    parser.add_argument("--model", type=Path, required=True, help="where its weights lie or come")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--concurrency", default="1,16,64")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-chunk-frames", default="64", help="one or more, with commas")
    parser.add_argument("--guards", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--repeats", type=int, default=2, help="the best of them counts")
    parser.add_argument("--front", action="store_true", help="again with --devices")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    options.concurrency = [int(part) for part in options.concurrency.split(",")]
    options.max_chunk_frames = [int(part) for part in options.max_chunk_frames.split(",")]
    return options


def prepare(options: argparse.Namespace) -> tuple[dict[str, str], int]:
    """Scene and text, and the positions of their prompt; the model has a tokenizer of bytes.

    The scene comes first and has the request's number, so that few blocks of the prompts are equal.
    """
    options.model.mkdir(parents=True, exist_ok=True)
    write_byte_tokenizer(options.model / "tokenizer.json", VOCAB[options.shape])
    tokenizer = TextTokenizer.load(options.model)
    scene = "Recording {INDEX} of a quiet room."

    def positions(text: str) -> int:
        numbered = scene.replace("{INDEX}", "000001")
        return num_positions(build_prompt(text, tokenizer, scene=numbered, normalize=False))

    words = "the quick brown fox jumps over the lazy dog and "
    room = options.prompt_tokens - positions("x.") + 1
    text = (words * (room // len(words) + 1))[: max(1, room)].strip() + "."
    return {"input": text, "instructions": scene}, positions(text)


def run_bench(options: argparse.Namespace, prompt_tokens: int) -> dict[str, Any]:
    """`higgs_bench`; the better figures of the repeats."""
    best: dict[str, Any] = {}
    for _ in range(options.repeats):
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            command = [str(options.bench), "--shape", options.shape, "--keep", str(options.model)]
            command += ["--device", options.device, "--threads", str(options.threads)]
            command += ["--concurrency", ",".join(map(str, options.concurrency))]
            command += ["--rounds", str(options.rounds), "--frames", str(options.frames)]
            command += ["--prompt-tokens", str(prompt_tokens), "--json", out.name]
            print("$", *command, flush=True)
            subprocess.run(command, check=True)
            found = json.loads(Path(out.name).read_text())
        for mine, other in zip(best.get("runs", []), found["runs"], strict=False):
            keep_better(mine["speech"], other["speech"])
        best = best or found
    return best


def keep_better(mine: dict[str, Any], other: dict[str, Any]) -> None:
    if (
        other["audio_seconds"] / other["wall_seconds"]
        > mine["audio_seconds"] / mine["wall_seconds"]
    ):
        mine.update({key: other[key] for key in ("audio_seconds", "wall_seconds")})
    for key in ("first_audio_p50", "first_audio_p95"):
        mine[key] = min(mine[key], other[key])


@contextlib.contextmanager
def serving(
    options: argparse.Namespace, *extra: str, front: bool = False
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`higgs-rt serve` over the model, with `extra` arguments."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "higgs_rt", "serve", "--port", str(port)]
    device = options.device if options.device.startswith("cpu") else "0"
    command += ["--devices", device] if front else ["--device", options.device]
    command += ["--model", str(options.model)]
    command += ["--threads", str(options.threads), "--max-batch", str(max(options.concurrency))]
    command += extra
    print("$", *command, flush=True)
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(url, process)
        yield url, process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(url: str, process: subprocess.Popen[bytes], seconds: float = 180) -> None:
    """Until /readyz says so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(f"{url}/readyz", timeout=5),
        ):
            return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def check_length(options: argparse.Namespace, url: str, prompt: dict[str, str]) -> None:
    """Without guards where they take what random weights say for silence or a loop."""
    body = json.dumps({**prompt, **SAMPLING, "guards": options.guards})
    command = [sys.executable, str(CLIENT), url, "--frames", str(options.frames), "--body", body]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = json.loads(done.stdout)["audio_seconds"]
    if options.guards and seconds < 0.95 * options.frames * 0.04:
        print(f"guards end the speech of random weights after {seconds:.1f} s: they are left out")
        options.guards = False


def run_client(
    options: argparse.Namespace, url: str, prompt: dict[str, str], many: int, most: int
) -> dict[str, Any]:
    """The client's report; one short run warms up, the best of the others counts."""
    body = {**prompt, **SAMPLING, "guards": options.guards}
    body |= {"first_chunk_frames": 8, "max_chunk_frames": most}
    command = [sys.executable, str(CLIENT), url, "--concurrency", str(many)]
    command += ["--body", json.dumps(body)]
    best: dict[str, Any] = {}
    for repeat in range(options.repeats + 1):
        load = ["--frames", "16"] if repeat == 0 else ["--frames", str(options.frames)]
        load += ["--rounds", str(options.rounds if repeat else 1)]
        cpu = cpu_seconds_of(url)
        done = subprocess.run([*command, *load], check=True, capture_output=True, text=True)
        run = json.loads(done.stdout)
        run["server_cpu"] = cpu_seconds_of(url) - cpu
        firsts = run.pop("first_audio")
        run["first_audio_p50"], run["first_audio_p95"] = (
            quantile(firsts, 0.5),
            quantile(firsts, 0.95),
        )
        if repeat == 1:
            best = run
        elif repeat > 1:
            keep_better(best, run)
            best["underruns"] += run["underruns"]
    best["max_chunk_frames"] = most
    return best


def cpu_seconds_of(url: str) -> float:
    """Processor time of the server's event loop thread, from /metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("higgs_event_loop_cpu_seconds_total"):
                return float(line.split()[-1])
    return float("nan")


def quantile(values: list[float], share: float) -> float:
    """As `higgs_bench` takes it."""
    return sorted(values)[int(share * (len(values) - 1) + 0.5)]


def compare(bench: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Both, and whether the server costs at most 5 % of the throughput and 10 ms."""
    alone = bench["audio_seconds"] / bench["wall_seconds"]
    served = run["audio_seconds"] / run["wall_seconds"]
    later = {
        share: 1000 * (run[f"first_audio_{share}"] - bench[f"first_audio_{share}"])
        for share in ("p50", "p95")
    }
    return {
        "requests_at_once": run["concurrency"],
        "max_chunk_frames": run["max_chunk_frames"],
        "bench": {key: bench[key] for key in ("first_audio_p50", "first_audio_p95", "underruns")}
        | {"audio_per_second": alone},
        "server": {key: run[key] for key in ("first_audio_p50", "first_audio_p95", "underruns")}
        | {"audio_per_second": served, "parts": run["parts"]},
        "event_loop_cpu_ms_per_audio_second": 1000 * run["server_cpu"] / run["audio_seconds"],
        "longest": max(run["ended"]),
        "mean": statistics.mean(run["ended"]),
        "throughput_lost": 1 - served / alone,
        "first_audio_later_ms": later,
        "within": served >= 0.95 * alone and later["p50"] <= 10,
    }


def field(status: str, name: str) -> str:
    """A number of /proc/…/status."""
    return next(line.split()[1] for line in status.splitlines() if line.startswith(name + ":"))


def show(report: dict[str, Any]) -> None:
    """The table of docs/performance.md."""
    print(f"\nprompts of {report['prompt_tokens']} tokens, {report['frames']} frames, ", end="")
    print(f"{report['rounds']} requests a client, {report['device']}")
    print(
        "requests | audio-s/s bench, server, lost | first audio p50/p95 ms bench, server | ", end=""
    )
    print("underruns | loop ms per audio-s")
    for run in report["runs"]:
        bench, server = run["bench"], run["server"]
        times = [
            f"{1000 * one['first_audio_p50']:.0f}/{1000 * one['first_audio_p95']:.0f}"
            for one in (bench, server)
        ]
        print(
            f"{run['requests_at_once']:4d} ({run['max_chunk_frames']}) | "
            f"{bench['audio_per_second']:.1f} "
            f"{server['audio_per_second']:.1f} {100 * run['throughput_lost']:.1f} % | "
            f"{times[0]} {times[1]} | {bench['underruns']} {server['underruns']} | "
            f"{run['event_loop_cpu_ms_per_audio_second']:.3f}" + ("" if run["within"] else "  OVER")
        )


if __name__ == "__main__":
    sys.exit(main())
