"""What the builder shows on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from build_engine.plan import BuiltPlan
from higgs_rt.cli.console import console, say

if TYPE_CHECKING:
    from build_engine.verify import Check  # needs torch

_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def size_text(count: int) -> str:
    """Bytes for people."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} bytes"


class ConsoleReport:
    """A progress bar per plan, and one line before and after it."""

    def __init__(self) -> None:
        """Nothing is shown before the first call."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console(),
            transient=True,
        )
        self._task = self._progress.add_task("", total=1.0, visible=False)

    def __enter__(self) -> ConsoleReport:
        """Starts the display."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the display."""
        self._progress.stop()

    def plan_of(self, component: str, constants: int, need: int) -> None:
        """One line before a build."""
        say(f"{component}: {size_text(constants)} of constants, needs about {size_text(need)}")

    def progress(self, step: str, share: float) -> None:
        """The bar shows TensorRT's step of the moment."""
        self._progress.update(self._task, description=step, completed=share, visible=True)

    def built(self, component: str, plan: BuiltPlan) -> None:
        """One line after a build, and TensorRT's warnings."""
        self._progress.update(self._task, visible=False)
        for line in plan.warnings:
            say(f"{component}: {line}", "yellow")
        say(
            f"{component}: {plan.path.name} of {size_text(plan.plan_bytes)} in "
            f"{plan.seconds:.1f} s, peak {size_text(plan.peak_bytes)} (mapped files included)"
        )


def show_checks(checks: list[Check]) -> None:
    """The verification's report."""
    table = Table("network", "compared", "measured", "bound", "")
    for check in checks:
        mark = Text("ok", "green") if check.passed else Text("WRONG", "bold red")
        table.add_row(check.what, check.compared, check.measured, check.bound, mark)
    console().print(table)
