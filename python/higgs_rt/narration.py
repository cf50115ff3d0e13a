"""Long texts and dialogues: turn after turn, one stream of speech out (spec 4.7)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from higgs_rt.errors import CancelledError, QueueFullError
from higgs_rt.guards import Guard
from higgs_rt.prompt import Reference, Turn, TurnMaker, split_turns
from higgs_rt.seam import CONTEXT_FRAMES, SeamDecoder
from higgs_rt.sources import AwaitedStream, Piece, Timing, TurnEnd, timing_of

if TYPE_CHECKING:
    from higgs_rt import _higgs_rt as native
    from higgs_rt.request import Job, RequestBuilder

_RETRY_SECONDS = 0.02  # how often a full queue, or missing text, is looked at again


class Turns(Protocol):
    """Where the turns of a narration come from. `version` changes when there may be more."""

    version: int

    def next(self) -> Turn | None:
        """The next turn; None: there is none now, or, once `ended`, any more."""
        ...

    @property
    def ended(self) -> bool:
        """Whether no turn will come any more."""
        ...


class TextTurns:
    """Turns of a text that is there, or can be read; its error comes whenever it is asked again."""

    def __init__(self, text: str | Iterable[str], max_chars: int, language: str | None) -> None:
        self._turns = split_turns(text, max_chars, language=language)
        self._error: BaseException | None = None
        self.ended = False
        self.version = 0

    def next(self) -> Turn | None:
        """The next turn."""
        if self._error is not None:
            raise self._error
        try:
            turn = next(self._turns, None)
        except BaseException as error:  # it ended the generator: without it, the text would end
            self._error = error
            raise
        self.ended = turn is None
        return turn


class LiveTurns:
    """Turns of a text that is still being written: `feed` it, `flush` a pause, `close` the end.

    A sentence is spoken as soon as it is complete and the sentence before it has been spoken.
    """

    def __init__(self, max_chars: int, language: str | None) -> None:
        self._maker = TurnMaker(max_chars, language=language)
        self._lock = threading.Lock()  # written to in one thread, spoken from in another
        self._closed = False
        self._empty = False  # everything was taken after `close`
        self.version = 0

    def feed(self, text: str) -> None:
        """More text."""
        with self._lock:
            self._maker.feed(text)
            self.version += 1

    def flush(self) -> None:
        """What was fed is complete, for now."""
        with self._lock:
            self._maker.flush()
            self.version += 1

    def close(self) -> None:
        """No more text will come."""
        with self._lock:
            self._maker.close()
            self._closed = True
            self.version += 1

    def next(self) -> Turn | None:
        """All complete sentences that fit into a turn."""
        with self._lock:
            turn = self._maker.pop(eager=True)
            self._empty = turn is None and self._closed
            return turn

    @property
    def ended(self) -> bool:
        """Whether everything was taken after `close`."""
        return self._empty


class Narration:
    """Asks for turn after turn, each with what the model has to hear before it.

    The frames of all turns go through one decoder, so the samples equal those of decoding all
    codes at once. The runtime is asked for frames; it pauses a request whose frames nobody takes.
    A `Source` of pieces; memory does not grow with the text.
    """

    def __init__(
        self,
        runtime: native.Runtime,
        builder: RequestBuilder,
        job: Job,
        turns: Turns,
        *,
        stream: bool,
        guarded: bool,
    ) -> None:
        """Starts the first turn, if there is one: InvalidRequestError, QueueFullError."""
        info = runtime.info
        self._runtime = runtime
        self._builder = builder
        self._job = job
        self._turns = turns
        self._chunk_frames = (job.first_chunk_frames, job.max_chunk_frames)
        if not stream:
            self._chunk_frames = (job.max_chunk_frames, job.max_chunk_frames)
        self._decoder = SeamDecoder(runtime.decode_frames, info.samples_per_frame)
        self._frame_rate = info.sample_rate / info.samples_per_frame
        self._samples_per_frame = info.samples_per_frame
        self._guarded = guarded
        self._history: dict[int | None, deque[Reference]] = {}
        self._frames_left = (
            None if job.max_seconds is None else round(job.max_seconds * self._frame_rate)
        )
        self._stream: native.Stream | None = None
        self._turn: Turn | None = None  # the one that is spoken, or waits for the queue
        self._guard: Guard | None = None
        self._spoken: list[NDArray[np.int32]] = []  # all frames of the turn
        self._dropped = 0  # of them, those that are not heard
        self._stopped: str | None = None  # the guard's reason
        self._finish = "stop"
        self._seen = -1  # the version of the text in which nothing was left to say
        self._ended = False
        self._cancelled = False
        self._created = time.monotonic()
        self._awaited: AwaitedStream | None = None
        self._times = Timing(-1, -1, -1, -1)
        self.id = 0
        self._start_next()

    @property
    def timing(self) -> Timing:
        """Times so far; those of the first turn, and of the last."""
        return self._times

    def cancel(self) -> None:
        """Stop; returns at once."""
        self._cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    def next(self, timeout: float | None) -> Piece | None:
        """The next piece, None after the last; TimeoutError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._ended:
            return None
        while self._stream is None:
            piece = None if self._nothing_new() else self._advance()
            if piece is not None:
                return piece
            if self._stream is None:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError("[stream] expected a chunk within the timeout, got none")
                time.sleep(_RETRY_SECONDS)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return self._accept(self._stream.next(left))

    async def anext(self) -> Piece | None:
        """The same; decoding and prompts are worked on in a thread."""
        if self._ended:
            return None
        while self._stream is None:
            piece = None if self._nothing_new() else await asyncio.to_thread(self._advance)
            if piece is not None:
                return piece
            if self._stream is None:
                await asyncio.sleep(_RETRY_SECONDS)
        if self._awaited is None or self._awaited.stream is not self._stream:
            self._awaited = AwaitedStream(self._stream)
        chunk = await self._awaited.next()
        return await asyncio.to_thread(self._accept, chunk)

    def _advance(self) -> Piece | None:
        """Without a running turn: start one, end, or say what is left to say meanwhile."""
        version = self._turns.version
        if self._cancelled:
            return self._end("cancelled")
        try:
            if self._start_next():
                return None
        except QueueFullError:
            return None
        except Exception:
            left = self._decoder.finish()  # what was said before it is heard first
            if left is None:
                raise
            return Piece(left[1], left[0])
        if self._turns.ended or self._used_up():
            return self._end(self._finish)
        left = self._decoder.finish()  # the writer pauses, and so does the speaker
        self._seen = version
        return None if left is None else Piece(left[1], left[0])

    def _nothing_new(self) -> bool:
        """Whether everything that was written has been spoken."""
        return self._seen == self._turns.version and not self._cancelled

    def _end(self, finish: str) -> Piece:
        self._ended = True
        left = self._decoder.finish() if finish != "cancelled" else None
        frames, samples = left or (self._no_frames(), np.zeros(0, np.float32))
        self._touch(len(samples) > 0, finished=True)
        return Piece(samples, frames, last=True, finish=finish)

    def _used_up(self) -> bool:
        return self._frames_left is not None and self._frames_left <= 0

    def _start_next(self) -> bool:
        """Submit the next turn. False: there is none."""
        if self._used_up():
            return False
        if self._turn is None:
            self._turn = self._turns.next()
        if self._turn is None:
            return False
        turn = self._turn
        first, most = self._chunk_frames
        first = min(first + CONTEXT_FRAMES, 512) if self._times.started < 0 else first
        seconds = None if self._frames_left is None else self._frames_left / self._frame_rate
        request = self._builder.turn(
            self._job,
            turn,
            tuple(self._history_of(turn)),
            max_seconds=seconds,
            chunk_frames=(first, max(first, most)),
        )
        self._stream = self._runtime.submit(request)
        self.id = self.id or self._stream.id
        self._spoken, self._stopped, self._dropped = [], None, 0
        self._guard = Guard(self._frame_rate, self._samples_per_frame) if self._guarded else None
        if self._cancelled:
            self._stream.cancel()
        return True

    def _history_of(self, turn: Turn) -> deque[Reference]:
        """The last turns; where a prompt has one voice only, those of this speaker."""
        key = turn.speaker if self._job.dialogue == "voices" else None
        return self._history.setdefault(key, deque(maxlen=self._job.context_turns))

    def _accept(self, chunk: native.Chunk | None) -> Piece:
        assert self._stream is not None
        if chunk is None:
            raise CancelledError("[narration] expected a chunk, got none: read twice")
        frames, samples = self._no_frames(), np.zeros(0, np.float32)
        if chunk.frames.size and self._stopped is None:
            frames, samples = self._decode(np.array(chunk.frames))
        started = timing_of(self._stream) if self._times.started < 0 else None
        self._touch(len(samples) > 0, started)
        if not chunk.last:
            return Piece(samples, frames)
        finish = self._stopped or chunk.finish.name.lower()
        end = self._turn_ended(finish, len(chunk.columns))
        return Piece(samples, frames, np.array(chunk.columns), end)

    def _decode(self, frames: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Frames whose samples are final, as far as the guard lets them pass."""
        if self._guard is not None and (keep := self._guard.watch_codes(frames)) is not None:
            frames = frames[:, :keep]
            self._stop("loop")
        self._spoken.append(frames)
        frames, samples = self._decoder.push(frames)
        if self._guard is not None and (keep := self._guard.watch_samples(samples)) is not None:
            self._stop("silence")
            self._dropped = self._decoder.drop() + frames.shape[1] - keep
            frames, samples = frames[:, :keep], samples[: keep * self._samples_per_frame]
        return frames, samples

    def _stop(self, reason: str) -> None:
        assert self._stream is not None
        self._stopped = reason
        self._stream.cancel()

    def _turn_ended(self, finish: str, num_columns: int) -> TurnEnd:
        assert self._turn is not None
        turn, self._turn, self._stream = self._turn, None, None
        spoken = np.concatenate([self._no_frames(), *self._spoken], axis=1)
        spoken = spoken[:, : spoken.shape[1] - self._dropped]
        self._spoken = []
        if spoken.shape[1]:
            asked = self._builder.asked(self._job, turn)
            self._history_of(turn).append(Reference(spoken, asked))
        if self._frames_left is not None:
            # Columns count, not frames: some may have been dropped (spec 6.5).
            self._frames_left -= max(0, num_columns - len(spoken) - 1)
            if self._used_up() and finish == "stop" and self._more_to_say():
                finish = "length"
        if finish != "stop" and self._finish == "stop":
            self._finish = finish
        if finish == "cancelled":
            self._cancelled = True
        else:  # the next one is made while this one is heard
            with contextlib.suppress(Exception):
                self._start_next()  # errors come up again when the next piece is asked for
        return TurnEnd(turn.speaker, len(turn.text), spoken.shape[1], finish)

    def _more_to_say(self) -> bool:
        """Whether another turn follows, or what cannot be read."""
        try:
            self._turn = self._turns.next()
        except Exception:
            return True
        return self._turn is not None

    def _touch(
        self, audible: bool, started: Timing | None = None, *, finished: bool = False
    ) -> None:
        now = time.monotonic() - self._created
        times = self._times
        self._times = Timing(
            started.started if started else times.started,
            started.first_column if started else times.first_column,
            now if audible and times.first_chunk < 0 else times.first_chunk,
            now if finished else times.finished,
        )

    def _no_frames(self) -> NDArray[np.int32]:
        return np.zeros((self._runtime.info.num_codebooks, 0), np.int32)
