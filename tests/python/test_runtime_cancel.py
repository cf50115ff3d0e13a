"""Requests that are left, cancelled or interrupted, and what goes on beside them."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from higgs_rt import CancelledError, HiggsError, LengthStopWarning, Runtime
from waiting import until

TEXT = "The sun rises in the east."
LONG: dict[str, Any] = {"temperature": 0.0, "ras_window": 0, "max_seconds": 120}


@pytest.fixture
def endless(endless_model: Path) -> Iterator[Runtime]:
    with Runtime.load(endless_model, threads=1, max_batch=4, max_queue=8) as loaded:
        yield loaded


def test_the_event_loop_and_threads_stay_free(endless: Runtime) -> None:
    def num_threads() -> int:
        tasks = Path("/proc/self/task")
        return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()

    before = num_threads()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    async def main() -> int:
        ticker = asyncio.create_task(tick())
        options = {**LONG, "max_seconds": 8}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LengthStopWarning)
            requests = [asyncio.create_task(endless.aspeak(TEXT, **options)) for _ in range(4)]
            await asyncio.sleep(0.05)
            during = num_threads()
            await asyncio.gather(*requests)
        ticker.cancel()
        return during

    assert asyncio.run(main()) == before
    assert ticks > 5


def test_closing_a_stream_cancels_its_request(endless: Runtime) -> None:
    with endless.stream(TEXT, **LONG) as stream:
        next(stream)
    until(lambda: endless.stats.cancelled == 1 and endless.stats.running == 0)
    list(stream)
    assert stream.finish == "cancelled"


def test_an_abandoned_stream_is_cancelled(endless: Runtime) -> None:
    stream = endless.stream(TEXT, **LONG)
    next(stream)
    del stream
    gc.collect()
    until(lambda: endless.stats.cancelled == 1 and endless.stats.running == 0)


def test_cancelling_a_task_cancels_its_request(endless: Runtime) -> None:
    async def main() -> None:
        task = asyncio.create_task(endless.aspeak(TEXT, **LONG))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    until(lambda: endless.stats.cancelled == 1 and endless.stats.running == 0)


def test_an_abandoned_async_stream_is_cancelled(endless: Runtime) -> None:
    async def main() -> None:
        async for _ in endless.astream(TEXT, **LONG):
            break
        async with endless.astream(TEXT, **LONG) as stream:
            await stream.next()

    asyncio.run(main())
    gc.collect()
    until(lambda: endless.stats.cancelled == 2 and endless.stats.running == 0)


def test_a_cancelled_request_says_so(endless: Runtime) -> None:
    request = endless.submit(TEXT, **LONG)
    request.cancel()
    with pytest.raises(CancelledError, match=rf"\[request {request.id}\]"):
        request.result()


def test_interrupting_a_wait_cancels_that_request_only(endless: Runtime) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    other = endless.submit(TEXT, **{**LONG, "max_seconds": 20})
    with pytest.raises(KeyboardInterrupt):
        endless.submit(TEXT, **LONG).result(progress=interrupt, period=0.02)
    with pytest.warns(LengthStopWarning):
        assert other.result().finish == "length"
    until(lambda: endless.stats.cancelled == 1 and endless.stats.running == 0)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_interrupts_speak(endless: Runtime) -> None:
    until(lambda: endless.stats.running == 0)
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endless.speak(TEXT, **LONG)
    assert time.monotonic() - begin < 5
    until(lambda: endless.stats.cancelled == 1 and endless.stats.running == 0)


def test_closing_the_runtime_ends_what_runs(endless: Runtime) -> None:
    stream = endless.stream(TEXT, **LONG)
    next(stream)
    endless.close()
    list(stream)
    assert stream.finish == "cancelled"
    with pytest.raises(HiggsError):
        endless.speak(TEXT)
    endless.close()
