"""manifest.json of a plan folder: written after a build, checked before a plan is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from build_engine.backend import Package
from build_engine.checkpoint import MappedCheckpoint, checkpoint_hash, content_sha256
from build_engine.codec import context_frames
from build_engine.definition import Definition
from build_engine.dtypes import item_size
from build_engine.errors import BuildError
from build_engine.model_config import ModelConfig
from build_engine.options import CODEC_MAX_BATCH, CODEC_MAX_FRAMES, DecoderOptions
from build_engine.plan import BuiltPlan, Profile
from higgs_rt.codec.config import CodecConfig

FILE = "manifest.json"
FORMAT_REVISION = 1
TENSOR_REVISION = 1

Entry = dict[str, Any]


def _bindings(definition: Definition) -> list[Entry]:
    """Inputs, then outputs; weights that are inputs are listed apart."""
    found = []
    for io, tensors in (("input", definition.inputs), ("output", definition.outputs)):
        for name, (dtype, shape) in tensors.items():
            found.append({"name": name, "io": io, "dtype": dtype, "shape": list(shape)})
    return found


def _profiles(profiles: list[Profile]) -> list[Entry]:
    return [
        {"name": profile.name, "dims": {name: list(dim) for name, dim in profile.dims.items()}}
        for profile in profiles
    ]


def _plan_fields(built: BuiltPlan, network_hash: str, directory: Path) -> Entry:
    return {
        "plan": built.path.name,
        "plan_bytes": built.plan_bytes,
        "network_hash": network_hash,
        "checkpoint_hash": checkpoint_hash(directory),
        "checkpoint_sha256": content_sha256(directory),
    }


def decoder_entry(
    package: Package,
    config: ModelConfig,
    options: DecoderOptions,
    checkpoint: MappedCheckpoint,
    definition: Definition,
    profiles: list[Profile],
    built: BuiltPlan,
    network_hash: str,
) -> Entry:
    """The manifest's object `decoder`."""
    per_position = config.num_kv_heads * config.head_dim * item_size(options.dtype)
    slot_bytes = 2 * config.num_layers * per_position * options.max_seq_len
    return _plan_fields(built, network_hash, checkpoint.directory) | {
        "layout": config.layout,
        "weight_dtype": checkpoint.weight_dtype,
        "num_parameters": checkpoint.num_parameters,
        "precision": options.precision,
        "weights": options.weights,
        "attention": package.attention,
        "model": config.dimensions(),
        "limits": options.limits(),
        "kv": {"dtype": options.dtype, "capacity": options.max_seq_len, "slot_bytes": slot_bytes},
        "profiles": _profiles(profiles),
        "bindings": _bindings(definition),
        "weight_inputs": [
            {"name": name, "dtype": dtype, "shape": list(weight.values.shape)}
            for name, (weight, dtype) in definition.weight_inputs.items()
        ],
    }


def codec_entry(
    config: CodecConfig,
    directory: Path,
    definition: Definition,
    profiles: list[Profile],
    built: BuiltPlan,
    network_hash: str,
) -> Entry:
    """The manifest's object `codec`."""
    return _plan_fields(built, network_hash, directory) | {
        "precision": "fp32",
        "model": {
            "num_codebooks": config.num_codebooks,
            "codebook_size": config.codebook_size,
            "sample_rate": config.sample_rate,
            "samples_per_frame": config.hop,
            "context_frames": context_frames(config.ratios),
        },
        "limits": {"max_batch": CODEC_MAX_BATCH, "max_frames": CODEC_MAX_FRAMES},
        "profiles": _profiles(profiles),
        "bindings": _bindings(definition),
    }


def header(package: Package, targets: tuple[str, ...]) -> Entry:
    """What all plans of a folder share."""
    from higgs_rt import __version__

    return {
        "format_revision": FORMAT_REVISION,
        "tensor_revision": TENSOR_REVISION,
        "higgs_rt_version": __version__,
        "backend": package.backend,
        "backend_version": package.version,
        "targets": list(targets),
    }


def write_manifest(directory: Path, manifest: Entry) -> Path:
    """Write the file whole or not at all."""
    path = directory / FILE
    part = path.with_name(f"{FILE}.part")
    try:
        part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise BuildError(f"[{path}] expected a file that can be written, got: {error}") from None
    return path


def read_manifest(directory: Path) -> Entry:
    """Read and check the file itself: revisions, and each plan's file and size.

    Raises BuildError that names the field, what is expected and what is there.
    """
    path = directory / FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BuildError(
            f"[{directory}] expected {FILE} (python -m build_engine writes it), got none"
        ) from None
    except (OSError, ValueError) as error:
        raise BuildError(f"[{path}] expected a JSON file, got: {error}") from None
    if not isinstance(manifest, dict):
        raise BuildError(f"[{path}] expected an object, got {type(manifest).__name__}")
    for name, wanted in (
        ("format_revision", FORMAT_REVISION),
        ("tensor_revision", TENSOR_REVISION),
    ):
        require(path, manifest, name, wanted)
    plans = [name for name in ("decoder", "codec") if name in manifest]
    if not plans:
        raise BuildError(f"[{path}] expected decoder or codec, got neither")
    for name in plans:
        _check_plan(path, name, manifest[name])
    return manifest


def require(path: Path, entry: Entry, name: str, wanted: Any) -> None:
    """Raise BuildError unless field `name` of `entry` has the value `wanted`."""
    found = entry.get(name, "none") if isinstance(entry, dict) else "no object"
    if found != wanted:
        raise BuildError(f"[{path}:{name}] expected {wanted}, got {found}")


def _check_plan(path: Path, name: str, entry: Any) -> None:
    plan = entry.get("plan") if isinstance(entry, dict) else None
    if not isinstance(plan, str) or "/" in plan or "\\" in plan:
        raise BuildError(f"[{path}:{name}.plan] expected a file name, got {plan!r}")
    file = path.parent / plan
    if not file.is_file():
        raise BuildError(f"[{path}:{name}.plan] expected the file {plan}, got none")
    if file.stat().st_size != entry.get("plan_bytes"):
        raise BuildError(
            f"[{path}:{name}.plan_bytes] expected {plan} of {entry.get('plan_bytes')} bytes, got "
            f"{file.stat().st_size}: the plan is truncated or was replaced"
        )


def decoder_options(path: Path, entry: Entry) -> DecoderOptions:
    """The options with which the decoder of a manifest was built."""
    try:
        limits = entry["limits"]
        return DecoderOptions(
            precision=entry["precision"],
            weights=entry["weights"],
            max_batch=limits["max_batch"],
            max_seq_len=limits["max_seq_len"],
            max_prefill=limits["max_prefill"],
            max_prompt_table=limits["max_prompt_table"],
        )
    except (KeyError, TypeError) as error:
        raise BuildError(f"[{path}] expected field {error} of the decoder, got none") from None
