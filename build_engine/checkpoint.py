"""A checkpoint's tensors, memory-mapped under their canonical names, and its hash.

Canonical names are the original layout's (specification 2.1); both layouts are read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from build_engine.dtypes import OF_SAFETENSORS, STORAGE, Array, DType, convert
from build_engine.errors import BuildError
from higgs_rt.checkpoint.names import original_name

_HALVES = {
    "embed_tokens.weight": "embed_tokens.embedding",
    "audio_decoder_proj.audio_lm_head.weight": "audio_decoder_proj.audio_lm_head.linear",
}
_FNV_BASIS = 14695981039346656037
_FNV_PRIME = 1099511628211
_SAMPLE = 64
_PIECE = 1 << 22


@dataclass(frozen=True)
class Weight:
    """A named tensor; `values` has its shape, in the storage type of `dtype`."""

    name: str
    dtype: DType
    values: Array

    def as_dtype(self, dtype: DType) -> Weight:
        """The weight in `dtype`: itself (still mapped), or a converted copy."""
        return Weight(self.name, dtype, convert(self.values, self.dtype, dtype))


@dataclass(frozen=True)
class _Stored:
    """Where a tensor lies: `begin` and `end` are bytes in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def checkpoint_files(directory: Path) -> list[Path]:
    """The safetensors files that the checkpoint uses, by name, chosen as csrc/io/checkpoint.h does:
    released directories carry a consolidated copy beside the files of the index.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise BuildError(f"[{index}] expected an object weight_map, got {error!r}") from None
        return [directory / name for name in sorted(names)]
    if single.is_file():
        return [single]
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise BuildError(f"[{directory}] expected safetensors files, got none")
    return files


def _read_header(path: Path) -> tuple[bytes, dict[str, _Stored]]:
    """The JSON header as stored, and where every tensor lies."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 0 < length <= size - 8:
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            text = file.read(length)
        stored = {}
        for name, entry in json.loads(text).items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end <= size - 8 - length:
                raise ValueError(f"{name} at bytes {begin}..{end}")
            stored[name] = _Stored(
                path, entry["dtype"], tuple(entry["shape"]), begin + 8 + length, end + 8 + length
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"[{path}] expected a safetensors file, got {error}") from None
    return text, stored


class MappedCheckpoint:
    """The tensors of a language model directory."""

    def __init__(self, directory: Path) -> None:
        """Map every file; raises BuildError that names a file that is missing or malformed."""
        self.directory = directory
        self.files = checkpoint_files(directory)
        self._maps: dict[Path, Array] = {}
        self._stored: dict[str, _Stored] = {}
        for path in self.files:
            _, stored = _read_header(path)
            self._maps[path] = np.memmap(path, np.uint8, mode="r")
            for name, where in stored.items():
                self._stored.setdefault(original_name(_without_alias(name)), where)

    @property
    def weight_dtype(self) -> str:
        """`f32`, `f16`, `bf16`, or `mixed`."""
        found = {OF_SAFETENSORS.get(where.dtype, "mixed") for where in self._stored.values()}
        return found.pop() if len(found) == 1 else "mixed"

    @property
    def num_parameters(self) -> int:
        """Numbers in all tensors, text head included."""
        return sum(math.prod(where.shape) for where in self._stored.values())

    def get(self, name: str, shape: tuple[int, ...]) -> Weight:
        """The tensor with canonical `name`, mapped; only joined halves are copies."""
        half = _HALVES.get(name)
        if half is not None and f"{half}_frozen.weight" in self._stored:
            return self._joined(name, half, shape)
        return self._mapped(name, shape)

    def _mapped(self, name: str, shape: tuple[int, ...] | None) -> Weight:
        where = self._stored.get(name)
        if where is None:
            raise BuildError(f"[{self.directory}] expected tensor {name}, got none")
        dtype = OF_SAFETENSORS.get(where.dtype)
        if dtype is None:
            raise BuildError(
                f"[{self.directory}:{name}] expected F32, F16 or BF16, got {where.dtype}"
            )
        if shape is not None and where.shape != shape:
            raise BuildError(f"[{self.directory}:{name}] expected {shape}, got {where.shape}")
        data = self._maps[where.file][where.begin : where.end]
        if where.begin % np.dtype(STORAGE[dtype]).itemsize:
            data = data.copy()  # numpy views need whole items
        return Weight(name, dtype, data.view(STORAGE[dtype]).reshape(where.shape))

    def _joined(self, name: str, half: str, shape: tuple[int, ...]) -> Weight:
        """Training checkpoints may store a table in two halves, frozen rows first."""
        parts = [self._mapped(f"{half}_{part}.weight", None) for part in ("frozen", "trainable")]
        values = np.concatenate([part.values for part in parts])
        if parts[0].dtype != parts[1].dtype or values.shape != shape:
            raise BuildError(f"[{self.directory}:{half}] expected {shape}, got {values.shape}")
        return Weight(name, parts[0].dtype, values)


def _without_alias(name: str) -> str:
    """The transformers name of a head that stands under the original layout's."""
    alias = "audio_decoder_proj."
    return name.removeprefix(alias) if name.endswith("_lm_head.weight") else name


def _hashed_bytes(directory: Path) -> Iterator[bytes]:
    yield (directory / "config.json").read_bytes()
    for path in checkpoint_files(directory):
        header, stored = _read_header(path)
        yield path.name.encode() + b"\0" + path.stat().st_size.to_bytes(8, "little")
        yield header
        data: Any = np.memmap(path, np.uint8, mode="r")
        for _, where in sorted(stored.items(), key=lambda item: (item[1].begin, item[0])):
            size = where.end - where.begin
            for first in (0, size // 2, max(size - _SAMPLE, 0)):
                last = min(first + _SAMPLE, size)
                yield data[where.begin + first : where.begin + last].tobytes()


def fnv1a64(pieces: Iterator[bytes]) -> str:
    """`fnv1a64:` and 16 hex digits over all pieces."""
    value = _FNV_BASIS
    for piece in pieces:
        for byte in piece:
            value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"fnv1a64:{value:016x}"


def checkpoint_hash(directory: Path) -> str:
    """The hash that docs/tensorrt.md defines, of a language model or codec directory."""
    return fnv1a64(_hashed_bytes(directory))


def content_sha256(directory: Path) -> str:
    """64 hex digits over config.json and each safetensors file whole, its name and size in front.

    Unlike `checkpoint_hash` it reads every byte, about a second per GB.
    """
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for path in checkpoint_files(directory):
        digest.update(path.name.encode() + b"\0" + path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()
