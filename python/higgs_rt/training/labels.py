"""Delayed columns and their labels (spec 5 and 10), for one clip or gathered for a batch.

A clip of T frames becomes T+9 columns: codebook k is delayed by k columns behind one all-BOS column
and followed by EOS. The label of column c is what the model should have predicted there: BOS
columns and repeats of EOS are never trained, so every codebook has exactly one EOS label.
"""

from __future__ import annotations

import torch

IGNORE = -100


def delayed_columns(codes: torch.Tensor, bos: int, eos: int) -> torch.Tensor:
    """codes [8, T] -> columns [T+9, 8], as fed to the model."""
    books, frames = codes.shape
    start = torch.zeros((), dtype=torch.long)
    table = codes.t().long()
    columns, _ = gather_columns(
        table, start[None], torch.tensor([frames]), frames + books + 1, bos, eos
    )
    return columns[0]


def column_labels(codes: torch.Tensor, eos: int) -> torch.Tensor:
    """codes [8, T] -> labels [T+9, 8]: label c belongs to column c (predicted at column c-1)."""
    books, frames = codes.shape
    _, labels = gather_columns(
        codes.t().long(), torch.zeros(1).long(), torch.tensor([frames]), frames + books + 1, 0, eos
    )
    return labels[0]


def gather_columns(
    table: torch.Tensor, start: torch.Tensor, frames: torch.Tensor, columns: int, bos: int, eos: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns and labels of a batch of clips that lie in one table of frames.

    table [F, 8] codes; start, frames [B] give each clip's rows; returns ([B, columns, 8], same)
    int64. Column c of codebook k holds frame c-k-1. Columns behind a clip's end (T+9 and later)
    hold EOS and carry no label; the caller masks them.
    """
    books = table.shape[1]
    device = table.device
    book = torch.arange(books, device=device)
    frame = torch.arange(columns, device=device)[:, None] - book[None] - 1
    length = frames[:, None, None]
    row = start[:, None, None] + frame.clamp(min=0).minimum(length - 1)
    code = table[row, book].long()
    inside = (frame >= 0) & (frame < length)
    tail = torch.where(frame[None] < 0, bos, eos)
    ids = torch.where(inside, code, tail)
    labels = torch.where(inside, code, torch.where(frame == length, eos, IGNORE))
    return ids, labels
