"""compute-sanitizer over the GPU's C++ tests, case by case and several at a time; one table.

    python tests/gpu/sanitize.py BUILD [--tools memcheck,racecheck,initcheck] [--jobs 10]

Every `cuda` case of every folder runs under every tool, with fewer sizes than usual
(HIGGS_RT_TEST_FEW, tests/cpp/few.h); under racecheck each in a process of its own, as those of api
and engine, under the others those whose names begin alike in one. racecheck leaves out the cases of
api, which launch a hundred thousand times what the others launch. Fails for any report, failed or
skipped case, and for one that does not end in time. Every result is printed when it is there, so
that what ends this script loses none. Behind the table it names the kernels (every instance of
every template, tests/cpp/kernel_log.cpp) that ran in no case under a tool.

Processes take turns on the GPU, a few milliseconds each, and the tools wait for every kernel: cases
of many kernels crawl beside those whose kernels take long (HEAVY). So memcheck and initcheck come
first, then racecheck but for the latter, which come last by themselves, `--heavy` at a time.

Under racecheck and initcheck the products that are cuBLASLt's come from a plain kernel
(tests/cpp/plain_matmul.cu): racecheck 2025.3.1 breaks off over cuBLASLt's kernels, and initcheck
does not see what they write. Under memcheck cuBLASLt runs; reports about its own kernels, told by
their names (CUBLAS below), are counted in the table and are no fault.
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
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = ("memcheck", "initcheck", "racecheck")  # the slowest last
FOLDERS = ("api", "engine", "model", "ops", "sampler", "core")  # the longest cases first
# Parts of the names that kernels of cuBLASLt have; none of ours has one (test_sanitize.py).
CUBLAS = ("nvjet", "cutlass", "cublas", "xmma")
# Under racecheck, by folder and part of the name: half a minute of the GPU alone and more, the
# shortest first; of the last kind two have ended in no run so far (more than 113 and 139 s).
HEAVY = ("model", "any parts"), ("model", "norms within"), ("model", "in one kernel")
PREFIX = "========= "
FIRST_PORT = 49152
PORTS = 20  # of one process; it tries 10
NOT_STARTED = "not started: no time left"
RUNNING: set[subprocess.Popen[str]] = set()
STOPPED = threading.Event()


@dataclass(frozen=True)
class Task:
    """A case, or several, under one tool."""

    tool: str
    folder: str
    case: str  # or what the names of several begin with
    count: int = 1


@dataclass
class Outcome:
    """What came of it."""

    task: Task
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    excluded: int = 0  # reports about cuBLASLt
    kernels: dict[str, bool] = field(default_factory=dict)  # of the program; whether it ran


def main(arguments: list[str] | None = None) -> int:
    """Run, print the table; 1 when anything is wrong."""
    options = parse(arguments)
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        raise SystemExit("[sanitize] expected compute-sanitizer (CUDA toolkit), got none in PATH")
    found = {folder: cases(options.build, folder) for folder in options.folders}
    tasks = [
        task
        for name in options.tools
        for folder in options.folders
        for task in tasks_of(name, folder, found[folder])
    ]
    begin = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: stop())
    slots = iter(range(len(tasks)))
    outcomes: list[Outcome] = []
    for jobs, part in (
        (options.jobs, [task for task in tasks if task.tool != "racecheck"]),
        (options.jobs, [t for t in tasks if t.tool == "racecheck" and weight(t) == 0]),
        (options.heavy, sorted((t for t in tasks if weight(t) > 0), key=weight)),
    ):
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(run, options, tool, task, next(slots), begin) for task in part]
            outcomes += [told(future.result()) for future in as_completed(futures)]
    show(outcomes, time.monotonic() - begin)
    return int(any(one.faults for one in outcomes))


def weight(task: Task) -> int:
    """Above 0: the case keeps the GPU for itself; its place in HEAVY."""
    if task.tool != "racecheck":
        return 0
    places = enumerate(HEAVY, 1)
    return next(
        (i for i, (folder, part) in places if task.folder == folder and part in task.case), 0
    )


def stop() -> None:
    """Ends what runs; nothing starts any more."""
    STOPPED.set()
    for process in list(RUNNING):
        kill(process)


def told(outcome: Outcome) -> Outcome:
    """A line for a case that has ended, and its first faults."""
    task = outcome.task
    state = "FAIL" if outcome.faults else "ok  "
    print(f"{state} {outcome.seconds:6.1f} s {task.tool} {task.folder} «{task.case}»")
    for fault in outcome.faults[:3]:
        print(f"     {fault}")
    if len(outcome.faults) > 3:
        print(f"     and {len(outcome.faults) - 3} more")
    sys.stdout.flush()
    return outcome


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--folders", default=",".join(FOLDERS))
    parser.add_argument("--jobs", type=int, default=10, help="cases at a time")
    parser.add_argument("--heavy", type=int, default=2, help="heavy cases at a time")
    parser.add_argument("--case-seconds", type=float, default=150)
    parser.add_argument("--all-seconds", type=float, default=1800, help="later ones do not start")
    parser.add_argument("--logs", type=Path, help="a folder for the tool's output")
    options = parser.parse_args(arguments)
    options.tools, options.folders = options.tools.split(","), options.folders.split(",")
    if unknown := set(options.tools) - set(TOOLS):
        parser.error(f"--tools: expected some of {', '.join(TOOLS)}, got {', '.join(unknown)}")
    return options


def cases(build: Path, folder: str) -> list[str]:
    """The cases of a folder that use the GPU."""
    binary = build / "tests" / "cpp" / f"test_{folder}"
    done = subprocess.run([binary, "--list", "cuda"], check=True, capture_output=True, text=True)
    # Others have the word in their names and no work for the GPU.
    found = [case for case in done.stdout.splitlines() if "make_cuda_ops" not in case]
    if not found:
        raise SystemExit(f"[{binary}] expected cases with cuda in their names, got none")
    return found


def tasks_of(tool: str, folder: str, found: list[str]) -> list[Task]:
    """What runs of a folder's cases under a tool, and in how many processes."""
    if tool == "racecheck" and folder == "api":
        return []
    if tool == "racecheck" or folder in ("api", "engine"):
        return [Task(tool, folder, case) for case in found]
    groups: dict[str, int] = {}
    for case in found:
        words = case.split(" ")
        begin = " ".join(words[:2]) + (" " if len(words) > 2 else "")
        groups[begin] = sum(begin in other for other in found)  # the filter is a part of the name
    return [Task(tool, folder, begin, count) for begin, count in groups.items()]


def run(options: argparse.Namespace, tool: str, task: Task, slot: int, begin: float) -> Outcome:
    """One case."""
    outcome = Outcome(task)
    left = options.all_seconds - (time.monotonic() - begin)
    if left <= 0 or STOPPED.is_set():
        outcome.faults.append(NOT_STARTED)
        return outcome
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [tool, "--tool", task.tool, "--print-limit", "2000", "--log-file", str(log)]
        command += ["--port", str(FIRST_PORT + PORTS * (slot % 200))]
        command += [str(options.build / "tests" / "cpp" / f"test_{task.folder}"), task.case]
        kernels = Path(folder) / "kernels"
        environment = {**os.environ, "HIGGS_RT_TEST_FEW": "1"}
        environment["HIGGS_RT_TEST_KERNELS"] = str(kernels)
        if task.tool != "memcheck":
            environment["HIGGS_RT_TEST_PLAIN_MATMUL"] = "1"
        started = time.monotonic()
        limit = min(left, options.case_seconds)
        output, ended = output_of(command, environment, limit)
        if not ended:
            outcome.faults.append(f"did not end in {limit:.0f} s; {output.strip()[-300:]}")
        else:
            judge_test(outcome, output)
            judge_report(outcome, log.read_text(errors="replace") if log.is_file() else "")
        outcome.seconds = time.monotonic() - started
        if kernels.is_file():
            lines = kernels.read_text().splitlines()
            outcome.kernels = {line[2:]: line[0] == "1" for line in lines}
        if options.logs:
            keep(options.logs, task, log)
    return outcome


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


def judge_test(outcome: Outcome, output: str) -> None:
    """The case itself: passed, and not skipped."""
    tally = re.search(r"(\d+) passed, (\d+) failed, (\d+) skipped", output)
    wanted = (str(outcome.task.count), "0", "0")
    if tally is None or tally.groups() != wanted:
        tail = output.strip()[-300:]
        outcome.faults.append(f"the case: {tally[0] if tally else 'no result'}; {tail}")


def judge_report(outcome: Outcome, text: str) -> None:
    """What the tool wrote: blocks that begin at the left, with indented lines behind."""
    summary = re.search(r"SUMMARY: (\d+) (?:errors?|hazards?)", text)
    if summary is None:
        outcome.faults.append(f"no summary of {outcome.task.tool}: {text.strip()[-200:]}")
        return
    block: list[str] = []
    blocks = [block]
    for line in text.splitlines():
        body = line.removeprefix(PREFIX)
        if body.startswith("    "):
            block.append(body.strip())
        elif body.strip() and "SUMMARY" not in body and body.strip() != "COMPUTE-SANITIZER":
            block = [body.strip()]
            blocks.append(block)
    reports = [one for one in blocks[1:] if not one[0].startswith("=========")]
    for report in reports:
        if is_cublas(report):
            outcome.excluded += 1
        else:
            outcome.faults.append(" | ".join(report[:4]))
    if int(summary[1]) > len(reports):
        outcome.faults.append(f"{summary[0]}, but only {len(reports)} reports were printed")


def is_cublas(report: list[str]) -> bool:
    """Whether the kernel at fault is one of cuBLASLt's; host frames come after it."""
    kernel = next((line for line in report if line.startswith("at ")), "")
    return any(name in kernel for name in CUBLAS) and "higgs_rt" not in kernel


def keep(folder: Path, task: Task, log: Path) -> None:
    """The tool's output beside those of the others."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "_", f"{task.tool}_{task.folder}_{task.case}")[:100]
    if log.is_file():
        shutil.copy(log, folder / f"{name}.txt")


def show(outcomes: list[Outcome], seconds: float) -> None:
    """A line for each tool and folder."""
    print(f"\n{'tool':10} {'folder':8} {'runs':>5} {'clean':>5} {'cuBLASLt':>8} {'longest':>8}")
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for one in sorted(outcomes, key=lambda one: (one.task.tool, one.task.folder)):
        groups.setdefault((one.task.tool, one.task.folder), []).append(one)
    for (tool, folder), group in groups.items():
        clean = sum(not one.faults for one in group)
        slow = max(group, key=lambda one: one.seconds)
        print(
            f"{tool:10} {folder:8} {len(group):5} {clean:5} {sum(o.excluded for o in group):8} "
            f"{slow.seconds:6.1f} s  {slow.task.case[:60]}"
        )
    for tool in sorted({one.task.tool for one in outcomes}):
        show_kernels(tool, [one.kernels for one in outcomes if one.task.tool == tool])
    wrong = sum(bool(one.faults) for one in outcomes)
    missing = sum(one.faults == [NOT_STARTED] for one in outcomes)
    print(f"{len(outcomes)} runs in {seconds:.0f} s, {wrong} with faults ({missing} not started)")


def show_kernels(tool: str, programs: list[dict[str, bool]]) -> None:
    """How many kernels ran, and the names of the others."""
    every = {name for program in programs for name in program}
    ran = {name for program in programs for name, did in program.items() if did}
    print(f"{tool}: {len(ran)} of {len(every)} kernels ran")
    for name in readable(sorted(every - ran)):
        print(f"  not {name}")


def readable(names: list[str]) -> list[str]:
    """The names as in the source, without their arguments."""
    tool = shutil.which("c++filt")
    if tool is None or not names:
        return names
    done = subprocess.run([tool, "-p", *names], check=True, capture_output=True, text=True)
    return sorted(
        re.sub(r"\(anonymous namespace\)::|higgs_rt::", "", name)
        for name in done.stdout.splitlines()
    )


if __name__ == "__main__":
    sys.exit(main())
