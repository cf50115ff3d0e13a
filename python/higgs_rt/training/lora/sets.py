"""What a run trains with and what it validates with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from higgs_rt.prompt import TextTokenizer
from higgs_rt.training.lora.config import TrainingConfig
from higgs_rt.training.lora.data import Loaded, load_folders, split
from higgs_rt.training.lora.examples import Example
from higgs_rt.training.lora.model import stream_ids
from higgs_rt.training.lora.state import TrainingError


def load_sets(
    config: TrainingConfig,
    model_dir: Path,
    base: Any,
    say: Callable[[str], None],
    loaded: Loaded | None = None,
) -> tuple[list[Example], list[Example]]:
    """(to train with, to validate with); `loaded` replaces config.data.

    Says what was too long. TrainingError if nothing is left to train with; HiggsError names the
    file and line of a sample that is malformed.
    """

    def load(folders: Sequence[str]) -> Loaded:
        found = load_folders(
            folders,
            TextTokenizer.load(model_dir),
            stream_ids(base),
            convention=config.convention,
            max_length=config.batch.max_length,
        )
        if found.too_long:
            shown = ", ".join(found.too_long[:3])
            say(
                f"left out {len(found.too_long)} samples longer than batch.max_length "
                f"{config.batch.max_length}: {shown}"
            )
        return found

    loaded = load(config.data) if loaded is None else loaded
    examples = loaded.examples
    if config.validation_data:
        held = load(config.validation_data).examples
        chosen = list(range(len(examples)))
    else:
        chosen, rest = split(len(examples), config.validation.share, config.seed)
        held = [examples[index] for index in rest]
    if not chosen:
        raise TrainingError(
            f"[data] expected samples to train with, got {len(examples)} "
            f"({len(loaded.too_long)} too long)"
        )
    return [examples[index] for index in chosen], held
