"""`higgs-rt evaluate`: speech judged by a recogniser."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from higgs_rt.cli.console import (
    AdapterOption,
    CodecOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    console,
    reports_errors,
    say,
)
from higgs_rt.cli.speak import (
    MaxSecondsOption,
    SceneOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    VoiceOption,
)
from higgs_rt.errors import AudioError, InvalidRequestError
from higgs_rt.evaluation import (
    Recogniser,
    SystemResult,
    Utterance,
    make_recogniser,
    read_lines,
    read_recordings,
    score_system,
    speak_lines,
    spoken_words,
)

if TYPE_CHECKING:
    from higgs_rt.options import SpeakOptions
    from higgs_rt.runtime import Runtime

evaluate_app = typer.Typer(help="Judge speech.", no_args_is_help=True)


@evaluate_app.callback()
def _group() -> None:
    """Judge speech."""


@evaluate_app.command("wer")
@reports_errors
def wer(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Text, one line per utterance.")],
    voice: VoiceOption = None,
    wav_dir: Annotated[
        list[Path] | None,
        typer.Option("--wav-dir", metavar="DIR", help="Score these recordings too; repeatable."),
    ] = None,
    speaks: Annotated[
        bool, typer.Option("--speak/--no-speak", help="--no-speak: only --wav-dir.")
    ] = True,
    recogniser: Annotated[
        str, typer.Option("--recogniser", help="pocketsphinx or transformers:NAME.")
    ] = "pocketsphinx",
    skip_unknown: Annotated[
        bool,
        typer.Option("--skip-unknown", help="Drop lines with words unknown to pocketsphinx."),
    ] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="All numbers; - is stdout.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="DIR", help="Keep the speech as .wav files.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="At a time.")] = 8,
    scene: SceneOption = None,
    model: ModelOption = None,
    codec: CodecOption = None,
    adapter: AdapterOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of line 1; line n has seed + n - 1.")] = 0,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    max_seconds: MaxSecondsOption = None,
) -> None:
    """Word error rate of the lines of FILE, spoken and recognised again."""
    lines = read_lines(file)
    if recogniser == "pocketsphinx" and skip_unknown:
        lines = _known(lines)
    listener = make_recogniser(recogniser, {word for line in lines for word in spoken_words(line)})
    systems = {
        str(directory): read_recordings(directory, len(lines)) for directory in wav_dir or []
    }
    if not speaks and not systems:
        raise InvalidRequestError("[--no-speak] expected --wav-dir beside it, got none")
    options: SpeakOptions = {
        "scene": scene,
        "seed": seed,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "max_seconds": max_seconds,
    }
    with Progress(console=console(), transient=True) as progress:
        if speaks:
            from higgs_rt.runtime import Runtime

            with Runtime.load(model, codec, device, threads=threads, adapter=adapter) as runtime:
                for name in voice or (None,):
                    options["voice"] = name
                    spoken = _speak(runtime, lines, concurrency, options, progress)
                    systems[name or "no voice"] = spoken
                    _save(save, name or "no_voice", spoken)
        results = _listen(systems, lines, listener, progress)
    _write_json(json_file, recogniser, results)
    if json_file != "-":
        Console(highlight=False).print(_table(results))


def _listen(
    systems: dict[str, list[Utterance]],
    lines: Sequence[str],
    listener: Recogniser,
    progress: Progress,
) -> list[SystemResult]:
    task = progress.add_task("listening", total=len(systems) * len(lines))

    def done() -> None:
        progress.advance(task)

    return [score_system(name, lines, spoken, listener, done) for name, spoken in systems.items()]


def _speak(
    runtime: Runtime,
    lines: Sequence[str],
    concurrency: int,
    options: SpeakOptions,
    progress: Progress,
) -> list[Utterance]:
    task = progress.add_task(escape(f"speaking {options['voice'] or ''}"), total=len(lines))

    def done() -> None:
        progress.advance(task)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table counts length stops
        return speak_lines(runtime, lines, concurrency=concurrency, done=done, **options)


def _known(lines: Sequence[str]) -> list[str]:
    """The lines whose words pocketsphinx can pronounce; the others are reported."""
    from higgs_rt.evaluation.recognisers import pronunciations_of

    known = pronunciations_of(word for line in lines for word in spoken_words(line)).keys()
    kept = []
    for number, line in enumerate(lines, 1):
        unknown = sorted(set(spoken_words(line)) - known)
        if unknown:
            say(f"line {number} dropped, unknown to pocketsphinx: {', '.join(unknown)}", "yellow")
        else:
            kept.append(line)
    if not kept:
        raise InvalidRequestError("[--skip-unknown] expected lines of known words, got none")
    return kept


def _save(directory: Path | None, system: str, spoken: Sequence[Utterance]) -> None:
    if directory is None:
        return
    folder = directory / system
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(f"[{folder}] expected a folder, got: {error}") from None
    from higgs_rt.audio import write_audio

    for number, utterance in enumerate(spoken, 1):
        audio = utterance.audio
        write_audio(folder / f"{number:04d}.wav", audio.samples, audio.sample_rate)


def _write_json(target: str | None, recogniser: str, results: Sequence[SystemResult]) -> None:
    if target is None:
        return
    content: dict[str, Any] = {
        "recogniser": recogniser,
        "systems": [result.to_json() for result in results],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"[{target}] expected a writable place, got: {error}") from None


def _table(results: Sequence[SystemResult]) -> Table:
    table = Table(box=None)
    titles = ("system", "lines", "words", "WER", "sub", "del", "ins", "seconds", "length stops")
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index else "left")
    for result in results:
        counts = result.score
        table.add_row(
            Text(result.system),
            str(len(result.lines)),
            str(counts.words),
            f"{counts.wer:.3f}",
            str(counts.substitutions),
            str(counts.deletions),
            str(counts.insertions),
            f"{result.seconds:.1f}",
            str(result.num_length_stops),
        )
    return table
