"""Decoder training on fixed codes.

The encoder, the codebooks and their projections stay as they are, so every code keeps its meaning
and a language model trained on them stays valid; only ``fc2`` and the acoustic decoder learn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from higgs_rt.training.codec_losses import MelLoss
from higgs_rt.training.codec_model import TrainableCodec
from higgs_rt.training.graph import GraphedStep, Metrics, clip_gradients, make_adamw
from higgs_rt.training.schedule import trapezoid


@dataclass
class RefineSettings:
    """Settings; times in seconds, `crop_frames` in frames of 960 samples.

    The learning rate rises over `warmup` steps, stays until `decay_from` of the time, then falls to
    zero.
    """

    seconds: float = 120.0
    max_steps: int = 1_000_000
    batch: int = 32
    crop_frames: int = 48
    learning_rate: float = 6e-4
    warmup: int = 200
    decay_from: float = 0.4
    clip: float = 5.0
    wave_weight: float = 0.15
    log_every: int = 250


@dataclass
class CodePool:
    """Aligned audio (int16 [960 F]) and codes (uint8 [F, 8]) on the device."""

    samples: torch.Tensor
    codes: torch.Tensor
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def crops(self, batch: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Random aligned crops: wave float32 [batch, 960 frames] and codes int64 [batch, 8,
        frames].
        """
        device = self.samples.device
        starts = torch.randint(0, len(self.codes) - frames, (batch,), generator=self.generator)
        row = starts.to(device)[:, None] + torch.arange(frames, device=device)
        wave = self.samples.view(-1, 960)[row].reshape(batch, -1).float() / 32768.0
        return wave, self.codes[row].long().transpose(1, 2)


@torch.no_grad()
def codes_to_latent(codec: TrainableCodec, codes: torch.Tensor) -> torch.Tensor:
    """codes [B, 8, T] -> latent [B, T, D]."""
    parts = [
        quantizer.project_out(quantizer.codebook.embed[book])
        for quantizer, book in zip(codec.core.quantizer.quantizers, codes.unbind(1), strict=True)
    ]
    return torch.stack(parts).sum(0)


def refine_decoder(
    codec: TrainableCodec, pool: CodePool, settings: RefineSettings, log: Callable[[str], None]
) -> None:
    """Trains fc2 and the decoder in place; the rest no longer requires gradients."""
    device = pool.samples.device
    codec.requires_grad_(False)
    parameters = [*codec.core.fc2.parameters(), *codec.core.acoustic_decoder.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    codec.eval()
    losses = MelLoss().to(device)
    wave, codes = pool.crops(settings.batch, settings.crop_frames)
    optimizer, lr = make_adamw(parameters, device, (0.8, 0.99), 1e-3)

    def step() -> Metrics:
        optimizer.zero_grad(set_to_none=True)
        made = codec.decode_latent(codes_to_latent(codec, codes))
        mel, convergence = losses(made, wave)
        error = (made - wave).abs().mean() / (wave.abs().mean() + 1e-3)
        (mel + 0.5 * convergence + settings.wave_weight * error).backward()
        clip_gradients(parameters, settings.clip)
        optimizer.step()
        return {"mel": mel.detach(), "sc": convergence.detach(), "wave": error.detach()}

    lr.fill_(settings.learning_rate * 0.05)
    begin = time.monotonic()
    graphed = GraphedStep(step, device)
    count = 0
    while count < settings.max_steps and time.monotonic() - begin < settings.seconds:
        progress = max((time.monotonic() - begin) / settings.seconds, count / settings.max_steps)
        factor = trapezoid(progress, count, settings.warmup, settings.decay_from)
        lr.fill_(settings.learning_rate * factor)
        fresh = pool.crops(settings.batch, settings.crop_frames)
        wave.copy_(fresh[0])
        codes.copy_(fresh[1])
        metrics = graphed()
        count += 1
        if count % 20 == 0 and device.type == "cuda":
            torch.cuda.synchronize()
        if count % settings.log_every == 0 or count in (1, 50):
            text = " ".join(f"{k} {float(v):.3f}" for k, v in metrics.items())
            log(f"decoder step {count} t {time.monotonic() - begin:.0f} s {text}")
    log(f"decoder: {count} steps")
