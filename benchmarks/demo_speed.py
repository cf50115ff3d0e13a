"""Speed of the packaged demo model through the Python API, codec included.

    python benchmarks/demo_speed.py [--sentences FILE] [--voice NAME] [--threads N] [--json FILE]

Prints the real-time factor of one request at a time, the time to the first audio of a stream, and
the throughput of eight requests at a time over the same sentences and seeds (same speech). Every
figure is the best of `--repeats` passes, since other programs on the machine can only slow one.
Each pass has a runtime of its own, whose prefix cache knows the beginning that all prompts share
and none of the sentences. CPU time, of all threads, depends less on other programs than the clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from higgs_rt import Runtime

SENTENCES = Path(__file__).resolve().parents[1] / "tests" / "data" / "sentences.txt"
TOGETHER = 8
WARM_UP = ("A first sentence wakes everything up.", "A second one comes after it.")

Work = Callable[[Runtime], float]


def one_after_another(runtime: Runtime, lines: list[str], options: dict[str, Any]) -> float:
    """Seconds of speech made."""
    return sum(runtime.speak(line, seed=seed, **options).seconds for seed, line in enumerate(lines))


def together(runtime: Runtime, lines: list[str], options: dict[str, Any]) -> float:
    """The same, all queued at once: the runtime keeps TOGETHER of them running."""
    streams = [runtime.submit(line, seed=seed, **options) for seed, line in enumerate(lines)]
    return sum(stream.result().seconds for stream in streams)


def first_audio(runtime: Runtime, line: str, options: dict[str, Any]) -> float:
    """Seconds from the request to the first chunk of a stream."""
    begin = time.perf_counter()
    with runtime.stream(line, seed=0, **options) as stream:
        next(iter(stream))
        return time.perf_counter() - begin


def cpu_seconds() -> float:
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def best(load: Callable[[], Runtime], work: Work, repeats: int) -> tuple[float, float]:
    """Most seconds of speech made per second, and least CPU seconds for one of them."""
    rates, costs = [], []
    for _ in range(repeats):
        with load() as runtime:
            begin, cpu = time.perf_counter(), cpu_seconds()
            seconds = work(runtime)
            rates.append(seconds / (time.perf_counter() - begin))
            costs.append((cpu_seconds() - cpu) / seconds)
    return max(rates), min(costs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=Path, default=SENTENCES)
    parser.add_argument("--voice")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lines = [line for line in arguments.sentences.read_text("utf-8").splitlines() if line.strip()]
    options = {"voice": arguments.voice} if arguments.voice else {}

    def load() -> Runtime:
        runtime = Runtime.load(threads=arguments.threads, max_batch=TOGETHER)
        one_after_another(runtime, list(WARM_UP), options)
        return runtime

    repeats = arguments.repeats
    single, single_cpu = best(
        load, lambda runtime: one_after_another(runtime, lines, options), repeats
    )
    many, many_cpu = best(load, lambda runtime: together(runtime, lines, options), repeats)
    with load() as runtime:
        first = min(first_audio(runtime, line, options) for line in lines[: max(repeats, 1)])
        figures = {
            "threads": runtime.info.num_threads,
            "kernels": runtime.info.cpu_isa,
            "sentences": len(lines),
            "real_time_factor": 1 / single,
            "audio_seconds_per_second": single,
            "audio_seconds_per_second_together": many,
            "gain_together": many / single,
            "cpu_seconds_per_audio_second": single_cpu,
            "cpu_seconds_per_audio_second_together": many_cpu,
            "first_audio_seconds": first,
        }
    for name, value in figures.items():
        print(f"{name:36} {value:.4g}" if isinstance(value, float) else f"{name:36} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
