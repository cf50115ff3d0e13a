"""What the runtime answers with: whole speech, and streams of it to wait for or to await."""

from __future__ import annotations

import asyncio
import warnings
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from higgs_rt.audio import write_audio
from higgs_rt.errors import CancelledError, HiggsError

if TYPE_CHECKING:
    from higgs_rt import _higgs_rt

Samples = NDArray[np.float32]
_Kept = TypeVar("_Kept")


class LengthStopWarning(UserWarning):
    """A request reached its limit of seconds before the model ended the speech."""


@dataclass(frozen=True)
class Timing:
    """Seconds since the request was submitted; negative: did not happen."""

    started: float
    first_column: float
    first_chunk: float
    finished: float


@dataclass(frozen=True, eq=False)
class Speech:
    """A finished request.

    samples: fp32 [n], mono in [-1, 1]. finish: "stop" (the model ended it) or "length" (the limit
    did). columns: int32 [num_columns, num_codebooks], all-BOS column first. frames: int32
    [num_codebooks, num_frames]. The seed repeats the request.
    """

    samples: Samples
    sample_rate: int
    finish: str
    seed: int
    timing: Timing
    columns: NDArray[np.int32]
    frames: NDArray[np.int32]

    @property
    def seconds(self) -> float:
        """Duration of the speech."""
        return len(self.samples) / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of speech, waiting included; infinite for no speech."""
        return self.timing.finished / self.seconds if self.seconds else float("inf")

    def save(self, path: str | Path) -> None:
        """Write .wav, .flac or .ogg; AudioError when it cannot be written."""
        write_audio(path, self.samples, self.sample_rate)


class _Request:
    """A request in flight, and what its last chunk tells. Dropping it cancels the request.

    It keeps its runtime alive: `Runtime.load().stream(…)` speaks to its end.
    """

    def __init__(
        self, runtime: _higgs_rt.Runtime, native: _higgs_rt.Stream, sample_rate: int, seed: int
    ) -> None:
        self._runtime = runtime
        self._native = native
        self.sample_rate = sample_rate
        self.seed = seed
        self.finish: str | None = None
        self.columns: NDArray[np.int32] | None = None
        self.num_samples = 0

    @property
    def id(self) -> int:
        """Number of the request in its runtime."""
        return self._native.id

    @property
    def seconds(self) -> float:
        """Seconds of speech received so far."""
        return self.num_samples / self.sample_rate

    @property
    def timing(self) -> Timing:
        """Times so far, in seconds since the request was submitted."""
        times = self._native.timing
        return Timing(times.started, times.first_column, times.first_chunk, times.finished)

    def cancel(self) -> None:
        """Stop the request; no effect when it has ended. Returns at once."""
        self._native.cancel()

    def __del__(self) -> None:
        """An abandoned request is cancelled."""
        if self.finish is None:
            self._native.cancel()

    def _take(self, chunk: _higgs_rt.Chunk) -> Samples:
        """Account for a chunk and return its samples; raises the error that it carries."""
        if chunk.last:
            self.finish = chunk.finish.name.lower()
            self.columns = np.array(chunk.columns)
            if self.finish == "error":
                raise HiggsError(chunk.error)
            if self.finish == "length":
                warnings.warn(
                    f"[request {self.id}] reached its limit of {len(self.columns)} columns before "
                    "the model ended the speech",
                    LengthStopWarning,
                    stacklevel=3,
                )
        self.num_samples += len(chunk.pcm)
        return np.array(chunk.pcm)


class _Whole:
    """Puts the chunks of a request together."""

    def __init__(self) -> None:
        self.samples: list[Samples] = []
        self.frames: list[NDArray[np.int32]] = []

    def speech(self, request: _Request) -> Speech:
        if request.finish == "cancelled" or request.finish is None or request.columns is None:
            raise CancelledError(f"[request {request.id}] expected speech, got a cancelled request")
        frames = [part for part in self.frames if part.size]
        empty = np.zeros((request.columns.shape[1], 0), np.int32)
        return Speech(
            samples=np.concatenate(self.samples) if self.samples else np.zeros(0, np.float32),
            sample_rate=request.sample_rate,
            finish=request.finish,
            seed=request.seed,
            timing=request.timing,
            columns=request.columns,
            frames=np.concatenate(frames, axis=1) if frames else empty,
        )


class SpeechStream(_Request):
    """An iterator over chunks of samples, fp32 [n]. Closing or abandoning it cancels the request.

    After the last chunk `finish` is "stop", "length" or "cancelled", and `columns` is set; after
    an error `finish` is "error".
    """

    def next(self, timeout: float | None = None) -> Samples | None:
        """The next chunk, None after the last; TimeoutError when `timeout` seconds pass."""
        while (chunk := self._next_chunk(timeout)) is not None:
            samples = self._take(chunk)
            if len(samples):
                return samples
        self.finish = self.finish or "cancelled"
        return None

    def _next_chunk(self, timeout: float | None) -> _higgs_rt.Chunk | None:
        try:
            return self._native.next(timeout)
        except HiggsError:  # comes once, in place of the last chunk
            self.finish = "error"
            raise

    def __iter__(self) -> SpeechStream:
        """The stream itself."""
        return self

    def __next__(self) -> Samples:
        """The next chunk."""
        samples = self.next()
        if samples is None:
            raise StopIteration
        return samples

    def result(self, progress: Callable[[], None] | None = None, period: float = 0.1) -> Speech:
        """Wait for the rest and return it whole; CancelledError when the request was cancelled.

        `progress` is called every `period` seconds while waiting. Whatever interrupts the wait,
        Ctrl-C for instance, also cancels the request.
        """
        whole = _Whole()
        try:
            while True:
                try:
                    chunk = self._next_chunk(None if progress is None else period)
                except TimeoutError:
                    assert progress is not None
                    progress()
                    continue
                if chunk is None:
                    return whole.speech(self)
                whole.samples.append(self._take(chunk))
                whole.frames.append(np.array(chunk.frames))
        except BaseException:
            self.cancel()
            raise

    def close(self) -> None:
        """Cancel what is left."""
        self.cancel()

    def __enter__(self) -> SpeechStream:
        """The stream itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


class AsyncSpeechStream(_Request):
    """The same for `async for`, in the event loop that runs when it is made.

    Chunks come from the runtime's own thread through `call_soon_threadsafe`; no thread waits.
    """

    def __init__(
        self, runtime: _higgs_rt.Runtime, native: _higgs_rt.Stream, sample_rate: int, seed: int
    ) -> None:
        super().__init__(runtime, native, sample_rate, seed)
        self._chunks: asyncio.Queue[_higgs_rt.Chunk] = asyncio.Queue()
        native.on_chunk(_forwarder(asyncio.get_running_loop(), self._chunks, native))

    async def next(self) -> Samples | None:
        """The next chunk of samples, None after the last."""
        while self.finish is None:
            samples = self._take(await self._wait(self._chunks.get()))
            if len(samples):
                return samples
        return None

    def __aiter__(self) -> AsyncSpeechStream:
        """The stream itself."""
        return self

    async def __anext__(self) -> Samples:
        """The next chunk."""
        samples = await self.next()
        if samples is None:
            raise StopAsyncIteration
        return samples

    async def result(self) -> Speech:
        """Await the rest and return it whole; CancelledError when the request was cancelled."""
        whole = _Whole()
        while self.finish is None:
            chunk = await self._wait(self._chunks.get())
            whole.samples.append(self._take(chunk))
            whole.frames.append(np.array(chunk.frames))
        return whole.speech(self)

    async def aclose(self) -> None:
        """Cancel what is left."""
        self.cancel()

    async def __aenter__(self) -> AsyncSpeechStream:
        """The stream itself; leaving the block closes it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        self.cancel()

    async def _wait(self, awaited: Awaitable[_Kept]) -> _Kept:
        """Cancelling the task that waits cancels the request."""
        try:
            return await awaited
        except BaseException:
            self.cancel()
            raise


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
