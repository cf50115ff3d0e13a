"""`higgs-rt voices`: the stored voices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from higgs_rt.checkpoint.files import resolve_model
from higgs_rt.cli.console import CodecOption, ModelOption, console, reports_errors, say
from higgs_rt.errors import InvalidRequestError, VoiceError
from higgs_rt.voices import VoiceStore

voices_app = typer.Typer(help="Stored voices.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The voice's name.")]


def _with_codec(model: Path | None, codec: Path | None) -> VoiceStore:
    return VoiceStore(codec_dir=resolve_model(model, codec).codec_dir)


@voices_app.command("add")
@reports_errors
def add(
    name: NameArgument,
    recording: Annotated[Path, typer.Argument(help="Any format that libsndfile reads.")],
    text: Annotated[
        str | None, typer.Option("--text", help="The words spoken in the recording.")
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option("--text-file", help="A file with these words.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a voice of this name.")] = False,
    model: ModelOption = None,
    codec: CodecOption = None,
) -> None:
    """Encode RECORDING once and store it as NAME."""
    if text is not None and text_file is not None:
        raise InvalidRequestError("[--text, --text-file] expected one of them, got both")
    if text_file is not None:
        try:
            text = text_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"[{text_file}] expected a text, got: {error}") from None
    with console().status("encoding"):
        store = _with_codec(model, codec)
        voice = store.add(name, recording, text, force=force)
    say(
        f"added voice {name}: {voice.seconds:.2f} s, {voice.codes.shape[1]} frames, "
        f"{store.path(name)}"
    )


@voices_app.command("list")
@reports_errors
def list_voices(model: ModelOption = None, codec: CodecOption = None) -> None:
    """All voices, and whether the model's codec can use them."""
    store = _with_codec(model, codec)
    rows = [_row(store, name) for name in store.names()]
    if not rows:
        say("no voices yet; higgs-rt voices add NAME RECORDING --text WORDS")
    elif sys.stdout.isatty():
        table = Table(box=None)
        for title, width in (("name", max(len(row[0]) for row in rows)), *_COLUMNS):
            table.add_column(title, min_width=width, overflow="ellipsis", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console(highlight=False).print(table)
    else:  # for programs: tabs, no headings
        for row in rows:
            typer.echo("\t".join(" ".join(cell.split()) for cell in row))


_COLUMNS = (("seconds", 7), ("from", 7), ("usable", 6), ("transcript", 10))


def _row(store: VoiceStore, name: str) -> tuple[str, str, str, str, str]:
    try:
        voice = store.show(name)
    except VoiceError as error:
        return name, "-", "-", "no", str(error)
    origin = "package" if store.is_packaged(name) else "user"
    usable = "yes" if store.usable(voice) else "no: other codec"
    return name, f"{voice.seconds:.2f}", origin, usable, voice.transcript


@voices_app.command("show")
@reports_errors
def show(name: NameArgument) -> None:
    """Everything about one voice."""
    store = VoiceStore()
    voice = store.show(name)
    typer.echo(f"name         {voice.name}")
    typer.echo(f"file         {store.path(name)}")
    typer.echo(f"transcript   {voice.transcript}")
    typer.echo(f"seconds      {voice.seconds:.2f}")
    typer.echo(f"codes        {voice.codes.shape[0]} codebooks x {voice.codes.shape[1]} frames")
    typer.echo(f"sample rate  {voice.sample_rate}")
    typer.echo(f"codec        {voice.codec}")
    typer.echo(f"created      {voice.created}")
    typer.echo(f"source       {voice.source}")


@voices_app.command("remove")
@reports_errors
def remove(name: NameArgument) -> None:
    """Delete a voice of yours."""
    path = VoiceStore().remove(name)
    say(f"removed voice {name}: {path}")
