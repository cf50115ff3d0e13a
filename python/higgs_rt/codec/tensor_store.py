"""Reading a codec checkpoint's tensors by canonical name, from either layout, as fp32 torch."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from higgs_rt.codec.config import CodecConfig, Shapes
from higgs_rt.codec.names import (
    POS_CONV,
    Shape,
    decoder_tensors,
    encoder_tensors,
    is_unused,
    original_name,
    stored_weight_names,
    unused_tensors,
)
from higgs_rt.errors import CheckpointError

_SAFETENSORS = "model.safetensors"
_PICKLE = "model.pth"


class TensorStore:
    """The stored tensors of one codec directory: shapes by stored name, data on request."""

    def __init__(self, shapes: Shapes, read: Callable[[str], torch.Tensor], directory: Path):
        self.shapes = shapes
        self.directory = directory
        self._read = read

    @staticmethod
    def open(directory: Path) -> TensorStore:
        """Open `model.pth`, `model.safetensors` or the files of `model.safetensors.index.json`.

        Raises CheckpointError naming the file that is missing or unreadable.
        """
        if (directory / _PICKLE).is_file():
            return _open_pickle(directory / _PICKLE)
        index = directory / f"{_SAFETENSORS}.index.json"
        if (directory / _SAFETENSORS).is_file():
            return _open_safetensors(directory, [directory / _SAFETENSORS])
        if index.is_file():
            return _open_safetensors(directory, _shards(index))
        raise CheckpointError(
            f"[{directory}] expected {_SAFETENSORS}, {index.name} or {_PICKLE}, got none of them"
        )

    def get(self, name: str) -> torch.Tensor:
        """The tensor with stored name `name`, fp32."""
        tensor = self._read(name)
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"[{self.directory}:{name}] expected a floating point tensor, got {tensor.dtype}"
            )
        return tensor.to(torch.float32)


def _open_pickle(path: Path) -> TensorStore:
    try:
        # The released pickle is known to hold BytesIO objects beside its tensors; they are skipped.
        with torch.serialization.safe_globals([io.BytesIO]):
            state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"[{path}] expected a torch state dict, got: {first_line}") from None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"[{path}] expected a torch state dict, got {type(state).__name__}")
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return TensorStore(shapes, tensors.__getitem__, path.parent)


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"[{index}] expected an object weight_map, got: {error!r}") from None
    for name in names:
        if not (index.parent / name).is_file():
            raise CheckpointError(f"[{index}] expected file {name}, got none")
    return [index.parent / name for name in names]


def _open_safetensors(directory: Path, files: list[Path]) -> TensorStore:
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    opened: dict[str, Any] = {}
    for file in files:
        try:
            handle: Any = safe_open(file, framework="pt")
            for name in handle.keys():  # noqa: SIM118 (not a dict)
                shapes[name] = tuple(handle.get_slice(name).get_shape())
                opened[name] = handle
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"[{file}] expected a safetensors file, got: {error}") from None
    return TensorStore(shapes, lambda name: opened[name].get_tensor(name), directory)


def stored_parts(name: str, shapes: Shapes, where: object) -> tuple[str, ...]:
    """The stored names of one tensor: itself, or its weight-norm (g, v) pair.

    `name` is a plain name in the stored layout. Raises CheckpointError when there is none.
    """
    candidates = stored_weight_names(name) if name.endswith(".weight") else ((name,),)
    for parts in candidates:
        present = [part for part in parts if part in shapes]
        if len(present) == len(parts):
            return parts
        if present:
            missing = next(part for part in parts if part not in shapes)
            raise CheckpointError(f"[{where}] expected tensor {missing}, got none")
    raise CheckpointError(f"[{where}] expected tensor {name}, got none")


def _folded(store: TensorStore, parts: tuple[str, ...], per_tap: bool) -> torch.Tensor:
    """`g * v / ||v||`; the norm is over every dim but 0, or over dims 0 and 1 if `per_tap`."""
    g, v = (store.get(part) for part in parts)
    kept = v.dim() - 1 if per_tap else 0
    expected = tuple(size if dim == kept else 1 for dim, size in enumerate(v.shape))
    if tuple(g.shape) != expected:
        raise CheckpointError(
            f"[{store.directory}:{parts[0]}] expected shape {expected}, got {tuple(g.shape)}"
        )
    dims = [dim for dim in range(v.dim()) if dim != kept]
    folded: torch.Tensor = g * v / torch.linalg.vector_norm(v, dim=dims, keepdim=True)
    return folded


def _require_known(store: TensorStore, config: CodecConfig) -> None:
    """Refuse tensors that no part of the codec has, naming the first."""
    canonical = encoder_tensors(config) | decoder_tensors(config) | unused_tensors(config)
    known: set[str] = set()
    for name in canonical:
        kept = original_name(name, len(config.ratios)) if config.layout == "original" else name
        known.update(part for parts in stored_weight_names(kept) for part in parts)
        known.add(kept)
    extra = sorted(name for name in store.shapes if name not in known and not is_unused(name))
    if extra:
        raise CheckpointError(
            f"[{store.directory}] expected no further tensors, got {extra[0]}"
            + (f" and {len(extra) - 1} more" if len(extra) > 1 else "")
        )


def load_tensors(
    store: TensorStore, config: CodecConfig, wanted: Mapping[str, Shape]
) -> dict[str, torch.Tensor]:
    """Canonical name -> fp32 tensor for each of `wanted`, weight norms folded.

    Raises CheckpointError that names the missing, extra or misshapen tensor.
    """
    _require_known(store, config)
    tensors = {}
    for name, shape in wanted.items():
        kept = original_name(name, len(config.ratios)) if config.layout == "original" else name
        parts = stored_parts(kept, store.shapes, store.directory)
        stored_shape = store.shapes[parts[-1]]
        if stored_shape != shape:
            raise CheckpointError(
                f"[{store.directory}:{parts[-1]}] expected shape {shape}, got {stored_shape}"
            )
        if len(parts) == 1:
            tensors[name] = store.get(kept)
        else:
            tensors[name] = _folded(store, parts, per_tap=name == f"{POS_CONV}.weight")
    return tensors
