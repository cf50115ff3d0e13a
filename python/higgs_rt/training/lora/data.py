"""Prepared data: `samples.jsonl` beside a cache of codes, and batches of like lengths from it.

A prepared folder is written by `prepare.py`. Each line of samples.jsonl is a ChatML sample
(samples.py) whose audio parts name a file of codes, int16 [num_codebooks, num_frames].
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from higgs_rt.errors import HiggsError
from higgs_rt.prompt import AudioClip, Convention, Message, TextTokenizer
from higgs_rt.prompt.chatml import Codes, Role
from higgs_rt.training.lora.examples import Example, StreamIds, make_example
from higgs_rt.training.lora.samples import AudioPart, ChatMessage, Sample, read_samples

SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class Loaded:
    """Examples that fit, and the names of those that were left out for their length."""

    examples: list[Example]
    texts: list[str]  # of the last user message, one for each example
    too_long: list[str]


def load_folders(
    folders: Sequence[str | Path],
    tokenizer: TextTokenizer,
    stream: StreamIds,
    *,
    convention: Convention,
    max_length: int,
) -> Loaded:
    """All samples of prepared folders as examples.

    Raises HiggsError naming the file and line of a sample that is malformed or whose codes are
    missing or of another codec.
    """
    examples: list[Example] = []
    texts: list[str] = []
    too_long: list[str] = []
    for folder in map(Path, folders):
        if not (folder / SAMPLES).is_file():
            raise HiggsError(
                f"[{folder}] expected a folder made by `higgs-rt train prepare` ({SAMPLES}), "
                "got none"
            )
        for sample in read_samples(folder / SAMPLES):
            first = sample.messages[0].role
            if convention == "transformers" and first != "system":
                raise HiggsError(
                    f"[{sample.place}] expected a system message first in the transformers "
                    f"convention, got {first}; prepare --convention transformers writes one"
                )
            messages = [message_of(one, folder, sample) for one in sample.messages]
            example = make_example(
                messages,
                tokenizer,
                stream,
                start_index=sample.start_index,
                convention=convention,
                name=sample.place,
            )
            if len(example) > max_length:
                too_long.append(f"{sample.place} ({len(example)} positions)")
                continue
            examples.append(example)
            texts.append(_last_text(messages))
    return Loaded(examples, texts, too_long)


def message_of(message: ChatMessage, folder: Path, sample: Sample) -> Message:
    """A message with its clips' codes read from the cache."""
    parts = [
        p if isinstance(p, str) else AudioClip(_codes(p, folder, sample)) for p in message.parts
    ]
    return Message(cast(Role, message.role), tuple(parts), message.recipient)


def _codes(part: AudioPart, folder: Path, sample: Sample) -> Codes:
    if not part.codes:
        raise HiggsError(f"[{sample.place}] expected audio with codes, got only a recording")
    path = folder / part.codes
    try:
        codes: Codes = np.load(path, allow_pickle=False).astype(np.int32)
        return codes
    except (OSError, ValueError) as error:
        raise HiggsError(f"[{sample.place}: {path}] expected codes, got: {error}") from None


def _last_text(messages: Sequence[Message]) -> str:
    for message in reversed(messages):
        if message.role == "user":
            return " ".join(part for part in message.parts if isinstance(part, str))
    return ""


def plan_epoch(
    lengths: Sequence[int],
    *,
    seed: int,
    epoch: int,
    max_positions: int,
    max_rows: int,
) -> list[list[int]]:
    """Batches (indices) of one pass: neighbours in length together, in random order.

    A pure function of its arguments: a run that goes on after an interruption, and every process of
    a run, has the same plan. Lengths are compared after a random offset of up to a tenth, so that
    an example meets others in every epoch. A batch holds at most `max_rows`, and at most
    `max_positions` with padding (a longer example goes alone).
    """
    rng = random.Random(f"{seed} {epoch}")
    keys = [length * (1 + 0.1 * rng.random()) for length in lengths]
    order = sorted(range(len(lengths)), key=keys.__getitem__)
    batches: list[list[int]] = []
    current: list[int] = []
    longest = 0
    for index in order:
        widest = max(longest, lengths[index])
        if current and (len(current) == max_rows or widest * (len(current) + 1) > max_positions):
            batches.append(current)
            current, widest = [], lengths[index]
        current.append(index)
        longest = widest
    if current:
        batches.append(current)
    rng.shuffle(batches)
    return batches


class Order:
    """The batches of a whole run: step, micro-batch and process to indices."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        seed: int,
        max_positions: int,
        max_rows: int,
    ) -> None:
        self._arguments = (list(lengths), seed, max_positions, max_rows)
        self._epoch = -1
        self._begin = 0  # global number of the epoch's first batch
        self._batches: list[list[int]] = []

    def batch(self, number: int) -> list[int]:
        """The indices of the global batch `number`; numbers may only grow by and large."""
        if number < self._begin:
            self._epoch, self._begin, self._batches = -1, 0, []
        while number >= self._begin + len(self._batches):
            lengths, seed, positions, rows = self._arguments
            self._begin += len(self._batches)
            self._epoch += 1
            self._batches = plan_epoch(
                lengths, seed=seed, epoch=self._epoch, max_positions=positions, max_rows=rows
            )
        return self._batches[number - self._begin]

    def first_epoch(self) -> list[list[int]]:
        """All batches of one pass."""
        lengths, seed, positions, rows = self._arguments
        return plan_epoch(lengths, seed=seed, epoch=0, max_positions=positions, max_rows=rows)

    @property
    def epoch(self) -> int:
        """Of the batch asked for last."""
        return self._epoch


def split(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train with and to validate with; at least one of the latter if share > 0."""
    order = list(range(count))
    random.Random(f"split {seed}").shuffle(order)
    held = min(count - 1, max(1, round(count * share))) if share > 0 else 0
    return sorted(order[held:]), sorted(order[:held])
