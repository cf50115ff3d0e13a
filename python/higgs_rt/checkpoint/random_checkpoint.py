"""Small random language model checkpoints in both layouts, for tests and benchmarks.

The same seed gives the same numbers in both layouts. The weights are scaled so that activations
stay of order one and logits have a standard deviation of about two: greedy choices are then far
from ties, and a wrong norm, FFN path, head order or rotary table changes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from higgs_rt.checkpoint.names import original_name
from higgs_rt.checkpoint.random_tokenizer import write_byte_tokenizer
from higgs_rt.checkpoint.safetensors_file import FloatArray, write_sharded

Layout = Literal["transformers", "original"]

# The released tokenizer's special ids are 128000 + n; a small vocabulary keeps them in its last
# 32 ids, in the same order.
FIRST_RELEASED_SPECIAL = 128000
NUM_SPECIALS = 32

ROPE_THETA = 500000.0
ROPE_ORIGINAL = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
# Bit-identical inverse frequencies in the form which the transformers conversion writes (spec 1.1).
ROPE_TRANSFORMERS = {
    "factor": 32.0,
    "low_freq_factor": 0.125,
    "high_freq_factor": 0.5,
    "original_max_position_embeddings": 1024,
    "rope_type": "llama3",
}


@dataclass(frozen=True)
class LmShape:
    """Dimensions of a language model checkpoint; `codebook_size` counts codes without BOS/EOS."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    codebook_size: int
    num_codebooks: int = 8
    rms_norm_eps: float = 1e-5
    text_head: bool = True


def special_token_id(released_id: int, vocab: int) -> int:
    """The id in a vocabulary of `vocab` ids of the special token with `released_id` (128000..)."""
    if vocab > FIRST_RELEASED_SPECIAL:
        return released_id
    return vocab - NUM_SPECIALS + released_id - FIRST_RELEASED_SPECIAL


def random_lm_tensors(shape: LmShape, seed: int) -> dict[str, FloatArray]:
    """All tensors of a random model, fp32, under their transformers names."""
    rng = np.random.default_rng(seed)

    def normal(rows: int, cols: int, std: float) -> FloatArray:
        return (rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(std)).astype(
            np.float32
        )

    def linear(rows: int, cols: int, gain: float = 1.0) -> FloatArray:
        return normal(rows, cols, gain / cols**0.5)

    def norm() -> FloatArray:
        return rng.uniform(0.6, 1.5, shape.hidden).astype(np.float32)

    hidden, ffn = shape.hidden, shape.ffn
    q_dim, kv_dim = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    audio_rows = shape.num_codebooks * (shape.codebook_size + 2)
    tensors: dict[str, FloatArray] = {"model.embed_tokens.weight": normal(shape.vocab, hidden, 1.0)}
    tensors["model.embed_audio_tokens.embed_audio_tokens.weight"] = normal(
        audio_rows, hidden, shape.num_codebooks**-0.5
    )
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = norm()
            tensors[f"{prefix}audio_{name}.weight"] = norm()
        # A gain above one on q and k makes attention peaked enough that positions matter.
        tensors[f"{prefix}self_attn.q_proj.weight"] = linear(q_dim, hidden, 1.5)
        tensors[f"{prefix}self_attn.k_proj.weight"] = linear(kv_dim, hidden, 1.5)
        tensors[f"{prefix}self_attn.v_proj.weight"] = linear(kv_dim, hidden)
        tensors[f"{prefix}self_attn.o_proj.weight"] = linear(hidden, q_dim)
        for mlp in ("mlp", "audio_mlp"):
            tensors[f"{prefix}{mlp}.gate_proj.weight"] = linear(ffn, hidden, 1.5)
            tensors[f"{prefix}{mlp}.up_proj.weight"] = linear(ffn, hidden)
            tensors[f"{prefix}{mlp}.down_proj.weight"] = linear(hidden, ffn)
    tensors["model.norm.weight"] = norm()
    tensors["audio_lm_head.weight"] = linear(audio_rows, hidden, 2.0)
    if shape.text_head:
        tensors["text_lm_head.weight"] = linear(shape.vocab, hidden, 2.0)
    return tensors


def transformers_config(shape: LmShape, dtype: str) -> dict[str, Any]:
    """config.json of the transformers layout (`HiggsAudioV2Config`)."""
    return {
        "architectures": ["HiggsAudioV2ForConditionalGeneration"],
        "model_type": "higgs_audio_v2",
        "dtype": dtype,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": shape.rms_norm_eps,
        "max_position_embeddings": 2048,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "use_cache": True,
        "tie_word_embeddings": False,
        "rope_parameters": {**ROPE_TRANSFORMERS, "rope_theta": ROPE_THETA},
        "num_codebooks": shape.num_codebooks,
        "codebook_size": shape.codebook_size + 2,
        "audio_stream_bos_id": shape.codebook_size,
        "audio_stream_eos_id": shape.codebook_size + 1,
        "audio_token_id": special_token_id(128016, shape.vocab),
        "audio_bos_token_id": special_token_id(128013, shape.vocab),
        "audio_delay_token_id": special_token_id(128014, shape.vocab),
        "bos_token_id": special_token_id(128000, shape.vocab),
        "eos_token_id": special_token_id(128009, shape.vocab),
        "pad_token_id": special_token_id(128001, shape.vocab),
    }


def original_config(shape: LmShape, dtype: str) -> dict[str, Any]:
    """config.json of the original layout: audio fields around a nested Llama `text_config`."""
    text_config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": dtype,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": shape.rms_norm_eps,
        "max_position_embeddings": 131072,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "rope_theta": ROPE_THETA,
        "rope_scaling": ROPE_ORIGINAL,
        "bos_token_id": special_token_id(128000, shape.vocab),
        "eos_token_id": special_token_id(128001, shape.vocab),
        "tie_word_embeddings": True,
        "use_cache": True,
    }
    return {
        "architectures": ["HiggsAudioModel"],
        "model_type": "higgs_audio",
        "torch_dtype": dtype,
        "hidden_size": shape.hidden,
        "text_config": text_config,
        "audio_adapter_type": "dual_ffn_fast_forward",
        "audio_dual_ffn_layers": list(range(shape.layers)),
        "audio_ffn_hidden_size": shape.hidden,
        "audio_ffn_intermediate_size": shape.ffn,
        "audio_decoder_proj_num_layers": 0,
        "audio_embed_avg": False,
        "audio_num_codebooks": shape.num_codebooks,
        "audio_codebook_size": shape.codebook_size,
        "audio_stream_bos_id": shape.codebook_size,
        "audio_stream_eos_id": shape.codebook_size + 1,
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
        "audio_eos_token_id": special_token_id(128012, shape.vocab),
        "audio_out_bos_token": "<|audio_out_bos|>",
        "audio_out_bos_token_id": special_token_id(128013, shape.vocab),
        "audio_in_token": "<|AUDIO|>",
        "audio_in_token_idx": special_token_id(128015, shape.vocab),
        "audio_out_token": "<|AUDIO_OUT|>",
        "audio_out_token_idx": special_token_id(128016, shape.vocab),
        "audio_encoder_config": None,
        "audio_tokenizer_config": None,
        "encode_audio_in_tokens": True,
        "encode_whisper_embed": False,
        "skip_audio_tower": True,
        "use_audio_out_embed_projector": False,
        "use_audio_out_self_attention": 0,
        "use_delay_pattern": True,
        "use_rq_transformer": False,
        "pad_token_id": special_token_id(128001, shape.vocab),
    }


def write_random_checkpoint(
    directory: str | Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    ffn: int = 96,
    vocab: int = 320,
    codebook_size: int = 30,
    num_codebooks: int = 8,
    layout: Layout = "transformers",
    dtype: str = "float32",
    shards: int = 1,
    seed: int = 0,
    text_head: bool = True,
    rms_norm_eps: float = 1e-5,
) -> LmShape:
    """Write a random language model to `directory` (created): config, weights, tokenizer.

    `codebook_size` counts the codes of one codebook without BOS and EOS (1024 in the release), so
    each row of logits has `codebook_size + 2` ids. `dtype` is float32, bfloat16 or float16.
    The tokenizer is byte-level with no merges (id = byte, the 32 last ids special) and is written
    when `vocab` is at least 288 and below 128000. Returns the shape. Raises ValueError on
    impossible dimensions.
    """
    shape = LmShape(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=ffn,
        vocab=vocab,
        codebook_size=codebook_size,
        num_codebooks=num_codebooks,
        rms_norm_eps=rms_norm_eps,
        text_head=text_head,
    )
    if heads % kv_heads or hidden % heads or head_dim % 2:
        raise ValueError(
            "[random_checkpoint] expected kv_heads | heads | hidden and an even head_dim, "
            f"got kv_heads {kv_heads}, heads {heads}, hidden {hidden}, head_dim {head_dim}"
        )
    if vocab <= NUM_SPECIALS or FIRST_RELEASED_SPECIAL < vocab < FIRST_RELEASED_SPECIAL + 32:
        raise ValueError(f"[vocab] expected > {NUM_SPECIALS} and room for specials, got {vocab}")
    if layout not in ("transformers", "original"):
        raise ValueError(f"[layout] expected 'transformers' or 'original', got {layout!r}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = random_lm_tensors(shape, seed)
    if layout == "original":
        tensors = {original_name(name): values for name, values in tensors.items()}
    config = (transformers_config if layout == "transformers" else original_config)(shape, dtype)
    write_sharded(directory, tensors, dtype, shards)
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    if 256 + NUM_SPECIALS <= vocab <= FIRST_RELEASED_SPECIAL:
        write_byte_tokenizer(directory / "tokenizer.json", vocab)
    return shape
