"""An adapter put into a checkpoint: the same numbers as the native engine's `adapter_dir`.

weight + scale * sum over r of B[:, r] A[r, :] (r ascending) in float64, rounded once to fp32 and
then to the weight's dtype (csrc/model/adapter.h has the same sum); tensors trained in full replace
the checkpoint's.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from higgs_rt.checkpoint.names import original_name
from higgs_rt.checkpoint.tensors import StoredTensors
from higgs_rt.errors import CheckpointError

Layout = Literal["transformers", "original"]
Doubles = npt.NDArray[np.float64]

_PREFIX = "base_model.model."
_ROWS = 64  # of a weight at a time, so that sums stay in the cache
_SHARD_BYTES = 4 << 30
# Options of peft under which a weight would not become W + scale B A (csrc/model/adapter.cpp).
_REFUSED = (
    "bias",
    "fan_in_fan_out",
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "megatron_config",
    "alora_invocation_tokens",
)
# Values of init_lora_weights that change the base: an adapter that is not converted needs that one.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")


class StoredAdapter:
    """adapter_config.json and adapter_model.safetensors of a folder."""

    def __init__(self, directory: str | Path) -> None:
        """CheckpointError names the file and field that cannot be merged."""
        from safetensors.torch import load_file

        self.directory = Path(directory)
        path = self.directory / "adapter_config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            self.tensors = load_file(self.directory / "adapter_model.safetensors")
        except Exception as error:  # many kinds: files, JSON, safetensors
            raise CheckpointError(
                f"[{self.directory}] expected a LoRA adapter, got: {error}"
            ) from None
        if config.get("peft_type") != "LORA":
            raise CheckpointError(
                f"[{path}:peft_type] expected LORA, got {config.get('peft_type')}"
            )
        for name in _REFUSED:
            if config.get(name) not in (None, False, "", "none", [], {}):
                raise CheckpointError(
                    f"[{path}:{name}] expected a plain LoRA adapter without it, got {config[name]}"
                )
        begin = config.get("init_lora_weights")
        if isinstance(begin, str) and begin.startswith(_CHANGES_BASE):
            raise CheckpointError(
                f"[{path}:init_lora_weights] expected one that leaves the base weights as they "
                f"are, got {begin}"
            )
        self.rank = int(config["r"])
        root = math.sqrt(self.rank) if config.get("use_rslora") else self.rank
        self.scale = float(config["lora_alpha"]) / root
        self.adapted, self.full = set(), set()
        for stored in self.tensors:
            name = stored.removeprefix(_PREFIX)
            if name == stored:
                raise CheckpointError(
                    f"[{self.directory}] expected names that begin with {_PREFIX}, got {stored}"
                )
            if name.endswith(".lora_A.weight"):
                self.adapted.add(name.replace(".lora_A.", "."))
            elif not name.endswith(".lora_B.weight"):
                self.full.add(name)

    def merged(self, name: str, base: torch.Tensor) -> torch.Tensor:
        """The tensor `name` (transformers name) with the adapter in it; `base` if it has none."""
        if name in self.full:
            return self._tensor(_PREFIX + name, tuple(base.shape)).float().to(base.dtype)
        if name not in self.adapted:
            return base
        module = _PREFIX + name.removesuffix(".weight")
        outputs, inputs = base.shape
        a = _double(self._tensor(f"{module}.lora_A.weight", (self.rank, inputs)))
        b = _double(self._tensor(f"{module}.lora_B.weight", (outputs, self.rank)))
        merged = torch.empty_like(base)
        total, product = np.empty((_ROWS, inputs)), np.empty((_ROWS, inputs))
        for begin in range(0, outputs, _ROWS):
            rows = b[begin : begin + _ROWS]
            here, scratch = total[: len(rows)], product[: len(rows)]
            here[:] = 0.0
            for r in range(self.rank):
                here += np.multiply(rows[:, r : r + 1], a[r], out=scratch)
            here *= self.scale
            here += _double(base[begin : begin + _ROWS])
            single = torch.from_numpy(here.astype(np.float32))
            merged[begin : begin + _ROWS] = single.to(base.dtype)
        return merged

    def _tensor(self, stored: str, shape: tuple[int, ...]) -> torch.Tensor:
        found = self.tensors.get(stored)
        if found is None or tuple(found.shape) != shape:
            got = "none" if found is None else list(found.shape)
            raise CheckpointError(f"[{self.directory}: {stored}] expected {list(shape)}, got {got}")
        return found


def _double(tensor: torch.Tensor) -> Doubles:
    return np.asarray(tensor.double().numpy(), np.float64)


def merge(
    model_dir: Path,
    adapter_dir: Path,
    output: Path,
    *,
    layout: Layout | None = None,
    step: Callable[[str], None] = lambda name: None,
) -> int:
    """Writes `model_dir` with the adapter merged to `output`, in `layout` (default: the same).

    Everything else of the directory (tokenizer, settings, codec) is copied. Returns the number of
    tensors that changed. `step` is called with each tensor's name. CheckpointError names what does
    not fit; `output` must not exist.
    """
    if output.exists():
        raise CheckpointError(f"[{output}] expected a folder that does not exist yet, got one")
    stored = StoredTensors(model_dir)
    adapter = StoredAdapter(adapter_dir)
    extra = sorted((adapter.adapted | adapter.full) - stored.names)
    if extra:
        raise CheckpointError(
            f"[{adapter_dir}] expected tensors of {model_dir} only, got one for {extra[0]}"
        )
    ours: Layout = "original" if stored.is_original else "transformers"
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    used = {path.name for path in stored.files} | {"model.safetensors.index.json"}

    def weights(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).resolve() == model_dir.resolve()
        return {n for n in names if inside and (n in used or n.endswith(".safetensors"))}

    shutil.copytree(model_dir, partial, ignore=weights)
    if layout is not None and layout != ours:
        _write_config(model_dir, partial, layout)
    _write(stored, adapter, partial, layout or ours, step)
    partial.rename(output)
    return len(adapter.adapted | adapter.full)


def _write(
    stored: StoredTensors,
    adapter: StoredAdapter,
    output: Path,
    layout: Layout,
    step: Callable[[str], None],
) -> None:
    """Tensors in shards of at most 4 GiB, one shard in memory at a time."""
    from safetensors.torch import save_file

    shards: list[list[str]] = []
    shard: dict[str, torch.Tensor] = {}
    total = 0

    def flush() -> None:
        save_file(shard, output / f"shard-{len(shards)}", metadata={"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name in sorted(stored.names):
        tensor = adapter.merged(name, stored.tensor(name)).contiguous()
        size = tensor.numel() * tensor.element_size()
        held = sum(t.numel() * t.element_size() for t in shard.values())
        if shard and held + size > _SHARD_BYTES:
            flush()
        shard[original_name(name) if layout == "original" else name] = tensor
        total += size
        step(name)
    flush()
    if len(shards) == 1:
        (output / "shard-0").rename(output / "model.safetensors")
        return
    places = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (output / f"shard-{number}").rename(output / file)
        places.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (output / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def _write_config(model_dir: Path, output: Path, layout: Layout) -> None:
    """config.json of the other layout, with the released model's other fields."""
    from higgs_rt.checkpoint.random_checkpoint import LmShape, original_config, transformers_config
    from higgs_rt.training.lora.model import transformers_fields

    fields: dict[str, Any] = transformers_fields(model_dir)
    shape = LmShape(
        hidden=fields["hidden_size"],
        layers=fields["num_hidden_layers"],
        heads=fields["num_attention_heads"],
        kv_heads=fields["num_key_value_heads"],
        head_dim=fields["head_dim"],
        ffn=fields["intermediate_size"],
        vocab=fields["vocab_size"],
        codebook_size=fields["codebook_size"] - 2,
        num_codebooks=fields["num_codebooks"],
        rms_norm_eps=fields["rms_norm_eps"],
    )
    stored = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    dtype = stored.get("dtype") or stored.get("torch_dtype") or "bfloat16"
    make = transformers_config if layout == "transformers" else original_config
    made = make(shape, dtype)
    # The token ids of this model: special_token_id knows the released ones and random models only.
    if layout == "transformers":
        made.update(
            {name: fields[name] for name in made if name.endswith("_id") and name in fields}
        )
    else:
        made["audio_out_token_idx"] = fields["audio_token_id"]
        made["audio_out_bos_token_id"] = fields["audio_bos_token_id"]
        made["pad_token_id"] = fields["pad_token_id"]
        made["audio_in_token_idx"] = fields["audio_token_id"] - 1
        made["audio_eos_token_id"] = fields["audio_bos_token_id"] - 1
    (output / "config.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
