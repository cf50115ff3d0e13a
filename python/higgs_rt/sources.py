"""Where the chunks of a request come from: one native request, guarded; pulled or awaited."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from higgs_rt.guards import Guard

if TYPE_CHECKING:
    from higgs_rt import _higgs_rt

Samples = NDArray[np.float32]
Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Timing:
    """Seconds since the request was submitted; negative: did not happen."""

    started: float
    first_column: float
    first_chunk: float
    finished: float


@dataclass(frozen=True)
class TurnEnd:
    """How one turn of a request ended: its speaker (None without tags), characters, frames."""

    speaker: int | None
    num_chars: int
    num_frames: int
    finish: str


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of the answer: samples fp32 [n], frames int32 [num_codebooks, m].

    columns [num_columns, num_codebooks] come at the end of each turn; `last` comes once.
    """

    samples: Samples
    frames: Codes
    columns: Codes | None = None
    turn: TurnEnd | None = None
    last: bool = False
    finish: str = ""


class Source(Protocol):
    """The chunks of one request. Only one reader, in one of the two ways."""

    id: int

    @property
    def timing(self) -> Timing:
        """Times so far."""
        ...

    def next(self, timeout: float | None) -> Piece | None:
        """The next piece, None after the last; TimeoutError after `timeout` seconds."""
        ...

    async def anext(self) -> Piece | None:
        """The same without blocking the event loop."""
        ...

    def cancel(self) -> None:
        """Stop; returns at once."""
        ...


class SingleSource:
    """One native request with waveform output."""

    def __init__(
        self,
        stream: _higgs_rt.Stream,
        guard: Guard | None,
        samples_per_frame: int,
        num_chars: int,
    ) -> None:
        """Of an unguarded request `guard` is None."""
        self._stream = stream
        self._guard = guard
        self._samples_per_frame = samples_per_frame
        self._num_chars = num_chars
        self._num_frames = 0
        self._stopped: str | None = None  # the guard's reason
        self._awaited: AwaitedStream | None = None
        self.id = stream.id

    @property
    def timing(self) -> Timing:
        """Times so far."""
        return timing_of(self._stream)

    def cancel(self) -> None:
        """Stop; returns at once."""
        self._stream.cancel()

    def next(self, timeout: float | None) -> Piece | None:
        """The next piece."""
        chunk = self._stream.next(timeout)
        return None if chunk is None else self._piece(chunk)

    async def anext(self) -> Piece | None:
        """The next piece. A request that nobody asks for chunks pauses when its buffer is full."""
        if self._awaited is None:
            self._awaited = AwaitedStream(self._stream)
        chunk = await self._awaited.next()
        return None if chunk is None else self._piece(chunk)

    def _piece(self, chunk: _higgs_rt.Chunk) -> Piece:
        finish = chunk.finish.name.lower() if chunk.last else ""
        samples, frames = np.array(chunk.pcm), np.array(chunk.frames)
        if self._stopped is not None:
            samples, frames = samples[:0], frames[:, :0]
        elif self._guard is not None and frames.size:
            samples, frames = self._guarded(self._guard, samples, frames)
        self._num_frames += frames.shape[1]
        if not chunk.last:
            return Piece(samples, frames)
        finish = self._stopped or finish
        turn = TurnEnd(None, self._num_chars, self._num_frames, finish)
        return Piece(samples, frames, np.array(chunk.columns), turn, True, finish)

    def _guarded(self, guard: Guard, samples: Samples, frames: Codes) -> tuple[Samples, Codes]:
        found = {"loop": guard.watch_codes(frames), "silence": guard.watch_samples(samples)}
        cuts = {reason: keep for reason, keep in found.items() if keep is not None}
        if not cuts:
            return samples, frames
        self._stopped = min(cuts, key=lambda reason: cuts[reason])
        self._stream.cancel()
        keep = cuts[self._stopped]
        return samples[: keep * self._samples_per_frame], frames[:, :keep]


def timing_of(stream: _higgs_rt.Stream) -> Timing:
    """The times of a native request."""
    times = stream.timing
    return Timing(times.started, times.first_column, times.first_chunk, times.finished)


class _Waiters:
    """Readers of native streams in one event loop.

    A stream has either a callback, which cannot be paused, or a reader. Here the reader decides:
    what nobody awaits is not taken, and the runtime pauses its request. The runtime's threads write
    to a pipe that the loop watches, so they never wait for Python.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from higgs_rt import _higgs_rt

        self.notifier = _higgs_rt.Notifier()
        self.tokens = itertools.count()
        self.waiting: dict[int, asyncio.Future[None]] = {}
        loop.add_reader(self.notifier.fd, self._wake)

    def _wake(self) -> None:
        for token in self.notifier.take():
            future = self.waiting.get(token)
            if future is not None and not future.done():
                future.set_result(None)


_waiters: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiters] = (
    weakref.WeakKeyDictionary()
)


class AwaitedStream:
    """A native stream that is read in the running event loop."""

    def __init__(self, stream: _higgs_rt.Stream) -> None:
        self.stream = stream
        self._loop = asyncio.get_running_loop()
        waiters = _waiters.get(self._loop)
        if waiters is None:
            waiters = _waiters[self._loop] = _Waiters(self._loop)
        self._waiters = waiters
        self._token = next(waiters.tokens)
        stream.notify(waiters.notifier, self._token)

    async def next(self) -> _higgs_rt.Chunk | None:
        """The next chunk, None after the last."""
        while True:
            future = self._loop.create_future()
            self._waiters.waiting[self._token] = future
            try:
                try:
                    return self.stream.next(0)
                except TimeoutError:
                    await future
            finally:
                self._waiters.waiting.pop(self._token, None)
