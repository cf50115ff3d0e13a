"""`higgs-rt train`: prepare recordings, fine-tune with LoRA, merge adapters (docs/training.md)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from higgs_rt.cli.console import CodecOption, ModelOption, console, reports_errors, say
from higgs_rt.errors import HiggsError, InvalidRequestError

train_app = typer.Typer(help="Fine-tune with LoRA.", no_args_is_help=True)

FormatOption = Annotated[
    str,
    typer.Option("--format", help="chatml, folder, ljspeech, common-voice or ms-swift."),
]


@train_app.command("prepare")
@reports_errors
def prepare_data(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="File or folder; see --format.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR")],
    format_name: FormatOption = "folder",
    model: ModelOption = None,
    codec: CodecOption = None,
    scene: Annotated[str | None, typer.Option("--scene", help="Of every sample.")] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="A clip of the speaker before each sample.")
    ] = False,
    convention: Annotated[
        str, typer.Option("--convention", help="Prompt format: original or transformers.")
    ] = "original",
    speaker: Annotated[
        str | None, typer.Option("--speaker", help="Name, if none is given.")
    ] = None,
    max_seconds: Annotated[float, typer.Option("--max-seconds", min=0.2)] = 60.0,
    min_sample_rate: Annotated[int, typer.Option("--min-sample-rate", min=1, help="Hz.")] = 8000,
    max_bad: Annotated[
        float, typer.Option("--max-bad", min=0, max=1, help="Share of samples left out at most.")
    ] = 0.05,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
) -> None:
    """Check samples, encode their recordings once, and write what `train lora` reads."""
    _need_torch()
    from dataclasses import replace
    from typing import cast

    from higgs_rt.checkpoint.files import resolve_model
    from higgs_rt.prompt import Convention, check_convention
    from higgs_rt.training.lora.converters import rows_of
    from higgs_rt.training.lora.prepare import PrepareOptions, parse_all, prepare

    check_convention(convention)
    files = resolve_model(model, codec)
    samples = parse_all(
        rows_of(
            format_name,
            source,
            scene=scene,
            reference=reference,
            convention=cast("Convention", convention),
        )
    )
    if speaker is not None:
        samples = [replace(one, speaker=one.speaker or speaker) for one in samples]
    options = PrepareOptions(
        max_seconds=max_seconds,
        min_sample_rate=min_sample_rate,
        max_bad=max_bad,
        workers=workers,
    )
    report = prepare(samples, output, files.codec_dir, options)
    for line in report.lines():
        say(line)


@train_app.command("lora")
@reports_errors
def lora(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", help="See --template.")
    ] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print a configuration with every field.")
    ] = False,
) -> None:
    """Train an adapter; a run that was interrupted goes on.

    On several GPUs: torchrun --nproc-per-node N -m higgs_rt train lora CONFIG.yaml
    """
    from higgs_rt.training.lora.config import read_config
    from higgs_rt.training.lora.config import template as full_template

    if template:
        typer.echo(full_template(), nl=False)
        return
    if config is None:
        raise InvalidRequestError("[train lora] expected CONFIG.yaml or --template, got none")
    settings = read_config(config)
    _need_torch()
    from higgs_rt.training.lora.trainer import Trainer

    trainer = Trainer(settings, say=say)
    progress = trainer.train()
    validated = (
        f"best validation {progress.best:.4f} at step {progress.best_step}; adapters in best/ and "
        if math.isfinite(progress.best)
        else "never validated; adapter in "
    )
    trainer.say(
        f"{settings.output}: {progress.step} steps, {validated}last/"
        + (f"; {progress.skipped} steps skipped" if progress.skipped else "")
    )
    trainer.close()


@train_app.command("merge")
@reports_errors
def merge_adapter(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder in peft's format.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New folder.")],
    model: ModelOption = None,
    layout: Annotated[
        str | None, typer.Option("--layout", help="original or transformers; default: the model's.")
    ] = None,
) -> None:
    """Write a checkpoint with an adapter in it."""
    if layout not in (None, "original", "transformers"):
        raise InvalidRequestError(f"[--layout] expected original or transformers, got {layout!r}")
    _need_torch()
    from typing import cast

    from higgs_rt.checkpoint.files import DEMO_DIRECTORY
    from higgs_rt.training.lora.merge import Layout, merge

    with console().status("merging") as status:
        count = merge(
            DEMO_DIRECTORY if model is None else model,
            adapter,
            output,
            layout=cast("Layout | None", layout),
            step=status.update,
        )
    say(f"{output}: {count} tensors changed")


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise HiggsError(
            f"[train] expected torch (pip install 'higgs-rt[train]'), got: {error}"
        ) from None
