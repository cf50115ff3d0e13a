"""What ended clean under compute-sanitizer (sanitize.py --results), kept from call to call."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from sanitize_cases import Task
from sanitize_report import Outcome

ROOT = Path(__file__).parents[2]
SOURCES = ("csrc", "tests/cpp")  # of what runs


def digest() -> str:
    """Of the sources, so that no result of others counts."""
    found = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted(one for one in (ROOT / folder).rglob("*") if one.is_file()):
            found.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


class Results:
    """A file of them; None: nothing is kept."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.sources = digest() if file else ""
        self.clean: dict[str, Outcome] = {}
        if file is None or not file.is_file():
            return
        stored = json.loads(file.read_text())
        if stored["sources"] != self.sources:
            raise SystemExit(f"[{file}] expected results of these sources, got those of others")
        for one in stored["clean"]:
            outcome = Outcome(**{**one, "task": Task(**one["task"])})
            self.clean[outcome.task.name] = outcome
        print(f"{len(self.clean)} runs of earlier calls ended clean ({file})", flush=True)

    def has(self, task: Task) -> bool:
        """Whether a case has ended clean in an earlier call."""
        return task.name in self.clean

    def of(self, tasks: list[Task]) -> list[Outcome]:
        """What came of those that have."""
        return [self.clean[task.name] for task in tasks if self.has(task)]

    def keep(self, outcome: Outcome) -> None:
        """Writes one down, if it is clean."""
        if self.file is None or outcome.faults:
            return
        self.clean[outcome.task.name] = replace(outcome)
        stored = {"sources": self.sources, "clean": [asdict(one) for one in self.clean.values()]}
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(stored, indent=1))
        beside.replace(self.file)
