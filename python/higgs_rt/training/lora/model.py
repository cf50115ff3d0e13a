"""transformers' model from either checkpoint layout, with adapters on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from higgs_rt.checkpoint.tensors import StoredTensors
from higgs_rt.errors import CheckpointError, HiggsError
from higgs_rt.training.lora.config import LoraConfig
from higgs_rt.training.lora.examples import StreamIds

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
# Trained in full on demand: tensors by their transformers names.
AUDIO_EMBEDDINGS = "embed_audio_tokens.embed_audio_tokens"
AUDIO_HEAD = "audio_lm_head"
# Fields with one name and meaning in both layouts.
_COPIED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "rms_norm_eps",
    "max_position_embeddings",
)


def load_base_model(directory: str | Path, dtype: torch.dtype) -> Any:
    """`HiggsAudioV2ForConditionalGeneration` of a model directory, on the CPU, in `dtype`.

    With a text head if the checkpoint has one. CheckpointError names what is missing or misshapen.
    """
    directory = Path(directory)
    try:
        from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration
    except ImportError as error:
        raise HiggsError(
            "[train] expected transformers with Higgs Audio v2 (pip install 'higgs-rt[train]'), "
            f"got: {error}"
        ) from None
    config = HiggsAudioV2Config(**transformers_fields(directory))
    stored = StoredTensors(directory)
    with torch.device("meta"):
        model = HiggsAudioV2ForConditionalGeneration(
            config, use_text_head="text_lm_head.weight" in stored.names
        )
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored.check(wanted)
    state = {name: stored.tensor(name, shape).to(dtype) for name, shape in wanted.items()}
    model.load_state_dict(state, strict=True, assign=True)
    for name, buffer in _fresh_buffers(config).items():  # those that no checkpoint stores
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, buffer)
    return model.train(False).requires_grad_(False)


def _fresh_buffers(config: Any) -> dict[str, torch.Tensor]:
    """The buffers that transformers computes: the rotary frequencies and the codebook offsets."""
    from transformers.models.higgs_audio_v2 import modeling_higgs_audio_v2 as modeling

    rotary = modeling.HiggsAudioV2RotaryEmbedding(config)
    buffers = {f"model.rotary_emb.{name}": b for name, b in rotary.named_buffers()}
    if hasattr(rotary, "original_inv_freq"):
        buffers["model.rotary_emb.original_inv_freq"] = rotary.original_inv_freq
    offsets = torch.arange(config.num_codebooks) * config.codebook_size
    return {**buffers, "model.embed_audio_tokens.audio_tokens_offsets": offsets}


def transformers_fields(directory: Path) -> dict[str, Any]:
    """config.json as `HiggsAudioV2Config` takes it, from either layout (specification 1.1)."""
    path = directory / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if "text_config" not in raw:
            return dict(raw)
        text = raw["text_config"]
        fields = {name: text[name] for name in _COPIED if name in text}
        if (
            raw.get("audio_ffn_intermediate_size", text["intermediate_size"])
            != (text["intermediate_size"])
        ):
            raise CheckpointError(
                f"[{path}: audio_ffn_intermediate_size] expected {text['intermediate_size']} as in "
                f"text_config, got {raw['audio_ffn_intermediate_size']}: transformers has one width"
            )
        heads = text["num_attention_heads"]
        return {
            **fields,
            "head_dim": text.get("head_dim") or text["hidden_size"] // heads,
            "rope_parameters": {**text["rope_scaling"], "rope_theta": text["rope_theta"]},
            "tie_word_embeddings": False,
            "num_codebooks": raw["audio_num_codebooks"],
            "codebook_size": raw["audio_codebook_size"] + 2,
            "audio_stream_bos_id": raw["audio_stream_bos_id"],
            "audio_stream_eos_id": raw["audio_stream_eos_id"],
            "audio_token_id": raw["audio_out_token_idx"],
            "audio_bos_token_id": raw["audio_out_bos_token_id"],
            "audio_delay_token_id": raw["audio_out_token_idx"] - 2,
            "pad_token_id": raw["pad_token_id"],
            "bos_token_id": text.get("bos_token_id"),
            "eos_token_id": text.get("eos_token_id"),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"[{path}] expected a model configuration, got: {error!r}") from None


def stream_ids(model: Any) -> StreamIds:
    """The audio stream of a loaded model."""
    config = model.config
    return StreamIds(
        config.num_codebooks,
        config.codebook_size,
        config.audio_stream_bos_id,
        config.audio_stream_eos_id,
    )


def target_pattern(lora: LoraConfig) -> str:
    """A regular expression over module names: exactly the projections that get an adapter."""
    parts = []
    if lora.attention:
        parts.append(rf"self_attn\.({'|'.join(ATTENTION)})")
    networks = {"text": "mlp", "audio": "audio_mlp", "both": "(audio_)?mlp"}
    if lora.mlp != "none":
        parts.append(rf"{networks[lora.mlp]}\.({'|'.join(FEED_FORWARD)})")
    return rf"model\.layers\.\d+\.({'|'.join(parts)})"


def add_adapters(model: Any, lora: LoraConfig, *, checkpointing: bool = False) -> Any:
    """A peft model around `model`: adapters (fp32) and what is trained in full (fp32).

    A bf16 model runs under autocast, and dropout before the adapters keeps its dtype.
    """
    try:
        from peft import LoraConfig as PeftLoraConfig
        from peft import get_peft_model
    except ImportError as error:
        raise HiggsError(
            f"[train] expected peft (pip install 'higgs-rt[train]'), got: {error}"
        ) from None
    full = [AUDIO_EMBEDDINGS] if lora.audio_embeddings else []
    full += [AUDIO_HEAD] if lora.audio_head else []
    if not (lora.attention or lora.mlp != "none"):
        raise HiggsError("[lora] expected attention or mlp to be adapted, got neither")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    settings = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type] # any number will do
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        target_modules=target_pattern(lora),
        modules_to_save=full or None,
        bias="none",
    )
    wrapped = get_peft_model(model, settings)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for module in wrapped.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            # Autocast does it, after the dropout.
            setattr(module, "cast_input_dtype_enabled", False)  # noqa: B010
    return wrapped
