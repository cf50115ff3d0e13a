"""The loss of a batch: cross-entropies of codebooks and text (specification 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from higgs_rt.training.labels import IGNORE
from higgs_rt.training.lora.examples import Batch


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """Final hidden states [B, L, H] of transformers' model (its layers, with or without peft).

    The loop over the layers is written out because transformers' own forward finds audio positions
    by their ids, of which it knows only those of audio output, and because rows that are padded on
    the right need no mask: attention is causal, so nothing that counts sees padding.
    """
    inner = model.model
    x = inner.embed_tokens(batch.ids)
    audio = inner.embed_audio_tokens(batch.columns).to(x.dtype)
    x = x.masked_scatter(batch.is_audio[..., None], audio)
    positions = torch.arange(x.shape[1], device=x.device)[None]
    rotary = inner.rotary_emb(x, positions)
    for layer in inner.layers:
        x = layer(
            x,
            attention_mask=None,
            audio_token_mask=batch.is_audio,
            position_ids=positions,
            position_embeddings=rotary,
        )
    result: Tensor = inner.norm(x)
    return result


@dataclass(frozen=True)
class LossSums:
    """Sums of cross-entropies over labels, in nats: audio [K] by codebook, text []."""

    audio: Tensor
    text: Tensor


def loss_sums(model: Any, batch: Batch) -> LossSums:
    """Cross-entropies summed over the labels of a batch; without a text head, text is zero."""
    hidden = hidden_states(model, batch)
    config = model.config
    spoken = (batch.audio_labels != IGNORE).any(1)
    labels = batch.audio_labels[spoken]
    logits = model.audio_lm_head(hidden[batch.is_audio][spoken]).float()
    logits = logits.reshape(-1, config.num_codebooks, config.codebook_size)
    flat = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="none"
    )
    audio = flat.reshape(-1, config.num_codebooks).sum(0)
    text = hidden.new_zeros((), dtype=torch.float32)
    if model.text_lm_head is not None:
        written = batch.text_labels != IGNORE
        text_logits = model.text_lm_head(hidden[written]).float()
        text = F.cross_entropy(text_logits, batch.text_labels[written], reduction="sum")
    return LossSums(audio, text)


def normalised_weights(weights: Sequence[float], num_codebooks: int) -> Tensor:
    """Codebook weights that sum to one, float32 [K]; equal ones for none."""
    if not weights:
        return torch.full((num_codebooks,), 1.0 / num_codebooks)
    given = torch.tensor(list(weights), dtype=torch.float32)
    return given / given.sum()


class Objective(nn.Module):
    """The loss as a module around the model, so that data parallelism sees one forward pass.

    loss = sum over codebooks k of w_k * (sum of k's cross-entropies) / (labels of k), plus
    text_weight times the same of the text. The counts of labels are arguments: with those of all
    batches of a step, on all processes, the gradient does not depend on how the step is divided.
    """

    weights: Tensor

    def __init__(self, model: Any, codebook_weights: Sequence[float], text_weight: float) -> None:
        super().__init__()
        self.model = model
        self.text_weight = text_weight
        weights = normalised_weights(codebook_weights, int(base_model(model).config.num_codebooks))
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, batch: Batch, audio_counts: Tensor, text_count: Tensor) -> tuple[Tensor, Any]:
        """(loss [], detached LossSums); counts float64 [K] and []."""
        sums = loss_sums(base_model(self.model), batch)
        audio = (self.weights * sums.audio / audio_counts.clamp(min=1).float()).sum()
        text = sums.text / text_count.clamp(min=1).float()
        return audio + self.text_weight * text, LossSums(sums.audio.detach(), sums.text.detach())


def base_model(model: Any) -> Any:
    """transformers' model inside of a peft model; itself otherwise."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
