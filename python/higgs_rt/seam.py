"""Decoding frames as they come, equal to decoding all of them at once (spec 8.2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Frames = NDArray[np.int32]

# A sample depends on at most this many frames on each side of its own (spec 8.2).
CONTEXT_FRAMES = 10


class SeamDecoder:
    """Frames [num_codebooks, n] in, samples out; the samples of a frame come ten frames later.

    Turns of a long text go through one decoder, so no seam is heard, or measured, between them.
    """

    def __init__(self, decode: Callable[[Frames], Samples], samples_per_frame: int) -> None:
        """`decode`: codes [num_codebooks, n] to samples [n * samples_per_frame], n > 0."""
        self._decode = decode
        self._samples_per_frame = samples_per_frame
        self._window: Frames | None = None  # the frames not decoded yet and those before them
        self._decoded = 0  # frames of the window

    def push(self, frames: Frames) -> tuple[Frames, Samples]:
        """Take frames; return those, with their samples, that no later frame can change."""
        window = frames if self._window is None else np.concatenate([self._window, frames], axis=1)
        return self._advance(window, window.shape[1] - CONTEXT_FRAMES)

    def finish(self) -> tuple[Frames, Samples] | None:
        """The frames that are left, None for none; what comes then is a new beginning."""
        window, self._window = self._window, None
        left = None
        if window is not None and window.shape[1] > self._decoded:
            left = self._advance(window, window.shape[1])
        self._window, self._decoded = None, 0
        return left

    def drop(self) -> int:
        """Forget the frames that were not returned yet; how many."""
        if self._window is None:
            return 0
        dropped = int(self._window.shape[1]) - self._decoded
        self._window = self._window[:, : self._decoded]
        return dropped

    def _advance(self, window: Frames, end: int) -> tuple[Frames, Samples]:
        """Frames self._decoded .. end - 1 of the window, and their samples."""
        begin = self._decoded
        if end <= begin:
            self._window = window
            return window[:, :0], np.zeros(0, np.float32)
        first = max(0, begin - CONTEXT_FRAMES)
        samples = self._decode(np.ascontiguousarray(window[:, first:]))
        size = self._samples_per_frame
        samples = samples[(begin - first) * size : (end - first) * size]
        kept = max(0, end - CONTEXT_FRAMES)
        self._window, self._decoded = window[:, kept:], end - kept
        return window[:, begin:end], samples
