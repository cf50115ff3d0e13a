"""compute-sanitizer over the GPU's C++ tests, case by case and several at a time; one table.

    python tests/gpu/sanitize.py BUILD [--tools memcheck,racecheck,initcheck] [--results FILE]

Every `cuda` case of every folder runs under every tool, with fewer sizes than usual
(HIGGS_RT_TEST_FEW, tests/cpp/few.h); under racecheck each in a process of its own, as those of api
and engine, under the others those whose names begin alike in one. What racecheck leaves out stands
in sanitize_cases.py and below the table. Fails for any report, failed or skipped case, and for one
that does not end in time. Every result is printed when it is there, so that what ends this script
loses none; with --results what ended clean is kept too, and another call, of another build of the
same sources too, runs what is left and shows the table of all. Behind the table it names the
kernels (every instance of every template, tests/cpp/kernel_log.cpp) that no case of a tool saw.

Processes take turns on the GPU, a few milliseconds each, and the tools wait for every kernel: cases
of many kernels crawl beside those whose kernels take long (HEAVY). So memcheck and initcheck come
first, then racecheck but for the latter, which come last by themselves, `--heavy` at a time.
Racecheck's threads look at memory all the time while a kernel runs, and by itself it starts one for
every core: here all processes have as many together.

Some cases run under a compute-sanitizer of 2026 or later (sanitize_cases.py): the one given as
--newer, that of the Python package nvidia-cuda-sanitizer-api, or the one in PATH, where the others'
is.

Under racecheck and initcheck the products that are cuBLASLt's come from a plain kernel
(tests/cpp/plain_matmul.cu): racecheck 2025.3.1 breaks off over cuBLASLt's kernels, and initcheck
does not see what they write. Under memcheck cuBLASLt runs; reports about its own kernels, told by
their names (CUBLAS in sanitize_report.py), are counted in the table and are no fault.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from sanitize_cases import FOLDERS, LEFT_OUT, TOOLS, Task, tasks_of
from sanitize_report import (
    NOT_STARTED,
    Outcome,
    judge_kernels,
    judge_report,
    judge_test,
    show,
    told,
)
from sanitize_results import Results
from sanitize_tools import find_tools, told_to

PORTS = 20  # of one process; it tries 10
RUNNING: set[subprocess.Popen[str]] = set()
STOPPED = threading.Event()


def main(arguments: list[str] | None = None) -> int:
    """Run, print the table; 1 when anything is wrong."""
    options = parse(arguments)
    tools = find_tools(options.newer)
    results = Results(options.results)
    every = tasks_of(options.build, options.tools, options.folders, options.cases)
    watched = [task for task in every if not task.is_one_of(LEFT_OUT)]
    tasks = [task for task in watched if not results.has(task)]
    outcomes = results.of(watched)
    begin = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: stop())
    slots = iter(range(len(tasks)))
    for jobs, part in (
        (options.jobs, [task for task in tasks if task.tool != "racecheck"]),
        (options.jobs, [t for t in tasks if t.tool == "racecheck" and t.weight == 0]),
        (options.heavy, sorted((t for t in tasks if t.weight), key=lambda t: -t.weight)),
    ):
        threads = max(2, (os.cpu_count() or 1) // max(1, min(jobs, len(part))))
        with ThreadPoolExecutor(jobs) as pool:
            futures = [
                pool.submit(run, options, tools.of(task), task, threads, next(slots), begin)
                for task in part
            ]
            for future in as_completed(futures):
                outcomes.append(told(future.result()))
                results.keep(outcomes[-1])
    left_out = [task for task in every if task.is_one_of(LEFT_OUT)]
    show(outcomes, left_out, time.monotonic() - begin)
    return int(any(one.faults for one in outcomes))


def stop() -> None:
    """Ends what runs; nothing starts any more."""
    STOPPED.set()
    for process in list(RUNNING):
        kill(process)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--folders", default=",".join(FOLDERS))
    parser.add_argument("--cases", default="", help="only those with this in their names")
    parser.add_argument("--newer", type=Path, help="compute-sanitizer of 2026 or later")
    parser.add_argument("--results", type=Path, help="keeps what ended clean, which runs no more")
    parser.add_argument("--jobs", type=int, default=8, help="cases at a time")
    parser.add_argument("--heavy", type=int, default=max(3, (os.cpu_count() or 1) // 2))
    parser.add_argument("--case-seconds", type=float, default=150)
    parser.add_argument("--all-seconds", type=float, default=1800, help="later ones do not start")
    parser.add_argument("--port", type=int, default=49152, help="the first of 4,000")
    parser.add_argument("--logs", type=Path, help="a folder for the tool's output")
    options = parser.parse_args(arguments)
    options.tools, options.folders = options.tools.split(","), options.folders.split(",")
    if unknown := set(options.tools) - set(TOOLS):
        parser.error(f"--tools: expected some of {', '.join(TOOLS)}, got {', '.join(unknown)}")
    return options


def run(
    options: argparse.Namespace,
    tool: str | None,
    task: Task,
    threads: int,
    slot: int,
    begin: float,
) -> Outcome:
    """One case."""
    outcome = Outcome(task)
    if tool is None:
        outcome.faults.append("expected a compute-sanitizer of 2026 or later (--newer), got none")
        return outcome
    left = options.all_seconds - (time.monotonic() - begin)
    if left <= 0 or STOPPED.is_set():
        outcome.faults.append(NOT_STARTED)
        return outcome
    with tempfile.TemporaryDirectory() as folder:
        log, kernels = Path(folder) / "log", Path(folder) / "kernels"
        command = [tool, *told_to(task, threads), "--log-file", str(log)]
        command += ["--port", str(options.port + PORTS * (slot % 200))]
        command += [str(options.build / "tests" / "cpp" / f"test_{task.folder}"), task.case]
        started = time.monotonic()
        limit = min(left, options.case_seconds)
        output, ended = output_of(command, environment_of(task, kernels), limit)
        if not ended:
            outcome.faults.append(f"did not end in {limit:.0f} s; {output.strip()[-300:]}")
        else:
            judge_test(outcome, output)
            judge_report(outcome, log.read_text(errors="replace") if log.is_file() else "")
        outcome.seconds = time.monotonic() - started
        if kernels.is_file():
            judge_kernels(outcome, kernels.read_text().splitlines())
        if options.logs:
            keep(options.logs, task, log)
    return outcome


def environment_of(task: Task, kernels: Path) -> dict[str, str]:
    """What the tests are told: few.h, kernel_log.cpp, plain_matmul.cu."""
    environment = {**os.environ, "HIGGS_RT_TEST_KERNELS": str(kernels)}
    environment["HIGGS_RT_TEST_FEW"] = "fewest" if task.tool == "racecheck" else "1"
    if task.tool != "memcheck":
        environment["HIGGS_RT_TEST_PLAIN_MATMUL"] = "1"
    return environment


def output_of(command: list[str], environment: dict[str, str], seconds: float) -> tuple[str, bool]:
    """What a command printed, and whether it ended in time; if not, its children end with it."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    RUNNING.add(process)
    if STOPPED.is_set():
        kill(process)
    try:
        return process.communicate(timeout=seconds)[0], True
    except subprocess.TimeoutExpired:
        kill(process)
        return process.communicate()[0], False
    finally:
        RUNNING.discard(process)
        kill(process)  # what it may have left


def kill(process: subprocess.Popen[str]) -> None:
    """Ends a tool and its child, which is in its session: it must not go on beside the others."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def keep(folder: Path, task: Task, log: Path) -> None:
    """The tool's output beside those of the others."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "_", f"{task.tool}_{task.folder}_{task.case}")[:100]
    if log.is_file():
        shutil.copy(log, folder / f"{name}.txt")


if __name__ == "__main__":
    sys.exit(main())
