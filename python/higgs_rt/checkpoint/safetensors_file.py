"""Writing of safetensors files from numpy arrays, with bf16 and shards, without torch.

The format: an 8-byte little-endian header length, a JSON header (name -> dtype, shape, offsets),
then the raw little-endian data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_DTYPE_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def to_bfloat16_bits(values: FloatArray) -> npt.NDArray[np.uint16]:
    """Round fp32 (finite, any shape) to bf16, ties to even; returns the bits, same shape."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def _encode(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    if values.dtype == np.int32:
        return np.ascontiguousarray(values)
    if dtype == "bfloat16":
        return to_bfloat16_bits(values)
    return np.ascontiguousarray(values, dtype=np.dtype(dtype))


def write_safetensors(
    path: Path, tensors: Mapping[str, npt.NDArray[Any]], dtype: str = "float32"
) -> None:
    """Write `tensors` to one file: fp32 as `dtype` (float32, bfloat16, float16), int32 as it is."""
    if dtype not in _DTYPE_NAMES:
        raise ValueError(f"[dtype] expected one of {sorted(_DTYPE_NAMES)}, got {dtype!r}")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    encoded = {name: _encode(values, dtype) for name, values in tensors.items()}
    offset = 0
    for name, values in encoded.items():
        header[name] = {
            "dtype": "I32" if values.dtype == np.int32 else _DTYPE_NAMES[dtype],
            "shape": list(values.shape),
            "data_offsets": [offset, offset + values.nbytes],
        }
        offset += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for values in encoded.values():
            file.write(values.tobytes())


def write_sharded(
    directory: Path, tensors: Mapping[str, FloatArray], dtype: str = "float32", shards: int = 1
) -> None:
    """Write `model.safetensors`, or `shards` > 1 numbered files and `model.safetensors.index.json`.

    Tensors are dealt out in order, so each shard holds a contiguous run of names.
    """
    if not 1 <= shards <= len(tensors):
        raise ValueError(f"[shards] expected 1..{len(tensors)}, got {shards}")
    if shards == 1:
        write_safetensors(directory / "model.safetensors", tensors, dtype)
        return
    names = list(tensors)
    weight_map: dict[str, str] = {}
    total = 0
    for shard in range(shards):
        begin, end = shard * len(names) // shards, (shard + 1) * len(names) // shards
        file_name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[begin:end]}
        write_safetensors(directory / file_name, part, dtype)
        weight_map.update(dict.fromkeys(part, file_name))
        total += sum(values.size for values in part.values()) * (4 if dtype == "float32" else 2)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
