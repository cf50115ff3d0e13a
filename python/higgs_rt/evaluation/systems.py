"""What is evaluated: voices of a runtime, and recordings that exist already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from higgs_rt.audio import Audio, read_audio
from higgs_rt.errors import InvalidRequestError
from higgs_rt.evaluation.recognisers import Recogniser
from higgs_rt.evaluation.wer import Score, score, spoken_words

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from higgs_rt.options import SpeakOptions
    from higgs_rt.runtime import Runtime

_RECORDINGS = (".wav", ".flac", ".ogg")


@dataclass(frozen=True, eq=False)
class Utterance:
    """One line as it was spoken; finish is "stop", "length" or "recording"."""

    audio: Audio
    finish: str


@dataclass(frozen=True)
class LineResult:
    """One line, what was heard, and how it was spoken."""

    text: str
    heard: str
    wer: float
    seconds: float
    finish: str


@dataclass(frozen=True)
class SystemResult:
    """All lines of one voice or folder of recordings."""

    system: str
    score: Score
    seconds: float
    lines: tuple[LineResult, ...]

    @property
    def num_length_stops(self) -> int:
        """Lines that the limit of seconds ended instead of the model."""
        return sum(line.finish == "length" for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data, all numbers included."""
        return {**asdict(self), "length_stops": self.num_length_stops}


def speak_lines(
    runtime: Runtime,
    lines: Sequence[str],
    *,
    concurrency: int = 8,
    done: Callable[[], None] = lambda: None,
    **options: Unpack[SpeakOptions],
) -> list[Utterance]:
    """Speak every line, `concurrency` at a time. Line n has seed + n, so a run can be repeated."""
    base = options.get("seed")

    async def one(index: int, text: str, gate: asyncio.Semaphore) -> Utterance:
        own = options.copy()
        own["seed"] = None if base is None else base + index
        async with gate:
            speech = await runtime.aspeak(text, **own)
        done()
        return Utterance(Audio(speech.samples, speech.sample_rate), speech.finish)

    async def every() -> list[Utterance]:
        gate = asyncio.Semaphore(concurrency)
        return list(await asyncio.gather(*(one(i, text, gate) for i, text in enumerate(lines))))

    return asyncio.run(every())


def read_recordings(directory: str | Path, count: int) -> list[Utterance]:
    """Recordings of a folder in order of name, one for each of `count` lines."""
    directory = Path(directory)
    if not directory.is_dir():
        raise InvalidRequestError(f"[{directory}] expected a folder of recordings, got none")
    paths = sorted(path for path in directory.iterdir() if path.suffix.lower() in _RECORDINGS)
    if len(paths) != count:
        raise InvalidRequestError(
            f"[{directory}] expected {count} recordings, one for each line, got {len(paths)}"
        )
    return [Utterance(read_audio(path), "recording") for path in paths]


def score_system(
    system: str,
    lines: Sequence[str],
    utterances: Sequence[Utterance],
    recogniser: Recogniser,
    done: Callable[[], None] = lambda: None,
) -> SystemResult:
    """Transcribe the utterances of `lines` and score them."""
    references = [spoken_words(line) for line in lines]
    heard = []
    for utterance in utterances:
        heard.append(recogniser.transcribe(utterance.audio.samples, utterance.audio.sample_rate))
        done()
    results = tuple(
        LineResult(
            text=text,
            heard=" ".join(words),
            wer=score([reference], [words]).wer,
            seconds=utterance.audio.seconds,
            finish=utterance.finish,
        )
        for text, reference, words, utterance in zip(
            lines, references, heard, utterances, strict=True
        )
    )
    total = sum(line.seconds for line in results)
    return SystemResult(system, score(references, heard), total, results)
