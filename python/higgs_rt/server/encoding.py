"""Recordings become codes one at a time, since that takes all cores; so many wait at most."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from higgs_rt.server.metrics import Metrics
from higgs_rt.server.problems import Problem

_Result = TypeVar("_Result")


class EncodingQueue:
    """Turns at the encoder, in the order in which they are asked for."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        """most: of those that have the turn or wait for it."""
        self._most = most
        self._metrics = metrics
        self._asked = 0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """No other has it meanwhile; Problem 503 when too many wait."""
        if self._asked >= self._most:
            self._metrics.refused.labels("queue_full").inc()
            raise Problem(
                503,
                f"expected at most {self._most} recordings to encode at a time, got one more",
                "queue_full",
                retry_after=1,
            )
        self._asked += 1
        try:
            async with self._turn:
                yield
        finally:
            self._asked -= 1


async def to_its_end(function: Callable[[], _Result]) -> _Result:
    """`asyncio.to_thread` that is cancelled when the thread ends, so that a turn lasts as long."""
    work = asyncio.create_task(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # nobody asks for it any more
        raise
