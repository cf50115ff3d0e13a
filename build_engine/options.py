"""What to build: options, their limits and the shapes that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from build_engine.backend import Backend
from build_engine.dtypes import OF_PRECISION, DType, Precision
from build_engine.errors import BuildError

WeightMode = Literal["constants", "inputs"]
Component = Literal["decoder", "codec", "all"]

# Slots of one prefill call; more chunks are more calls, which cost little beside their rows.
MAX_PREFILL_BATCH = 4
# Windows of one codec call, and its longest window: a block of 128 frames with 10 on each side.
CODEC_MAX_BATCH = 8
CODEC_MAX_FRAMES = 148
CODEC_USUAL_FRAMES = 84

_LIMITS = {
    "max_batch": (1, 1024),
    "max_seq_len": (16, 131072),
    "max_prefill": (1, 8192),
    "max_prompt_table": (1, 8192),
}


@dataclass(frozen=True)
class DecoderOptions:
    """Limits of a decoder plan.

    max_batch: KV slots. max_seq_len: positions of one sequence. max_prefill: new positions of one
    slot in one call. max_prompt_table: prompt-table rows of one call.
    """

    precision: Precision = "bf16"
    weights: WeightMode = "constants"
    max_batch: int = 32
    max_seq_len: int = 4096
    max_prefill: int = 256
    max_prompt_table: int = 256

    def __post_init__(self) -> None:
        """Raise BuildError that names the option, its limits and its value."""
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise BuildError(f"[{name}] expected {low}..{high}, got {value!r}")
        if self.max_prefill > self.max_seq_len:
            raise BuildError(
                f"[max_prefill] expected at most max_seq_len {self.max_seq_len}, "
                f"got {self.max_prefill}"
            )
        if self.precision not in OF_PRECISION:
            raise BuildError(f"[precision] expected bf16, fp16 or fp32, got {self.precision!r}")
        if self.weights not in ("constants", "inputs"):
            raise BuildError(f"[weights] expected constants or inputs, got {self.weights!r}")

    @property
    def dtype(self) -> DType:
        """Element type of weights, activations and the KV cache."""
        return OF_PRECISION[self.precision]

    @property
    def max_prefill_batch(self) -> int:
        """Slots of one prefill call."""
        return min(self.max_batch, MAX_PREFILL_BATCH)

    def limits(self) -> dict[str, int]:
        """The manifest's object `limits`."""
        names = ("max_batch", "max_seq_len", "max_prefill", "max_prefill_batch", "max_prompt_table")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class BuildOptions:
    """One run of the builder. `targets`: compute capabilities ("sm89"), or ("current",)."""

    backend: Backend | None = None
    targets: tuple[str, ...] = ("current",)
    component: Component = "all"
    decoder: DecoderOptions = DecoderOptions()
