"""Finding a model's files on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from higgs_rt.errors import CheckpointError

DEMO_DIRECTORY = Path(__file__).resolve().parent.parent / "data" / "demo"

_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
# The original codec is a torch pickle; see `higgs_rt.codec.export` for the native decoder.
_CODEC_WEIGHTS = (*_SAFETENSORS, "model.pth")


@dataclass(frozen=True)
class ModelFiles:
    """A language model directory, its codec directory and its `tokenizer.json`."""

    model_dir: Path
    codec_dir: Path
    tokenizer: Path


def resolve_model(model: str | Path | None = None, codec: str | Path | None = None) -> ModelFiles:
    """Locate a model: a directory in either layout, or the packaged demo voice when `None`.

    `codec` defaults to `<model>/codec`. Raises CheckpointError listing everything that is missing.
    """
    model_dir = DEMO_DIRECTORY if model is None else Path(model).expanduser()
    codec_dir = model_dir / "codec" if codec is None else Path(codec).expanduser()
    tokenizer = model_dir / "tokenizer.json"
    if not model_dir.is_dir():
        found = "a file" if model_dir.exists() else "no such directory"
        raise CheckpointError(f"[model {model_dir}] expected a model directory, got {found}")
    missing = _missing(model_dir, _SAFETENSORS)
    if not tokenizer.is_file():
        missing.append(str(tokenizer))
    if codec_dir.is_dir():
        missing += _missing(codec_dir, _CODEC_WEIGHTS)
    else:
        missing.append(f"{codec_dir} (the codec's directory)")
    if missing:
        raise CheckpointError(f"[model {model_dir}] expected files {'; '.join(missing)}, got none")
    return ModelFiles(model_dir, codec_dir, tokenizer)


def _missing(directory: Path, weights: tuple[str, ...]) -> list[str]:
    """What `directory` lacks of `config.json` and one of the `weights` files."""
    missing = []
    if not (directory / "config.json").is_file():
        missing.append(str(directory / "config.json"))
    if not any((directory / name).is_file() for name in weights):
        missing.append(f"{directory / weights[0]} (or {', '.join(weights[1:])})")
    return missing
