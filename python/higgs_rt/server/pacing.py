"""How large the chunks of a stream are, so that a listener does not run dry at the current load."""

from __future__ import annotations

import time

from higgs_rt.runtime import Runtime
from higgs_rt.server.settings import ServerSettings

_WINDOW = 0.5  # seconds over which the speed of the runtime is taken


class Pacer:
    """Watches how many columns a second each running request gets.

    Chunks double until the largest. A chunk of n frames must be made while the n / 2 frames before
    it are heard, which takes twice real time. Between one and two times, chunks must not grow;
    below that only a longer first chunk helps.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._since = time.monotonic()
        stats = runtime.stats
        self._columns = stats.columns
        self._steps = stats.step_seconds
        self._speed = float("inf")  # times real time, of one request

    def chunk_frames(self, settings: ServerSettings) -> tuple[int, int]:
        """Frames of the first chunk, and the most of a later one."""
        speed = self.speed()
        first, most = (8, 64) if speed >= 2 else (16, 16) if speed >= 1.2 else (50, 50)
        first = settings.first_chunk_frames or first
        return first, max(first, settings.max_chunk_frames or most)

    def speed(self) -> float:
        """Times real time that one more request may expect."""
        now = time.monotonic()
        if now - self._since >= _WINDOW:
            stats = self._runtime.stats
            columns, steps = stats.columns - self._columns, stats.step_seconds - self._steps
            self._since, self._columns, self._steps = now, stats.columns, stats.step_seconds
            busy = max(1, min(stats.running + stats.waiting + 1, self._runtime.max_batch))
            if columns > 0 and steps > 0:
                rate = columns / max(steps, 1e-9)  # of the whole batch, while it works
                self._speed = rate / busy / self._runtime.frame_rate
        return self._speed
