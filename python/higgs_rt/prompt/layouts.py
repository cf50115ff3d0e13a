"""The prompt layouts of speech requests (spec 4.2), as messages of either convention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from higgs_rt.errors import InvalidRequestError
from higgs_rt.prompt.chatml import AudioClip, Codes, Message, Part
from higgs_rt.prompt.normalize import speaker_tags
from higgs_rt.prompt.tokenizer import SCENE_END, SCENE_START

Convention = Literal["original", "transformers"]
Placement = Literal["turns", "system"]

INSTRUCTION = "Generate audio following instruction."
DEFAULT_SCENE = "Audio is recorded from a quiet room."
MULTISPEAKER_INSTRUCTION = (
    "You are an AI assistant designed to convert text into speech.\n"
    "If the user's message includes a [SPEAKER*] tag, do not read out the tag and generate speech "
    "for the following text, using the specified voice.\n"
    "If no speaker tag is present, select a suitable voice on your own."
)
_ALTERNATING = ("feminine", "masculine")


@dataclass(frozen=True, eq=False)
class Reference:
    """A recording to imitate: codes [num_codebooks, num_frames] and what is said in it."""

    codes: Codes
    transcript: str


@dataclass(frozen=True)
class Profile:
    """A speaker described in words, e.g. "feminine"."""

    description: str


Speaker = Reference | Profile


def speech_messages(
    text: str,
    *,
    speakers: Sequence[Speaker] = (),
    scene: str | None = None,
    placement: Placement = "turns",
    convention: Convention = "original",
    history: Sequence[Reference] = (),
    tags: Sequence[str] = (),
) -> list[Message]:
    """Messages that ask for `text`, spoken by `speakers` (SPEAKER0, SPEAKER1, … in order).

    `placement` says where references go: as earlier turns with their transcripts, or without them
    in the system message. A speaker described in words implies the system message for all.
    `history` are the turns spoken before this one (spec 4.7). `tags` are the speakers of the whole
    script, where `text` is a part of it; by default those of `text`.
    """
    check_convention(convention)
    if placement not in ("turns", "system"):
        raise InvalidRequestError(f"[placement] expected 'turns' or 'system', got {placement!r}")
    scene = scene or None
    in_system = placement == "system" or any(isinstance(one, Profile) for one in speakers)
    if speakers and not in_system:
        references = [one for one in speakers if isinstance(one, Reference)]
        return [*_clone_by_turns(references, scene, convention), *_turns(history), _user(text)]
    instruction = INSTRUCTION
    if not speakers:
        tags = tags or speaker_tags(text)
        if len(tags) > 1:
            instruction = MULTISPEAKER_INSTRUCTION
            speakers = [Profile(_ALTERNATING[index % 2]) for index in range(len(tags))]
            return [
                *_system(instruction, scene, speakers, convention, tags),
                *_turns(history),
                _user(text),
            ]
    return [*_system(instruction, scene, speakers, convention), *_turns(history), _user(text)]


def check_convention(convention: str) -> None:
    """Raise InvalidRequestError unless `convention` is one of the two."""
    if convention not in ("original", "transformers"):
        raise InvalidRequestError(
            f"[convention] expected 'original' or 'transformers', got {convention!r}"
        )


def _user(text: str) -> Message:
    return Message("user", (text,))


def _turns(history: Sequence[Reference]) -> list[Message]:
    messages: list[Message] = []
    for turn in history:
        messages += [_user(turn.transcript), Message("assistant", (AudioClip(turn.codes),))]
    return messages


def _clone_by_turns(
    references: Sequence[Reference],
    scene: str | None,
    convention: Convention,
) -> list[Message]:
    # The original has no system message here unless a scene is given; the template demands one.
    with_system = scene is not None or convention == "transformers"
    messages = _system(INSTRUCTION, scene, (), convention) if with_system else []
    for index, reference in enumerate(references):
        tag = f"[SPEAKER{index}] " if len(references) > 1 else ""
        messages.append(_user(tag + reference.transcript))
        messages.append(Message("assistant", (AudioClip(reference.codes),)))
    return messages


def _system(
    instruction: str,
    scene: str | None,
    speakers: Sequence[Speaker],
    convention: Convention,
    names: Sequence[str] = (),
) -> list[Message]:
    """The system message, and in the transformers convention the scene message."""
    names = names or [f"SPEAKER{index}" for index in range(len(speakers))]
    if convention == "transformers":
        scene_parts = _scene_message(scene, speakers, names)
        system = Message("system", (instruction,))
        return [system, Message("scene", scene_parts)] if scene_parts else [system]
    if not speakers:
        block = f"\n\n{SCENE_START}\n{scene}\n{SCENE_END}" if scene else ""
        return [Message("system", (instruction + block,))]
    return [Message("system", _described(instruction, scene, speakers, names))]


def _described(
    instruction: str,
    scene: str | None,
    speakers: Sequence[Speaker],
    names: Sequence[str],
) -> tuple[Part, ...]:
    """One text up to each clip: the pieces between clips are tokenised as wholes (spec 4.2)."""
    parts: list[Part] = []
    text = f"{instruction}\n\n{SCENE_START}\n" + (f"{scene}\n\n" if scene else "")
    for name, speaker in zip(names, speakers, strict=True):
        text += f"{name}: "
        if isinstance(speaker, Profile):
            text += f"{speaker.description}\n"
        else:
            parts += [text, AudioClip(speaker.codes)]
            text = "\n"
    return (*parts, text + SCENE_END)


def _scene_message(
    scene: str | None, speakers: Sequence[Speaker], names: Sequence[str]
) -> tuple[Part, ...]:
    """Parts of the template's scene message; empty when there is nothing to describe.

    The template puts a blank line after its first text. That suits a description, so speakers in
    words stay one text, and references without a scene get the default one (spec 4.3).
    """
    parts: list[Part] = []
    if scene is None and any(isinstance(one, Reference) for one in speakers):
        scene = DEFAULT_SCENE
    if scene:
        parts.append(scene)
    lines: list[str] = []
    for name, speaker in zip(names, speakers, strict=True):
        if isinstance(speaker, Profile):
            lines.append(f"{name}: {speaker.description}")
            continue
        if lines:
            parts.append("\n".join(lines))
            lines = []
        parts += [f"{name}:", AudioClip(speaker.codes)]
    if lines:
        parts.append("\n".join(lines))
    return tuple(parts)
