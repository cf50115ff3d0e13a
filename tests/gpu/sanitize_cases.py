"""Which cases of the C++ tests run under compute-sanitizer (sanitize.py), and how each does.

Racecheck writes down, by the warp, every access to shared memory and every barrier, for the CPU to
look through. So what the released shape does with its weights takes as long as hundreds of other
cases. There only the kernels named in WATCHED are watched, in one layer, and the cases in LEFT_OUT
do not run. Nor are engines watched but for the kernels that a case is about: they take most kernels
that there are. The cases in ONLY_NEWER want compute-sanitizer 2026.4: 2025.3.1 breaks off over the
one-kernel step, and over engines of which it watches one kernel. Those in NEWER run under it where
there is one: it sees what wgmma reads.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("memcheck", "initcheck", "racecheck")  # the slowest last
FOLDERS = ("api", "engine", "model", "ops", "sampler", "core")  # the longest cases first

# Under racecheck, by folder and a part of the name. What the other kernels of a case are is what
# cases of ops are about.
WATCHED = {
    ("model", "in one kernel is the step in stages"): "persist_kernel",
    ("model", "norms within"): "wide_kernel",
    ("engine", "graphs of padded batches equal"): "stream_kernel",
    ("engine", "adapters"): "lora_",
}
# Other numbers of rows, a graph, and the same kernel as in the case above.
LEFT_OUT = (
    ("model", "decode step in one kernel has the same bits"),
    ("model", "thousands of decode steps in one kernel"),
)
ONE_KERNEL = (("model", "in one kernel is the step in stages"),)
ONLY_NEWER = (
    *ONE_KERNEL,
    ("engine", "graphs of padded batches equal"),
    ("engine", "adapters"),
)
NEWER = (
    ("model", "norms within"),
    ("ops", "cuda wide"),
    ("ops", "a prompt row the same bits for"),
)
# A quarter of a minute beside others and more, the longest first.
HEAVY = (
    *ONE_KERNEL,
    ("model", "any parts"),
    ("ops", "linear gives a prompt row"),
    ("ops", "attention_input gives a prompt row"),
    ("model", "norms within its products is the step in stages"),
    ("ops", "wide ffn_input"),
    ("ops", "wide products give a row"),
    ("ops", "ffn_input gives a prompt row"),
    ("ops", "wide products are"),
    ("ops", "wide attention_input is"),
    ("model", "decode step with norms within has the same bits"),
    ("model", "thousands of decode steps with norms within"),
)


@dataclass(frozen=True)
class Task:
    """A case, or several, under one tool."""

    tool: str
    folder: str
    case: str  # or what the names of several begin with
    count: int = 1

    def is_one_of(self, names: tuple[tuple[str, str], ...]) -> bool:
        """Whether a folder and a part of the case's name are among these, under racecheck."""
        return self.tool == "racecheck" and any(
            self.folder == folder and part in self.case for folder, part in names
        )

    @property
    def watched(self) -> str | None:
        """A part of the names of the only kernels that the tool looks at; None: of all."""
        found = (kernel for name, kernel in WATCHED.items() if self.is_one_of((name,)))
        return next(found, None)

    @property
    def name(self) -> str:
        """What tells it from all others."""
        return f"{self.tool} {self.folder} {self.case}"

    @property
    def weight(self) -> int:
        """Above 0: the case keeps the GPU for itself; the longer the greater."""
        places = range(len(HEAVY), 0, -1)
        found = (w for w, name in zip(places, HEAVY, strict=True) if self.is_one_of((name,)))
        return next(found, 0)


def cases(build: Path, folder: str) -> list[str]:
    """The cases of a folder that use the GPU."""
    binary = build / "tests" / "cpp" / f"test_{folder}"
    done = subprocess.run([binary, "--list", "cuda"], check=True, capture_output=True, text=True)
    # Others have the word in their names and no work for the GPU.
    found = [case for case in done.stdout.splitlines() if "make_cuda_ops" not in case]
    if not found:
        raise SystemExit(f"[{binary}] expected cases with cuda in their names, got none")
    return found


def tasks_of(build: Path, tools: list[str], folders: list[str], part: str = "") -> list[Task]:
    """What runs under each tool, LEFT_OUT too, of the cases with `part` in their names.

    Racecheck leaves out api, which launches most.
    """
    wanted = [(tool, name) for tool in tools for name in folders]
    wanted = [pair for pair in wanted if pair != ("racecheck", "api")]
    found = {
        name: [case for case in cases(build, name) if part in case]
        for name in dict.fromkeys(name for _, name in wanted)
    }
    tasks = [t for tool, name in wanted for t in split(tool, name, found[name], bool(part))]
    if not tasks:
        raise SystemExit(f"expected cases with «{part}» in their names, got none")
    return tasks


def split(tool: str, folder: str, found: list[str], alone: bool) -> list[Task]:
    """In how many processes a folder's cases run under a tool."""
    if alone or tool == "racecheck" or folder in ("api", "engine"):
        return [Task(tool, folder, case) for case in found]
    groups: dict[str, int] = {}
    for case in found:
        words = case.split(" ")
        begin = " ".join(words[:2]) + (" " if len(words) > 2 else "")
        groups[begin] = sum(begin in other for other in found)  # the filter is a part of the name
    return [Task(tool, folder, begin, count) for begin, count in groups.items()]
