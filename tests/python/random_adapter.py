"""Random LoRA adapters as peft stores them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

Tensors = dict[str, NDArray[np.float32]]


def write_random_adapter(
    directory: Path, model: Path, *, rank: int, seed: int, extra: Tensors | None = None
) -> Path:
    """An adapter of all linear weights of the layers of `model` (transformers layout).

    extra: further tensors by their name in the model, float32. Returns `directory`.
    """
    draw = np.random.default_rng(seed)
    tensors: Tensors = {}
    with safe_open(str(model / "model.safetensors"), "numpy") as stored:
        for name in stored.keys():  # noqa: SIM118 - not a dict
            if "_proj.weight" not in name or "layers." not in name:
                continue
            outputs, inputs = stored.get_slice(name).get_shape()
            module = f"base_model.model.{name.removesuffix('.weight')}"
            a = draw.normal(0, 0.5 / np.sqrt(inputs), (rank, inputs))
            b = draw.normal(0, 0.5 / np.sqrt(rank), (outputs, rank))
            tensors[f"{module}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"{module}.lora_B.weight"] = b.astype(np.float32)
    for name, tensor in (extra or {}).items():
        tensors[f"base_model.model.{name}"] = tensor
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(directory / "adapter_model.safetensors"))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory
