"""Many sentences at once in one event loop: back-pressure, a limit of time, cancellation.

    python examples/python_asyncio/serve_sentences.py [--model DIR] [--voice slt] [FILE]

Reads sentences, one a line, from FILE or standard input, speaks up to `--at-once` of them at a
time, and writes NNN.wav files into `--out` as their audio arrives. The reader of the file, the
runtime and the writers run at each other's pace: no more than the sentences in work, and of each
no more than the chunks that its stream holds, are in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from higgs_rt import HiggsError, Runtime
from higgs_rt.audio import pcm16


@dataclass
class Report:
    """What became of the sentences."""

    spoken: int = 0
    seconds: float = 0.0
    failed: int = 0
    timed_out: int = 0


async def speak_to_file(runtime: Runtime, sentence: str, path: Path, voice: str | None) -> float:
    """Seconds of speech written. A slow disk pauses this request only.

    Leaving the block, by an error or because the task is cancelled, cancels the request, and the
    unfinished file is removed.
    """
    done = False
    try:
        async with runtime.astream(sentence, voice=voice, seed=0) as stream:
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(stream.sample_rate)
                async for samples in stream:
                    await asyncio.to_thread(file.writeframes, pcm16(samples).tobytes())
            done = True
            return stream.seconds
    finally:
        if not done:
            path.unlink(missing_ok=True)


async def work(
    runtime: Runtime,
    sentences: asyncio.Queue[tuple[int, str] | None],
    arguments: argparse.Namespace,
    report: Report,
) -> None:
    """One worker: a sentence after the other, until there is a None."""
    while (item := await sentences.get()) is not None:
        number, sentence = item
        path = arguments.out / f"{number:03}.wav"
        try:
            spoken = speak_to_file(runtime, sentence, path, arguments.voice)
            report.seconds += await asyncio.wait_for(spoken, arguments.timeout)
            report.spoken += 1
        except asyncio.TimeoutError:
            print(f"{number}: cancelled after {arguments.timeout:g} s", file=sys.stderr)
            report.timed_out += 1
        except (HiggsError, OSError) as error:
            print(f"{number}: {error}", file=sys.stderr)
            report.failed += 1
    await sentences.put(None)  # for the next worker


async def feed(lines: Iterable[str], sentences: asyncio.Queue[tuple[int, str] | None]) -> None:
    """Put the lines that are not empty into the bounded queue, which holds this back."""
    reader = iter(lines)
    number = 0
    while (line := await asyncio.to_thread(next, reader, None)) is not None:
        if line.strip():
            await sentences.put((number, line.strip()))
            number += 1
    await sentences.put(None)


async def serve(runtime: Runtime, lines: Iterable[str], arguments: argparse.Namespace) -> Report:
    """Speak all lines."""
    report = Report()
    sentences: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue(maxsize=arguments.at_once)
    tasks = [asyncio.create_task(feed(lines, sentences))]
    for _ in range(arguments.at_once):
        tasks.append(asyncio.create_task(work(runtime, sentences, arguments, report)))
    try:
        await asyncio.gather(*tasks)
    finally:  # after Ctrl-C or a fault of one task, the others' requests are cancelled
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return report


def main() -> int:
    """Read the arguments and run; the exit status says whether all sentences were spoken."""
    parser = argparse.ArgumentParser(description="Speak sentences, many at once.")
    parser.add_argument("file", nargs="?", type=argparse.FileType("r"), default=sys.stdin)
    parser.add_argument("--model", help="a model directory; the packaged demo model by default")
    parser.add_argument("--voice", help="name of a stored voice")
    parser.add_argument("--out", type=Path, default=Path("speech"), help="folder for the files")
    parser.add_argument("--at-once", type=int, default=8, help="sentences in work")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for a sentence")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Runtime.load(arguments.model, max_batch=arguments.at_once) as runtime:
        report = asyncio.run(serve(runtime, arguments.file, arguments))
    print(
        f"{report.spoken} spoken ({report.seconds:.1f} s), {report.failed} failed, "
        f"{report.timed_out} timed out"
    )
    return 0 if report.failed == report.timed_out == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
