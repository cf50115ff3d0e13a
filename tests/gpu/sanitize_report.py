"""What came of a case under compute-sanitizer (sanitize.py), judged and printed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

from sanitize_cases import Task

# Parts of the names that kernels of cuBLASLt have; none of ours has one (test_sanitize.py).
CUBLAS = ("nvjet", "cutlass", "cublas", "xmma")
PREFIX = "========= "
NOT_STARTED = "not started: no time left"


@dataclass
class Outcome:
    """What came of it."""

    task: Task
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    excluded: int = 0  # reports about cuBLASLt
    kernels: dict[str, bool] = field(default_factory=dict)  # of the program; whether it was seen


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


def judge_kernels(outcome: Outcome, lines: list[str]) -> None:
    """What ran (tests/cpp/kernel_log.cpp): the tool saw it where it was watched."""
    watched = outcome.task.watched or ""
    outcome.kernels = {line[2:]: line[0] == "1" and watched in line for line in lines}
    if watched and not any(outcome.kernels.values()) and not outcome.faults:
        outcome.faults.append(f"expected {watched} to run, got no kernel of that name")


def told(outcome: Outcome) -> Outcome:
    """A line for a case that has ended, and its first faults."""
    task = outcome.task
    state = "FAIL" if outcome.faults else "ok  "
    only = f", only {task.watched}" if task.watched else ""
    print(f"{state} {outcome.seconds:6.1f} s {task.tool} {task.folder} «{task.case}»{only}")
    for fault in outcome.faults[:3]:
        print(f"     {fault}")
    if len(outcome.faults) > 3:
        print(f"     and {len(outcome.faults) - 3} more")
    sys.stdout.flush()
    return outcome


def show(outcomes: list[Outcome], left_out: list[Task], seconds: float) -> None:
    """A line for each tool and folder; what was not looked at."""
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
    for task in left_out:
        print(f"left out: {task.tool} {task.folder} «{task.case}»: its kernels run in another case")
    partly = [one.task for one in outcomes if one.task.watched]
    for task in partly:
        print(f"watched no kernel but {task.watched}: {task.tool} {task.folder} «{task.case}»")
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
