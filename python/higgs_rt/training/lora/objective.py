"""The loss of a batch: cross-entropies of codebooks and text (specification 10), and options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from higgs_rt.training.labels import IGNORE
from higgs_rt.training.lora.decoder import Layer, decoder_layer, hidden_states
from higgs_rt.training.lora.examples import Batch
from higgs_rt.training.lora.speaker import SpeakerTerm


@dataclass(frozen=True)
class LossSums:
    """Sums over a batch: cross-entropies of labels in nats, audio [K] by codebook and text [];
    the speaker term of clips, [].
    """

    audio: Tensor
    text: Tensor
    speaker: Tensor

    def joined(self) -> Tensor:
        """Detached, float64 [K + 2], in the order of `Batch.counts`."""
        rest = torch.stack([self.text, self.speaker])
        return torch.cat([self.audio, rest]).detach().double()


def loss_sums(
    model: Any, batch: Batch, speaker: SpeakerTerm | None = None, run: Layer | None = None
) -> LossSums:
    """Sums over the labels of a batch; zero where there is no text head, or no speaker term."""
    hidden, route = hidden_states(model, batch, run)
    config = model.config
    spoken = (batch.audio_labels != IGNORE).any(1).nonzero()[:, 0]
    labels = batch.audio_labels[spoken]
    logits = model.audio_lm_head(hidden.index_select(0, spoken + route.sizes[0])).float()
    logits = logits.reshape(-1, config.num_codebooks, config.codebook_size)
    flat = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="none"
    )
    audio = flat.reshape(-1, config.num_codebooks).sum(0)
    text = other = hidden.new_zeros((), dtype=torch.float32)
    if model.text_lm_head is not None:
        wanted = batch.text_labels.flatten()
        written = (wanted != IGNORE).nonzero()[:, 0]
        text_logits = model.text_lm_head(hidden.index_select(0, route.row[written])).float()
        text = F.cross_entropy(text_logits, wanted[written], reduction="sum")
    if speaker is not None and len(labels):
        other = speaker(logits, labels, batch.clips[spoken])
    return LossSums(audio, text, other)


def normalised_weights(weights: Sequence[float], num_codebooks: int) -> Tensor:
    """Codebook weights that sum to one, float32 [K]; equal ones for none."""
    if not weights:
        return torch.full((num_codebooks,), 1.0 / num_codebooks)
    given = torch.tensor(list(weights), dtype=torch.float32)
    return given / given.sum()


class Objective(nn.Module):
    """The loss as a module around the model, so that data parallelism sees one forward pass.

    loss = sum over codebooks k of w_k * (sum of k's cross-entropies) / (labels of k), plus
    text_weight times the same of the text, plus speaker_weight times the mean speaker term of the
    clips. The counts are arguments: with those of all batches of a step, on all processes, the
    gradient does not depend on how the step is divided.
    """

    weights: Tensor

    def __init__(
        self,
        model: Any,
        codebook_weights: Sequence[float],
        text_weight: float,
        speaker: SpeakerTerm | None = None,
        speaker_weight: float = 0.0,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self._run: Layer = torch.compile(decoder_layer) if compiled else decoder_layer
        self.model = model
        self.speaker = speaker
        books = normalised_weights(codebook_weights, int(base_model(model).config.num_codebooks))
        weights = torch.cat([books, torch.tensor([text_weight, speaker_weight])])
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, batch: Batch, counts: Tensor) -> tuple[Tensor, Tensor]:
        """(loss [], sums float64 [K + 2], detached); counts as by `Batch.counts`."""
        model = base_model(self.model)
        half = model.model.embed_tokens.weight.dtype == torch.bfloat16  # what is trained is fp32
        with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=half):
            sums = loss_sums(model, batch, self.speaker, self._run)
        means = torch.cat([sums.audio, torch.stack([sums.text, sums.speaker])])
        loss = (self.weights * means / counts.clamp(min=1).float()).sum()
        return loss, sums.joined()


def base_model(model: Any) -> Any:
    """transformers' model inside of a peft model; itself otherwise."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
