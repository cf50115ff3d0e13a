"""One optimisation step over all processes, and the validation loss.

A step is a pure function of the configuration, the data, the step's number and the state: the
order of batches comes from (seed, epoch), dropout from (seed, step, batch, process). So a run that
was killed goes on with the losses that it would have had.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from higgs_rt.training.lora.config import TrainingConfig
from higgs_rt.training.lora.data import Order
from higgs_rt.training.lora.examples import Batch, Example, collate
from higgs_rt.training.lora.objective import Objective, base_model
from higgs_rt.training.lora.records import StepLoss


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Of step `step` (from 0): linear warm-up, then a cosine down to `final_share`."""
    o = config.optimizer
    if step < o.warmup_steps:
        return o.learning_rate * (step + 1) / o.warmup_steps
    span = max(1, o.steps - o.warmup_steps)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - o.warmup_steps) / span)))
    return o.learning_rate * (o.final_share + (1 - o.final_share) * fall)


def order_of(config: TrainingConfig, examples: Sequence[Example], seed: int) -> Order:
    """The batches of examples under a configuration's limits."""
    return Order(
        [len(example) for example in examples],
        seed=seed,
        max_positions=config.batch.max_positions,
        max_rows=config.batch.max_rows,
    )


class Stepper:
    """Moves the parameters of an objective."""

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Any,
        objective: Objective,
        examples: Sequence[Example],
        say: Callable[[str], None],
    ) -> None:
        """`accelerator` is accelerate's; examples are those to train with; nothing runs yet."""
        self.config, self.accelerator, self.examples = config, accelerator, examples
        self._say = say
        model = base_model(objective.model)
        self.pad_id = int(model.config.pad_token_id)
        self._has_text = model.text_lm_head is not None
        self._has_speaker = objective.speaker is not None
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        o = config.optimizer
        optimizer = torch.optim.AdamW(
            self.parameters,
            lr=o.learning_rate,
            betas=(o.beta1, o.beta2),
            weight_decay=o.weight_decay,
        )
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self._order = order_of(config, examples, config.seed)

    def step(self, number: int) -> StepLoss | None:
        """One optimisation step; None when its loss is not finite: it is named and skipped."""
        config, accelerator = self.config, self.accelerator
        batches = [self._batch(number, micro) for micro in range(config.batch.accumulation)]
        counts = torch.stack([batch.counts() for batch in batches]).sum(0)
        counts = accelerator.reduce(counts, "sum")
        world = accelerator.num_processes
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, number)
        sums = torch.zeros_like(counts)
        for micro, batch in enumerate(batches):
            torch.manual_seed(self._noise_seed(number, micro))
            last = micro == len(batches) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self.objective):
                loss, part = self.objective(batch, counts)
                accelerator.backward(loss * world)  # data parallelism takes the mean of processes
            sums += part
        sums = accelerator.reduce(sums, "sum")
        result = self._means(sums, counts, sum(b.ids.numel() for b in batches) * world)
        clip = config.optimizer.clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, clip))
        finite = math.isfinite(result.loss) and math.isfinite(norm)
        if finite:
            self.optimizer.step()
        else:
            names = [name for batch in batches for name in batch.names]
            self._say(
                f"[step {number + 1}] expected a finite loss, got {result.loss} (gradient norm "
                f"{norm}): step skipped; samples {', '.join(names[:8])}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        return result if finite else None

    def _batch(self, step: int, micro: int) -> Batch:
        number = self._number(step, micro)
        examples = [self.examples[index] for index in self._order.batch(number)]
        return collate(examples, self.pad_id).to(self.accelerator.device)

    def _number(self, step: int, micro: int) -> int:
        """Of a batch among all of the run, on all processes."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        number: int = (step * self.config.batch.accumulation + micro) * world + rank
        return number

    def _noise_seed(self, step: int, micro: int) -> int:
        return (self.config.seed * 1_000_003 + self._number(step, micro)) % (1 << 63)

    def _means(self, sums: torch.Tensor, counts: torch.Tensor, positions: int) -> StepLoss:
        means = (sums / counts.clamp(min=1)).tolist()
        weights = self.accelerator.unwrap_model(self.objective).weights.tolist()
        loss = sum(w * mean for w, mean in zip(weights, means, strict=True))
        *audio, text, speaker = means
        has_text = self._has_text and float(counts[-2]) > 0
        return StepLoss(
            loss,
            audio,
            text if has_text else None,
            speaker if self._has_speaker else None,
            positions,
        )

    @torch.no_grad()
    def validation_loss(self, examples: Sequence[Example]) -> StepLoss:
        """The loss over `examples`, without dropout, with every label weighed alike."""
        accelerator = self.accelerator
        model = accelerator.unwrap_model(self.objective)
        model.eval()
        size = int(model.weights.shape[0])
        total = torch.zeros(2, size, dtype=torch.float64, device=accelerator.device)
        for number, indices in enumerate(order_of(self.config, examples, 0).first_epoch()):
            if number % accelerator.num_processes != accelerator.process_index:
                continue
            batch = collate([examples[i] for i in indices], self.pad_id).to(accelerator.device)
            counts = batch.counts()
            _, sums = model(batch, counts)
            total += torch.stack([sums, counts])
        model.train()
        total = accelerator.reduce(total, "sum")
        return self._means(total[0], total[1], 0)
