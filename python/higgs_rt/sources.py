"""Where the chunks of a request come from: one native request, guarded; pulled or awaited."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from higgs_rt.errors import HiggsError
from higgs_rt.guards import Guard

if TYPE_CHECKING:
    from higgs_rt import _higgs_rt

Samples = NDArray[np.float32]
Codes = NDArray[np.int32]

# How often the event loop looks whether an awaited chunk has come, in seconds.
POLL_SECONDS = 0.002


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
        *,
        called_back: bool = False,
    ) -> None:
        """`called_back`, in an event loop: chunks are never polled for, and never paused."""
        self._stream = stream
        self._guard = guard
        self._samples_per_frame = samples_per_frame
        self._num_chars = num_chars
        self._num_frames = 0
        self._stopped: str | None = None  # the guard's reason
        self._chunks = _called_back(stream) if called_back else None
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
        if self._chunks is None:
            chunk = await next_chunk(self._stream)
            return None if chunk is None else self._piece(chunk)
        return self._piece(await self._chunks.get())

    def _piece(self, chunk: _higgs_rt.Chunk) -> Piece:
        finish = chunk.finish.name.lower() if chunk.last else ""
        if finish == "error":  # chunks that were called back do not raise
            raise HiggsError(chunk.error)
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


class _Poller:
    """Takes awaited chunks of native streams as they come; one for each event loop.

    A stream has either a callback, which cannot be paused, or a reader. Here the reader decides:
    what nobody awaits is not taken, and the runtime pauses its request.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[_higgs_rt.Chunk | None], _higgs_rt.Stream] = {}

    async def next(self, stream: _higgs_rt.Stream) -> _higgs_rt.Chunk | None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_higgs_rt.Chunk | None] = loop.create_future()
        if not self._try(future, stream):
            if not self._waiting:
                loop.call_later(POLL_SECONDS, self._tick, loop)
            self._waiting[future] = stream
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        for future, stream in list(self._waiting.items()):
            if future.done() or self._try(future, stream):
                del self._waiting[future]
        if self._waiting:
            loop.call_later(POLL_SECONDS, self._tick, loop)

    @staticmethod
    def _try(future: asyncio.Future[_higgs_rt.Chunk | None], stream: _higgs_rt.Stream) -> bool:
        try:
            future.set_result(stream.next(0))
        except TimeoutError:
            return False
        except BaseException as error:  # whoever awaits it gets it
            future.set_exception(error)
        return True


_pollers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Poller] = (
    weakref.WeakKeyDictionary()
)


async def next_chunk(stream: _higgs_rt.Stream) -> _higgs_rt.Chunk | None:
    """The next chunk of a native stream, None after the last."""
    poller = _pollers.setdefault(asyncio.get_running_loop(), _Poller())
    return await poller.next(stream)


def _called_back(stream: _higgs_rt.Stream) -> asyncio.Queue[_higgs_rt.Chunk]:
    """A queue that a runtime thread fills."""
    chunks: asyncio.Queue[_higgs_rt.Chunk] = asyncio.Queue()
    stream.on_chunk(_forwarder(asyncio.get_running_loop(), chunks, stream))
    return chunks


def _forwarder(
    loop: asyncio.AbstractEventLoop,
    chunks: asyncio.Queue[_higgs_rt.Chunk],
    native: _higgs_rt.Stream,
) -> Callable[[_higgs_rt.Chunk], None]:
    """A callback for a runtime thread. It keeps neither the stream nor its reader alive."""
    stream = weakref.ref(native)

    def forward(chunk: _higgs_rt.Chunk) -> None:
        try:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
        except RuntimeError:  # the loop is closed: nobody will read
            abandoned = stream()
            if abandoned is not None:
                abandoned.cancel()

    return forward
