"""From text and references to the segments of a request.

`build_prompt` is what the runtime uses. `speech_messages`, `render_original` and
`render_transformers` are its stages, for callers that build their own conversations.
"""

from __future__ import annotations

from collections.abc import Sequence

from higgs_rt.prompt.chat_template import render_transformers
from higgs_rt.prompt.chatml import (
    AudioClip,
    AudioSegment,
    Message,
    Segment,
    TextSegment,
    encode_pieces,
    expanded_ids,
    num_positions,
    render_original,
)
from higgs_rt.prompt.layouts import (
    DEFAULT_SCENE,
    Convention,
    Placement,
    Profile,
    Reference,
    Speaker,
    check_convention,
    speech_messages,
)
from higgs_rt.prompt.limits import DEFAULT_MAX_TEXT_CHARS, check_text, refuse_control_tokens
from higgs_rt.prompt.normalize import normalize_text, speaker_tags
from higgs_rt.prompt.settings import Dialogue, SpeechSettings, read_settings
from higgs_rt.prompt.spoken import AUTO, check_language, spell_out
from higgs_rt.prompt.tokenizer import TextTokenizer
from higgs_rt.prompt.turns import Turn, TurnMaker, split_turns

__all__ = [
    "AUTO",
    "DEFAULT_MAX_TEXT_CHARS",
    "DEFAULT_SCENE",
    "AudioClip",
    "AudioSegment",
    "Convention",
    "Dialogue",
    "Message",
    "Placement",
    "Profile",
    "Reference",
    "Segment",
    "Speaker",
    "SpeechSettings",
    "TextSegment",
    "TextTokenizer",
    "Turn",
    "TurnMaker",
    "build_prompt",
    "check_convention",
    "check_language",
    "check_text",
    "encode_messages",
    "expanded_ids",
    "normalize_text",
    "num_positions",
    "read_settings",
    "render_original",
    "render_transformers",
    "speaker_tags",
    "speech_messages",
    "spell_out",
    "split_turns",
]


def build_prompt(
    text: str,
    tokenizer: TextTokenizer,
    *,
    speakers: Sequence[Speaker] = (),
    scene: str | None = None,
    placement: Placement = "turns",
    convention: Convention = "original",
    normalize: bool = True,
    max_chars: int = DEFAULT_MAX_TEXT_CHARS,
    history: Sequence[Reference] = (),
    tags: Sequence[str] = (),
) -> list[Segment]:
    """Segments of a speech request, ending right before the first audio column.

    Scene, transcripts and descriptions are limited to `max_chars` characters each, like the text;
    of these only the text is normalised (spec 4.6). `history` and `tags` are those of
    `speech_messages`; a transcript of the history is what was asked for, as it was normalised.
    Raises InvalidRequestError naming the field.
    """
    check_text(text, max_chars=max_chars)
    if scene is not None:
        check_text(scene, field="scene", max_chars=max_chars)
    for index, speaker in enumerate(speakers):
        if isinstance(speaker, Reference):
            field = f"transcript of speaker {index}"
            check_text(speaker.transcript, field=field, max_chars=max_chars)
        else:
            field = f"description of speaker {index}"
            check_text(speaker.description, field=field, max_chars=max_chars)
    for turn in history:
        refuse_control_tokens(turn.transcript, field="history")
    if normalize:
        text = normalize_text(text)
        refuse_control_tokens(text, field="text")
    messages = speech_messages(
        text,
        speakers=speakers,
        scene=scene,
        placement=placement,
        convention=convention,
        history=history,
        tags=tags,
    )
    return encode_messages(messages, tokenizer, convention=convention)


def encode_messages(
    messages: Sequence[Message],
    tokenizer: TextTokenizer,
    *,
    convention: Convention = "original",
) -> list[Segment]:
    """Segments of a conversation, followed by the header of a spoken answer."""
    check_convention(convention)
    render = render_original if convention == "original" else render_transformers
    return encode_pieces(render(messages), tokenizer)
