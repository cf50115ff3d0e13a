"""The command line: `python -m build_engine --model DIR --output DIR`, `… verify DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from build_engine.backend import Backend
from build_engine.build import build
from build_engine.console import ConsoleReport, show_checks
from build_engine.dtypes import Precision
from build_engine.errors import BuildError, VerifyError
from build_engine.options import BuildOptions, Component, DecoderOptions, WeightMode
from higgs_rt.cli.console import reports_errors, say

app = typer.Typer(
    name="build_engine",
    help="TensorRT plans from a Higgs Audio v2 checkpoint.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
_DEFAULTS = DecoderOptions()


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise BuildError(f"[--{name}] expected {', '.join(choices)}, got {value!r}")
    return value


@app.callback(invoke_without_command=True)
@reports_errors
def _build(
    context: typer.Context,
    model: Annotated[Path | None, typer.Option(help="Checkpoint, either layout.")] = None,
    output: Annotated[Path | None, typer.Option(help="Plan folder; DIR/tensorrt is found.")] = None,
    codec: Annotated[Path | None, typer.Option(help="Codec; default: MODEL/codec.")] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="LoRA adapter: OUTPUT becomes a new model folder, merged, with plans in tensorrt/."
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt_rtx; default: what is installed.")
    ] = None,
    component: Annotated[str, typer.Option(help="decoder, codec or all.")] = "all",
    precision: Annotated[str, typer.Option(help="bf16, fp16 or fp32.")] = _DEFAULTS.precision,
    weights: Annotated[
        str, typer.Option(help="constants: in the plan; inputs: bound at run time.")
    ] = _DEFAULTS.weights,
    targets: Annotated[
        str, typer.Option(help="Compute capabilities (sm89,sm120), or current.")
    ] = "current",
    max_batch: Annotated[int, typer.Option(help="KV slots.")] = _DEFAULTS.max_batch,
    max_seq_len: Annotated[
        int, typer.Option(help="Positions of one sequence.")
    ] = _DEFAULTS.max_seq_len,
    max_prefill: Annotated[
        int, typer.Option(help="New positions of a slot in one call.")
    ] = _DEFAULTS.max_prefill,
    max_prompt_table: Annotated[
        int, typer.Option(help="Prompt-table rows of one call.")
    ] = _DEFAULTS.max_prompt_table,
    memory_check: Annotated[
        bool, typer.Option(help="Refuse a build that needs more memory than is free.")
    ] = True,
) -> None:
    """Build plans."""
    if context.invoked_subcommand is not None:
        return
    if model is None or output is None:
        raise BuildError("[build_engine] expected --model DIR and --output DIR; --help says more")
    if not model.is_dir():
        raise BuildError(f"[--model] expected a directory, got {model}")
    options = BuildOptions(
        backend=cast(
            "Backend | None",
            backend and _one_of("backend", backend, ("tensorrt", "tensorrt_rtx")),
        ),
        targets=tuple(name.strip().lower() for name in targets.split(",")),
        component=cast(Component, _one_of("component", component, ("decoder", "codec", "all"))),
        decoder=DecoderOptions(
            precision=cast(Precision, precision),
            weights=cast(WeightMode, weights),
            max_batch=max_batch,
            max_seq_len=max_seq_len,
            max_prefill=max_prefill,
            max_prompt_table=max_prompt_table,
        ),
    )
    if adapter is not None:
        model, output = _merged(model, adapter, output)
    with ConsoleReport() as report:
        build(
            model,
            codec or model / "codec",
            output,
            options,
            report,
            check_available_memory=memory_check,
        )
    say(f"wrote {output}; python -m build_engine verify {output} --model {model}")


def _merged(model: Path, adapter: Path, output: Path) -> tuple[Path, Path]:
    """(the merged model, which a plan's hash must belong to, and its plan folder)."""
    try:
        from higgs_rt.training.lora.merge import merge
    except ImportError as error:
        raise BuildError(
            f"[--adapter] expected torch (pip install 'higgs-rt[train]'), got: {error}"
        ) from None
    merge(model, adapter, output)
    return output, output / "tensorrt"


@app.command()
@reports_errors
def verify(
    plans: Annotated[Path, typer.Argument(help="Plan folder.")],
    model: Annotated[
        Path | None, typer.Option(help="Its checkpoint; default: the folder that holds PLANS.")
    ] = None,
    codec: Annotated[Path | None, typer.Option(help="Codec; default: MODEL/codec.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Also run the decoder's plan there: cuda[:N].")
    ] = None,
) -> None:
    """Compare the networks of a plan folder with the native engine, layer by layer, in torch."""
    try:
        from build_engine.verify import verify as run
    except ImportError as error:
        raise BuildError(
            f"[verify] expected torch (pip install 'higgs-rt[voices]'), got: {error}"
        ) from None
    model = model or plans.resolve().parent
    manifest, checks = run(plans, model, codec or model / "codec", device)
    say(
        f"{manifest['backend']} {manifest['backend_version']}, {', '.join(manifest['targets'])}: "
        "network definitions executed in torch against the native CPU engine"
    )
    show_checks(checks)
    wrong = [check.what for check in checks if not check.passed]
    if wrong:
        raise VerifyError(
            f"[verify] expected every difference in its bound, got {', '.join(wrong)}"
        )
