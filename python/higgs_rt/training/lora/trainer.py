"""The training loop: accelerate for devices and processes, exact resume, best and last adapters.

A step is a pure function of the configuration, the data, the step's number and the state: the
order of batches comes from (seed, epoch), dropout from (seed, step, batch, process). So a run that
was killed goes on with the losses that it would have had.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from higgs_rt.checkpoint.files import DEMO_DIRECTORY
from higgs_rt.errors import HiggsError
from higgs_rt.prompt import TextTokenizer
from higgs_rt.training.lora.config import TrainingConfig
from higgs_rt.training.lora.data import Loaded, Order, load_folders, split
from higgs_rt.training.lora.examples import Batch, Example, collate
from higgs_rt.training.lora.model import add_adapters, load_base_model, stream_ids
from higgs_rt.training.lora.objective import Objective
from higgs_rt.training.lora.records import Records, StepLoss
from higgs_rt.training.lora.state import (
    Progress,
    TrainingError,
    load_state,
    save_state,
    write_folder,
)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Of step `step` (from 0): linear warm-up, then a cosine down to `final_share`."""
    o = config.optimizer
    if step < o.warmup_steps:
        return o.learning_rate * (step + 1) / o.warmup_steps
    span = max(1, o.steps - o.warmup_steps)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - o.warmup_steps) / span)))
    return o.learning_rate * (o.final_share + (1 - o.final_share) * fall)


class Trainer:
    """A LoRA run. `train` starts or continues it."""

    def __init__(
        self,
        config: TrainingConfig,
        *,
        say: Callable[[str], None] = print,
        model: Any = None,
        loaded: Loaded | None = None,
        watch: Callable[[Trainer], None] | None = None,
    ) -> None:
        """Loads model and data. `watch` is called after every step; `model` and `loaded` replace
        what the configuration names, for benchmarks.

        Raises HiggsError naming the file or field at fault.
        """
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise HiggsError(
                f"[train] expected accelerate (pip install 'higgs-rt[train]'), got: {error}"
            ) from None
        self.config = config
        self.output = Path(config.output)
        directory = DEMO_DIRECTORY if config.model == "demo" else Path(config.model)
        self.model_dir = directory
        self._watch = watch
        half = config.dtype == "bfloat16" and torch.cuda.is_available()
        self.accelerator = Accelerator(
            mixed_precision="bf16" if half else "no", cpu=not torch.cuda.is_available()
        )
        self._say_all = say
        torch.manual_seed(config.seed)
        base = load_base_model(directory, getattr(torch, config.dtype)) if model is None else model
        self.has_text_head = base.text_lm_head is not None
        self.pad_id = int(base.config.pad_token_id)
        if loaded is None:
            loaded = self._load(config.data, base)
        self.train_set, self.validation_set = self._divide(loaded, base)
        peft = add_adapters(base, config.lora, checkpointing=config.gradient_checkpointing)
        peft.train()
        objective = Objective(peft, config.objective.codebook_weights, config.objective.text_weight)
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        o = config.optimizer
        optimizer = torch.optim.AdamW(
            self.parameters,
            lr=o.learning_rate,
            betas=(o.beta1, o.beta2),
            weight_decay=o.weight_decay,
        )
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.peft = self.accelerator.unwrap_model(self.objective).model
        self.progress = Progress()
        self.order = Order(
            [len(example) for example in self.train_set],
            seed=config.seed,
            max_positions=config.batch.max_positions,
            max_rows=config.batch.max_rows,
        )
        self.records: Records

    def say(self, message: str) -> None:
        """One line for people, of the first process only."""
        if self.accelerator.is_main_process:
            self._say_all(message)

    def _load(self, folders: Sequence[str], base: Any) -> Loaded:
        loaded = load_folders(
            folders,
            TextTokenizer.load(self.model_dir),
            stream_ids(base),
            convention=self.config.convention,
            max_length=self.config.batch.max_length,
        )
        if loaded.too_long:
            shown = ", ".join(loaded.too_long[:3])
            self.say(
                f"left out {len(loaded.too_long)} samples longer than batch.max_length "
                f"{self.config.batch.max_length}: {shown}"
            )
        return loaded

    def _divide(self, loaded: Loaded, base: Any) -> tuple[list[Example], list[Example]]:
        examples = loaded.examples
        if self.config.validation_data:
            held = self._load(self.config.validation_data, base).examples
            chosen = list(range(len(examples)))
        else:
            share = self.config.validation.share
            chosen, rest = split(len(examples), share, self.config.seed)
            held = [examples[index] for index in rest]
        if not chosen:
            raise TrainingError(
                f"[data] expected samples to train with, got {len(examples)} "
                f"({len(loaded.too_long)} too long)"
            )
        return [examples[index] for index in chosen], held

    def train(self) -> Progress:
        """Runs to the end, or to an early stop. Raises TrainingError when losses stay not finite.

        A finished run is not begun again.
        """
        self.resume()
        config, progress = self.config, self.progress
        bad = 0
        self.records = Records(
            self.output,
            main=self.accelerator.is_main_process,
            board=config.tensorboard,
            step=progress.step,
            steps=config.optimizer.steps,
            every=config.log_every,
        )
        while progress.step < config.optimizer.steps and not progress.finished:
            result = self.step(progress.step)
            progress.step += 1
            bad = 0 if result is not None else bad + 1
            if result is None:
                progress.skipped += 1
                if bad >= config.optimizer.max_bad_steps:
                    raise TrainingError(
                        f"[step {progress.step}] expected a finite loss, got {bad} steps in a row "
                        "(optimizer.max_bad_steps) without one"
                    )
            else:
                rate = learning_rate(config, progress.step - 1)
                self.records.step(progress.step, result, rate)
            self._after(progress.step)
            if self._watch is not None:
                self._watch(self)
        progress.finished = True
        self.save_state()
        self.save_adapter("last")
        self.records.close()
        return progress

    def _after(self, step: int) -> None:
        """What is due after a step: validation, speech, states."""
        config = self.config
        last = step == config.optimizer.steps
        every = config.validation.every
        if self.validation_set and every and (step % every == 0 or last):
            self._validate(step)
        speak = config.validation.speak_every
        if speak and (step % speak == 0 or last):
            self._speak(step)
        if config.save_every and step % config.save_every == 0 and not last:
            self.save_state()
            self.save_adapter("last")

    # --- steps ---------------------------------------------------------------------------------

    def step(self, number: int) -> StepLoss | None:
        """One optimisation step; None when its loss is not finite: it is named and skipped."""
        config, accelerator = self.config, self.accelerator
        batches = [self._batch(number, micro) for micro in range(config.batch.accumulation)]
        counts = torch.stack(
            [torch.cat([b.audio_counts(), b.text_count()[None]]) for b in batches]
        ).sum(0)
        counts = accelerator.reduce(counts, "sum")
        world = accelerator.num_processes
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, number)
        sums = torch.zeros_like(counts)
        for micro, batch in enumerate(batches):
            torch.manual_seed(self._noise_seed(number, micro))
            last = micro == len(batches) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self.objective):
                loss, part = self.objective(batch, counts[:-1], counts[-1])
                accelerator.backward(loss * world)  # data parallelism takes the mean of processes
            sums += torch.cat([part.audio, part.text[None]]).double()
        sums = accelerator.reduce(sums, "sum")
        result = self._means(sums, counts, sum(b.ids.numel() for b in batches) * world)
        clip = config.optimizer.clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, clip))
        finite = math.isfinite(result.loss) and math.isfinite(norm)
        if finite:
            self.optimizer.step()
        else:
            names = [name for batch in batches for name in batch.names]
            self.say(
                f"[step {number + 1}] expected a finite loss, got {result.loss} (gradient norm "
                f"{norm}): step skipped; samples {', '.join(names[:8])}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        return result if finite else None

    def _batch(self, step: int, micro: int) -> Batch:
        accelerator = self.accelerator
        number = step * self.config.batch.accumulation + micro
        number = number * accelerator.num_processes + accelerator.process_index
        examples = [self.train_set[index] for index in self.order.batch(number)]
        return collate(examples, self.pad_id).to(accelerator.device)

    def _noise_seed(self, step: int, micro: int) -> int:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        number: int = (step * self.config.batch.accumulation + micro) * world + rank
        return (self.config.seed * 1_000_003 + number) % (1 << 63)

    def _means(self, sums: torch.Tensor, counts: torch.Tensor, positions: int) -> StepLoss:
        means = (sums / counts.clamp(min=1)).tolist()
        weights = self.accelerator.unwrap_model(self.objective).weights.tolist()
        loss = sum(w * mean for w, mean in zip(weights, means[:-1], strict=True))
        text = means[-1] if self.has_text_head and counts[-1] > 0 else None
        if text is not None:
            loss += self.config.objective.text_weight * text
        return StepLoss(loss, means[:-1], text, positions)

    @torch.no_grad()
    def validation_loss(self) -> StepLoss:
        """The loss over the validation set, without dropout, with every label weighed alike."""
        config, accelerator = self.config, self.accelerator
        lengths = [len(example) for example in self.validation_set]
        plan = Order(
            lengths,
            seed=0,
            max_positions=config.batch.max_positions,
            max_rows=config.batch.max_rows,
        )
        model = accelerator.unwrap_model(self.objective)
        model.eval()
        total: torch.Tensor | None = None
        for number, indices in enumerate(plan.first_epoch()):
            if number % accelerator.num_processes != accelerator.process_index:
                continue
            batch = collate([self.validation_set[i] for i in indices], self.pad_id)
            batch = batch.to(accelerator.device)
            counts = torch.cat([batch.audio_counts(), batch.text_count()[None]])
            with accelerator.autocast():
                _, part = model(batch, counts[:-1], counts[-1])
            sums = torch.cat([part.audio, part.text[None]]).double()
            pair = torch.stack([sums, counts])
            total = pair if total is None else total + pair
        model.train()
        books = int(model.weights.shape[0])
        if total is None:
            total = torch.zeros(2, books + 1, dtype=torch.float64, device=accelerator.device)
        total = accelerator.reduce(total, "sum")
        return self._means(total[0], total[1], 0)

    def _validate(self, step: int) -> None:
        result = self.validation_loss()
        progress = self.progress
        books = " ".join(f"{mean:.2f}" for mean in result.audio)
        text = "" if result.text is None else f", text {result.text:.3f}"
        self.say(f"step {step}: validation {result.loss:.4f} [{books}]{text}")
        self.records.validation(step, result)
        if result.loss < progress.best:
            progress.best, progress.best_step, progress.worse = result.loss, step, 0
            self.save_adapter("best")
        else:
            progress.worse += 1
            patience = self.config.validation.patience
            if patience and progress.worse >= patience:
                self.say(f"step {step}: stopped, best validation at step {progress.best_step}")
                progress.finished = True

    def _speak(self, step: int) -> None:
        self.save_adapter("last")
        if not self.accelerator.is_main_process:
            return
        from higgs_rt.training.lora.listen import speak_samples

        rate = speak_samples(
            self.config.validation,
            self.model_dir,
            self.output / "last",
            self.output / "speech" / f"step_{step:06d}",
        )
        self.say(f"step {step}: word error rate {rate:.3f}")
        self.records.word_error_rate(step, rate)

    def save_adapter(self, name: str) -> None:
        """Writes `output/name` in peft's format."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_folder(
                self.output / name,
                lambda folder: self.peft.save_pretrained(str(folder), save_embedding_layers=False),
            )

    def save_state(self) -> None:
        """Writes `output/state`, on the first process."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            save_state(
                self.output, self.progress, self._identity(), self.parameters, self.optimizer
            )

    def resume(self) -> None:
        """Goes back to `output/state`, if there is one; TrainingError if it is of another run."""
        found = load_state(self.output, self._identity(), self.parameters, self.optimizer)
        if found is not None:
            self.progress = found
            self.say(f"goes on after step {found.step}")

    def _identity(self) -> dict[str, Any]:
        """What must not change between the parts of a run, for the same losses."""
        config = asdict(self.config)
        kept = ("model", "convention", "dtype", "seed", "lora", "objective", "batch", "optimizer")
        identity = {name: json.loads(json.dumps(config[name])) for name in kept}
        identity["optimizer"].pop("max_bad_steps")
        identity["samples"] = len(self.train_set)
        identity["processes"] = self.accelerator.num_processes
        return identity
