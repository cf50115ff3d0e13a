"""The training loop: accelerate for devices and processes, exact resume, best and last adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from higgs_rt.checkpoint.files import DEMO_DIRECTORY
from higgs_rt.errors import HiggsError
from higgs_rt.training.lora.config import TrainingConfig
from higgs_rt.training.lora.data import Loaded
from higgs_rt.training.lora.model import add_adapters, load_base_model
from higgs_rt.training.lora.objective import Objective
from higgs_rt.training.lora.records import Records
from higgs_rt.training.lora.sets import load_sets
from higgs_rt.training.lora.speaker import SpeakerTerm
from higgs_rt.training.lora.state import (
    Progress,
    TrainingError,
    load_state,
    save_state,
    write_folder,
)
from higgs_rt.training.lora.steps import Stepper, learning_rate


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
        self.model_dir = DEMO_DIRECTORY if config.model == "demo" else Path(config.model)
        self._watch, self._say_all = watch, say
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        torch.manual_seed(config.seed)
        if model is None:
            model = load_base_model(self.model_dir, getattr(torch, config.dtype))
        examples, self.validation_set = load_sets(config, self.model_dir, model, self.say, loaded)
        speaker = self._speaker(model) if config.objective.speaker_weight else None
        self.peft = add_adapters(model, config.lora, checkpointing=config.gradient_checkpointing)
        self.peft.train()
        o = config.objective
        objective = Objective(
            self.peft,
            o.codebook_weights,
            o.text_weight,
            speaker,
            o.speaker_weight,
            compiled=config.compile_layers,
        )
        self.stepper = Stepper(config, self.accelerator, objective, examples, self.say)
        self.progress = Progress()
        self.records: Records

    def _speaker(self, base: Any) -> SpeakerTerm:
        directory = Path(self.config.codec) if self.config.codec else self.model_dir / "codec"
        num_codes = int(base.config.codebook_size) - 2  # without BOS and EOS
        return SpeakerTerm.load(directory, int(base.config.num_codebooks), num_codes)

    def say(self, message: str) -> None:
        """One line for people, of the first process only."""
        if self.accelerator.is_main_process:
            self._say_all(message)

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
            result = self.stepper.step(progress.step)
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

    def close(self) -> None:
        """Leaves the group of processes, if torchrun began several. Nothing may follow."""
        self.accelerator.end_training()

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

    def _validate(self, step: int) -> None:
        result = self.stepper.validation_loss(self.validation_set)
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
            parameters, optimizer = self.stepper.parameters, self.stepper.optimizer
            save_state(self.output, self.progress, self._identity(), parameters, optimizer)

    def resume(self) -> None:
        """Goes back to `output/state`, if there is one; TrainingError if it is of another run."""
        parameters, optimizer = self.stepper.parameters, self.stepper.optimizer
        found = load_state(self.output, self._identity(), parameters, optimizer)
        if found is not None:
            self.progress = found
            self.say(f"goes on after step {found.step}")

    def _identity(self) -> dict[str, Any]:
        """What must not change between the parts of a run, for the same losses."""
        config = asdict(self.config)
        kept = (
            "model",
            "convention",
            "dtype",
            "compile_layers",
            "seed",
            "lora",
            "objective",
            "batch",
        )
        identity = {name: json.loads(json.dumps(config[name])) for name in (*kept, "optimizer")}
        identity["optimizer"].pop("max_bad_steps")
        if self.config.objective.speaker_weight:
            identity["codec"] = self.config.codec
        identity["samples"] = len(self.stepper.examples)
        identity["processes"] = self.accelerator.num_processes
        return identity
