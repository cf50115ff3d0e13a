"""The language model's tensors of a directory in either layout, under their transformers names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from higgs_rt.checkpoint.names import original_name, transformers_name
from higgs_rt.errors import CheckpointError

if TYPE_CHECKING:
    import torch

# Training checkpoints may hold these in two halves, frozen rows first (specification 2.1).
_HALVES = {
    "model.embed_tokens.weight": "embed_tokens.embedding",
    "text_lm_head.weight": "audio_decoder_proj.text_lm_head.linear",
    "audio_lm_head.weight": "audio_decoder_proj.audio_lm_head.linear",
}
_IGNORED = ("rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "audio_codebook_weights")


class StoredTensors:
    """Tensors by transformers name; read one by one, as torch tensors. Needs torch."""

    def __init__(self, directory: str | Path) -> None:
        """CheckpointError names a file that is missing or malformed."""
        self.directory = Path(directory)
        self._places: dict[str, tuple[Path, str]] = {}
        self._halves: dict[str, tuple[Path, str]] = {}
        self.files = checkpoint_files(self.directory)
        for path in self.files:
            for stored in list(self._open(path).keys()):
                if stored.endswith(_IGNORED):
                    continue
                if "_frozen." in stored or "_trainable." in stored:
                    self._halves[stored.removeprefix("model.")] = (path, stored)
                else:
                    self._places.setdefault(transformers_name(stored), (path, stored))
        joined = {name for name, half in _HALVES.items() if f"{half}_frozen.weight" in self._halves}
        self.names = set(self._places) | joined

    @property
    def is_original(self) -> bool:
        """Whether the names are the original layout's."""
        _, stored = self._places.get("model.norm.weight", (None, ""))
        return stored == original_name("model.norm.weight")

    def check(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """CheckpointError unless exactly the `wanted` tensors are stored."""
        missing = sorted(wanted.keys() - self.names)
        extra = sorted(self.names - wanted.keys())
        for what, names in (("tensor", missing), ("no tensor", extra)):
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                raise CheckpointError(
                    f"[{self.directory}] expected {what} {', '.join(names[:5])}{more}, "
                    f"got {'none' if names is missing else 'them'}"
                )

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """One tensor as stored; CheckpointError when it is missing or has another shape."""
        if name in self._places:
            path, stored = self._places[name]
            found: torch.Tensor = self._open(path).get_tensor(stored)
        elif name in self.names:
            import torch

            half = _HALVES[name]
            places = [self._halves[f"{half}_{part}.weight"] for part in ("frozen", "trainable")]
            found = torch.cat([self._open(path).get_tensor(stored) for path, stored in places])
        else:
            raise CheckpointError(f"[{self.directory}] expected tensor {name}, got none")
        if shape is not None and tuple(found.shape) != tuple(shape):
            raise CheckpointError(
                f"[{self.directory}: {name}] expected {list(shape)}, got {list(found.shape)}"
            )
        return found

    def _open(self, path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"[{path}] expected a safetensors file, got: {error}") from None


def checkpoint_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, chosen as csrc/io/checkpoint.h does."""
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"[{index}] expected an object weight_map, got {error!r}"
            ) from None
        return [directory / name for name in sorted(names)]
    files = [single] if single.is_file() else sorted(directory.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"[{directory}] expected safetensors files, got none")
    return files
