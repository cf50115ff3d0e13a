"""What a GPU and its host do while requests decode: launches a step, waiting, GPU busy share.

    higgs_bench --shape higgs-v2-3b --device cuda --keep MODEL --concurrency 1 --frames 8
    python benchmarks/profile_decode.py MODEL [--streams 1,16,64] [--codec] [--json FILE]

`MODEL` is a model directory. All requests of a line decode at the same time; once they all do, the
CUDA activity of this process is recorded for `--seconds` by torch's profiler (CUPTI), and for as
long again without it, from the runtime's own counters. Printed for each number of streams:

- steps, and calls of the CUDA runtime a step: graph launches, kernel launches, copies, and calls
  that make a thread wait for the GPU. Waiting for the columns of the step before the one in
  progress is one such call a step; nothing that the GPU does depends on it.
- busy: share of the time in which at least one kernel or copy ran (recorded), and device_seconds
  over the wall clock (counted, without the profiler).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from higgs_rt import _higgs_rt as native

WORK = ("kernel", "gpu_memcpy", "gpu_memset")
WAITS = ("cudaEventSynchronize", "cudaStreamSynchronize", "cudaDeviceSynchronize")


def start(runtime: native.Runtime, streams: int, columns: int, codec: bool) -> list[native.Stream]:
    """Requests of 128 random text ids; they have all begun to decode when this returns."""
    random = np.random.default_rng(streams)
    found = []
    for number in range(streams):
        ids = random.integers(0, runtime.info.text_vocab, 128)
        sampling = native.SamplingParams(top_k=50, ras_window=0, seed=number)
        request = native.Request(
            [native.PromptSegment.text(ids.tolist())],
            sampling,
            max_columns=columns,
            output=native.OutputKind.WAVEFORM if codec else native.OutputKind.FRAMES,
            stream=True,
        )
        found.append(runtime.submit(request))
        found[-1].on_chunk(lambda chunk: None)
    while runtime.stats.columns < streams * 20:
        time.sleep(0.001)
    return found


def merged(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of (begin, end)."""
    total, reach = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reach))
        reach = max(reach, end)
    return total


def read_trace(path: Path) -> list[dict[str, Any]]:
    """Complete events of a Chrome trace; times in microseconds."""
    return [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]


def record(runtime: native.Runtime, seconds: float) -> dict[str, float]:
    """Record what the process does for `seconds`."""
    before = runtime.stats.steps
    with profile(activities=[ProfilerActivity.CUDA]) as recorder:
        time.sleep(seconds)
        steps = runtime.stats.steps - before
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorder.export_chrome_trace(str(path))
        events = read_trace(path)
    work = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in WORK)
    calls = Counter(e["name"] for e in events if e.get("cat") in ("cuda_runtime", "cuda_driver"))
    if not work or steps == 0:
        print("the profiler recorded no CUDA work here; the counters follow alone")
        return {}
    span = work[-1][1] - work[0][0]
    gaps = [after[0] - now[1] for now, after in pairwise(work)]
    launches = sum(n for name, n in calls.items() if "LaunchKernel" in name)
    copies = sum(n for name, n in calls.items() if "Memcpy" in name)
    return {
        "steps": steps,
        "graph_launches": calls["cudaGraphLaunch"] / steps,
        "kernel_launches": launches / steps,
        "copies": copies / steps,
        "waits": sum(calls[name] for name in WAITS) / steps,
        "event_waits": calls["cudaEventSynchronize"] / steps,
        "gpu_activities": len(work) / steps,
        "busy_recorded": merged(work) / span,
        "largest_gap_us": max(gaps),
    }


def count(runtime: native.Runtime, seconds: float) -> dict[str, float]:
    """The runtime's own counters over `seconds`, without a profiler."""
    before, begin = runtime.stats, time.perf_counter()
    time.sleep(seconds)
    after, passed = runtime.stats, time.perf_counter() - begin
    steps = after.steps - before.steps
    return {
        "graph_share": (after.graph_steps - before.graph_steps) / steps,
        "busy_counted": (after.device_seconds - before.device_seconds) / passed,
        "host_ms": 1e3 * (after.forward_seconds - before.forward_seconds) / steps,
        "step_ms": 1e3 * passed / steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--streams", default="1,16,64")
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--codec", action="store_true", help="with waveforms")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.cuda.init()  # type: ignore[no-untyped-call]
    results = {}
    for streams in (int(part) for part in options.streams.split(",")):
        columns = 1500
        config = native.RuntimeConfig(
            options.model,
            codec_dir="" if options.codec else "none",
            device="cuda",
            max_batch=streams,
            max_sequence=128 + columns + 8,
        )
        runtime = native.Runtime.load(config)
        running = start(runtime, streams, columns, options.codec)
        found = count(runtime, options.seconds) | record(runtime, options.seconds)
        for stream in running:
            stream.cancel()
        runtime.shutdown()
        results[streams] = found
        print(f"{streams} streams: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
