"""The language model's training forward over transformers' parameters.

The parameters are those of ``HiggsAudioV2ForConditionalGeneration``; the computation orders
positions as the runtime does, all text first and all audio after it, so that the two feed-forward
paths are two contiguous ranges and no mask is scattered. Attention sees the true order through the
positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F


@dataclass
class PackedBatch:
    """One batch; positions are -1 at padding.

    text_ids, text_positions [B, Lt]; audio_ids [B, La, 8], audio_positions [B, La]. Labels are
    already shifted: the label at a position is what the model predicts there. text_labels [B, Lt +
    La] (the text head also speaks at audio positions), audio_labels [B, La, 8]; -100 is ignored.
    guide [B, La] is the text index each column should look at, -1 for none; guide_late the same for
    the books in the middle.
    """

    text_ids: torch.Tensor
    text_positions: torch.Tensor
    audio_ids: torch.Tensor
    audio_positions: torch.Tensor
    text_labels: torch.Tensor
    audio_labels: torch.Tensor
    guide: torch.Tensor
    guide_late: torch.Tensor


@dataclass
class ForwardSettings:
    """Numerics of a pass: compute dtype, dropout probability, and which attention heads are guided.

    `guided` lists (layer, query head, late).
    """

    dtype: torch.dtype = torch.bfloat16
    dropout: float = 0.0
    guided: tuple[tuple[int, int, bool], ...] = ()
    guide_width: float = 0.8


def hot_rows(ids: torch.Tensor, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Sum of one-hot rows: ids [N, K] (distinct per row) -> [N, size]."""
    return torch.zeros(ids.shape[0], size, dtype=dtype, device=ids.device).scatter_(1, ids, 1.0)


def embed(model: Any, batch: PackedBatch, dtype: torch.dtype) -> torch.Tensor:
    """[B, Lt + La, H]: text rows, then summed codebook rows.

    Written as products with one-hot rows, whose backward pass is a plain matrix product that any
    CUDA graph can hold.
    """
    config = model.config
    rows, text = batch.text_ids.shape
    audio = batch.audio_ids.shape[1]
    text_hot = hot_rows(batch.text_ids.reshape(-1, 1), config.vocab_size, dtype)
    offsets = torch.arange(config.num_codebooks, device=text_hot.device) * config.codebook_size
    audio_rows = (batch.audio_ids + offsets).reshape(rows * audio, -1)
    audio_hot = hot_rows(audio_rows, config.num_codebooks * config.codebook_size, dtype)
    x_text = text_hot @ model.model.embed_tokens.weight.to(dtype)
    x_audio = audio_hot @ model.model.embed_audio_tokens.embed_audio_tokens.weight.to(dtype)
    return torch.cat([x_text.reshape(rows, text, -1), x_audio.reshape(rows, audio, -1)], 1)


def attention_mask(positions: torch.Tensor) -> torch.Tensor:
    """positions [B, L] (-1 padding) -> [B, 1, L, L] true where a query may look; padding sees
    itself.
    """
    key = positions[:, None, None, :]
    query = positions[:, None, :, None]
    own = torch.eye(positions.shape[1], dtype=torch.bool, device=positions.device)
    return ((key <= query) & (key >= 0)) | own


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of x [B, L, heads, D] with cos, sin [B, L, 1, D] (pairs i, i + D/2)."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * cos + turned * sin


def guide_loss(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor,
    target: torch.Tensor,
    text: int,
    width: float,
) -> torch.Tensor:
    """Cross-entropy of one head's attention against a narrow Gaussian around `target`.

    query [B, La, D] at audio positions, key [B, L, D], mask [B, La, L], target [B, La] text indices
    (-1: not trained).
    """
    scores = (query @ key.transpose(1, 2)).float() * query.shape[-1] ** -0.5
    log_share = scores.masked_fill(~mask, -1e9).log_softmax(-1)[..., :text]
    index = torch.arange(text, device=target.device)
    distance = (index - target[..., None]) / width
    weight = torch.where(distance.abs() < 3.0, (-0.5 * distance.square()).exp(), 0.0)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
    trained = (target >= 0).float()
    loss = -(weight * log_share.clamp(min=-20.0)).sum(-1)
    mean: torch.Tensor = (loss * trained).sum() / trained.sum().clamp(min=1.0)
    return mean


def _widen(x: torch.Tensor, times: int) -> torch.Tensor:
    """[B, groups, L, D] -> [B, groups * times, L, D], each group repeated for its query heads."""
    rows, groups, length, size = x.shape
    wide = x[:, :, None].expand(rows, groups, times, length, size)
    return wide.reshape(rows, groups * times, length, size)


def _mlp(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).to(x.dtype)
    gate, up = F.linear(x, gate_up).chunk(2, -1)
    return F.linear(F.silu(gate) * up, mlp.down_proj.weight.to(x.dtype))


def _norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight.to(x.dtype), norm.variance_epsilon)


def forward(
    model: Any, batch: PackedBatch, settings: ForwardSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states [B, Lt + La, H] after the final norm, and the guide loss (a scalar)."""
    config = model.config
    dtype = settings.dtype
    text = batch.text_ids.shape[1]
    positions = torch.cat([batch.text_positions, batch.audio_positions], 1)
    mask = attention_mask(positions)
    angles = positions.clamp(min=0)[..., None].float() * model.model.rotary_emb.inv_freq
    angles = torch.cat([angles, angles], -1)[:, :, None]
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    x = embed(model, batch, dtype)
    rows, length, _ = x.shape
    guide = x.new_zeros((), dtype=torch.float32)
    for number, layer in enumerate(model.model.layers):
        n = torch.cat(
            [
                _norm(layer.input_layernorm, x[:, :text]),
                _norm(layer.audio_input_layernorm, x[:, text:]),
            ],
            1,
        )
        attention = layer.self_attn
        weights = (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
        qkv = F.linear(n, torch.cat(weights).to(dtype)).reshape(rows, length, -1, size)
        qk = rotate(qkv[:, :, : heads + groups], cos, sin)
        q = qk[:, :, :heads].transpose(1, 2)
        k = qk[:, :, heads:].transpose(1, 2)
        v = qkv[:, :, heads + groups :].transpose(1, 2)
        wide_k, wide_v = _widen(k, heads // groups), _widen(v, heads // groups)
        mixed = F.scaled_dot_product_attention(q, wide_k, wide_v, attn_mask=mask)
        for at, head, late in settings.guided:
            if at == number:
                target = batch.guide_late if late else batch.guide
                guide = guide + guide_loss(
                    q[:, head, text:],
                    wide_k[:, head],
                    mask[:, 0, text:],
                    target,
                    text,
                    settings.guide_width,
                )
        mixed = mixed.transpose(1, 2).reshape(rows, length, -1)
        out = F.linear(mixed, attention.o_proj.weight.to(dtype))
        x = x + F.dropout(out, settings.dropout, settings.dropout > 0)
        text_out = _mlp(layer.mlp, _norm(layer.post_attention_layernorm, x[:, :text]))
        audio_out = _mlp(layer.audio_mlp, _norm(layer.audio_post_attention_layernorm, x[:, text:]))
        out = torch.cat([text_out, audio_out], 1)
        x = x + F.dropout(out, settings.dropout, settings.dropout > 0)
    return _norm(model.model.norm, x), guide


@dataclass
class Losses:
    """audio [8] mean cross-entropy of each codebook; text, guide and square (the mean square of the
    audio logits that carry a label) are scalars.
    """

    audio: torch.Tensor
    text: torch.Tensor
    guide: torch.Tensor
    square: torch.Tensor


def losses(model: Any, batch: PackedBatch, settings: ForwardSettings) -> Losses:
    """Cross-entropies of a batch (spec 10: the audio loss is the mean of the eight)."""
    config = model.config
    hidden, guide = forward(model, batch, settings)
    text = batch.text_ids.shape[1]
    head = model.audio_lm_head.weight.to(hidden.dtype)
    logits = F.linear(hidden[:, text:], head).float().reshape(-1, config.codebook_size)
    flat = F.cross_entropy(
        logits, batch.audio_labels.reshape(-1), ignore_index=-100, reduction="none"
    ).reshape(-1, config.num_codebooks)
    counted = (batch.audio_labels.reshape(-1, config.num_codebooks) != -100).float()
    audio = flat.sum(0) / counted.sum(0).clamp(min=1.0)
    square = (logits.square().mean(-1) * counted.reshape(-1)).sum() / counted.sum().clamp(min=1.0)
    text_logits = F.linear(hidden, model.text_lm_head.weight.to(hidden.dtype)).float()
    text_flat = F.cross_entropy(
        text_logits.reshape(-1, config.vocab_size),
        batch.text_labels.reshape(-1),
        ignore_index=-100,
        reduction="none",
    )
    text_loss = text_flat.sum() / (batch.text_labels != -100).sum().clamp(min=1)
    return Losses(audio, text_loss, guide / max(len(settings.guided), 1), square)
