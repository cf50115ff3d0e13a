"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from higgs_rt.cli.evaluate import evaluate_app
from higgs_rt.cli.info import info
from higgs_rt.cli.serve import serve
from higgs_rt.cli.speak import speak
from higgs_rt.cli.train import train_app
from higgs_rt.cli.voices import voices_app

app = typer.Typer(
    name="higgs-rt",
    help="Text to speech with Higgs Audio v2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        import higgs_rt

        typer.echo(f"higgs-rt {higgs_rt.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show and exit.")
    ] = False,
) -> None:
    """Text to speech with Higgs Audio v2."""


app.command()(speak)
app.command()(serve)
app.command()(info)
app.add_typer(voices_app, name="voices")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(train_app, name="train")
