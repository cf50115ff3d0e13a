"""No endless speech: a request that only makes silence, or repeats itself, is ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

StopReason = Literal["silence", "loop"]


@dataclass(frozen=True)
class GuardLimits:
    """When to end a request; in seconds. Scale of levels: full scale is 1.

    A loop is a stretch of `loop_seconds`, and at least three times the period, in which the codes
    of the first codebook, the coarsest, come back after the same period; a fifth may differ.
    """

    silence_seconds: float = 3.0
    silence_level: float = 2e-3  # RMS of a frame (-54 dB)
    loop_seconds: float = 5.0
    longest_period: float = 2.0


class Guard:
    """Watches one request. What it decides depends on the frames, not on how they arrive."""

    def __init__(
        self, frame_rate: float, samples_per_frame: int, limits: GuardLimits | None = None
    ) -> None:
        limits = limits or GuardLimits()
        self._samples_per_frame = samples_per_frame
        self._level = limits.silence_level
        self._max_silence = round(limits.silence_seconds * frame_rate)
        self._min_loop = round(limits.loop_seconds * frame_rate)
        periods = max(1, round(limits.longest_period * frame_rate))
        self._silent = 0
        self._last = np.full(periods, -1, np.int32)  # codes of codebook 0, the newest first
        self._runs = np.zeros(periods, np.int32)  # frames that repeat, by period - 1
        self._needed = np.maximum(self._min_loop, 3 * np.arange(1, periods + 1))

    def watch_codes(self, frames: NDArray[np.int32]) -> int | None:
        """frames [num_codebooks, n]. How many to keep when a loop is found in them."""
        codes = np.asarray(frames[0], np.int32)
        if codes.size == 0:
            return None
        periods = len(self._last)
        seen = np.concatenate([self._last[::-1], codes])
        # [n, periods]: what came p frames earlier; a view, as `sliding_window_view` is, but faster.
        shape, (step,) = (codes.size, periods), seen.strides
        before = np.lib.stride_tricks.as_strided(seen[periods - 1 :], shape, (step, -step))
        # A run grows by one, or falls by four but not below zero: a walk with a floor, whose
        # height is that over its lowest point so far.
        walk = np.where(before == codes[:, None], 1, -4).cumsum(axis=0)
        runs = np.maximum(walk + self._runs, walk - np.minimum.accumulate(walk, axis=0))
        found = (runs >= self._needed).any(axis=1)
        self._runs, self._last = runs[-1], seen[: -periods - 1 : -1]
        return int(found.argmax()) + 1 if found.any() else None

    def watch_samples(self, samples: NDArray[np.float32]) -> int | None:
        """samples of whole frames. How many frames to keep when there was silence for too long."""
        frames = samples.reshape(-1, self._samples_per_frame)
        levels = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))
        for index, silent in enumerate((levels < self._level).tolist()):
            self._silent = self._silent + 1 if silent else 0
            if self._silent >= self._max_silence:
                return index + 1
        return None
