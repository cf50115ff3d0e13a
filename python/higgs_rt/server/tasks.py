"""Ending tasks of the event loop for certain."""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN = 0.5  # seconds


async def end_tasks(*tasks: asyncio.Task[Any]) -> list[Any]:
    """Cancel what still runs of `tasks` and wait for it; results, or exceptions, of all.

    Cancels again and again: before Python 3.12 `asyncio.wait_for` loses a cancellation when what it
    waits for ends in the same turn of the loop.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN)
    return await asyncio.gather(*tasks, return_exceptions=True)
