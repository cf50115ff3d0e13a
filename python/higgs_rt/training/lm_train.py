"""The language model's training loop: a few fixed shapes, one captured graph each, time-bounded."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from higgs_rt.training.graph import GraphedStep, Metrics, clip_gradients, make_adamw, restore
from higgs_rt.training.lm_model import ForwardSettings, PackedBatch, losses
from higgs_rt.training.schedule import trapezoid


@dataclass
class LmSettings:
    """Settings of a run; `seconds` excludes the capture of the graphs."""

    seconds: float = 480.0
    max_steps: int = 1_000_000
    learning_rate: float = 1.5e-3
    warmup_steps: int = 400
    decay_from: float = 0.55
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    text_weight: float = 0.1
    guide_weight: float = 0.3
    guide_weight_end: float = 0.05
    dropout: float = 0.1
    guided: tuple[tuple[int, int, bool], ...] = ((2, 0, False), (4, 0, False), (4, 2, True))
    log_every: int = 500
    check_every_seconds: float = 60.0


@dataclass
class Source:
    """A kind of batch: how to make one (on the device, graph-safe) and how often, relative to the
    others.
    """

    name: str
    make: Callable[[], PackedBatch]
    weight: float


def train_lm(
    model: Any,
    sources: list[Source],
    settings: LmSettings,
    device: torch.device,
    log: Callable[[str], None],
    check: Callable[[dict[str, Any]], None],
    moments: dict[str, Any] | None = None,
) -> int:
    """Trains `model` in place; returns the number of steps.

    `check` validates and saves; it is called with the optimizer's state now and then and at the
    end. `moments` is that state of an earlier run.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, lr = make_adamw(parameters, device, settings.betas, settings.weight_decay)
    restore(optimizer, lr, None if moments is None else {"optimizer": moments})
    guide_weight = torch.tensor(settings.guide_weight, device=device)
    numerics = ForwardSettings(
        dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        dropout=settings.dropout,
        guided=settings.guided,
    )

    def stepper(source: Source) -> Callable[[], Metrics]:
        def step() -> Metrics:
            optimizer.zero_grad(set_to_none=True)
            part = losses(model, source.make(), numerics)
            total = part.audio.mean() + settings.text_weight * part.text
            (total + guide_weight * part.guide).backward()  # type: ignore[no-untyped-call]
            norm = clip_gradients(parameters, settings.clip)
            optimizer.step()
            return {
                "audio": part.audio.detach(),
                "text": part.text.detach(),
                "guide": part.guide.detach(),
                "norm": norm,
            }

        return step

    lr.fill_(settings.learning_rate * 0.01)
    pool: Any = None
    steps: list[GraphedStep] = []
    begin = time.monotonic()
    for source in sources:
        if device.type == "cuda" and pool is None:
            pool = torch.cuda.graph_pool_handle()
        steps.append(GraphedStep(stepper(source), device, warmup=2, pool=pool))
        log(f"captured {source.name} after {time.monotonic() - begin:.1f} s")
    chooser = random.Random(0)
    weights = [source.weight for source in sources]
    begin = checked = time.monotonic()
    count = 0
    while count < settings.max_steps:
        now = time.monotonic()
        progress = max((now - begin) / settings.seconds, count / settings.max_steps)
        if progress >= 1.0:
            break
        factor = trapezoid(progress, count, settings.warmup_steps, settings.decay_from)
        lr.fill_(settings.learning_rate * factor)
        share = min(1.0, progress / 0.6)
        guide_weight.fill_(
            settings.guide_weight + share * (settings.guide_weight_end - settings.guide_weight)
        )
        pick = chooser.choices(range(len(sources)), weights)[0]
        metrics = steps[pick]()
        count += 1
        if count % 20 == 0 and device.type == "cuda":
            torch.cuda.synchronize()
        if count % settings.log_every == 0 or count in (1, 10, 100):
            books = " ".join(f"{v:.2f}" for v in metrics["audio"].tolist())
            rest = " ".join(f"{k} {float(metrics[k]):.3f}" for k in ("text", "guide", "norm"))
            mean = float(metrics["audio"].mean())
            log(
                f"lm step {count} t {now - begin:.0f} s {sources[pick].name} "
                f"audio {mean:.3f} [{books}] {rest}"
            )
        if now - checked > settings.check_every_seconds:
            check(optimizer.state_dict())
            checked = time.monotonic()
    check(optimizer.state_dict())
    return count
