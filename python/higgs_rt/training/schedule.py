"""Learning-rate schedules over wall-clock progress."""

from __future__ import annotations

import math


def trapezoid(
    progress: float, step: int, warmup_steps: int = 100, decay_from: float = 0.6
) -> float:
    """Factor in [0, 1]: linear warm-up over steps, constant, then a cosine to zero at progress 1.

    `progress` is the share of the time budget that is spent, in [0, 1].
    """
    rise = min(1.0, (step + 1) / max(warmup_steps, 1))
    if progress <= decay_from:
        return rise
    fall = min(1.0, (progress - decay_from) / (1.0 - decay_from))
    return rise * 0.5 * (1.0 + math.cos(math.pi * fall))
