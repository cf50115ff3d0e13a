"""What a run says of itself: losses.jsonl, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from higgs_rt.errors import HiggsError

LOSSES = "losses.jsonl"


@dataclass(frozen=True)
class StepLoss:
    """Means of one step over all processes: loss, audio by codebook, text (None without one),
    speaker term (None when it is off).
    """

    loss: float
    audio: list[float]
    text: float | None
    speaker: float | None
    positions: int

    def row(self) -> dict[str, Any]:
        """For losses.jsonl."""
        return asdict(self)


class Records:
    """The records of one run; a process that is not the main one keeps none."""

    def __init__(
        self, output: Path, *, main: bool, board: bool, step: int, steps: int, every: int
    ) -> None:
        """Goes on after `step` of `steps`; lines of later steps, which are done again, are cut off.

        every: steps between lines. Raises HiggsError when TensorBoard is wanted and missing.
        """
        from tqdm import tqdm

        self._path = output / LOSSES
        self._main, self._every = main, every
        self._board: Any = None
        if main:
            output.mkdir(parents=True, exist_ok=True)
            self._cut_off(step)
            if board:
                self._board = _board(output / "tensorboard", step)
        self._bar = tqdm(total=steps, initial=step, unit="step", disable=None if main else True)

    def _cut_off(self, step: int) -> None:
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [row for row in lines if _step_of(row) <= step]
            self._path.write_text("".join(row + "\n" for row in kept), encoding="utf-8")

    def step(self, step: int, result: StepLoss, rate: float) -> None:
        """A training step and its learning rate."""
        self._bar.update(1)
        if step % self._every or not self._main:
            return
        self._bar.set_postfix(loss=f"{result.loss:.3f}")
        self.write({"step": step, **result.row()})
        self._show("train", result, step)
        self._scalar("learning_rate", rate, step)

    def validation(self, step: int, result: StepLoss) -> None:
        """A validation."""
        self.write({"step": step, "validation": result.row()})
        self._show("validation", result, step)

    def word_error_rate(self, step: int, rate: float) -> None:
        """Of spoken samples."""
        self.write({"step": step, "word_error_rate": rate})
        self._scalar("validation/word_error_rate", rate, step)

    def write(self, row: dict[str, Any]) -> None:
        """One line of losses.jsonl."""
        if self._main:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Ends the progress bar and TensorBoard's file."""
        self._bar.close()
        if self._board is not None:
            self._board.close()

    def _show(self, kind: str, result: StepLoss, step: int) -> None:
        self._scalar(f"{kind}/loss", result.loss, step)
        for book, mean in enumerate(result.audio):
            self._scalar(f"{kind}/codebook_{book}", mean, step)
        if result.text is not None:
            self._scalar(f"{kind}/text", result.text, step)
        if result.speaker is not None:
            self._scalar(f"{kind}/speaker", result.speaker, step)

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._board is not None:
            self._board.add_scalar(name, value, step)


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise HiggsError(
            "[tensorboard] expected tensorboard (pip install 'higgs-rt[train]') or "
            f"tensorboard: false, got: {error}"
        ) from None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def _step_of(row: str) -> float:
    """The step of a line of losses.jsonl; infinite for one that was cut off."""
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
