"""Time to the first audio of a cloned voice: its first request and its second (issue 6, measure 5).

    python benchmarks/prefix_cache.py                                    # the demo model, CPU
    python benchmarks/prefix_cache.py --device cuda --model scratch/model \
        --shape higgs-v2-3b --bench build/csrc/bench/higgs_bench         # random weights

Each voice is new: random codes of --seconds seconds between text ids, as a prompt with a reference
has them. Its first request computes the whole prompt; the second, with another text, finds the
voice's blocks. Medians over --voices voices, with the same requests on a runtime without the cache
beside them, whose columns must be the same where rows have the same bits in every chunk (CPU). With
--shape and --bench, `higgs_bench` writes random weights to --model first, unless they are there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from higgs_rt import _higgs_rt as native
from higgs_rt.checkpoint import DEMO_DIRECTORY

LIMIT = 0.6  # of the first request's time


def main() -> int:
    """Measure and print; 1 when the second request takes more than the issue allows."""
    options = parse()
    write_weights(options)
    figures: list[dict[str, Any]] = [
        {"device": options.device, "voice_seconds": seconds} for seconds in options.seconds
    ]
    answers: dict[tuple[str, int], list[NDArray[np.int32]]] = {}
    for name, share in (("cached", 0.25), ("plain", 0.0)):
        runtime = load(options, share)
        for index, found in enumerate(figures):
            found[name], answers[name, index] = measure(options, runtime, found["voice_seconds"])
        runtime.shutdown()
    for index, found in enumerate(figures):
        found["ratio"] = found["cached"]["second_seconds"] / found["cached"]["first_seconds"]
        pairs = list(zip(answers["cached", index], answers["plain", index], strict=True))
        found["same_columns"] = sum(np.array_equal(one, other) for one, other in pairs)
        found["requests"] = len(pairs)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    differ = options.device == "cpu" and any(
        found["same_columns"] != found["requests"] for found in figures
    )
    return int(differ or any(found["ratio"] > LIMIT for found in figures))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", type=Path, default=DEMO_DIRECTORY)
    parser.add_argument("--shape", help="write random weights of this shape; needs --bench")
    parser.add_argument("--bench", type=Path, help="higgs_bench")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seconds", default="10", help="of the reference; several: 10,30")
    parser.add_argument("--text-tokens", type=int, default=40)
    parser.add_argument("--frames", type=int, default=24, help="of each answer")
    parser.add_argument("--voices", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.seconds = [float(part) for part in options.seconds.split(",")]
    if options.shape and (options.bench is None or options.model == DEMO_DIRECTORY):
        parser.error("--shape needs --bench and a --model of its own")
    return options


def write_weights(options: argparse.Namespace) -> None:
    """Random weights, by the benchmark that knows the shapes."""
    if not options.shape or (options.model / "config.json").is_file():
        return
    command = [str(options.bench), "--shape", options.shape, "--keep", str(options.model)]
    command += ["--device", options.device, "--threads", str(options.threads)]
    command += ["--concurrency", "1", "--frames", "8", "--prompt-tokens", "16"]
    subprocess.run(command, check=True)


def load(options: argparse.Namespace, share: float) -> native.Runtime:
    """The model, warm."""
    config = native.RuntimeConfig(
        str(options.model),
        device=options.device,
        num_threads=options.threads,
        max_batch=8,
        prefix_cache=share,
    )
    return native.Runtime.load(config)


def new_voice(
    options: argparse.Namespace, info: native.ModelInfo, rng: np.random.Generator, seconds: float
) -> tuple[list[native.PromptSegment], ...]:
    """The prompts of a voice's two requests."""
    frames = round(seconds * info.sample_rate / info.samples_per_frame)
    codes = rng.integers(0, info.codebook_vocab - 2, (info.num_codebooks, frames), dtype=np.int32)

    def text(count: int) -> native.PromptSegment:
        return native.PromptSegment.text(rng.integers(0, 256, count).tolist())

    voice = [text(options.text_tokens), native.PromptSegment.audio(codes)]
    return tuple([*voice, text(options.text_tokens)] for _ in range(2))


def measure(
    options: argparse.Namespace,
    runtime: native.Runtime,
    voice_seconds: float,
) -> tuple[dict[str, Any], list[NDArray[np.int32]]]:
    """Times to the first audio and what the cache did; all columns. The same requests each time."""
    rng = np.random.default_rng(options.seed)
    prompts = [new_voice(options, runtime.info, rng, voice_seconds) for _ in range(options.voices)]
    for prompt in new_voice(options, runtime.info, rng, voice_seconds):
        speak(options, runtime, prompt)
    before = runtime.stats
    times: tuple[list[float], list[float]] = ([], [])
    columns = []
    for voice in prompts:
        for index, prompt in enumerate(voice):
            seconds, made = speak(options, runtime, prompt)
            times[index].append(seconds)
            columns.append(made)
    stats = runtime.stats
    figures = {
        "first_seconds": statistics.median(times[0]),
        "second_seconds": statistics.median(times[1]),
        "prompt_positions": stats.prefix_positions - before.prefix_positions,
        "found": stats.prefix_hits - before.prefix_hits,
        "prompt_rows": stats.prompt_rows - before.prompt_rows,
        "blocks": stats.cached_blocks,
        "evictions": stats.prefix_evictions - before.prefix_evictions,
    }
    return figures, columns


def speak(
    options: argparse.Namespace, runtime: native.Runtime, prompt: list[native.PromptSegment]
) -> tuple[float, NDArray[np.int32]]:
    """One stream: seconds to its first chunk, and its columns."""
    sampling = native.SamplingParams(temperature=1.0, top_k=50, top_p=1.0, seed=options.seed)
    columns = options.frames + runtime.info.num_codebooks + 1
    request = native.Request(prompt, sampling, max_columns=columns, stream=True)
    begin = time.perf_counter()
    stream = runtime.submit(request)
    first = 0.0
    while (chunk := stream.next()) is not None:
        if first == 0 and chunk.pcm.size:
            first = time.perf_counter() - begin
        if chunk.last:
            if not first:
                raise SystemExit("a request ended without audio")
            return first, chunk.columns
    raise SystemExit("a stream ended without its last chunk")


if __name__ == "__main__":
    raise SystemExit(main())
