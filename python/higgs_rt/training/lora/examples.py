"""From a conversation to one training sequence: ids, columns and labels (specification 10).

Pieces are rendered and tokenised by `higgs_rt.prompt`, the code that the runtime uses; this module
only remembers which piece belongs to which message, to know what is trained.

Labels stand at the position that predicts them. Text: the assistant's words, recipient, audio-out
BOS, audio EOS and the end of its turn; no headers, no placeholders, nothing of other roles. Audio:
the codes and exactly one EOS of each codebook; no BOS column, no repeated EOS. What precedes
`start_index` is context only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from higgs_rt.errors import InvalidRequestError
from higgs_rt.prompt import (
    AudioClip,
    AudioSegment,
    Convention,
    Message,
    TextTokenizer,
    check_convention,
    render_transformers,
)
from higgs_rt.prompt.chatml import Piece, encode_pieces, render_message
from higgs_rt.training.labels import IGNORE, column_labels, delayed_columns


@dataclass(frozen=True)
class StreamIds:
    """Of the audio stream: codebooks, ids of one codebook (BOS and EOS included), and the two."""

    num_codebooks: int
    codebook_size: int
    bos: int
    eos: int


@dataclass(frozen=True, eq=False)
class Example:
    """One sequence of L positions, A of them audio.

    ids int64 [L], the placeholder's at audio positions; is_audio bool [L]; columns int64 [A, K];
    text_labels int64 [L] and audio_labels int64 [A, K]: what the position predicts, or IGNORE.
    `name` says in messages where the sample comes from.
    """

    ids: torch.Tensor
    is_audio: torch.Tensor
    columns: torch.Tensor
    text_labels: torch.Tensor
    audio_labels: torch.Tensor
    name: str = ""

    def __len__(self) -> int:
        """Positions."""
        return int(self.ids.shape[0])


def make_example(
    messages: Sequence[Message],
    tokenizer: TextTokenizer,
    stream: StreamIds,
    *,
    start_index: int = 0,
    convention: Convention = "original",
    name: str = "",
) -> Example:
    """The sequence of a conversation whose assistant messages from `start_index` on are trained.

    InvalidRequestError names a clip that the model's stream cannot hold, or says that nothing is
    left to train.
    """
    check_convention(convention)
    trained = [m.role == "assistant" and i >= start_index for i, m in enumerate(messages)]
    ids: list[int] = []
    audio: list[bool] = []
    learnt: list[bool] = []  # text that is a target
    columns, labels = [], []
    for piece, owner, is_target in _owned_pieces(messages, trained, convention):
        for segment in encode_pieces([piece], tokenizer):
            if isinstance(segment, AudioSegment):
                codes = _checked(segment, stream, name)
                columns.append(delayed_columns(codes, stream.bos, stream.eos))
                wanted = column_labels(codes, stream.eos)
                following = torch.full_like(wanted, IGNORE)
                if trained[owner]:
                    following[:-1] = wanted[1:]
                labels.append(following)
                ids += [tokenizer.special_id(segment.placeholder)] * segment.num_columns
                audio += [True] * segment.num_columns
                learnt += [False] * segment.num_columns
            else:
                ids += segment.ids
                audio += [False] * len(segment.ids)
                learnt += [is_target] * len(segment.ids)
    if convention == "transformers":
        _mark_clips(messages, trained, audio, learnt)
    if not any(learnt):
        raise InvalidRequestError(
            f"[{name or 'sample'}] expected an assistant message at index {start_index} "
            f"(start_index) or later, got {len(messages)} messages without one"
        )
    all_ids = torch.tensor(ids)
    text_labels = torch.full_like(all_ids, IGNORE)
    text_labels[:-1] = torch.where(torch.tensor(learnt)[1:], all_ids[1:], IGNORE)
    none = torch.zeros(0, stream.num_codebooks, dtype=torch.long)
    return Example(
        all_ids,
        torch.tensor(audio),
        torch.cat(columns) if columns else none,
        text_labels,
        torch.cat(labels) if labels else none,
        name,
    )


def _owned_pieces(
    messages: Sequence[Message], trained: Sequence[bool], convention: Convention
) -> list[tuple[Piece, int, bool]]:
    """Each piece, its message (for a clip), and whether its text is a target."""
    if convention == "original":
        return [
            (piece, index, trained[index] and number > 0)
            for index in range(len(messages))
            for number, piece in enumerate(render_message(messages, index))
        ]
    # The template's literals run across messages, so only clips are told apart here.
    owners = iter(_clip_owners(messages))
    return [
        (piece, -1 if isinstance(piece, str) else next(owners), False)
        for piece in render_transformers(messages, suffix=False)
    ]


def _clip_owners(messages: Sequence[Message]) -> list[int]:
    """The message of each clip, in order."""
    return [i for i, m in enumerate(messages) for part in m.parts if isinstance(part, AudioClip)]


def _mark_clips(
    messages: Sequence[Message], trained: Sequence[bool], audio: list[bool], learnt: list[bool]
) -> None:
    """Targets around the trained clips: audio-out BOS before, audio EOS and end of turn behind.

    In the transformers convention an assistant message is one clip and nothing else.
    """
    owners = iter(_clip_owners(messages))
    for position, is_audio in enumerate(audio):
        if is_audio and not audio[position - 1] and trained[next(owners)]:
            end = audio.index(False, position)
            for target in (position - 1, end, end + 1):
                learnt[target] = True


def _checked(segment: AudioSegment, stream: StreamIds, name: str) -> torch.Tensor:
    codes = torch.from_numpy(segment.codes).long()
    size = stream.codebook_size - 2
    low, high = int(codes.min()), int(codes.max())
    if codes.shape[0] != stream.num_codebooks or low < 0 or high >= size:
        raise InvalidRequestError(
            f"[{name or 'sample'}] expected {stream.num_codebooks} codebooks of codes 0..{size - 1}"
            f", got {codes.shape[0]} with codes {low}..{high}: encoded by another codec?"
        )
    return codes


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples padded on the right.

    ids, text_labels int64 [B, L]; is_audio bool [B, L]; columns, audio_labels int64 [N, K]: those
    of all rows one after another, in the order of is_audio's true positions; clips int64 [N]: the
    number of the clip that a column is of.
    """

    ids: torch.Tensor
    is_audio: torch.Tensor
    columns: torch.Tensor
    text_labels: torch.Tensor
    audio_labels: torch.Tensor
    clips: torch.Tensor
    names: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(
            self.ids.to(device, non_blocking=True),
            self.is_audio.to(device, non_blocking=True),
            self.columns.to(device, non_blocking=True),
            self.text_labels.to(device, non_blocking=True),
            self.audio_labels.to(device, non_blocking=True),
            self.clips.to(device, non_blocking=True),
            self.names,
        )

    def counts(self) -> torch.Tensor:
        """float64 [K + 2]: labels of each codebook, text labels, trained clips."""
        learnt = self.audio_labels != IGNORE
        clips = torch.unique(self.clips[learnt.any(1)]).numel()
        rest = torch.stack(
            [(self.text_labels != IGNORE).sum(), torch.tensor(clips, device=learnt.device)]
        )
        return torch.cat([learnt.sum(0), rest]).double()


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """One batch; padding is ordinary text that nothing attends to and that carries no label."""
    length = max(len(example) for example in examples)

    def padded(parts: list[torch.Tensor], value: int) -> torch.Tensor:
        rows = [torch.nn.functional.pad(p, (0, length - len(p)), value=value) for p in parts]
        return torch.stack(rows)

    is_audio = padded([example.is_audio.long() for example in examples], 0).bool()
    before = torch.nn.functional.pad(is_audio, (1, 0))[:, :-1]
    begun = (is_audio & ~before).flatten().cumsum(0)  # clips so far: text stands between two
    return Batch(
        padded([example.ids for example in examples], pad_id),
        is_audio,
        torch.cat([example.columns for example in examples]),
        padded([example.text_labels for example in examples], IGNORE),
        torch.cat([example.audio_labels for example in examples]),
        begun[is_audio.flatten()] - 1,
        tuple(example.name for example in examples),
    )
