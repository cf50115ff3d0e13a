"""Streams read in event loops: woken by the runtime, paused when nobody reads."""

from __future__ import annotations

import asyncio
import gc
import select
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from higgs_rt import Runtime
from higgs_rt import _higgs_rt as native

# Of `endless_model`: a second draw (ras_window) may be an end.
ENDLESS: dict[str, Any] = {"temperature": 0, "ras_window": 0, "guards": False}


@pytest.fixture
def runtime(random_model: Path) -> Runtime:
    return Runtime.load(random_model, max_batch=4, threads=1)


def open_files() -> int:
    gc.collect()  # loops are in cycles
    return len(list(Path("/proc/self/fd").iterdir()))


def test_loops_come_and_go_without_a_trace(runtime: Runtime) -> None:
    expected = runtime.speak("Hello.", seed=1, max_seconds=1).samples

    async def main() -> list[np.ndarray]:
        async def one() -> np.ndarray:
            async with runtime.astream("Hello.", seed=1, max_seconds=1) as stream:
                return np.concatenate([chunk async for chunk in stream])

        whole = await runtime.aspeak("Hello.", seed=1, max_seconds=1)
        return [whole.samples, *await asyncio.gather(*[one() for _ in range(6)])]

    asyncio.run(main())
    before = open_files()
    for _ in range(3):
        for samples in asyncio.run(main()):
            assert np.array_equal(samples, expected)
    assert open_files() == before


def test_a_cancelled_wait_leaves_the_loop_to_others(endless_model: Path) -> None:
    async def main() -> None:
        with Runtime.load(endless_model, max_batch=1, max_buffered_chunks=1) as runtime:
            first = runtime.astream("Hello.", **ENDLESS, max_seconds=20)
            second = runtime.astream("Hello.", **ENDLESS, max_seconds=1)
            assert await first.next() is not None  # it has the only place now, and pauses
            waiting = asyncio.ensure_future(second.next())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            third = runtime.astream("Hello.", **ENDLESS, max_seconds=1)
            first.cancel()
            assert sum([len(chunk) async for chunk in third]) > 0

    asyncio.run(main())


def test_a_notifier_tells_once_for_a_chunk_and_at_once_for_one_that_waits(
    random_model: Path,
) -> None:
    loaded = native.Runtime.load(native.RuntimeConfig(str(random_model), num_threads=1))
    request = native.Request(
        [native.PromptSegment.text([1, 2, 3])],
        native.SamplingParams(temperature=1.0, seed=3),
        max_columns=30,
    )
    notifier = native.Notifier()
    stream = loaded.submit(request)
    stream.notify(notifier, 7)
    assert stream.next() is not None  # whole
    ready, _, _ = select.select([notifier.fd], [], [], 30)
    assert ready == [notifier.fd]
    assert notifier.take() == [7]
    assert notifier.take() == []
    late = loaded.submit(request)
    while not late.done:
        pass
    late.notify(notifier, 8)
    assert notifier.take() == [8]
    with pytest.raises(ValueError, match="expected one listener per stream, got a second one"):
        late.notify(notifier, 9)
    loaded.shutdown()
