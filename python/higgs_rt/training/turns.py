"""Batches of text-to-speech turns, gathered on the device from one table of clips.

A row is: prefix (system message or only begin_of_text), then one or two of [user turn, audio
columns, audio_eos eot_id]. The first pair of two is a cloning reference. All parts are padded on
their own, which is harmless because attention goes by position (see lm_model). Everything is index
arithmetic on resident tables, so a batch can be composed inside a captured graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from higgs_rt.training.labels import IGNORE, gather_columns
from higgs_rt.training.lm_model import PackedBatch


@dataclass
class TurnTokens:
    """Ids that labels and columns need."""

    audio_eos: int
    eot: int
    audio_out_bos: int
    stream_bos: int
    stream_eos: int


@dataclass
class ClipTable:
    """Clips on the device.

    codes uint8 [F, 8]; start, frames, voice, turn_length int64 [N]; turns int16 [N, U]: the user
    turn with its text, up to and including audio_out_bos; attend float16 [F]: the index in the turn
    that speaks at each frame; prefixes int16 [P, W], prefix_length int64 [P].
    """

    codes: torch.Tensor
    start: torch.Tensor
    frames: torch.Tensor
    voice: torch.Tensor
    turns: torch.Tensor
    turn_length: torch.Tensor
    attend: torch.Tensor
    prefixes: torch.Tensor
    prefix_length: torch.Tensor
    tokens: TurnTokens


@dataclass
class TurnShape:
    """Fixed sizes of a batch: width of the prefix, and per pair of the turn and the columns."""

    rows: int
    prefix: int
    turns: tuple[int, ...]
    columns: tuple[int, ...]

    def positions(self) -> int:
        """Positions per row."""
        return self.prefix + sum(self.turns) + sum(self.columns) + 2 * len(self.turns)


def compose(
    table: ClipTable,
    shape: TurnShape,
    prefix: torch.Tensor,
    texts: list[torch.Tensor],
    clips: list[torch.Tensor],
    late: int = 4,
) -> PackedBatch:
    """A batch of rows: prefix [B], and per pair the clip whose text and the clip whose audio is
    used [B].

    Text and audio of a pair differ only to measure how much the model uses the text. The reference
    pair's first 9 columns carry no label: before them nothing tells the voice.
    """
    device = prefix.device
    tokens = table.tokens
    at = torch.arange(shape.prefix, device=device)
    length = table.prefix_length[prefix]
    text_ids = [table.prefixes[prefix, : shape.prefix].long()]
    text_positions = [torch.where(at < length[:, None], at, -1)]
    text_labels = [torch.full_like(text_ids[0], IGNORE)]
    audio: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = []
    guides: list[tuple[torch.Tensor, torch.Tensor]] = []
    offset = length
    width = shape.prefix
    for pair, (text, clip) in enumerate(zip(texts, clips, strict=True)):
        last = pair == len(texts) - 1
        at = torch.arange(shape.turns[pair], device=device)
        size = table.turn_length[text][:, None]
        text_ids.append(table.turns[text, : shape.turns[pair]].long())
        text_positions.append(torch.where(at < size, offset[:, None] + at, -1))
        opens = (at == size - 2) & last
        text_labels.append(torch.where(opens, tokens.audio_out_bos, IGNORE))
        offset = offset + size[:, 0]
        frames = table.frames[clip]
        at = torch.arange(shape.columns[pair], device=device)
        ids, labels = gather_columns(
            table.codes,
            table.start[clip],
            frames,
            shape.columns[pair] + 1,
            tokens.stream_bos,
            tokens.stream_eos,
        )
        labels = labels[:, 1:]
        if not last:
            labels = torch.where(at[None, :, None] < 9, IGNORE, labels)
        count = frames[:, None] + 9
        closes = torch.where(at == count - 1, tokens.audio_eos, IGNORE)
        audio.append(
            (ids[:, :-1], torch.where(at < count, offset[:, None] + at, -1), labels, closes)
        )
        guides.append(_guides(table, clip, at, width, late))
        offset = offset + count[:, 0]
        at = torch.arange(2, device=device)
        rows = len(prefix)
        text_ids.append(torch.where(at == 0, tokens.audio_eos, tokens.eot).expand(rows, 2))
        text_positions.append(offset[:, None] + at)
        text_labels.append(torch.where(at == 0, tokens.eot, IGNORE).expand(rows, 2))
        offset = offset + 2
        width += shape.turns[pair] + 2
    return PackedBatch(
        torch.cat(text_ids, 1),
        torch.cat(text_positions, 1),
        torch.cat([a[0] for a in audio], 1),
        torch.cat([a[1] for a in audio], 1),
        torch.cat(text_labels + [a[3] for a in audio], 1),
        torch.cat([a[2] for a in audio], 1),
        torch.cat([g[0] for g in guides], 1),
        torch.cat([g[1] for g in guides], 1),
    )


def _guides(
    table: ClipTable, clip: torch.Tensor, at: torch.Tensor, width: int, late: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Text index to look at when predicting column c+1: of frame c (book 0) and of frame c -
    `late`.
    """
    frames = table.frames[clip][:, None]
    result = []
    for shift in (0, late):
        frame = (at - shift).clamp(min=0).minimum(frames - 1)
        index = table.attend[table.start[clip][:, None] + frame].float() + width
        result.append(torch.where(at < frames + shift, index, -1.0))
    return result[0], result[1]


def corrupt(batch: PackedBatch, codes: int, most: float) -> PackedBatch:
    """Replaces a random share (per row, up to `most`) of the input codes by random ones, in place.

    The model learns to go on from its own mistakes, and to trust the text more than the last codes.
    """
    ids = batch.audio_ids
    share = (torch.rand(ids.shape[0], 1, 1, device=ids.device) * 1.4 - 0.4).clamp(min=0.0) * most
    hit = (torch.rand(ids.shape, device=ids.device) < share) & (ids < codes)
    batch.audio_ids = torch.where(hit, torch.randint(0, codes, ids.shape, device=ids.device), ids)
    return batch
