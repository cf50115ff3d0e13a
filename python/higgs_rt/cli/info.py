"""`higgs-rt info`: the build, the devices and the model."""

from __future__ import annotations

import json
import platform
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from higgs_rt.cli.console import (
    CodecOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    reports_errors,
)

_MODEL_FIELDS = (
    "model_dir",
    "layout",
    "weight_dtype",
    "device",
    "engine",
    "cpu_isa",
    "num_threads",
    "num_parameters",
    "num_layers",
    "hidden_size",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "text_vocab",
    "num_codebooks",
    "codebook_vocab",
    "has_codec",
    "sample_rate",
    "samples_per_frame",
    "max_sequence",
    "block_tokens",
    "num_blocks",
    "kv_bytes",
    "weight_bytes",
    "workspace_bytes",
    "codec_bytes",
    "graph_bytes",
    "device_bytes",
)
# What an installation may lack, and what for.
_EXTRAS = {
    "torch": "encodes recordings",
    "jiwer": "evaluation",
    "pocketsphinx": "evaluation",
    "transformers": "other recognisers",
}


@reports_errors
def info(
    model: ModelOption = None,
    codec: CodecOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Build, optional packages, and the model once loaded."""
    facts: dict[str, Any] = {"build": _build()}
    if not as_json:
        _show(facts)
    from higgs_rt.runtime import Runtime

    with Runtime.load(model, codec, device, threads=threads) as runtime:
        loaded = {
            "model": {field: getattr(runtime.info, field) for field in _MODEL_FIELDS},
            "voices": {"names": runtime.voices.names(), "folder": str(runtime.voices.directory)},
        }
    if as_json:
        typer.echo(json.dumps({**facts, **loaded}, indent=1))
    else:
        _show(loaded)


def _build() -> dict[str, Any]:
    import higgs_rt
    from higgs_rt._higgs_rt import build_info

    facts = {
        "version": higgs_rt.__version__,
        "native": build_info(),
        "python": platform.python_version(),
    }
    for package, purpose in _EXTRAS.items():
        facts[package] = f"{'yes' if find_spec(package) else 'no'} ({purpose})"
    return facts


def _show(sections: dict[str, dict[str, Any]]) -> None:
    for title, facts in sections.items():
        typer.echo(title)
        for name, value in facts.items():
            shown = ", ".join(value) if isinstance(value, list) else value
            typer.echo(f"  {name:<18}{shown}")
