"""Dimensions of the demo checkpoint and the special tokens of its vocabulary."""

from __future__ import annotations

from typing import Any

CODE_COUNT = 256
CODEC: dict[str, Any] = {
    "target_bandwidths": [0.4, 0.8, 1.2, 1.6],
    "sample_rate": 24_000,
    "semantic_sample_rate": 16_000,
    "codebook_size": CODE_COUNT,
    "codebook_dim": 32,
    "acoustic_model_config": {
        "model_type": "dac",
        "encoder_hidden_size": 12,
        "downsampling_ratios": [8, 5, 4, 2, 3],
        "decoder_hidden_size": 256,
        "upsampling_ratios": [8, 5, 4, 2, 3],
        "hidden_size": 64,
        "sampling_rate": 24_000,
    },
    "semantic_model_config": {
        "model_type": "hubert",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "conv_dim": [32, 32, 32, 32, 32, 32, 32],
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "final_dropout": 0.0,
        "layerdrop": 0.0,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
        "apply_spec_augment": False,
        "attn_implementation": "sdpa",
    },
}

# Bytes are ids 0..255; the specials follow in this order.
SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|audio_out_bos|>",
    "<|reserved_special_token_6|>",
    "<|AUDIO|>",
    "<|AUDIO_OUT|>",
    "<|recipient|>",
    "<|scene_desc_start|>",
    "<|scene_desc_end|>",
    "<|generation_instruction_start|>",
    "<|generation_instruction_end|>",
    "<SE>",
    "</SE>",
    "<SE_s>",
    "</SE_s>",
    "<SE_e>",
    "</SE_e>",
)
# Whole strings of the prompt layouts with one id each; not the role names, which ordinary text
# may hold too.
WHOLE_STRINGS = ("\n\n", "Generate audio following instruction.")
VOCABULARY = 288


def token_id(text: str) -> int:
    """Id of a special token or whole string."""
    return 256 + (SPECIALS + WHOLE_STRINGS).index(text)


def language_model_config() -> dict[str, Any]:
    """Arguments of transformers' HiggsAudioV2Config."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 640,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "num_codebooks": 8,
        "codebook_size": CODE_COUNT + 2,
        "audio_stream_bos_id": CODE_COUNT,
        "audio_stream_eos_id": CODE_COUNT + 1,
        "audio_token_id": token_id("<|AUDIO_OUT|>"),
        "audio_bos_token_id": token_id("<|audio_out_bos|>"),
        "audio_delay_token_id": token_id("<|reserved_special_token_6|>"),
        "pad_token_id": token_id("<|end_of_text|>"),
        "bos_token_id": token_id("<|begin_of_text|>"),
        "eos_token_id": token_id("<|eot_id|>"),
        "max_position_embeddings": 2048,
    }
