"""Folders of a run that appear whole: the state to resume from, and adapters."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from higgs_rt.errors import HiggsError

STATE = "state"


class TrainingError(HiggsError):
    """A run cannot go on."""


@dataclass
class Progress:
    """Where a run stands, beyond its tensors."""

    step: int = 0  # steps that are done
    best: float = math.inf  # best validation loss
    best_step: int = 0
    worse: int = 0  # validations since then
    skipped: int = 0  # steps whose loss was not finite
    finished: bool = False


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Lets `fill` write a folder and puts it in place; a reader never sees half of it."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    _replace(partial, target)


def save_state(
    output: Path,
    progress: Progress,
    identity: dict[str, Any],
    parameters: Sequence[torch.Tensor],
    optimizer: Any,
) -> None:
    """Writes `output/state`: all that `load_state` needs."""

    def fill(folder: Path) -> None:
        tensors = [parameter.detach().cpu() for parameter in parameters]
        state = {"parameters": tensors, "optimizer": optimizer.state_dict()}
        torch.save(state, folder / "tensors.pt")
        stored = {"progress": asdict(progress), "identity": identity}
        (folder / "progress.json").write_text(json.dumps(stored, indent=1), encoding="utf-8")

    write_folder(output / STATE, fill)


def load_state(
    output: Path, identity: dict[str, Any], parameters: Sequence[torch.Tensor], optimizer: Any
) -> Progress | None:
    """Goes back to the state in `output/state`; None if there is none.

    TrainingError names what differs between the run that wrote it and this one.
    """
    folder = output / STATE
    _recover(folder)
    if not (folder / "progress.json").is_file():
        return None
    stored = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    for name, value in stored["identity"].items():
        if identity.get(name) != value:
            raise TrainingError(
                f"[{folder}: {name}] expected {value} as when the run began, got "
                f"{identity.get(name)} (another output folder begins a new run)"
            )
    tensors = torch.load(folder / "tensors.pt", map_location="cpu", weights_only=True)
    with torch.no_grad():
        for parameter, saved in zip(parameters, tensors["parameters"], strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(tensors["optimizer"])
    return Progress(**stored["progress"])


def _replace(partial: Path, target: Path) -> None:
    """Puts a finished folder in its place; `_recover` completes it after a kill in between."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _recover(target: Path) -> None:
    """Takes the former folder back if a kill came after it was put away."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)
