"""Messages, and their rendering in the original convention (spec 4.1).

Rendering gives *pieces*: literal strings, each tokenised on its own, and audio clips. The rendering
of the transformers convention is in `chat_template.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from higgs_rt.errors import InvalidRequestError
from higgs_rt.prompt.tokenizer import (
    AUDIO_BOS,
    AUDIO_DELAY,
    AUDIO_EOS,
    AUDIO_IN,
    AUDIO_OUT,
    AUDIO_OUT_BOS,
    BEGIN_OF_TEXT,
    END_HEADER,
    END_OF_MESSAGE,
    END_OF_TURN,
    RECIPIENT,
    START_HEADER,
    TextTokenizer,
)

Codes = NDArray[np.int32]
Role = Literal["system", "scene", "user", "assistant"]


@dataclass(frozen=True, eq=False)
class AudioClip:
    """Codes [num_codebooks, num_frames] int32, without BOS, EOS and delay."""

    codes: Codes

    def __post_init__(self) -> None:
        if not isinstance(self.codes, np.ndarray):
            raise InvalidRequestError(
                f"[audio codes] expected an array, got {type(self.codes).__name__}"
            )
        if self.codes.ndim != 2 or 0 in self.codes.shape:
            raise InvalidRequestError(
                "[audio codes] expected shape [num_codebooks, num_frames] without empty sides, "
                f"got {list(self.codes.shape)}"
            )


Part = str | AudioClip


@dataclass(frozen=True, eq=False)
class Message:
    """One message: literal texts and audio clips in order. "scene" is a transformers-only role."""

    role: Role
    parts: tuple[Part, ...]
    recipient: str | None = None  # assistant only

    def __post_init__(self) -> None:
        if self.recipient is not None and self.role != "assistant":
            raise InvalidRequestError(
                f"[recipient] expected an assistant message, got role {self.role!r}"
            )


@dataclass(frozen=True, eq=False)
class AudioPiece:
    """A clip at its place in a rendered prompt; `placeholder` is the token it stands behind."""

    clip: AudioClip
    placeholder: str  # AUDIO_IN or AUDIO_OUT


Piece = str | AudioPiece


@dataclass(frozen=True)
class TextSegment:
    """Token ids, in prompt order."""

    ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class AudioSegment:
    """Codes [num_codebooks, num_frames]; the runtime adds BOS, EOS and the delay (spec 4.5)."""

    codes: Codes
    placeholder: str

    @property
    def num_columns(self) -> int:
        """Positions that the clip takes: one per delayed column."""
        codebooks, frames = self.codes.shape
        return int(frames + codebooks + 1)


Segment = TextSegment | AudioSegment


def render_original(messages: Sequence[Message], *, suffix: bool = True) -> list[Piece]:
    """Pieces of a conversation; `suffix` appends the header of the assistant's spoken answer."""
    pieces = [piece for index in range(len(messages)) for piece in render_message(messages, index)]
    if suffix:
        pieces += [f"{START_HEADER}assistant{END_HEADER}\n\n", AUDIO_OUT_BOS]
    return pieces


def render_message(messages: Sequence[Message], index: int) -> list[Piece]:
    """Pieces of one message of a conversation: its header, its content, its end."""
    message = messages[index]
    if message.role == "scene":
        raise InvalidRequestError(
            "[role] expected system, user or assistant in the original convention, got 'scene'"
        )
    begin = BEGIN_OF_TEXT if index == 0 else ""
    pieces: list[Piece] = [f"{begin}{START_HEADER}{message.role}{END_HEADER}\n\n"]
    if message.recipient is not None:
        pieces.append(f"{message.recipient}{RECIPIENT}")
    for part in message.parts:
        pieces += audio_triple(part, message.role) if isinstance(part, AudioClip) else [part]
    pieces.append(_end_of(messages, index))
    return pieces


def audio_triple(clip: AudioClip, role: Role) -> list[Piece]:
    """A clip between its brackets: audio output for the assistant, audio input for the others."""
    if role == "assistant":
        return [AUDIO_OUT_BOS, AudioPiece(clip, AUDIO_OUT), AUDIO_EOS]
    return [AUDIO_BOS, AudioPiece(clip, AUDIO_IN), AUDIO_EOS]


def _end_of(messages: Sequence[Message], index: int) -> str:
    """A run of assistant messages is one turn: its inner messages end with end-of-message."""
    following = messages[index + 1].role if index + 1 < len(messages) else None
    if messages[index].role == "assistant" and following == "assistant":
        return END_OF_MESSAGE
    return END_OF_TURN


def encode_pieces(pieces: Sequence[Piece], tokenizer: TextTokenizer) -> list[Segment]:
    """Tokenise each literal piece on its own; neighbouring ids become one text segment."""
    segments: list[Segment] = []
    ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, str):
            ids += tokenizer.encode(piece)
            continue
        if ids:
            segments.append(TextSegment(tuple(ids)))
            ids = []
        segments.append(AudioSegment(piece.clip.codes, piece.placeholder))
    if ids:
        segments.append(TextSegment(tuple(ids)))
    return segments


def expanded_ids(segments: Sequence[Segment], tokenizer: TextTokenizer) -> list[int]:
    """One id per position, clips shown as transformers' processor shows them (spec 4.3).

    Of a clip's columns the last `num_codebooks - 1` carry the delay token, the others the
    placeholder. Only comparisons need this view: the model sees the columns themselves.
    """
    ids: list[int] = []
    for segment in segments:
        if isinstance(segment, TextSegment):
            ids += segment.ids
        else:
            tail = segment.codes.shape[0] - 1
            ids += [tokenizer.special_id(segment.placeholder)] * (segment.num_columns - tail)
            ids += [tokenizer.special_id(AUDIO_DELAY)] * tail
    return ids


def num_positions(segments: Sequence[Segment]) -> int:
    """Sequence positions of a prompt."""
    return sum(
        len(segment.ids) if isinstance(segment, TextSegment) else segment.num_columns
        for segment in segments
    )
