"""Decoder training on fixed codes: reconstruction first, then with discriminators.

The encoder, the codebooks and their projections stay as they are, so every code keeps its meaning
and a language model trained on them stays valid; only ``fc2`` and the acoustic decoder learn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from higgs_rt.training.codec_discriminator import Discriminators
from higgs_rt.training.codec_losses import MelLoss
from higgs_rt.training.codec_model import TrainableCodec
from higgs_rt.training.graph import GraphedStep, Metrics, clip_gradients, make_adamw
from higgs_rt.training.schedule import trapezoid


@dataclass
class RefineSettings:
    """Settings; times in seconds. `adversarial_seconds` follow the reconstruction phase.

    The learning rate rises over `warmup` steps, stays until `decay_from` of a phase's time, then
    falls to zero.
    """

    seconds: float = 450.0
    adversarial_seconds: float = 0.0
    max_steps: int = 1_000_000
    batch: int = 32
    crop_frames: int = 48
    learning_rate: float = 6e-4
    adversarial_learning_rate: float = 2e-4
    warmup: int = 200
    decay_from: float = 0.4
    clip: float = 5.0
    mel_weight: float = 15.0
    matching_weight: float = 2.0
    log_every: int = 250
    save_every: int = 2500


@dataclass
class CodePool:
    """Aligned audio (int16 [960 F]) and codes (uint8 [F, 8]) on the device."""

    samples: torch.Tensor
    codes: torch.Tensor
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def append(self, samples: torch.Tensor, codes: torch.Tensor) -> None:
        """Adds audio (int16 [960 F]) and its codes (uint8 [F, 8])."""
        self.samples = torch.cat([self.samples, samples.to(self.samples.device)])
        self.codes = torch.cat([self.codes, codes.to(self.codes.device)])

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
    codec: TrainableCodec,
    pool: CodePool,
    settings: RefineSettings,
    log: Callable[[str], None],
    save: Callable[[str], None],
    refill: Callable[[], None] = lambda: None,
) -> None:
    """Trains fc2 and the decoder in place; calls `save` with "plain" or "adversarial" now and then
    and after each phase. `refill` is called now and then to append to the pool.
    """
    device = pool.samples.device
    codec.requires_grad_(False)
    parameters = [*codec.core.fc2.parameters(), *codec.core.acoustic_decoder.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    codec.eval()
    losses = MelLoss().to(device)
    wave, codes = pool.crops(settings.batch, settings.crop_frames)

    def reconstruct() -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        made = codec.decode_latent(codes_to_latent(codec, codes))
        mel, convergence = losses(made, wave)
        error = (made - wave).abs().mean() / (wave.abs().mean() + 1e-3)
        loss = mel + 0.5 * convergence + 0.3 * error
        return made, loss, {"mel": mel.detach(), "sc": convergence.detach(), "wave": error.detach()}

    def run(
        name: str,
        step: Callable[[], Metrics],
        rates: list[tuple[torch.Tensor, float]],
        seconds: float,
    ) -> None:
        for rate, value in rates:
            rate.fill_(value * 0.05)
        shape = (settings.warmup, settings.decay_from)
        begin = time.monotonic()
        graphed = GraphedStep(step, device)
        count = 0
        while count < settings.max_steps and time.monotonic() - begin < seconds:
            progress = max((time.monotonic() - begin) / seconds, count / settings.max_steps)
            for rate, value in rates:
                rate.fill_(value * trapezoid(progress, count, *shape))
            fresh = pool.crops(settings.batch, settings.crop_frames)
            wave.copy_(fresh[0])
            codes.copy_(fresh[1])
            metrics = graphed()
            count += 1
            if count % 20 == 0 and device.type == "cuda":
                torch.cuda.synchronize()
            if count % settings.log_every == 0 or count in (1, 50):
                text = " ".join(f"{k} {float(v):.3f}" for k, v in metrics.items())
                log(f"{name} step {count} t {time.monotonic() - begin:.0f} s {text}")
                refill()
            if count % settings.save_every == 0:
                save(name)
        log(f"{name}: {count} steps")
        save(name)

    optimizer, rate = make_adamw(parameters, device, (0.8, 0.99), 1e-3)

    def plain_step() -> Metrics:
        optimizer.zero_grad(set_to_none=True)
        _, loss, metrics = reconstruct()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_gradients(parameters, settings.clip)
        optimizer.step()
        return metrics

    run("plain", plain_step, [(rate, settings.learning_rate)], settings.seconds)
    if settings.adversarial_seconds <= 0.0:
        return
    judges = Discriminators().to(device)
    judge_parameters = list(judges.parameters())
    judge_optimizer, judge_rate = make_adamw(judge_parameters, device, (0.5, 0.9), 1e-3)

    def adversarial_step() -> Metrics:
        judge_optimizer.zero_grad(set_to_none=True)
        optimizer.zero_grad(set_to_none=True)
        made, loss, metrics = reconstruct()
        judged = judges.judge_loss(made, wave)
        judged.backward()  # type: ignore[no-untyped-call]
        clip_gradients(judge_parameters, settings.clip)
        judge_optimizer.step()
        adversarial, matching = judges.maker_loss(made, wave)
        total = settings.mel_weight * loss + adversarial + settings.matching_weight * matching
        grads = torch.autograd.grad(total, parameters)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        clip_gradients(parameters, settings.clip)
        optimizer.step()
        return metrics | {
            "judge": judged.detach(),
            "adversarial": adversarial.detach(),
            "matching": matching.detach(),
        }

    rates = [
        (rate, settings.adversarial_learning_rate),
        (judge_rate, settings.adversarial_learning_rate),
    ]
    run("adversarial", adversarial_step, rates, settings.adversarial_seconds)
