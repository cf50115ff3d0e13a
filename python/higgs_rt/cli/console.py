"""What all commands share: the console, errors as one line, options of the model."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from higgs_rt.cli import was_interrupted
from higgs_rt.errors import HiggsError, InvalidRequestError

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

FAILURE = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
DEBUG_VARIABLE = "HIGGS_RT_DEBUG"

ModelOption = Annotated[
    Path | None, typer.Option("--model", metavar="DIR", help="Model; default: the demo voice.")
]
CodecOption = Annotated[
    Path | None, typer.Option("--codec", metavar="DIR", help="Codec; default: MODEL/codec.")
]
AdapterOption = Annotated[
    Path | None, typer.Option("--adapter", metavar="DIR", help="LoRA adapter (docs/training.md).")
]
AdaptersOption = Annotated[
    list[str] | None,
    typer.Option("--adapters", metavar="NAME=DIR", help="Adapter that is chosen by name; repeat."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda[:N].")]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Compute threads; 0: all cores.")]


def named_adapters(given: list[str] | None) -> dict[str, Path]:
    """The folders of `--adapters` by name."""
    folders: dict[str, Path] = {}
    for one in given or ():
        name, separator, folder = one.partition("=")
        if not (name and separator and folder):
            raise InvalidRequestError(f"[adapters] expected NAME=DIR, got {one!r}")
        if name in folders:
            raise InvalidRequestError(f"[adapters] expected each name once, got {name} twice")
        folders[name] = Path(folder)
    return folders


def console() -> Console:
    """Everything for people goes to standard error; standard output is for results."""
    return Console(stderr=True, highlight=False)


def say(message: str, style: str = "") -> None:
    """One line to standard error, whatever it contains."""
    console().print(Text(message, style=style), soft_wrap=True)


def reports_errors(command: Callable[_Params, _Result]) -> Callable[_Params, _Result]:
    """Errors of a command become one red line and exit status 1; Ctrl-C becomes 130."""

    @functools.wraps(command)
    def run(*args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        try:
            return command(*args, **kwargs)
        except HiggsError as error:
            say(" ".join(str(error).split()), "bold red")
            raise typer.Exit(FAILURE) from None
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if was_interrupted(error):
                say("interrupted", "yellow")
                raise typer.Exit(INTERRUPTED) from None
            if os.environ.get(DEBUG_VARIABLE) or type(error).__module__.startswith(
                ("click", "typer")
            ):
                raise
            summary = " ".join(f"{type(error).__name__}: {error}".split())
            say(f"[internal] {summary} ({DEBUG_VARIABLE}=1 shows the traceback)", "bold red")
            raise typer.Exit(FAILURE) from None

    return run
