"""What the runtime answers with: whole speech, and streams of it to wait for or to await."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from higgs_rt.audio import write_audio
from higgs_rt.errors import CancelledError
from higgs_rt.sources import Piece, Samples, Source, Timing, TurnEnd

if TYPE_CHECKING:
    from higgs_rt import _higgs_rt


class LengthStopWarning(UserWarning):
    """A request reached its limit of seconds, or a guard, before the model ended the speech."""


@dataclass(frozen=True, eq=False)
class Speech:
    """A finished request.

    samples: fp32 [n], mono in [-1, 1]. finish: "stop" (the model ended it), "length" (the limit
    did), "silence" or "loop" (a guard did); of several turns, the first that is not "stop".
    columns: int32 [num_columns, num_codebooks], each turn begins with its all-BOS column. frames:
    int32 [num_codebooks, num_frames]. turns: how each turn ended. The seed repeats the request.
    """

    samples: Samples
    sample_rate: int
    finish: str
    seed: int
    timing: Timing
    columns: NDArray[np.int32]
    frames: NDArray[np.int32]
    turns: tuple[TurnEnd, ...] = ()

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
    """A request in flight, and what its pieces tell. Dropping it cancels the request.

    It keeps its runtime alive: `Runtime.load().stream(…)` speaks to its end. `columns` are those of
    the last turn that ended, `num_columns` those of all; `turn` is the last that ended.
    """

    def __init__(
        self, runtime: _higgs_rt.Runtime, source: Source, sample_rate: int, seed: int
    ) -> None:
        self._runtime = runtime
        self._source = source
        self.sample_rate = sample_rate
        self.seed = seed
        self.finish: str | None = None
        self.columns: NDArray[np.int32] | None = None
        self.turn: TurnEnd | None = None
        self.num_columns = 0
        self.num_samples = 0
        self.num_turns = 0
        self.warns = True  # of a limit that was reached, by LengthStopWarning
        self._kept: list[NDArray[np.int32]] | None = None

    @property
    def id(self) -> int:
        """Number of the request, or of the first turn's, in its runtime."""
        return self._source.id

    def keep_frames(self) -> None:
        """From now on, keep the frames of the chunks for `kept_frames`."""
        self._kept = []

    @property
    def kept_frames(self) -> NDArray[np.int32] | None:
        """int32 [num_codebooks, num_frames] since `keep_frames`; None when there are none."""
        kept = [frames for frames in self._kept or [] if frames.size]
        return np.concatenate(kept, axis=1) if kept else None

    @property
    def seconds(self) -> float:
        """Seconds of speech received so far."""
        return self.num_samples / self.sample_rate

    @property
    def timing(self) -> Timing:
        """Times so far, in seconds since the request was submitted."""
        return self._source.timing

    def cancel(self) -> None:
        """Stop the request; no effect when it has ended. Returns at once."""
        self._source.cancel()

    def __del__(self) -> None:
        """An abandoned request is cancelled."""
        if self.finish is None:
            self._source.cancel()

    def _take(self, piece: Piece | None) -> Samples | None:
        """Account for a piece and return its samples, None after the last."""
        if piece is None:
            self.finish = self.finish or "cancelled"
            return None
        if piece.columns is not None:
            self.columns = piece.columns
            self.num_columns += len(piece.columns)
            self.turn = piece.turn
            self.num_turns += 1
        if self._kept is not None:
            self._kept.append(piece.frames)
        self.num_samples += len(piece.samples)
        if piece.last:
            self.finish = piece.finish
            if self.warns and piece.finish not in ("stop", "cancelled"):
                reason = "its limit" if piece.finish == "length" else f"a guard ({piece.finish})"
                warnings.warn(
                    f"[request {self.id}] reached {reason} after {self.num_columns} columns, "
                    "before the model ended the speech",
                    LengthStopWarning,
                    stacklevel=4,
                )
        return piece.samples


class _Whole:
    """Puts the pieces of a request together."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def speech(self, request: _Request) -> Speech:
        """The whole answer; CancelledError when the request was cancelled."""
        columns = [piece.columns for piece in self.pieces if piece.columns is not None]
        if request.finish == "cancelled" or not columns:
            raise CancelledError(f"[request {request.id}] expected speech, got a cancelled request")
        frames = [piece.frames for piece in self.pieces if piece.frames.size]
        return Speech(
            samples=np.concatenate([piece.samples for piece in self.pieces]),
            sample_rate=request.sample_rate,
            finish=str(request.finish),
            seed=request.seed,
            timing=request.timing,
            columns=np.concatenate(columns),
            frames=np.concatenate([np.zeros((columns[0].shape[1], 0), np.int32), *frames], axis=1),
            turns=tuple(piece.turn for piece in self.pieces if piece.turn is not None),
        )


class SpeechStream(_Request):
    """An iterator over chunks of samples, fp32 [n]. Closing or abandoning it cancels the request.

    After the last chunk `finish` is "stop", "length", "silence", "loop" or "cancelled"; after an
    error it is "error".
    """

    def next(self, timeout: float | None = None) -> Samples | None:
        """The next chunk, None after the last; TimeoutError when `timeout` seconds pass."""
        while (samples := self._take(self._next_piece(timeout))) is not None:
            if len(samples):
                return samples
        return None

    def _next_piece(self, timeout: float | None) -> Piece | None:
        try:
            return self._source.next(timeout)
        except TimeoutError:
            raise
        except Exception:
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
                    piece = self._next_piece(None if progress is None else period)
                except TimeoutError:
                    assert progress is not None
                    progress()
                    continue
                self._take(piece)
                if piece is None:
                    return whole.speech(self)
                whole.pieces.append(piece)
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
    """The same for `async for`. Cancelling the task that waits cancels the request.

    Chunks are taken when they are awaited: a slow reader pauses its request, and nothing else.
    """

    async def next(self) -> Samples | None:
        """The next chunk of samples, None after the last."""
        while (samples := self._take(await self._next_piece())) is not None:
            if len(samples):
                return samples
        return None

    async def _next_piece(self) -> Piece | None:
        if self.finish is not None:
            return None
        try:
            return await self._source.anext()
        except BaseException as error:
            if isinstance(error, Exception):
                self.finish = "error"
            self.cancel()
            raise

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
        while (piece := await self._next_piece()) is not None:
            self._take(piece)
            whole.pieces.append(piece)
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
