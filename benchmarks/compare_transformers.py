"""Speed of transformers' own generate() on the shapes, prompts and sampling of higgs_bench.

    python benchmarks/compare_transformers.py [--modes eager,compiled] [--concurrency 1,16]
                                              [--json FILE] [--higgs-bench FILE [--behind]]

Run it on the GPU that higgs_bench ran on, in the same session. It makes a random model of the
released dimensions (bf16) on the GPU, generates twice, and takes milliseconds a column from the
last three quarters of the second time's columns, so that the prompt, and compilation, are not
counted. "compiled" is a static cache with torch.compile, as transformers chooses by itself for
`cache_implementation="static"`; every number of requests is compiled for itself, with fixed shapes.
The codec is not part of either figure. With --higgs-bench, a JSON file of higgs_bench, it prints
the ratio to it.

Nearly all of the time goes by with compiling, on one core each. So every line has a process of its
own, and these get ready side by side; while one is measured, the others are stopped. A line is
printed as soon as it is there. With --behind they may get ready beside something that nobody times,
a sanitizer for one: when all are ready, it says so, and waits for the file of higgs_bench.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROCESS = Path(__file__).with_name("transformers_line.py")
FRAMES_PER_SECOND = 25


class Line:
    """A mode and a number of requests, and the process that finds the figures."""

    def __init__(self, mode: str, requests: int, args: argparse.Namespace) -> None:
        self.mode, self.requests = mode, requests
        words = ["--mode", mode, "--requests", requests, "--device", args.device]
        words += ["--prompt-tokens", args.prompt_tokens]
        words += ["--columns", args.columns, "--layers", args.layers]
        self.process = subprocess.Popen(
            [sys.executable, str(PROCESS), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said:
            raise SystemExit(f"{self.mode}, {self.requests} requests: the process has ended")
        answer: dict[str, Any] = json.loads(said)
        return answer

    def measure(self) -> float:
        """Seconds a column."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.answer()["column"])

    def end(self) -> None:
        """Ends it and what it has started, whatever they do."""
        if self.process.poll() is None:
            tell(list(family(self.process.pid)), signal.SIGKILL)
        self.process.wait()


def family(process: int) -> set[int]:
    """A process, those that it has started, and theirs."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            )
    found, before = {process}, 0
    while len(found) > before:
        before = len(found)
        found |= {one for one, parent in parents.items() if parent in found}
    return found


@contextlib.contextmanager
def stopped(lines: list[Line]) -> Iterator[None]:
    """What gets ready for other lines waits meanwhile."""
    processes = [
        one for line in lines if line.process.poll() is None for one in family(line.process.pid)
    ]
    tell(processes, signal.SIGSTOP)
    try:
        time.sleep(0.1)  # what the GPU had been given
        yield
    finally:
        tell(processes, signal.SIGCONT)


def tell(processes: list[int], what: signal.Signals) -> None:
    """Sends it to those that are there."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, what)


def wait_for(path: Path) -> None:
    """Until a JSON file is there as a whole, and who wrote it has ended."""
    while True:
        with contextlib.suppress(OSError, ValueError):
            json.loads(path.read_text())
            break
        time.sleep(0.2)
    time.sleep(2.0)


def ratio(path: Path | None, batch: int, milliseconds: float) -> str:
    """How much longer a column takes here than in a JSON file of higgs_bench."""
    if path is None:
        return ""
    if not path.is_file():
        return f"(no {path})"
    for run in json.loads(path.read_text())["runs"]:
        if run["columns"]["concurrency"] == batch:
            return f"{milliseconds / (1e3 * run['columns']['column_p50']):8.2f}x"
    return "       -"


def main() -> None:
    """Prints a line per mode and concurrency."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", default="eager,compiled")
    parser.add_argument("--concurrency", default="1,16")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--columns", type=int, default=120)
    parser.add_argument("--layers", type=int, default=28, help="fewer only to try the script out")
    parser.add_argument("--device", default="cuda", help="cpu only to try the script out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--higgs-bench", type=Path)
    parser.add_argument("--behind", action="store_true", help="measure behind higgs_bench")
    args = parser.parse_args()
    if args.behind and args.higgs_bench is None:
        parser.error("--behind: expected --higgs-bench FILE, got none")
    begin = time.perf_counter()
    lines = [
        Line(mode, int(requests), args)
        for mode in args.modes.split(",")
        for requests in args.concurrency.split(",")
    ]
    results: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    try:
        if args.behind:
            answers = [line.answer() for line in lines]
            print(f"ready in {time.perf_counter() - begin:.0f} s", flush=True)
            wait_for(args.higgs_bench)
        for number, line in enumerate(lines):
            ready = answers[number] if args.behind else line.answer()
            with stopped(lines[number + 1 :]):
                column = line.measure()
            line.end()
            if not results:
                print(f"{ready['device']}, torch {ready['torch']}, bf16, {args.layers} layers")
                print(
                    f"{'mode':>10} {'requests':>8} {'ms a column':>12} {'audio-s/s':>10}"
                    f" {'ready in':>9}  against higgs_bench"
                )
            audio = line.requests / column / FRAMES_PER_SECOND
            print(
                f"{line.mode:>10} {line.requests:>8} {1e3 * column:>12.2f} {audio:>10.2f}"
                f" {ready['ready_s']:>7.1f} s"
                f"  {ratio(args.higgs_bench, line.requests, 1e3 * column)}",
                flush=True,
            )
            results.append(
                {"mode": line.mode, "concurrency": line.requests, "ms": 1e3 * column}
                | {"audio_s_per_s": audio, **ready}
            )
            if args.json:
                args.json.write_text(json.dumps({"results": results}, indent=1))
    finally:
        for line in lines:
            line.end()
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
