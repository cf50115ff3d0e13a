"""Dimensions of a language model, from config.json of either layout (specification 1.1).

`check_with_runtime` first lets the runtime's own strict reader accept the whole directory, so what
is read here is known to be a supported model.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from build_engine.errors import BuildError
from higgs_rt.codec.config import read_json

Layout = Literal["original", "transformers"]


@dataclass(frozen=True)
class RopeConfig:
    """llama3 scaling (specification 3.4); `factor` None means the base frequencies."""

    theta: float
    factor: float | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_positions: float = 0.0


@dataclass(frozen=True)
class ModelConfig:
    """`codebook_vocab` counts codes, BOS and EOS."""

    layout: Layout
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    text_ffn: int
    audio_ffn: int
    text_vocab: int
    num_codebooks: int
    codebook_vocab: int
    rms_norm_eps: float
    rope: RopeConfig

    @property
    def audio_rows(self) -> int:
        """Rows of the column embedding and of the audio head."""
        return self.num_codebooks * self.codebook_vocab

    def dimensions(self) -> dict[str, int]:
        """The manifest's object `model`."""
        return {name: value for name, value in asdict(self).items() if type(value) is int}


def _rope(model: dict[str, Any]) -> RopeConfig:
    joined = model.get("rope_parameters")
    theta = float((joined or model)["rope_theta"])
    scaling = joined or model.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type", "default")) == "default":
        return RopeConfig(theta)
    return RopeConfig(
        theta,
        float(scaling["factor"]),
        float(scaling["low_freq_factor"]),
        float(scaling["high_freq_factor"]),
        float(scaling["original_max_position_embeddings"]),
    )


def read_model_config(directory: Path) -> ModelConfig:
    """Read `config.json`; raises BuildError that names the field that is missing."""
    path = directory / "config.json"
    raw = read_json(path)
    original = raw.get("model_type") == "higgs_audio"
    try:
        model = raw["text_config"] if original else raw
        hidden, heads = int(model["hidden_size"]), int(model["num_attention_heads"])
        ffn = int(model["intermediate_size"])
        return ModelConfig(
            layout="original" if original else "transformers",
            num_layers=int(model["num_hidden_layers"]),
            hidden_size=hidden,
            num_heads=heads,
            num_kv_heads=int(model.get("num_key_value_heads", heads)),
            head_dim=int(model.get("head_dim") or hidden // heads),
            text_ffn=ffn,
            audio_ffn=int(raw["audio_ffn_intermediate_size"]) if original else ffn,
            text_vocab=int(model["vocab_size"]),
            num_codebooks=int(raw["audio_num_codebooks" if original else "num_codebooks"]),
            codebook_vocab=(
                int(raw["audio_codebook_size"]) + 2 if original else int(raw["codebook_size"])
            ),
            rms_norm_eps=float(model["rms_norm_eps"]),
            rope=_rope(model),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BuildError(
            f"[{path}] expected a Higgs Audio v2 configuration, got {error!r}"
        ) from None


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> npt.NDArray[np.float32]:
    """[head_dim / 2] fp32, in the arithmetic of the native engine (specification 3.4)."""
    one = np.float32(1)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    base = one / np.power(rope.theta, exponents.astype(np.float64)).astype(np.float32)
    if rope.factor is None:
        return base
    factor = np.float32(rope.factor)
    low, high = np.float32(rope.low_freq_factor), np.float32(rope.high_freq_factor)
    positions = np.float32(rope.original_positions)
    wavelength = one / base * np.float32(2 * math.pi)
    smooth = (one / wavelength * positions - low) / (high - low)
    blended = (one - smooth) * base / factor + smooth * base
    long = wavelength > np.float32(rope.original_positions / rope.low_freq_factor)
    short = wavelength < np.float32(rope.original_positions / rope.high_freq_factor)
    return np.where(long, base / factor, np.where(short, base, blended)).astype(np.float32)


def rope_tables(
    rope: RopeConfig, head_dim: int, positions: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """cos and sin, [positions, head_dim / 2] fp32 each."""
    frequencies = inverse_frequencies(rope, head_dim)
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies[None, :]
    wide = angles.astype(np.float64)
    return np.cos(wide).astype(np.float32), np.sin(wide).astype(np.float32)


def check_with_runtime(directory: Path) -> None:
    """Let the runtime's reader accept the model: every field, tensor name, shape and type.

    Raises CheckpointError that names what is wrong. Weights are mapped, not read.
    """
    from higgs_rt import _higgs_rt as native

    native.Probe(
        native.RuntimeConfig(
            str(directory), num_threads=1, max_batch=1, max_step_tokens=16, max_sequence=16
        )
    )
