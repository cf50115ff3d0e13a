"""Learning-rate schedules over progress, and the budget that progress is measured by."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any


def trapezoid(
    progress: float, step: int, warmup_steps: int = 100, decay_from: float = 0.6
) -> float:
    """Factor in [0, 1]: linear warm-up over steps, constant, then a cosine to zero at progress 1.

    `progress` is the share of the budget that is spent, in [0, 1].
    """
    rise = min(1.0, (step + 1) / max(warmup_steps, 1))
    if progress <= decay_from:
        return rise
    fall = min(1.0, (progress - decay_from) / (1.0 - decay_from))
    return rise * 0.5 * (1.0 + math.cos(math.pi * fall))


@dataclass
class Budget:
    """How far a training is that may be spread over several runs.

    `seconds` and `max_steps` bound this run; `total_seconds` and `total_steps` are the whole
    training's, by default what earlier runs spent plus this run's. `spent` and `steps` count from
    the training's start, earlier runs included. The clock starts with `start`.
    """

    seconds: float
    max_steps: int
    total_seconds: float = 0.0
    total_steps: int = 0
    spent: float = 0.0
    steps: int = 0
    _begin: float = field(default=0.0, repr=False)
    _last_step: int = field(default=0, repr=False)

    def start(self, earlier: dict[str, Any] | None) -> None:
        """Takes over the counts of an earlier run's `state`, if any, and starts the clock."""
        if earlier is not None:
            self.spent, self.steps = float(earlier["seconds"]), int(earlier["steps"])
        self.total_seconds = self.total_seconds or self.spent + self.seconds
        self.total_steps = self.total_steps or self.steps + self.max_steps
        self._last_step = self.steps + self.max_steps
        self._begin = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of this run."""
        return time.monotonic() - self._begin

    def progress(self) -> float:
        """Share of the whole training that is done, in [0, 1]."""
        share = (self.spent + self.elapsed()) / max(self.total_seconds, 1e-6)
        return min(1.0, max(share, self.steps / max(self.total_steps, 1)))

    def over(self) -> bool:
        """Whether this run must end."""
        return (
            self.steps >= self._last_step
            or self.elapsed() >= self.seconds
            or self.progress() >= 1.0
        )

    def state(self) -> dict[str, Any]:
        """What the next run's `start` needs."""
        return {"seconds": self.spent + self.elapsed(), "steps": self.steps}
