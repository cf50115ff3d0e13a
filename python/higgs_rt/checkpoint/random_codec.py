"""Small random codec checkpoints in both layouts, for tests and benchmarks.

The same seed gives the same numbers in both layouts. The original layout stores its acoustic
convolutions as weight-norm pairs, in a torch pickle; writing it needs torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from higgs_rt.checkpoint.safetensors_file import FloatArray, write_sharded
from higgs_rt.codec.config import CodecConfig, Layout, SemanticConfig
from higgs_rt.codec.names import (
    POS_CONV,
    decoder_tensors,
    encoder_tensors,
    is_weight_normed,
    original_name,
    stored_weight_names,
    unused_tensors,
)


def random_codec_tensors(config: CodecConfig, seed: int) -> dict[str, FloatArray]:
    """All tensors of a random codec, fp32, by canonical (folded transformers) name."""
    rng = np.random.default_rng(seed)
    shapes = encoder_tensors(config) | decoder_tensors(config) | unused_tensors(config)
    return {name: _random_tensor(name, shape, rng) for name, shape in shapes.items()}


def _random_tensor(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    if name.endswith(".inited"):
        return np.ones(shape, np.float32)
    if name.endswith(".cluster_size"):
        return rng.uniform(1.0, 9.0, shape).astype(np.float32)
    if name.endswith(".alpha"):
        return rng.uniform(0.4, 1.6, shape).astype(np.float32)
    if name.endswith("norm.weight"):
        return rng.uniform(0.7, 1.4, shape).astype(np.float32)
    values = rng.standard_normal(shape, dtype=np.float32)
    if ".codebook." in name:
        return values
    if name.endswith(".bias"):
        return values * np.float32(0.1)
    fan_in = int(np.prod(shape[1:]))
    if ".conv_t1." in name:
        fan_in = shape[0] * 2  # two taps of a kernel of 2 * stride meet in each output sample
    gain = 0.5 if ".res_unit" in name and ".conv2." in name else 1.0
    if name == "acoustic_decoder.conv2.weight":
        gain = 0.012  # keeps the waveform mostly within [-1, 1]
    if name == f"{POS_CONV}.weight":
        gain = 0.5
    if name.startswith("acoustic_encoder.conv1"):
        gain = 4.0  # waveforms are quiet
    return (values * np.float32(gain / fan_in**0.5)).astype(np.float32)


def _weight_norm_pair(
    values: FloatArray, axes: tuple[int, ...], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """(g, v) with `g * v / ||v||` = values, norm over `axes`; v is scaled so that g matters."""
    norm = np.sqrt((values.astype(np.float64) ** 2).sum(axis=axes, keepdims=True))
    scale = rng.uniform(0.5, 2.0, norm.shape)
    return norm.astype(np.float32), (values * scale).astype(np.float32)


def stored_codec_tensors(config: CodecConfig, seed: int, layout: Layout) -> dict[str, FloatArray]:
    """The random tensors under the names, and with the weight norms, that `layout` stores."""
    rng = np.random.default_rng(seed + 1)
    stored: dict[str, FloatArray] = {}
    for name, values in random_codec_tensors(config, seed).items():
        kept = original_name(name, len(config.ratios)) if layout == "original" else name
        _, legacy, parametrized = stored_weight_names(kept)
        if name == f"{POS_CONV}.weight":
            pair = _weight_norm_pair(values, (0, 1), rng)
            stored.update(zip(parametrized, pair, strict=True))
        elif layout == "original" and is_weight_normed(name):
            pair = _weight_norm_pair(values, (1, 2), rng)
            stored.update(zip(legacy, pair, strict=True))
        else:
            stored[kept] = values
    return stored


def _bandwidths(config: CodecConfig) -> list[float]:
    """Target bandwidths (kbit/s) whose last gives transformers exactly `num_codebooks`."""
    bits = (config.codebook_size - 1).bit_length()
    frame_rate = -(-config.sample_rate // config.hop)
    top = config.num_codebooks * frame_rate * bits / 1000
    if int(1000 * top // (frame_rate * bits)) != config.num_codebooks:
        top += frame_rate * bits / 2000
    return [top / 4, top / 2, top * 3 / 4, top]


def transformers_codec_config(config: CodecConfig, dtype: str) -> dict[str, Any]:
    """config.json of the transformers layout (`HiggsAudioV2TokenizerConfig`)."""
    semantic = config.semantic
    return {
        "architectures": ["HiggsAudioV2TokenizerModel"],
        "model_type": "higgs_audio_v2_tokenizer",
        "dtype": dtype,
        "sample_rate": config.sample_rate,
        "semantic_sample_rate": config.semantic_sample_rate,
        "downsample_factor": 320,
        "codebook_size": config.codebook_size,
        "codebook_dim": config.codebook_dim,
        "target_bandwidths": _bandwidths(config),
        "kernel_size": 3,
        "unit_kernel_size": 3,
        "channel_ratios": [1, 1],
        "strides": [1, 1],
        "block_dilations": [1, 1],
        "acoustic_model_config": {
            "model_type": "dac",
            "encoder_hidden_size": config.encoder_hidden,
            "decoder_hidden_size": config.decoder_hidden,
            "downsampling_ratios": list(config.ratios),
            "upsampling_ratios": list(config.ratios),
            "hidden_size": config.latent,
        },
        "semantic_model_config": {
            "model_type": "hubert",
            "hidden_size": semantic.hidden,
            "num_hidden_layers": semantic.layers,
            "num_attention_heads": semantic.heads,
            "intermediate_size": semantic.ffn,
            "conv_dim": list(semantic.conv_dim),
            "conv_kernel": list(semantic.conv_kernel),
            "conv_stride": list(semantic.conv_stride),
            "num_conv_pos_embeddings": semantic.pos_kernel,
            "num_conv_pos_embedding_groups": semantic.pos_groups,
            "layer_norm_eps": semantic.layer_norm_eps,
            "feat_extract_norm": "group",
            "do_stable_layer_norm": False,
            "conv_bias": False,
            "mask_time_prob": 0.0,
        },
    }


def original_codec_config(config: CodecConfig) -> dict[str, Any]:
    """config.json of the original layout, plus `semantic_heads` (this package's own field)."""
    return {
        "n_filters": 32,
        "D": config.latent,
        "codebook_dim": config.codebook_dim,
        "target_bandwidths": _bandwidths(config),
        "ratios": list(config.ratios),
        "sample_rate": config.sample_rate,
        "bins": config.codebook_size,
        "n_q": config.num_codebooks,
        "semantic_techer": "hubert_base_general",
        "semantic_heads": config.semantic.heads,
    }


def small_codec_config(**changes: Any) -> CodecConfig:
    """A codec of a few hundred thousand parameters with the released structure."""
    small: dict[str, Any] = {
        "encoder_hidden": 4,
        "decoder_hidden": 64,
        "latent": 16,
        "codebook_size": 32,
        "codebook_dim": 8,
        "semantic": SemanticConfig(
            hidden=32, layers=2, heads=2, ffn=48, conv_dim=(16,) * 7, pos_kernel=16, pos_groups=4
        ),
    }
    return CodecConfig(**{**small, **changes})


def write_random_codec(
    directory: str | Path,
    config: CodecConfig | None = None,
    *,
    layout: Layout = "transformers",
    dtype: str = "float32",
    shards: int = 1,
    seed: int = 0,
) -> CodecConfig:
    """Write a random codec (default: `small_codec_config()`) to `directory` (created).

    The transformers layout is safetensors (single, or `shards` files), `dtype` float32, bfloat16
    or float16. The original layout is a fp32 torch pickle `model.pth`. Returns the configuration.
    Raises ValueError on impossible dimensions, ImportError without torch for the original layout.
    """
    config = config or small_codec_config()
    if config.decoder_hidden % 2 ** len(config.ratios):
        raise ValueError(
            f"[decoder_hidden] expected a multiple of {2 ** len(config.ratios)}, "
            f"got {config.decoder_hidden}"
        )
    if layout == "original" and (dtype != "float32" or shards != 1):
        raise ValueError(f"[layout original] expected float32, 1 shard, got {dtype}, {shards}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    stored = stored_codec_tensors(config, seed, layout)
    if layout == "transformers":
        write_sharded(directory, stored, dtype, shards)
        raw = transformers_codec_config(config, dtype)
    else:
        import torch

        state = {name: torch.from_numpy(values) for name, values in stored.items()}
        torch.save(state, directory / "model.pth")
        raw = original_codec_config(config)
    (directory / "config.json").write_text(json.dumps(raw, indent=1))
    return config
