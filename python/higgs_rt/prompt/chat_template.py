"""Rendering in the convention of transformers' chat template (spec 4.3).

The template trims every text and drops silently what it does not expect; here what it would drop
is an error instead. The rendered string is tokenised in one go there, so neighbouring literal
pieces are joined before tokenising.
"""

from __future__ import annotations

from collections.abc import Sequence

from higgs_rt.errors import InvalidRequestError
from higgs_rt.prompt.chatml import AudioClip, AudioPiece, Message, Part, Piece
from higgs_rt.prompt.tokenizer import (
    AUDIO_EOS,
    AUDIO_OUT,
    AUDIO_OUT_BOS,
    BEGIN_OF_TEXT,
    END_HEADER,
    END_OF_TURN,
    SCENE_END,
    SCENE_START,
    START_HEADER,
)


def render_transformers(messages: Sequence[Message], *, suffix: bool = True) -> list[Piece]:
    """Pieces of system [scene] (user | assistant)*; InvalidRequestError for any other shape."""
    if not messages or messages[0].role != "system":
        got = messages[0].role if messages else "no message"
        raise InvalidRequestError(f"[messages] expected a system message first, got {got}")
    rest = messages[1:]
    pieces: list[Piece] = [BEGIN_OF_TEXT, _header("system"), _only_text(messages[0])]
    if rest and rest[0].role == "scene":
        pieces += _scene(rest[0].parts)
        rest = rest[1:]
    pieces.append(END_OF_TURN)
    for message in rest:
        pieces.append(_header(message.role))
        pieces += _turn(message)
        pieces.append(END_OF_TURN)
    if suffix:
        pieces += [_header("assistant"), AUDIO_OUT_BOS]
    return _join_literals(pieces)


def _header(role: str) -> str:
    return f"{START_HEADER}{role}{END_HEADER}\n\n"


def _only_text(message: Message) -> str:
    if len(message.parts) != 1 or not isinstance(message.parts[0], str):
        raise InvalidRequestError(
            f"[{message.role} message] expected one text in the transformers convention, "
            f"got {len(message.parts)} parts"
        )
    return message.parts[0].strip()


def _turn(message: Message) -> list[Piece]:
    if message.recipient is not None:
        raise InvalidRequestError("[recipient] expected none in the transformers convention")
    if message.role == "user":
        texts = [part for part in message.parts if isinstance(part, str)]
        if len(texts) != len(message.parts):
            raise InvalidRequestError(
                "[user message] expected only text in the transformers convention, got audio"
            )
        return [text.strip() for text in texts]
    if message.role == "assistant":
        if len(message.parts) != 1 or not isinstance(message.parts[0], AudioClip):
            raise InvalidRequestError(
                "[assistant message] expected one audio clip in the transformers convention"
            )
        return _clip(message.parts[0])
    raise InvalidRequestError(
        f"[role] expected user or assistant after the scene, got {message.role!r}"
    )


def _clip(clip: AudioClip) -> list[Piece]:
    return [AUDIO_OUT_BOS, AudioPiece(clip, AUDIO_OUT), AUDIO_EOS]


def _scene(parts: tuple[Part, ...]) -> list[Piece]:
    """The scene block. A first text is a description: a blank line follows it.

    A later text is followed by a line break unless a clip comes next, which brings its own space.
    """
    pieces: list[Piece] = [f"\n\n{SCENE_START}\n"]
    last = len(parts) - 1
    for index, part in enumerate(parts):
        if isinstance(part, AudioClip):
            pieces += [" ", *_clip(part)]
            if index < last:
                pieces.append("\n")
            continue
        pieces.append(part.strip())
        if index == 0 and index < last:
            pieces.append("\n\n")
        elif index < last and not isinstance(parts[index + 1], AudioClip):
            pieces.append("\n")
    pieces.append(f"\n{SCENE_END}")
    return pieces


def _join_literals(pieces: Sequence[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
