"""Waiting for what other threads and processes do, and not waiting for what never ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Until the condition holds; a failure when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A failure when the block, in the main thread, takes longer; it is interrupted then."""

    def late(*_: object) -> None:
        pytest.fail(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
