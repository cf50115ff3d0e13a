"""The sequences of a verification: ragged prompts of all kinds, and the native engine's logits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from build_engine.model_config import ModelConfig
from build_engine.options import DecoderOptions

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
Kind = Literal["text", "table", "audio"]
# "best": what the engine itself chooses for this machine. "reference": fp64 inside each operation
# (csrc/ops/cpu/isa_reference.cpp).
Kernels = Literal["best", "reference"]

_KERNELS_VARIABLE = "HIGGS_RT_CPU_ISA"

DECODE_STEPS = 32
MAX_SEQUENCES = 6
_LAST_TEXT = 6


@dataclass
class Position:
    """One prompt position: a text id, a prompt-table row [H], or a column [K]."""

    kind: Kind
    value: Any


@dataclass
class Sequence:
    """A prompt and the columns that follow it (all-BOS first), and what is expected of them."""

    prompt: list[Position]
    segments: list[Any]  # the prompt as the runtime takes it
    columns: IntArray  # [n, K]
    expected: FloatArray  # [n, K, V]
    computed: int = 0
    logits: dict[int, FloatArray] = field(default_factory=dict)  # by column

    def at(self, index: int) -> Position:
        """Position `index` of prompt and columns together."""
        if index < len(self.prompt):
            return self.prompt[index]
        return Position("audio", self.columns[index - len(self.prompt)])

    def column(self, index: int) -> int:
        """The column at position `index`, -1 in the prompt."""
        return max(index - len(self.prompt), -1)


@contextmanager
def _kernels(kernels: Kernels) -> Iterator[None]:
    """CPU engines that are made inside use these kernels."""
    if kernels == "best":
        yield
        return
    before = os.environ.get(_KERNELS_VARIABLE)
    os.environ[_KERNELS_VARIABLE] = kernels
    try:
        yield
    finally:
        if before is None:
            del os.environ[_KERNELS_VARIABLE]
        else:
            os.environ[_KERNELS_VARIABLE] = before


def make_sequences(
    model_dir: Path,
    config: ModelConfig,
    options: DecoderOptions,
    rng: np.random.Generator,
    threads: int,
    kernels: Kernels = "best",
) -> list[Sequence]:
    """Ragged prompts of all kinds with random columns, and the native engine's logits, computed
    with the CPU kernels for this machine or with the reference kernels.
    """
    from higgs_rt import _higgs_rt as native

    steps = min(DECODE_STEPS, options.max_seq_len // 2)
    runtime_config = native.RuntimeConfig(
        str(model_dir),
        num_threads=threads,
        max_batch=1,
        max_sequence=options.max_seq_len,
        max_step_tokens=64,
        num_blocks=-(-options.max_seq_len // 16),
    )
    with _kernels(kernels):
        probe = native.Probe(runtime_config)
    codes_end = config.codebook_vocab - 2
    sequences = []
    for index in range(min(options.max_batch, MAX_SEQUENCES)):
        room = options.max_seq_len - steps - 1
        prompt, segments = _random_prompt(index, room, config, options, rng)
        columns = rng.integers(
            0, config.codebook_vocab, (steps + 1, config.num_codebooks), dtype=np.int32
        )
        columns[0] = codes_end
        sequences.append(Sequence(prompt, segments, columns, probe.logits(segments, columns)))
    return sequences


def _random_prompt(
    index: int,
    room: int,
    config: ModelConfig,
    options: DecoderOptions,
    rng: np.random.Generator,
) -> tuple[list[Position], list[Any]]:
    """Sequence 0 has text only, sequence 1 begins with audio, the others mix all kinds."""
    from higgs_rt import _higgs_rt as native

    order: tuple[Kind, ...] = ("text", "audio", "text", "table", "audio", "table")
    kinds: tuple[Kind, ...] = order[: int(rng.integers(3, 7))]
    kinds = () if index == 0 else kinds[1:] if index == 1 else kinds
    prompt: list[Position] = []
    segments: list[Any] = []
    table_rows = 0
    for kind in kinds:
        length = int(rng.integers(1, 24))
        added, segment = _random_part(kind, length, config, rng)
        too_long = len(prompt) + len(added) + _LAST_TEXT > room
        too_many_rows = kind == "table" and table_rows + length > options.max_prompt_table
        if too_long or too_many_rows:
            continue
        table_rows += length if kind == "table" else 0
        prompt += added
        segments.append(getattr(native.PromptSegment, kind)(segment))
    # A prompt ends with text.
    last = rng.integers(0, config.text_vocab, int(rng.integers(1, _LAST_TEXT + 1)), dtype=np.int32)
    segments.append(native.PromptSegment.text(last.tolist()))
    return prompt + [Position("text", int(token)) for token in last], segments


def _random_part(
    kind: Kind, length: int, config: ModelConfig, rng: np.random.Generator
) -> tuple[list[Position], Any]:
    """Positions of one segment, and the segment's content as the runtime takes it."""
    from higgs_rt import _higgs_rt as native

    if kind == "audio":
        shape = (config.num_codebooks, length)
        codes = rng.integers(0, config.codebook_vocab - 2, shape, dtype=np.int32)
        delayed = native.apply_delay(codes, config.codebook_vocab - 2)
        return [Position("audio", column) for column in delayed], codes
    if kind == "table":
        rows = rng.standard_normal((length, config.hidden_size)).astype(np.float32)
        # Numbers that a plan of any precision holds exactly.
        rows = (rows.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        return [Position("table", row) for row in rows], rows
    ids = rng.integers(0, config.text_vocab, length, dtype=np.int32).tolist()
    return [Position("text", token) for token in ids], ids
