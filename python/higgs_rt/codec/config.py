"""Codec dimensions, read from either checkpoint layout (spec 1.3)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from higgs_rt.errors import CheckpointError

Layout = Literal["transformers", "original"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class SemanticConfig:
    """The HuBERT model whose averaged hidden states are the semantic features (spec 8.4)."""

    hidden: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    pos_kernel: int = 128
    pos_groups: int = 16
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True)
class CodecConfig:
    """Dimensions of the codec; rates in Hz, ratios in samples, `latent` is the acoustic width."""

    encoder_hidden: int = 64
    decoder_hidden: int = 1024
    latent: int = 256
    ratios: tuple[int, ...] = (8, 5, 4, 2, 3)
    codebook_size: int = 1024
    codebook_dim: int = 64
    num_codebooks: int = 8
    sample_rate: int = 24000
    semantic_sample_rate: int = 16000
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    layout: Layout = "transformers"

    @property
    def hop(self) -> int:
        """Samples of one frame at `sample_rate` (960)."""
        return math.prod(self.ratios)

    @property
    def fused(self) -> int:
        """Width of the quantised embedding: acoustic latent, then semantic features."""
        return self.latent + self.semantic.hidden

    @property
    def semantic_stride(self) -> int:
        """HuBERT frames per codec frame (2): HuBERT makes one frame per 320 samples."""
        factor = self.sample_rate / self.semantic_sample_rate
        return int(self.hop / factor / math.prod(self.semantic.conv_stride))

    @staticmethod
    def read(path: Path, shapes: Shapes) -> CodecConfig:
        """Parse `config.json` at `path`; `shapes` holds the stored tensors' shapes by stored name.

        The number of codebooks is counted from the tensors, because the released configurations
        disagree about it. The original layout's file has no network widths: these also come from
        the tensors. Raises CheckpointError that names the file and the field.
        """
        raw = read_json(path)
        if raw.get("model_type") == "higgs_audio_v2_tokenizer":
            config = _from_transformers(raw, shapes, path)
        elif "ratios" in raw:
            config = _from_original(raw, shapes, path)
        else:
            raise CheckpointError(
                f"[{path}] expected model_type 'higgs_audio_v2_tokenizer' or the original "
                f"codec's field 'ratios', got fields {sorted(raw)[:8]}"
            )
        _check(config, path)
        return config


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError when it is missing or not an object."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"[{path}] expected a configuration file, got none") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"[{path}] expected a JSON file, got: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"[{path}] expected a JSON object, got {type(raw).__name__}")
    return raw


class _Fields:
    """Typed access to a JSON object's fields, with errors that name file and field."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self._raw = raw
        self._where = where

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._raw.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"[{self._where}:{name}] expected an integer >= 1, got {value!r}")
        return value

    def integers(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        value = self._raw.get(name, default)
        good = isinstance(value, list | tuple) and len(value) > 0
        if not good or not all(isinstance(item, int) and item >= 1 for item in value or ()):
            raise CheckpointError(f"[{self._where}:{name}] expected integers >= 1, got {value!r}")
        return tuple(value or ())

    def must_equal(self, name: str, supported: Any) -> None:
        value = self._raw.get(name, supported)
        value = tuple(value) if isinstance(value, list) else value
        if value != supported:
            raise CheckpointError(f"[{self._where}:{name}] expected {supported!r}, got {value!r}")


def _count(shapes: Shapes, prefix: str, path: Path) -> int:
    """Number of consecutive indices 0..n-1 that follow `prefix` in the tensor names."""
    found = {name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)}
    indices = {int(text) for text in found if text.isdigit()}
    missing = [index for index in range(max(indices, default=-1) + 1) if index not in indices]
    if not indices or missing:
        raise CheckpointError(
            f"[{path.parent}] expected tensors {prefix}0.. without gaps, got "
            + (f"none at index {missing[0]}" if missing else "none")
        )
    return len(indices)


def _from_transformers(raw: dict[str, Any], shapes: Shapes, path: Path) -> CodecConfig:
    top = _Fields(raw, path.name)
    acoustic = _Fields(raw.get("acoustic_model_config") or {}, f"{path.name}:acoustic_model_config")
    for name in ("strides", "channel_ratios", "block_dilations"):
        top.must_equal(name, (1, 1))
    for name in ("kernel_size", "unit_kernel_size"):
        top.must_equal(name, 3)
    ratios = acoustic.integers("downsampling_ratios")
    acoustic.must_equal("upsampling_ratios", ratios)
    released = CodecConfig()
    return CodecConfig(
        encoder_hidden=acoustic.integer("encoder_hidden_size", released.encoder_hidden),
        decoder_hidden=acoustic.integer("decoder_hidden_size", released.decoder_hidden),
        latent=acoustic.integer("hidden_size", released.latent),
        ratios=ratios,
        codebook_size=top.integer("codebook_size", released.codebook_size),
        codebook_dim=top.integer("codebook_dim", released.codebook_dim),
        num_codebooks=_count(shapes, "quantizer.quantizers.", path),
        sample_rate=top.integer("sample_rate", released.sample_rate),
        semantic_sample_rate=top.integer("semantic_sample_rate", released.semantic_sample_rate),
        semantic=_hubert(raw.get("semantic_model_config") or {}, path),
        layout="transformers",
    )


def _hubert(raw: dict[str, Any], path: Path) -> SemanticConfig:
    """A `HubertConfig` object; its absent fields have HuBERT-base's values."""
    hubert = _Fields(raw, f"{path.name}:semantic_model_config")
    for name, supported in (
        ("feat_extract_norm", "group"),
        ("feat_extract_activation", "gelu"),
        ("hidden_act", "gelu"),
        ("do_stable_layer_norm", False),
        ("conv_bias", False),
        ("feat_proj_layer_norm", True),
        ("conv_pos_batch_norm", False),
    ):
        hubert.must_equal(name, supported)
    base = SemanticConfig()
    return SemanticConfig(
        hidden=hubert.integer("hidden_size", base.hidden),
        layers=hubert.integer("num_hidden_layers", base.layers),
        heads=hubert.integer("num_attention_heads", base.heads),
        ffn=hubert.integer("intermediate_size", base.ffn),
        conv_dim=hubert.integers("conv_dim", base.conv_dim),
        conv_kernel=hubert.integers("conv_kernel", base.conv_kernel),
        conv_stride=hubert.integers("conv_stride", base.conv_stride),
        pos_kernel=hubert.integer("num_conv_pos_embeddings", base.pos_kernel),
        pos_groups=hubert.integer("num_conv_pos_embedding_groups", base.pos_groups),
        layer_norm_eps=float(raw.get("layer_norm_eps", base.layer_norm_eps)),
    )


def _from_original(raw: dict[str, Any], shapes: Shapes, path: Path) -> CodecConfig:
    top = _Fields(raw, path.name)
    top.must_equal("semantic_techer", "hubert_base_general")

    def dim(name: str, axis: int) -> int:
        for candidate in (name, name.replace(".weight", ".weight_v")):
            if candidate in shapes and len(shapes[candidate]) > axis:
                return shapes[candidate][axis]
        raise CheckpointError(f"[{path.parent}] expected tensor {name}, got none")

    hubert = "semantic_model."
    hidden = dim(f"{hubert}feature_projection.projection.weight", 0)
    convs = _count(shapes, f"{hubert}feature_extractor.conv_layers.", path)
    conv = [f"{hubert}feature_extractor.conv_layers.{index}.conv.weight" for index in range(convs)]
    pos = f"{hubert}encoder.pos_conv_embed.conv."
    pos_v = next((f"{pos}{end}" for end in _POS_CONV_NAMES if f"{pos}{end}" in shapes), f"{pos}?")
    semantic = SemanticConfig(
        hidden=hidden,
        layers=_count(shapes, f"{hubert}encoder.layers.", path),
        # Not recoverable from tensors; HuBERT-base heads are 64 wide. `semantic_heads` is this
        # package's own field, for small codecs.
        heads=top.integer("semantic_heads", max(1, hidden // 64)),
        ffn=dim(f"{hubert}encoder.layers.0.feed_forward.intermediate_dense.weight", 0),
        conv_dim=tuple(dim(name, 0) for name in conv),
        conv_kernel=tuple(dim(name, 2) for name in conv),
        pos_kernel=dim(pos_v, 2),
        pos_groups=hidden // dim(pos_v, 1),
    )
    return CodecConfig(
        encoder_hidden=dim("encoder.block.0.weight", 0),
        decoder_hidden=dim("decoder_2.model.0.weight", 0),
        latent=top.integer("D"),
        ratios=top.integers("ratios"),
        codebook_size=top.integer("bins"),
        codebook_dim=top.integer("codebook_dim"),
        num_codebooks=_count(shapes, "quantizer.vq.layers.", path),
        sample_rate=top.integer("sample_rate"),
        semantic=semantic,
        layout="original",
    )


_POS_CONV_NAMES = ("parametrizations.weight.original1", "weight_v", "weight")


def _check(config: CodecConfig, path: Path) -> None:
    semantic = config.semantic
    if not len(semantic.conv_dim) == len(semantic.conv_kernel) == len(semantic.conv_stride):
        raise CheckpointError(
            f"[{path}] expected conv_dim, conv_kernel and conv_stride of one length, got "
            f"{semantic.conv_dim}, {semantic.conv_kernel}, {semantic.conv_stride}"
        )
    if semantic.hidden % semantic.heads or semantic.hidden % semantic.pos_groups:
        raise CheckpointError(
            f"[{path}] expected heads and positional groups to divide {semantic.hidden}, got "
            f"{semantic.heads} and {semantic.pos_groups}"
        )
    samples = config.hop * config.semantic_sample_rate / config.sample_rate
    if samples != config.semantic_stride * math.prod(semantic.conv_stride):
        raise CheckpointError(
            f"[{path}] expected a frame of {config.hop} samples at {config.sample_rate} Hz to be "
            f"a whole number of semantic frames, got {samples} samples"
        )
