"""The compute-sanitizers of a machine, and which one sanitize.py takes for a case, told what."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sanitize_cases import NEWER, ONE_KERNEL, ONLY_NEWER, Task

NEW = 2026
# In the Python package nvidia-cuda-sanitizer-api, which need not be installed executable.
PACKAGED = "nvidia/*/compute-sanitizer/compute-sanitizer"


@dataclass(frozen=True)
class Tools:
    """Their paths; None: there is none."""

    usual: str | None
    newer: str | None

    def of(self, task: Task) -> str | None:
        """The one for a task; None: it wants another."""
        if task.is_one_of(ONLY_NEWER):
            return self.newer
        usual = self.usual or self.newer
        return self.newer or usual if task.is_one_of(NEWER) else usual


def find_tools(given: Path | None) -> Tools:
    """That in PATH, and the first of 2026 or later; prints them."""
    usual = shutil.which("compute-sanitizer")
    packaged = [path for entry in sys.path for path in sorted(Path(entry).glob(PACKAGED))]
    candidates = [str(given)] if given else [*map(str, packaged), *([usual] if usual else [])]
    newer = next((one for one in candidates if year(one) >= NEW), None)
    if usual is None and newer is None:
        raise SystemExit("[sanitize] expected compute-sanitizer (CUDA toolkit), got none in PATH")
    told = [f"compute-sanitizer {version(one)}" for one in dict.fromkeys((usual, newer)) if one]
    print("\n".join(told), flush=True)
    return Tools(usual, newer)


def version(tool: str) -> str:
    """The tool's: what it reports differs from one to the next."""
    try:
        done = subprocess.run(
            [tool, "--version"], check=False, capture_output=True, text=True, timeout=30
        )
    except OSError as error:
        return f"(does not start: {error})"
    found = re.search(r"Version (\S+)", done.stdout)
    return found[1] if found else "(it tells no version)"


def year(tool: str) -> int:
    """The first part of its version; 0: it tells none."""
    found = re.match(r"\d+", version(tool))
    return int(found[0]) if found else 0


def told_to(task: Task, threads: int) -> list[str]:
    """What the tool is told about a task."""
    words = ["--tool", task.tool, "--print-limit", "2000"]
    if task.tool == "racecheck":
        # The longest of all has what it would have alone.
        workers = 3 * threads if task.is_one_of(ONE_KERNEL) else threads
        words += ["--racecheck-num-workers", str(workers)]
    if task.watched:
        words += ["--kernel-name", f"kns={task.watched}"]
    return words
