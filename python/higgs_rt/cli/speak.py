"""`higgs-rt speak`: text to a file or to a pipe."""

from __future__ import annotations

import codecs
import io
import itertools
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.status import Status

from higgs_rt.cli.console import (
    INTERRUPTED,
    AdapterOption,
    AdaptersOption,
    CodecOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    console,
    named_adapters,
    reports_errors,
    say,
)
from higgs_rt.cli.output import STANDARD_OUTPUT, Output, open_output
from higgs_rt.errors import CancelledError, InvalidRequestError
from higgs_rt.prompt import check_text
from higgs_rt.prompt.limits import DEFAULT_MAX_LONG_CHARS

if TYPE_CHECKING:
    from higgs_rt.options import SpeakOptions
    from higgs_rt.runtime import Runtime
    from higgs_rt.speech import SpeechStream

_PERIOD = 0.1  # seconds between updates of the progress line

VoiceOption = Annotated[
    list[str] | None,
    typer.Option("--voice", metavar="NAME", help="Stored voice; repeat it for [SPEAKER0], …"),
]
SceneOption = Annotated[str | None, typer.Option("--scene", help="Where it is, how it sounds.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Default: a new one, reported.")]
TemperatureOption = Annotated[
    float | None, typer.Option("--temperature", help="0 is greedy. Default: the model's own.")
]
TopKOption = Annotated[
    int | None, typer.Option("--top-k", help="0 is off. Default: the model's own.")
]
TopPOption = Annotated[
    float | None, typer.Option("--top-p", help="1 is off. Default: the model's own.")
]
MaxSecondsOption = Annotated[
    float | None, typer.Option("--max-seconds", help="Default: a generous estimate.")
]


@reports_errors
def speak(
    text: Annotated[str | None, typer.Argument(help="What to say; - reads standard input.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Say what is in a text file.")
    ] = None,
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="FILE", help=".wav, .flac, .ogg; - is raw PCM."),
    ] = "speech.wav",
    voice: VoiceOption = None,
    ref: Annotated[
        Path | None, typer.Option("--ref", metavar="WAV", help="Recording to imitate.")
    ] = None,
    ref_text: Annotated[
        str | None, typer.Option("--ref-text", metavar="T", help="The words spoken in --ref.")
    ] = None,
    scene: SceneOption = None,
    model: ModelOption = None,
    codec: CodecOption = None,
    adapter: AdapterOption = None,
    adapters: AdaptersOption = None,
    use_adapter: Annotated[
        str | None, typer.Option("--use-adapter", metavar="NAME", help="One of --adapters.")
    ] = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 0,
    seed: SeedOption = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    max_seconds: MaxSecondsOption = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Make audio in chunks; Ctrl-C keeps what is made.")
    ] = False,
    normalize: Annotated[bool, typer.Option(help="Tidy the text before speaking.")] = True,
    language: Annotated[
        str, typer.Option("--language", help="Of numbers and units; none leaves them as they are.")
    ] = "auto",
    guards: Annotated[
        bool, typer.Option(help="End speech that is only silence or repeats itself.")
    ] = True,
) -> None:
    """Speak TEXT, or FILE as it is read; long texts and [SPEAKERn] scripts turn after turn."""
    words = _words(text, file)  # and its faults, before anything that takes time
    target = open_output(output)
    options: SpeakOptions = {
        "ref_audio": ref,
        "ref_text": ref_text,
        "scene": scene,
        "seed": seed,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "max_seconds": max_seconds,
        "normalize": normalize,
        "language": None if language == "none" else language,
        "guards": guards,
        "adapter": use_adapter,
    }
    if voice:
        options.update({"voice": voice[0]} if len(voice) == 1 else {"speakers": voice})
    folders = named_adapters(adapters)
    # A pipe has a listener at its other end.
    stream = stream or output == STANDARD_OUTPUT
    from higgs_rt.runtime import Runtime

    with (
        console().status("loading") as status,
        Runtime.load(
            model,
            codec,
            device,
            threads=threads,
            max_batch=1,
            adapter=adapter,
            adapters=folders,
        ) as runtime,
    ):
        request = runtime.submit(words, stream=stream, **options)
        _deliver(runtime, request, target, status, keeps_part=stream)
    _report(request, target)


def _words(text: str | None, file: Path | None) -> str | Iterator[str]:
    if (text is None) == (file is None):
        raise typer.BadParameter("expected TEXT or --file, got both or none")
    if text is not None:
        words = read_text(text)
        check_text(words, max_chars=DEFAULT_MAX_LONG_CHARS)
        return words
    assert file is not None
    pieces = read_file(file)
    first = next(pieces, "")
    check_text(first)
    return itertools.chain([first], pieces)


def read_file(path: Path) -> Iterator[str]:
    """A text file in pieces of a few thousand characters."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    count = 0  # bytes that were read
    try:
        with path.open("rb") as file:
            while data := file.read(4096):
                count += len(data)
                yield decoder.decode(data)
            yield decoder.decode(b"", final=True)
    except OSError as error:
        raise InvalidRequestError(f"[{path}] expected a UTF-8 text, got: {error}") from None
    except UnicodeDecodeError as error:
        at = count - len(error.object) + error.start
        raise InvalidRequestError(
            f"[{path}] expected a UTF-8 text, got {error.reason} at byte {at}"
        ) from None


def read_text(text: str) -> str:
    """The argument itself, or standard input for "-"."""
    if text != STANDARD_OUTPUT:
        return text
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"[standard input] expected UTF-8 text, got: {error}") from None


def _deliver(
    runtime: Runtime, request: SpeechStream, target: Output, status: Status, *, keeps_part: bool
) -> None:
    """Move samples from the request to the target until the last one, showing progress."""
    begin = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the final report tells
            while True:
                # The only request of this runtime; its first and last columns carry no frame.
                frames = runtime.stats.columns - runtime.info.num_codebooks - 1
                made = max(request.seconds, frames / runtime.frame_rate)
                passed = time.monotonic() - begin
                factor = f", real-time factor {passed / made:.2f}" if made else ""
                status.update(f"{made:.1f} s of speech in {passed:.1f} s{factor}")
                try:
                    samples = request.next(_PERIOD)
                except TimeoutError:
                    continue
                if samples is None:
                    break
                target.write(samples, request.sample_rate)
    except BaseException as error:
        request.cancel()
        if isinstance(error, KeyboardInterrupt) and keeps_part and request.seconds:
            target.keep(request.sample_rate)
            say(f"interrupted; {target.name} has {request.seconds:.2f} s", "yellow")
            raise typer.Exit(INTERRUPTED) from None
        target.discard()
        raise
    if request.finish == "cancelled":
        target.discard()
        raise CancelledError(f"[request {request.id}] expected speech, got a cancelled request")
    target.keep(request.sample_rate)


def _report(request: SpeechStream, target: Output) -> None:
    timing = request.timing
    factor = f"{timing.finished / request.seconds:.2f}" if request.seconds else "none"
    say(
        f"{target.name}: {request.seconds:.2f} s in {timing.finished:.2f} s, "
        f"real-time factor {factor}, first audio after {timing.first_chunk:.2f} s, "
        f"{request.num_columns} columns, seed {request.seed}, "
        f"finish {cast(str, request.finish)}"
    )
    if request.finish == "length":
        say(
            "warning: the limit of seconds ended the speech, not the model (--max-seconds)",
            "yellow",
        )
    elif request.finish != "stop":
        say(f"warning: a guard ended the speech: {request.finish} (--no-guards)", "yellow")
