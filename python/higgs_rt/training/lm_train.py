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
from higgs_rt.training.schedule import Budget, trapezoid


@dataclass
class LmSettings:
    """Settings of a run; `seconds` excludes the capture of the graphs.

    `total_seconds` and `total_steps` are those of the whole training when it is spread over several
    runs (see `Budget`). `book_weights` weigh the codebooks' losses; they add up to 8, so that equal
    ones give the mean of specification 10. `logit_weight` times the mean square of the audio logits
    is added to the loss: it keeps them small, and with them the rounding of a product in fp32.
    """

    seconds: float = 480.0
    max_steps: int = 1_000_000
    total_seconds: float = 0.0
    total_steps: int = 0
    learning_rate: float = 1.5e-3
    warmup_steps: int = 400
    decay_from: float = 0.55
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    text_weight: float = 0.1
    book_weights: tuple[float, ...] = (1.0,) * 8
    logit_weight: float = 0.0
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
    earlier: dict[str, Any] | None = None,
) -> int:
    """Trains `model` in place; returns the number of steps so far, earlier runs included.

    `check` validates and saves; it is called now and then and at the end with the state of the
    training (optimizer, counts, random numbers). `earlier` is such a state of an earlier run, which
    this one goes on from: on the CPU the two do exactly what one run over the same steps does.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, lr = make_adamw(parameters, device, settings.betas, settings.weight_decay)
    restore(optimizer, lr, earlier)
    budget = Budget(
        settings.seconds, settings.max_steps, settings.total_seconds, settings.total_steps
    )
    budget.start(earlier)
    book_weights = torch.tensor(settings.book_weights, device=device)
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
            total = (book_weights * part.audio).mean() + settings.text_weight * part.text
            total = total + settings.logit_weight * part.square
            (total + guide_weight * part.guide).backward()  # type: ignore[no-untyped-call]
            norm = clip_gradients(parameters, settings.clip)
            optimizer.step()
            return {
                "audio": part.audio.detach(),
                "text": part.text.detach(),
                "guide": part.guide.detach(),
                "square": part.square.detach(),
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
    if earlier is not None:
        version, numbers, gauss = earlier["chooser"]
        chooser.setstate((version, tuple(numbers), gauss))
        torch.set_rng_state(earlier["random"].cpu())
        if device.type == "cuda":
            torch.cuda.manual_seed(budget.steps)
    weights = [source.weight for source in sources]

    def snapshot() -> dict[str, Any]:
        return {
            "optimizer": optimizer.state_dict(),
            "chooser": chooser.getstate(),
            "random": torch.get_rng_state(),
            **budget.state(),
        }

    budget.start(None)
    checked = 0.0
    while not budget.over():
        progress, count = budget.progress(), budget.steps
        factor = trapezoid(progress, count, settings.warmup_steps, settings.decay_from)
        lr.fill_(settings.learning_rate * factor)
        share = min(1.0, progress / 0.6)
        guide_weight.fill_(
            settings.guide_weight + share * (settings.guide_weight_end - settings.guide_weight)
        )
        pick = chooser.choices(range(len(sources)), weights)[0]
        metrics = steps[pick]()
        budget.steps = count = count + 1
        if count % 20 == 0 and device.type == "cuda":
            torch.cuda.synchronize()
        if count % settings.log_every == 0 or count in (1, 10, 100):
            log(f"lm step {count} t {budget.elapsed():.0f} s {describe(sources[pick], metrics)}")
        if budget.elapsed() - checked > settings.check_every_seconds:
            check(snapshot())
            checked = budget.elapsed()
    check(snapshot())
    return budget.steps


def describe(source: Source, metrics: Metrics) -> str:
    """The metrics of a step as text."""
    books = " ".join(f"{v:.2f}" for v in metrics["audio"].tolist())
    rest = " ".join(f"{k} {float(metrics[k]):.3f}" for k in ("text", "guide", "square", "norm"))
    return f"{source.name} audio {float(metrics['audio'].mean()):.3f} [{books}] {rest}"
