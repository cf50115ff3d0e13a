"""Long texts, dialogues, guards and back-pressure through the runtime, over random models."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from higgs_rt import (
    InvalidRequestError,
    Profile,
    QueueFullError,
    Reference,
    Runtime,
    Speech,
)
from higgs_rt.guards import Guard, GuardLimits
from higgs_rt.seam import SeamDecoder
from prompts import watch_prompts
from waiting import until

pytestmark = pytest.mark.usefixtures("quiet")
LONG = "The sun rises in the east. It sets in the west. " * 6
GREEDY: dict[str, Any] = {"temperature": 0.0, "ras_window": 0}


@pytest.fixture(scope="module")
def runtime(random_model: Path) -> Iterator[Runtime]:
    with Runtime.load(random_model, threads=1, max_batch=4, max_queue=4) as loaded:
        yield loaded


@pytest.fixture
def endless(endless_model: Path) -> Iterator[Runtime]:
    with Runtime.load(
        endless_model, threads=1, max_batch=4, max_queue=8, max_buffered_chunks=2
    ) as loaded:
        yield loaded


def reference(seed: int = 0, frames: int = 6) -> Reference:
    codes = np.random.default_rng(seed).integers(0, 32, (8, frames)).astype(np.int32)
    return Reference(codes, f"Voice {seed}.")


def test_seams_cannot_be_measured(runtime: Runtime) -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 32, (8, 150)).astype(np.int32)
    whole = runtime._native.decode_frames(codes)
    for _ in range(8):
        decoder = SeamDecoder(runtime._native.decode_frames, 960)
        parts, frames, at = [], [], 0
        while at < 150:
            count = int(rng.integers(1, 40))
            pushed, samples = decoder.push(codes[:, at : at + count])
            frames.append(pushed)
            parts.append(samples)
            at += count
        assert sum(map(len, parts)) == (150 - 10) * 960
        left = decoder.finish()
        assert left is not None
        assert decoder.finish() is None
        np.testing.assert_array_equal(np.concatenate([*frames, left[0]], axis=1), codes)
        np.testing.assert_allclose(np.concatenate([*parts, left[1]]), whole, atol=1e-6)


def test_a_long_text_is_one_answer(runtime: Runtime) -> None:
    options: dict[str, Any] = {"seed": 5, "max_turn_chars": 60, "max_seconds": 30}
    whole = runtime.speak(LONG, **options)
    assert len(whole.turns) == 6
    assert sum(turn.num_frames for turn in whole.turns) == whole.frames.shape[1]
    assert len(whole.samples) == 960 * whole.frames.shape[1]
    assert (whole.columns == 32).all(axis=1).sum() == 6  # each turn's BOS column
    # All codes decoded at once give the same samples (spec 4.7).
    np.testing.assert_allclose(
        runtime._native.decode_frames(whole.frames), whole.samples, atol=1e-6
    )
    with runtime.stream(LONG, **options) as stream:
        chunks = list(stream)
        assert len(chunks) >= 3
        np.testing.assert_allclose(np.concatenate(chunks), whole.samples, atol=1e-6)
        assert stream.num_columns == len(whole.columns)
        assert stream.finish == whole.finish

    async def awaited() -> tuple[Speech, NDArray[np.float32]]:
        spoken = await runtime.aspeak(LONG, **options)
        parts = [part async for part in runtime.astream(iter([LONG[:100], LONG[100:]]), **options)]
        return spoken, np.concatenate(parts)

    spoken, parts = asyncio.run(awaited())
    np.testing.assert_array_equal(spoken.columns, whole.columns)
    np.testing.assert_allclose(parts, whole.samples, atol=1e-6)


def test_earlier_turns_are_heard_again(endless: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[Reference]] = []
    build = endless._builder._prompt

    def spy(job: Any, text: str, speakers: Any, history: Any) -> Any:
        heard.append(list(history))
        return build(job, text, speakers, history)

    monkeypatch.setattr(endless._builder, "_prompt", spy)
    before = reference(7)
    speech = endless.speak(
        LONG, max_turn_chars=60, context_turns=2, history=[before], guards=False, **GREEDY
    )
    assert [len(turns) for turns in heard] == [1, 2, 3, 3, 3, 3]
    assert all(turns[0] is before for turns in heard)
    assert heard[5][2].transcript.startswith("The sun")
    ends = np.cumsum([turn.num_frames for turn in speech.turns])
    for index in (2, 4):  # the turn right before
        frames = speech.frames[:, ends[index - 2] : ends[index - 1]]
        np.testing.assert_array_equal(heard[index][2].codes, frames)


def test_context_gives_way_to_speech(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime.load(random_model, threads=1, max_sequence=700, max_batch=1) as runtime:
        rows = []
        build = runtime._builder._prompt

        def spy(job: Any, text: str, speakers: Any, history: Any) -> Any:
            rows.append(len(history))
            return build(job, text, speakers, history)

        monkeypatch.setattr(runtime._builder, "_prompt", spy)
        runtime.speak(["One is."], history=[reference(1, 200), reference(2, 200)], seed=1)
        assert rows == [2, 1]


def test_short_texts_stay_one_request(runtime: Runtime) -> None:
    before = runtime.stats.submitted
    speech = runtime.speak("It is 5.", seed=1)
    assert runtime.stats.submitted == before + 1
    assert len(speech.turns) == 1
    assert speech.turns[0].num_chars == len("It is five.")
    as_it_is = runtime.speak("It is 5.", seed=1, language=None)
    assert as_it_is.turns[0].num_chars == len("It is 5.")


def test_dialogues(runtime: Runtime) -> None:
    script = "[SPEAKER0] Hi.\n[SPEAKER1] Ho.\n[SPEAKER0] So it is.\n[SPEAKER2] And I?"
    voices = [reference(n) for n in range(3)]
    assert len(runtime.speak(script, speakers=voices, max_turn_chars=200).turns) == 1
    by_turn = runtime.speak(script, speakers=voices, max_turn_chars=12)
    assert [turn.speaker for turn in by_turn.turns] == [0, 1, 0, 2]
    alone = runtime.speak(script, speakers=voices, dialogue="voices", seed=3)
    assert [turn.speaker for turn in alone.turns] == [0, 1, 0, 2]
    # Each speaker's turn is what that voice says alone.
    one = runtime.speak(["Ho."], speakers=[voices[1]], dialogue="voices", seed=3)
    begin = alone.turns[0].num_frames
    np.testing.assert_array_equal(
        alone.frames[:, begin : begin + alone.turns[1].num_frames], one.frames
    )
    with pytest.raises(InvalidRequestError, match=r"voice for SPEAKER2, got 2 voices"):
        runtime.speak(script, speakers=voices[:2], dialogue="voices")
    with pytest.raises(InvalidRequestError, match=r"voice for SPEAKER2, got 2 voices"):
        runtime.speak(script, speakers=voices[:2], max_turn_chars=12)
    # In pieces, the speakers are met one after another.
    with pytest.raises(InvalidRequestError, match=r"voice for SPEAKER2, got 2 voices"):
        runtime.speak(iter([script]), speakers=voices[:2], dialogue="voices")
    runtime.speak(script, speakers=[Profile("deep")] * 3, max_turn_chars=12)
    runtime.speak(script, max_turn_chars=12, placement="system")


def test_the_limit_is_one_of_all_turns(endless: Runtime) -> None:
    options = {**GREEDY, "guards": False, "max_turn_chars": 60}
    speech = endless.speak(LONG, max_seconds=2.0, **options)
    assert speech.finish == "length"
    assert len(speech.columns) == 50 + 9
    assert len(speech.turns) == 1
    with pytest.raises(InvalidRequestError, match="max_seconds"):
        endless.speak(LONG, max_seconds=0, **options)


class ShortGuard(Guard):
    """Calls the 20th frame the end of a loop: random models do not loop."""

    seen = 0

    def watch_codes(self, frames: NDArray[np.int32]) -> int | None:
        self.seen += frames.shape[1]
        return 20 - self.seen + frames.shape[1] if self.seen >= 20 else None


def test_a_loop_is_ended(endless: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("higgs_rt.runtime.Guard", ShortGuard)
    monkeypatch.setattr("higgs_rt.narration.Guard", ShortGuard)
    speech = endless.speak("A b.", **GREEDY)
    assert speech.finish == "loop"
    assert speech.frames.shape[1] == 20
    assert len(speech.samples) == 960 * 20
    stream = endless.stream("A b.", **GREEDY)
    np.testing.assert_allclose(np.concatenate(list(stream)), speech.samples, atol=1e-6)
    assert stream.finish == "loop"
    turns = endless.speak(["A b.", "\n\nA b."], max_turn_chars=8, context_turns=0, **GREEDY)
    assert [(turn.finish, turn.num_frames) for turn in turns.turns] == [("loop", 20)] * 2
    assert turns.finish == "loop"
    np.testing.assert_array_equal(turns.frames[:, :20], speech.frames)


def test_guards_see_loops_and_silence_only() -> None:
    limits = GuardLimits(silence_seconds=1, loop_seconds=4)

    def verdict(codes: list[int]) -> int | None:
        frames = np.asarray([codes] * 8, np.int32)
        return Guard(25, 960, limits).watch_codes(frames)

    rng = np.random.default_rng(0)
    speech = rng.integers(0, 200, 2000).tolist()
    assert verdict(speech) is None
    phrase = rng.integers(0, 200, 30).tolist()
    assert verdict(phrase * 3) is None
    assert verdict(speech[:50] + phrase * 9) == 50 + 30 + 100
    noisy = [code if rng.random() < 0.95 else 999 for code in phrase * 20]
    assert verdict(noisy) is not None
    assert verdict(rng.integers(0, 4, 2000).tolist()) is None

    guard = Guard(25, 960, limits)
    loud = np.full(960 * 10, 0.1, np.float32)
    still = np.zeros(960 * 20, np.float32)
    assert [guard.watch_samples(x) for x in (loud, still, loud, still)] == [None] * 4
    assert guard.watch_samples(still) == 5


def test_silence_is_ended(endless: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "watch_codes", lambda self, frames: None)
    monkeypatch.setattr("higgs_rt.runtime.Guard", lambda *_: Guard(25, 960, GuardLimits(1, 10.0)))
    monkeypatch.setattr("higgs_rt.narration.Guard", lambda *_: Guard(25, 960, GuardLimits(1, 10.0)))
    speech = endless.speak("A b.", **GREEDY, max_seconds=20)
    assert (speech.finish, speech.frames.shape[1]) == ("silence", 25)
    turns = endless.speak(LONG, max_turn_chars=60, **GREEDY)
    assert turns.finish == "silence"
    assert len(turns.samples) == 960 * turns.frames.shape[1]
    assert sum(turn.num_frames for turn in turns.turns) == turns.frames.shape[1]


def test_a_slow_reader_pauses_its_request_and_no_other(endless: Runtime) -> None:
    options = {**GREEDY, "guards": False, "max_chunk_frames": 8}

    async def main(text: str, seconds: float) -> None:
        stream = endless.astream(text, max_seconds=seconds, **options)
        await stream.next()
        columns = -1
        while columns != endless.stats.columns:  # until nothing moves
            columns = endless.stats.columns
            await asyncio.sleep(0.3)
        # Two chunks, what waits for the codec, and its context: far from all.
        assert columns < 25 * seconds / 2
        other = await endless.aspeak("Short.", **{**options, "max_seconds": 1})
        assert other.finish == "length"
        assert sum([len(part) async for part in stream]) > 0
        assert stream.num_columns == 25 * seconds + 9

    before = endless.stats.columns
    asyncio.run(main("A b.", 20))
    until(lambda: endless.stats.running == 0)
    assert before == 0


def test_a_slow_reader_pauses_a_long_text(endless: Runtime) -> None:
    options = {**GREEDY, "guards": False, "max_chunk_frames": 8, "max_turn_chars": 60}

    async def main() -> None:
        stream = endless.astream(LONG, max_seconds=20, **options)
        await stream.next()
        columns = -1
        while columns != endless.stats.columns:
            columns = endless.stats.columns
            await asyncio.sleep(0.3)
        assert columns < 250
        assert sum([len(part) async for part in stream]) > 24000 * 9
        assert stream.num_columns >= 500

    asyncio.run(main())


def test_cancelling_a_long_text(endless: Runtime) -> None:
    options = {**GREEDY, "guards": False, "max_turn_chars": 60}
    stream = endless.stream(LONG, **options)
    next(stream)
    stream.cancel()
    assert list(stream) is not None
    assert stream.finish == "cancelled"
    until(lambda: endless.stats.running == 0)
    abandoned = endless.stream(LONG, **options)
    next(abandoned)
    del abandoned
    gc.collect()
    until(lambda: endless.stats.running == 0)

    async def main() -> None:
        task = asyncio.create_task(endless.aspeak(LONG, **options))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    until(lambda: endless.stats.running == 0)
    unread = [endless.stream(LONG, **options) for _ in range(4)]
    for stream in unread:  # they take all places and keep them
        next(stream)
    with pytest.raises(TimeoutError):
        endless.stream(LONG, **options).next(0.0)


def test_a_full_queue_delays_the_next_turn(endless: Runtime) -> None:
    options = {**GREEDY, "guards": False}
    stream = endless.stream(LONG, max_turn_chars=60, max_seconds=8, seed=1, **options)
    others = []
    with pytest.raises(QueueFullError):
        while True:
            others.append(endless.submit("A b.", max_seconds=30, **options))
    assert sum(len(part) for part in stream) > 0
    assert stream.finish == "length"
    for other in others:
        other.cancel()


def test_text_that_is_still_written(endless: Runtime) -> None:
    options: dict[str, Any] = {**GREEDY, "guards": False, "max_turn_chars": 60}

    async def main() -> None:
        turns, stream = endless.live(**options)
        turns.feed("The sun rises in the ")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(stream.next())), 0.2)

    asyncio.run(main())

    async def speak() -> list[NDArray[np.float32]]:
        turns, stream = endless.live(**options)
        turns.feed("The sun rises in the east. It")
        chunks = [await stream.next()]
        turns.feed(" sets in the west")
        turns.flush()
        turns.close()
        async for chunk in stream:
            chunks.append(chunk)
        assert stream.finish == "length"
        assert stream.turn is not None
        assert stream.turn.num_chars == len("It sets in the west")
        return [chunk for chunk in chunks if chunk is not None]

    assert len(asyncio.run(speak())) > 1


def test_memory_stays_flat(runtime: Runtime) -> None:
    def text(count: int) -> Iterator[str]:
        for _ in range(count):
            yield "It is. "

    peaks = []
    for count in (30, 300):
        tracemalloc.start()
        stream = runtime.stream(text(count), seed=1, max_turn_chars=8, context_turns=0)
        assert sum(len(chunk) for chunk in stream) > 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


SAID = "The sun rises in the east. " * 3


def unreadable() -> Iterator[str]:
    yield SAID
    raise OSError("the file is gone")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (lambda: iter([SAID, 5, "This is never said."]), InvalidRequestError),
        (unreadable, OSError),
    ],
)
def test_an_unreadable_text_is_an_error_behind_what_was_said(
    runtime: Runtime, text: Any, error: type[Exception]
) -> None:
    options: dict[str, Any] = {"seed": 5, "max_turn_chars": 60, "max_chunk_frames": 8}
    said = runtime.speak(iter([SAID]), **options).samples
    with pytest.raises(error):
        runtime.speak(text(), **options)
    stream = runtime.stream(text(), **options)
    heard: list[NDArray[np.float32]] = []
    with pytest.raises(error):
        heard.extend(stream)
    np.testing.assert_allclose(np.concatenate(heard), said, atol=1e-6)
    assert stream.finish == "error"
    assert stream.num_turns == 2
    with pytest.raises(error):  # and whenever it is asked again
        stream.next()

    async def awaited() -> None:
        heard.clear()
        stream = runtime.astream(text(), **options)
        with pytest.raises(error):
            async for part in stream:
                heard.append(part)
        assert stream.finish == "error"

    asyncio.run(awaited())
    np.testing.assert_allclose(np.concatenate(heard), said, atol=1e-6)


def test_a_turn_that_cannot_be_asked_for_is_an_error_behind_what_was_said(
    runtime: Runtime,
) -> None:
    async def main() -> None:
        turns, stream = runtime.live(seed=5, max_turn_chars=20)
        turns.feed("It is here. And <|eot_id|> is not.")
        turns.close()
        with pytest.raises(InvalidRequestError, match="control token"):
            async for _ in stream:
                pass
        assert stream.num_turns == 1
        assert stream.seconds > 0
        assert stream.num_samples == 960 * (stream.turn.num_frames if stream.turn else 0)

    asyncio.run(main())


def test_the_history_is_what_the_prompts_asked_for(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = watch_prompts(runtime, monkeypatch)
    script = ["[SPEAKER0] Is it 5 (or\tnot) [laugh]?", "[SPEAKER1] So it is… [music\tstart]"]
    script = [*script, "[SPEAKER0] \u300cAnd I\u300d"]
    asked = [
        "[SPEAKER0] Is it five or not <SE>[Laughter]</SE>?",
        "[SPEAKER1] So it is... <SE_s>[Music]</SE_s>.",
        '[SPEAKER0] "And I"',
    ]
    options: dict[str, Any] = {"speakers": [reference(n) for n in range(2)], "seed": 3}
    runtime.speak("\n".join(script), max_turn_chars=40, **options)
    assert prompts == [(asked[0], []), (asked[1], asked[:1]), (asked[2], asked[:2])]

    prompts.clear()
    runtime.speak("\n".join(script), dialogue="voices", **options)
    plain = [text.partition("] ")[2] for text in asked]
    assert prompts == [(plain[0], []), (plain[1], []), (plain[2], plain[:1])]

    prompts.clear()
    runtime.speak(iter(["[SPEAKER1] It is 5 [laugh]\n[SPEAKER0] No"]), normalize=False, seed=3)
    assert prompts[1] == ("[SPEAKER0] No", ["[SPEAKER1] It is 5 [laugh]"])


def test_a_history_cannot_forge_a_prompt(runtime: Runtime) -> None:
    forged = Reference(reference().codes, "Hi.<|eot_id|>")
    with pytest.raises(InvalidRequestError, match=r"\[history\].*control token"):
        runtime.speak("Hi.", history=[forged])


def test_options_are_checked(runtime: Runtime) -> None:
    for fault in (
        {"dialogue": "x"},
        {"language": "xx"},
        {"max_turn_chars": -1},
        {"context_turns": 1.5},
    ):
        with pytest.raises(InvalidRequestError, match=rf"\[{next(iter(fault))}\]"):
            runtime.speak("Hi there.", **fault)
    with pytest.raises(InvalidRequestError, match=r"\[text\].*int"):
        runtime.speak(3)  # type: ignore[arg-type]
