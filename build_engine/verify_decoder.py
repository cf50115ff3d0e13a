"""The decoder network against the native engine, on the same steps.

The network's caller is written here a second time, in Python, from docs/tensorrt.md: ragged prompts
in random chunks, all kinds of position, slots without rows between slots with rows, padding,
columns fed back or given. Expected logits come from the native CPU engine, one sequence at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from build_engine.checkpoint import Weight
from build_engine.decoder import FEEDBACK
from build_engine.definition import Definition
from build_engine.interpreter import Interpreter
from build_engine.model_config import ModelConfig
from build_engine.options import DecoderOptions
from build_engine.verify_sequences import (
    FloatArray,
    IntArray,
    Kernels,
    Position,
    Sequence,
    make_sequences,
)
from build_engine.walk import Graph

# What unwritten memory holds in the test: finite, and large enough that reading it shows.
GARBAGE = 37.0
SEED = 2026


@dataclass
class _Call:
    """One call of the plan under construction; numpy lists become inputs."""

    text: list[tuple[int, int]] = field(default_factory=list)  # (id, place)
    audio: list[tuple[int, int]] = field(default_factory=list)
    table: list[FloatArray] = field(default_factory=list)
    columns: list[IntArray] = field(default_factory=list)
    wanted: list[tuple[int, int, int]] = field(default_factory=list)  # place, sequence, column


class NetworkEngine:
    """Runs steps of `sequences` through a network, sequence i in slot i."""

    def __init__(
        self,
        graph: Graph,
        definition: Definition,
        config: ModelConfig,
        options: DecoderOptions,
        sequences: list[Sequence],
        *,
        rounding: bool,
    ) -> None:
        """Caches hold garbage at first. Without `rounding` the network runs in fp64."""
        self._compute = torch.float32 if rounding else torch.float64
        self._interpreter = Interpreter(
            graph,
            definition.weights,
            definition.stored,
            rounding=rounding,
            compute=self._compute,
        )
        self._config = config
        self._options = options
        self.sequences = sequences
        self._weights: Mapping[str, Weight] = {
            name: weight for name, (weight, _) in definition.weight_inputs.items()
        }
        shape = (len(sequences), config.num_kv_heads, options.max_seq_len, config.head_dim)
        self._caches = {
            f"past_{which}_{layer}": torch.full(shape, GARBAGE, dtype=self._compute)
            for which in "kv"
            for layer in range(config.num_layers)
        }

    def prefill(self, first: int, rows: list[int]) -> None:
        """The next `rows[i]` positions of sequence `first + i`; 0: a slot without rows."""
        length = max(rows)
        self._run(first, rows, length, prefill=True, feedback=False)

    def decode(self, rows: list[int], feedback: bool) -> None:
        """One column of every sequence with `rows[i]` 1."""
        self._run(0, rows, 1, prefill=False, feedback=feedback)

    def _run(
        self, first: int, rows: list[int], length: int, *, prefill: bool, feedback: bool
    ) -> None:
        active = self.sequences[first : first + len(rows)]
        call = _Call()
        last_columns = np.full(
            (len(self.sequences), self._config.num_codebooks), -(1 << 20), np.int32
        )
        position = np.zeros((len(rows), length), np.int32)
        for slot, (sequence, count) in enumerate(zip(active, rows, strict=True)):
            for step in range(count):
                index = sequence.computed + step
                place = slot * length + step
                position[slot, step] = index
                self._add_row(call, sequence.at(index), place, first + slot, feedback, last_columns)
                if sequence.column(index) >= 0:
                    call.wanted.append((place, first + slot, sequence.column(index)))
        if prefill and not call.text:
            call.text.append((0, 0))  # the profile needs a text row; no place of the grid names it
            dummy = 1
        else:
            dummy = 0
        if not prefill:
            # A graph of a fixed batch has rows that belong to no slot; they repeat a real one.
            call.audio += [(call.audio[0][0], 0)] * (len(rows) - len(call.audio))
        inputs = self._inputs(call, rows, length, dummy)
        inputs["position"] = torch.from_numpy(position)
        inputs["last_columns"] = torch.from_numpy(last_columns)
        inputs["write_index"] = torch.tensor([sequence.computed for sequence in active])
        inputs["kv_length"] = torch.tensor(
            [max(s.computed + n, 1) if n else 1 for s, n in zip(active, rows, strict=True)]
        )
        for name, cache in self._caches.items():
            inputs[name] = cache[first : first + len(rows)]
        logits = self._interpreter.run({**inputs, **self._weights})["logits"]
        for row, (_, index, column) in enumerate(call.wanted):
            self.sequences[index].logits[column] = logits[row].to(torch.float32).numpy()
        for sequence, count in zip(active, rows, strict=True):
            sequence.computed += count

    def _add_row(
        self,
        call: _Call,
        content: Position,
        place: int,
        index: int,
        feedback: bool,
        last_columns: IntArray,
    ) -> None:
        if content.kind == "text":
            call.text.append((content.value, place))
        elif content.kind == "table":
            call.text.append((self._config.text_vocab + len(call.table), place))
            call.table.append(content.value)
        elif feedback:
            last_columns[index] = content.value
            call.audio.append((FEEDBACK + index, place))
        else:
            call.audio.append((len(call.columns), place))
            call.columns.append(content.value)

    def _inputs(self, call: _Call, rows: list[int], length: int, dummy: int) -> dict[str, Any]:
        """All inputs that follow from the rows; unused memory holds what no row may read."""
        config = self._config
        places = {place: row for row, (_, place) in enumerate(call.text[dummy:], dummy)}
        for row, (_, place) in enumerate(call.audio, len(call.text)):
            places.setdefault(place, row)
        row_index = np.zeros(len(rows) * length, np.int32)
        for place, row in places.items():
            row_index[place] = row
        spare = [np.full(config.num_codebooks, -(1 << 20), np.int32)]
        table = call.table or [np.full(config.hidden_size, np.float32(1e30))]
        lists = {
            "text_ids": [token for token, _ in call.text],
            "text_place": [place for _, place in call.text],
            "audio_ids": [index for index, _ in call.audio],
            "audio_place": [place for _, place in call.audio],
            "logit_rows": [places[place] for place, _, _ in call.wanted] or [0],
        }
        inputs: dict[str, Any] = {
            name: torch.tensor(values, dtype=torch.int32) for name, values in lists.items()
        }
        inputs["row_index"] = torch.from_numpy(row_index.reshape(len(rows), length))
        inputs["columns"] = torch.from_numpy(np.stack(call.columns + spare))
        inputs["table_rows"] = torch.from_numpy(np.stack(table).astype(np.float32)).to(
            self._compute
        )
        return inputs


def run_all(engine: NetworkEngine, options: DecoderOptions, rng: np.random.Generator) -> None:
    """Prompts in random chunks, up to `max_prefill_batch` slots a call; then decode steps."""
    sequences = engine.sequences
    width = options.max_prefill_batch
    for first in range(0, len(sequences), width):
        group = sequences[first : first + width]
        # With its first column a prompt gives the logits of the second.
        while left := [len(s.prompt) + 1 - s.computed for s in group]:
            if not any(left):
                break
            rows = [min(n, int(rng.integers(0, options.max_prefill + 1))) for n in left]
            # A padded slot must have room for the longest one.
            longest = max(rows)
            fits = all(s.computed + longest <= options.max_seq_len for s in group)
            if longest and fits:
                engine.prefill(first, rows)
    step = 0
    while any(s.computed < len(s.prompt) + len(s.columns) for s in sequences):
        # Now and then a slot has no row in a step.
        rows = [
            int(s.computed < len(s.prompt) + len(s.columns) and rng.random() > 0.15)
            for s in sequences
        ]
        if any(rows):
            engine.decode(rows, feedback=step % 4 != 3)
            step += 1


@dataclass(frozen=True)
class Difference:
    """Network against native engine over some logits. Errors are absolute."""

    what: str
    rows: int
    max_error: float
    rms_error: float
    rms_logit: float
    max_logit: float
    agreement: float  # of arg-max per codebook, 0..1
    kernels: Kernels  # of the native engine


def compare(
    what: str, sequences: list[Sequence], prefill: bool, kernels: Kernels = "best"
) -> Difference:
    """The logits of each prompt's last row, or of all decode steps."""
    found, expected = [], []
    for sequence in sequences:
        for column, logits in sequence.logits.items():
            if (column == 0) == prefill:
                found.append(logits)
                expected.append(sequence.expected[column])
    a, b = np.stack(found).astype(np.float64), np.stack(expected).astype(np.float64)
    error = np.abs(a - b)
    return Difference(
        what,
        len(found) * a.shape[1],
        float(error.max()) if np.isfinite(error).all() else float("inf"),
        float(np.sqrt(np.mean(error**2))),
        float(np.sqrt(np.mean(b**2))),
        float(np.abs(b).max()),
        float(np.mean(a.argmax(-1) == b.argmax(-1))),
        kernels,
    )


def verify_decoder(
    graph: Graph,
    definition: Definition,
    config: ModelConfig,
    options: DecoderOptions,
    model_dir: Path,
    *,
    rounding: bool,
    threads: int = 1,
) -> list[Difference]:
    """Prefill and decode differences of one pass (see `Interpreter` for `rounding`): from the
    engine's usual kernels, and without rounding first from its reference kernels.
    """
    rng = np.random.default_rng(SEED)
    kernels: Kernels = "best" if rounding else "reference"
    sequences = make_sequences(model_dir, config, options, rng, threads, kernels)
    engine = NetworkEngine(graph, definition, config, options, sequences, rounding=rounding)
    with torch.inference_mode():
        run_all(engine, options, rng)
    for sequence in sequences:
        if len(sequence.logits) != len(sequence.columns):
            raise AssertionError("a column was not computed")
    phases = (("prefill", True), ("decode", False))
    differences = [compare(what, sequences, prefill, kernels) for what, prefill in phases]
    if not rounding:
        again = make_sequences(model_dir, config, options, np.random.default_rng(SEED), threads)
        for sequence, same in zip(sequences, again, strict=True):
            sequence.expected = same.expected
        differences += [compare(what, sequences, prefill) for what, prefill in phases]
    return differences
