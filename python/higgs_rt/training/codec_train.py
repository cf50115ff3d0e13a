"""The codec's training loop: random crops from a pool of audio, one graphed step, time-bounded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from higgs_rt.training.codec_losses import MelLoss
from higgs_rt.training.codec_model import TrainableCodec, perplexity
from higgs_rt.training.graph import GraphedStep, Metrics, clip_gradients, make_adamw, restore
from higgs_rt.training.schedule import Budget, trapezoid


@dataclass
class CodecSettings:
    """Settings of a codec run; times in seconds, `crop_frames` in frames of 960 samples.

    `seconds` and `max_steps` bound this run, `total_seconds` and `total_steps` are those of the
    whole training when it is spread over several runs (see `Budget`).

    The weight of the waveform falls from `wave_weight` to `wave_weight_end` between a tenth and
    four tenths of the run: it starts the learning, but later would spend the codes on phase.
    """

    seconds: float = 420.0
    max_steps: int = 1_000_000
    total_seconds: float = 0.0
    total_steps: int = 0
    batch: int = 32
    crop_frames: int = 48
    learning_rate: float = 6e-4
    warmup: int = 400
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 1e-3
    clip: float = 5.0
    decay_from: float = 0.55
    dropout_share: float = 0.4
    mel_weight: float = 1.0
    convergence_weight: float = 0.5
    wave_weight: float = 0.5
    wave_weight_end: float = 0.15
    commitment_weight: float = 0.05
    residual_weight: float = 0.1
    seed_steps: tuple[int, ...] = (0, 40, 120, 300)
    log_every: int = 250
    refill_every: int = 100
    keep_every_seconds: float = 120.0


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
        """Random crops, float32 [batch, length], half of them at a gain between -12 and +12 dB, but
        never beyond full scale.
        """
        device = self.samples.device
        starts = torch.randint(0, self.filled - length, (batch,), generator=self.generator)
        gain = torch.empty(batch).uniform_(-12, 12, generator=self.generator)
        gain = torch.where(torch.rand(batch, generator=self.generator) < 0.5, gain, 0.0)
        index = starts.to(device)[:, None] + torch.arange(length, device=device)
        waves = self.samples[index].float() / 32768.0
        return at_gain(waves, gain.to(device))


def at_gain(waves: torch.Tensor, decibels: torch.Tensor) -> torch.Tensor:
    """waves [B, L], each louder by its entry of decibels [B], or as far as its peak allows."""
    room = 0.99 / waves.abs().amax(1).clamp(min=1e-4)
    scale = (10.0 ** (decibels / 20.0)).minimum(room.clamp(min=1.0))
    return waves * scale[:, None]


def train_codec(
    codec: TrainableCodec,
    pool: AudioPool,
    settings: CodecSettings,
    log: Callable[[str], None],
    refill: Callable[[], None] = lambda: None,
    earlier: dict[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda state: None,
) -> None:
    """Trains in place until `settings.seconds` have passed.

    `refill` is called now and then to move newly made audio into the pool, `keep` now and then and
    at the end with the state of the training (optimizer, counts, random numbers); `earlier` is such
    a state of an earlier run, which this one goes on from: on the CPU the two do exactly what one
    run over the same steps does.
    """
    device = pool.samples.device
    length = settings.crop_frames * 960
    losses = MelLoss().to(device)
    parameters = [p for p in codec.parameters() if p.requires_grad]
    optimizer, lr = make_adamw(parameters, device, settings.betas, settings.weight_decay)
    restore(optimizer, lr, earlier)
    budget = Budget(
        settings.seconds, settings.max_steps, settings.total_seconds, settings.total_steps
    )
    budget.start(earlier)
    wave_weight = torch.tensor(settings.wave_weight, device=device)
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
            + wave_weight * wave
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

    seeds = settings.seed_steps

    def snapshot() -> dict[str, Any]:
        return {
            "optimizer": optimizer.state_dict(),
            "crops": pool.generator.get_state(),
            "random": torch.get_rng_state(),
            **budget.state(),
        }

    if seeds and budget.steps == 0:
        codec.seed_codebooks([pool.crops(settings.batch, length) for _ in range(4)])
    lr.fill_(settings.learning_rate * 0.03)
    begin = time.monotonic()
    graphed = GraphedStep(step, device)
    log(f"step captured after {time.monotonic() - begin:.1f} s, {budget.steps} steps before")
    if earlier is not None:
        pool.generator.set_state(earlier["crops"].cpu())
        torch.set_rng_state(earlier["random"].cpu())
        if device.type == "cuda":
            torch.cuda.manual_seed(budget.steps)
    budget.start(None)
    kept = 0.0
    while not budget.over():
        progress, count = budget.progress(), budget.steps
        if count in seeds[1:]:
            codec.seed_codebooks([pool.crops(settings.batch, length) for _ in range(4)])
        static.copy_(pool.crops(settings.batch, length))
        rate = trapezoid(progress, count, settings.warmup, settings.decay_from)
        lr.fill_(settings.learning_rate * rate)
        share = min(1.0, max(0.0, (progress - 0.1) / 0.3))
        fall = settings.wave_weight_end - settings.wave_weight
        wave_weight.fill_(settings.wave_weight + share * fall)
        fresh = count < 300 and bool(seeds)
        codec.decay.fill_(0.9 if fresh else 0.97 if progress < 0.5 else 0.99)
        codec.revive.fill_(1.0 if count % 10 == 9 and progress < 0.8 else 0.0)
        metrics = graphed()
        budget.steps = count = count + 1
        if count % 20 == 0 and device.type == "cuda":
            torch.cuda.synchronize()
        if count % settings.log_every == 0 or count in (1, 10, 50):
            text = " ".join(f"{name} {float(value):.3f}" for name, value in metrics.items())
            log(f"codec step {count} t {budget.elapsed():.0f} s {text}")
        if count % settings.refill_every == 0:
            refill()
        if budget.elapsed() - kept > settings.keep_every_seconds:
            kept = budget.elapsed()
            keep(snapshot())
    log(f"{budget.steps} steps, {100 * budget.progress():.0f} % of the training")
    keep(snapshot())
    report_codec(codec, pool, settings, losses, log)


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
    waves = pool.crops(settings.batch, settings.crop_frames * 960)
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
def encode_pool(
    codec: TrainableCodec, samples: torch.Tensor, frames: torch.Tensor, batch_frames: int = 16_384
) -> torch.Tensor:
    """Codes (uint8 [F, 8], on the device) of clips that lie one after another in `samples` (int16
    [960 F]); `frames` int64 [N] are their lengths, with sum F.

    Clips of one length share a batch, so that no padding changes the semantic branch's statistics:
    the codes are those of each clip alone.
    """
    codec.eval()
    device = samples.device
    frames = frames.to(device)
    start = frames.cumsum(0) - frames
    codes = torch.empty(len(samples) // 960, 8, dtype=torch.uint8, device=device)
    for length in sorted(set(frames.tolist())):
        for members in (frames == length).nonzero()[:, 0].split(max(1, batch_frames // length)):
            rows = start[members, None] + torch.arange(length, device=device)
            waves = samples.view(-1, 960)[rows].reshape(len(members), -1).float() / 32768.0
            made = codec.quantise(codec.encode_latent(waves)).codes
            codes[rows] = made.transpose(1, 2).to(torch.uint8)
    return codes
