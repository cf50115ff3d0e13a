"""The identity of a codec, as far as its codes are concerned."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from higgs_rt.errors import CheckpointError

Table = NDArray[np.float32]
# Tensor by stored name; None when there is none.
Reader = Callable[[str], Table | None]

# The names of each quantiser's tables in the transformers and in the original layout (spec 2.2).
_TABLES = (
    ("quantizer.quantizers.{}.codebook.embed", "quantizer.vq.layers.{}._codebook.embed"),
    ("quantizer.quantizers.{}.project_out.weight", "quantizer.vq.layers.{}.project_out.weight"),
)
_ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}


def codec_fingerprint(directory: str | Path) -> str:
    """SHA-256 (hex) of a codec's quantiser tables as fp32, in order of codebook.

    Codes are indices into these tables: codecs with equal tables understand each other's codes.
    Both layouts of one codec give the same fingerprint. Raises CheckpointError naming the file or
    the tensor that is missing. A `model.pth` needs torch.
    """
    directory = Path(directory)
    read = _reader(directory)
    digest = hashlib.sha256()
    codebook = 0
    while True:
        tables = [_first(read, [name.format(codebook) for name in names]) for names in _TABLES]
        if tables[0] is None:
            break
        for names, table in zip(_TABLES, tables, strict=True):
            if table is None:
                raise CheckpointError(
                    f"[{directory}] expected tensor {names[0].format(codebook)}, got none"
                )
            digest.update(f"{codebook}{list(table.shape)}".encode())
            digest.update(np.ascontiguousarray(table, dtype="<f4").tobytes())
        codebook += 1
    if codebook == 0:
        raise CheckpointError(f"[{directory}] expected quantiser tables, got none: not a codec")
    return digest.hexdigest()


def _first(read: Reader, names: list[str]) -> Table | None:
    found = (read(name) for name in names)
    return next((table for table in found if table is not None), None)


def _reader(directory: Path) -> Reader:
    files = list(_safetensors_files(directory))
    if not files:
        return _pickle_reader(directory)
    entries: dict[str, tuple[Path, dict[str, Any], int]] = {}
    for path in files:
        header, begin = _read_header(path)
        for name, entry in header.items():
            entries[name] = (path, entry, begin)

    def read(name: str) -> Table | None:
        return _read_tensor(name, *entries[name]) if name in entries else None

    return read


def _safetensors_files(directory: Path) -> Iterator[Path]:
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if single.is_file():
        yield single
    elif index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"[{index}] expected a weight map, got: {error!r}") from None
        yield from (directory / name for name in sorted(names))


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Entries by tensor name, and the byte at which the data begins."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < path.stat().st_size:
                raise ValueError(f"header of {length} bytes")
            header = json.loads(file.read(length))
            if not isinstance(header, dict):
                raise ValueError(f"header of type {type(header).__name__}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"[{path}] expected a safetensors file, got: {error}") from None
    header.pop("__metadata__", None)
    return header, 8 + length


def _read_tensor(name: str, path: Path, entry: dict[str, Any], begin: int) -> Table:
    try:
        dtype, shape = str(entry["dtype"]), [int(size) for size in entry["shape"]]
        first, last = (int(offset) for offset in entry["data_offsets"])
        size = math.prod(shape) * _ITEM_BYTES[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"[{path}:{name}] expected a float tensor, got: {error!r}") from None
    with path.open("rb") as file:
        file.seek(begin + first)
        data = file.read(last - first)
    if len(data) != size:
        raise CheckpointError(f"[{path}:{name}] expected {size} bytes, got {len(data)}")
    if dtype == "BF16":
        bits = np.frombuffer(data, "<u2").astype("<u4") << np.uint32(16)
        return np.asarray(bits.view("<f4").reshape(shape), np.float32)
    stored = np.frombuffer(data, "<f4" if dtype == "F32" else "<f2")
    return np.asarray(stored.reshape(shape), np.float32)


def _pickle_reader(directory: Path) -> Reader:
    if not (directory / "model.pth").is_file():
        raise CheckpointError(f"[{directory}] expected model.safetensors or model.pth, got neither")
    try:
        from higgs_rt.codec.tensor_store import TensorStore
    except ImportError as error:
        raise CheckpointError(
            f"[{directory}/model.pth] expected torch to read it, got: {error}"
        ) from None
    store = TensorStore.open(directory)
    return lambda name: store.get(name).numpy() if name in store.shapes else None
