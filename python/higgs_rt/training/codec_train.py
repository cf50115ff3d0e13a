"""The codec's training loop: random crops from a pool of audio, one graphed step, time-bounded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from higgs_rt.training.codec_losses import MelLoss
from higgs_rt.training.codec_model import TrainableCodec, perplexity
from higgs_rt.training.graph import GraphedStep, Metrics, clip_gradients, make_adamw
from higgs_rt.training.schedule import trapezoid


@dataclass
class CodecSettings:
    """Settings of a codec run; times in seconds, `crop_frames` in frames of 960 samples."""

    seconds: float = 420.0
    max_steps: int = 1_000_000
    batch: int = 32
    crop_frames: int = 48
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 1e-3
    clip: float = 5.0
    decay_from: float = 0.55
    dropout_share: float = 0.4
    mel_weight: float = 1.0
    convergence_weight: float = 0.5
    wave_weight: float = 0.5
    commitment_weight: float = 0.05
    residual_weight: float = 0.1
    seed_steps: tuple[int, ...] = (0, 40, 120, 300)
    log_every: int = 250
    use_fft: bool = True


@dataclass
class AudioPool:
    """Audio as one int16 run on the device, grown in place; crops are uniform over it."""

    samples: torch.Tensor
    filled: int = 0
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def append(self, more: torch.Tensor) -> None:
        """Appends int16 samples (any device) while there is room; the rest is dropped."""
        take = min(more.numel(), self.samples.numel() - self.filled)
        self.samples[self.filled : self.filled + take] = more[:take].to(self.samples.device)
        self.filled += take

    def crops(self, batch: int, length: int) -> torch.Tensor:
        """Random crops, float32 [batch, length], half of them at a gain between -8 and +4 dB."""
        device = self.samples.device
        starts = torch.randint(0, self.filled - length, (batch,), generator=self.generator)
        gain = torch.empty(batch).uniform_(-8, 4, generator=self.generator)
        gain = torch.where(torch.rand(batch, generator=self.generator) < 0.5, gain, 0.0)
        index = starts.to(device)[:, None] + torch.arange(length, device=device)
        scale = (10.0 ** (gain / 20.0) / 32768.0).to(device)
        return self.samples[index].float() * scale[:, None]


def train_codec(
    codec: TrainableCodec,
    pool: AudioPool,
    settings: CodecSettings,
    log: Callable[[str], None],
    refill: Callable[[], None] = lambda: None,
) -> int:
    """Trains in place until `settings.seconds` have passed; returns the number of steps.

    `refill` is called now and then to move newly made audio into the pool.
    """
    device = pool.samples.device
    length = settings.crop_frames * 960
    losses = MelLoss(use_fft=settings.use_fft).to(device)
    parameters = [p for p in codec.parameters() if p.requires_grad]
    optimizer, lr = make_adamw(parameters, device, settings.betas, settings.weight_decay)
    static = pool.crops(settings.batch, length)
    codec.train()

    def step() -> Metrics:
        optimizer.zero_grad(set_to_none=True)
        chance = torch.rand(settings.batch, device=device)
        fewer = torch.randint(1, 9, (settings.batch,), device=device)
        books = torch.where(chance < settings.dropout_share, fewer, 8)
        quantised = codec.quantise(codec.encode_latent(static), books)
        made = codec.decode_latent(quantised.latent)
        mel, convergence = losses(made, static)
        wave = (made - static).abs().mean() / (static.abs().mean() + 1e-3)
        loss = (
            settings.mel_weight * mel
            + settings.convergence_weight * convergence
            + settings.wave_weight * wave
            + settings.commitment_weight * quantised.commitment
            + settings.residual_weight * quantised.residual
        )
        loss.backward()
        norm = clip_gradients(parameters, settings.clip)
        optimizer.step()
        return {
            "mel": mel.detach(),
            "sc": convergence.detach(),
            "wave": wave.detach(),
            "commit": quantised.commitment.detach(),
            "residual": quantised.residual.detach(),
            "norm": norm,
        }

    codec.seed_codebooks([pool.crops(settings.batch, length) for _ in range(4)])
    lr.fill_(settings.learning_rate * 0.03)
    begin = time.monotonic()
    graphed = GraphedStep(step, device)
    log(f"step captured after {time.monotonic() - begin:.1f} s")
    begin = time.monotonic()
    count = 0
    while count < settings.max_steps:
        progress = (time.monotonic() - begin) / settings.seconds
        progress = max(progress, count / settings.max_steps)
        if progress >= 1.0:
            break
        if count in settings.seed_steps[1:]:
            codec.seed_codebooks([pool.crops(settings.batch, length) for _ in range(4)])
        static.copy_(pool.crops(settings.batch, length))
        lr.fill_(settings.learning_rate * trapezoid(progress, count, 200, settings.decay_from))
        codec.decay.fill_(0.9 if count < 300 else 0.97 if progress < 0.5 else 0.99)
        codec.revive.fill_(1.0 if count % 10 == 9 and progress < 0.8 else 0.0)
        metrics = graphed()
        count += 1
        if count % 20 == 0 and device.type == "cuda":
            torch.cuda.synchronize()
        if count % settings.log_every == 0 or count in (1, 10, 50):
            text = " ".join(f"{name} {float(value):.3f}" for name, value in metrics.items())
            log(f"codec step {count} t {time.monotonic() - begin:.0f} s {text}")
            refill()
    report_codec(codec, pool, settings, losses, log)
    return count


@torch.no_grad()
def report_codec(
    codec: TrainableCodec,
    pool: AudioPool,
    settings: CodecSettings,
    losses: MelLoss,
    log: Callable[[str], None],
) -> None:
    """Logs perplexity per book and the mel loss by number of books, on fresh crops."""
    codec.eval()
    waves = pool.crops(2 * settings.batch, settings.crop_frames * 960)
    latent = codec.encode_latent(waves)
    codes = codec.quantise(latent).codes
    size = codec.core.config.codebook_size
    log(f"perplexity per book {perplexity(codes, size)} of {size}")
    for books in (1, 2, 4, 8):
        used = torch.full((waves.shape[0],), books, device=waves.device)
        mel, _ = losses(codec.decode_latent(codec.quantise(latent, used).latent), waves)
        log(f"mel L1 with {books} books {float(mel):.4f} nats")
    mel, _ = losses(codec.decode_latent(latent), waves)
    log(f"mel L1 unquantised {float(mel):.4f} nats")


@torch.no_grad()
def encode_clips(
    codec: TrainableCodec, clips: list[torch.Tensor], batch_frames: int = 16_384
) -> list[torch.Tensor]:
    """Codes (uint8 [8, n] on the CPU) of int16 clips of 960 n samples.

    Clips of one length share a batch, so that no padding changes the semantic branch's statistics:
    the codes are those of each clip alone.
    """
    codec.eval()
    device = next(codec.parameters()).device
    order: dict[int, list[int]] = {}
    for i, clip in enumerate(clips):
        order.setdefault(clip.numel() // 960, []).append(i)
    result: list[torch.Tensor] = [torch.empty(0)] * len(clips)
    for frames, members in order.items():
        size = max(1, batch_frames // frames)
        for at in range(0, len(members), size):
            part = members[at : at + size]
            waves = torch.stack([clips[i] for i in part]).to(device).float() / 32768.0
            codes = codec.quantise(codec.encode_latent(waves)).codes.to(torch.uint8).cpu()
            for i, row in zip(part, codes, strict=True):
                result[i] = row
    return result
