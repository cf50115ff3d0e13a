"""Which replica answers: the one that knows the voice, unless it is clearly more loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

State = Literal["starting", "ready", "failed", "stopped"]


class Target(Protocol):
    """What the choice looks at."""

    index: int
    state: State
    in_flight: int


_Target = TypeVar("_Target", bound=Target)


@dataclass(frozen=True)
class Hint:
    """What a request says about where it belongs.

    voice: equal for requests whose prompts begin alike, None for the model's own voice, which every
    replica knows. replica: the one that holds what the request goes on from.
    """

    voice: str | None = None
    replica: int | None = None


def choose(
    targets: Sequence[_Target], hint: Hint, places: int, slack: int, without: Iterable[int] = ()
) -> _Target | None:
    """The replica for a request; None: all are full, or none is ready.

    A voice belongs to one replica by its hash, so that its prompt is in that replica's caches, and
    moves on when `slack` more requests run there than on the least loaded. When a replica is taken
    out, only its voices move.
    """
    left = set(without)
    ready = [one for one in targets if one.state == "ready" and one.index not in left]
    for one in ready:
        if one.index == hint.replica:
            return one if one.in_flight < places else None
    free = [one for one in ready if one.in_flight < places]
    if not free:
        return None
    least = min(one.in_flight for one in free)
    if hint.voice is not None:
        for one in sorted(free, key=lambda one: _weight(str(hint.voice), one.index), reverse=True):
            if one.in_flight < least + slack:
                return one
    return min(free, key=lambda one: (one.in_flight, one.index))


def _weight(voice: str, index: int) -> bytes:
    return hashlib.blake2b(f"{index} {voice}".encode(errors="replace"), digest_size=8).digest()


def hint_of(body: bytes) -> Hint:
    """Of a speech or chat request, or the first message of a socket; wrong ones have none."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return Hint()
    if not isinstance(fields, dict):
        return Hint()
    audio = fields.get("audio")
    voice = _voice_of(fields) or (_voice_of(audio) if isinstance(audio, dict) else None)
    return Hint(voice, _holder_of(fields.get("messages")))


def _voice_of(fields: dict[str, Any]) -> str | None:
    recording = fields.get("ref_audio")
    if isinstance(recording, str) and recording:
        return hashlib.blake2b(recording.encode(errors="replace"), digest_size=16).hexdigest()
    speakers = fields.get("speakers")
    if isinstance(speakers, list) and speakers:
        return " ".join(str(one) for one in speakers)
    voice = fields.get("voice")
    voice = voice.get("id") if isinstance(voice, dict) else voice
    return voice if isinstance(voice, str) and voice not in ("", "default") else None


def _holder_of(messages: object) -> int | None:
    """The replica that keeps an earlier answer: `audio_<replica>_…`."""
    if not isinstance(messages, list):
        return None
    for message in reversed(messages):
        audio = message.get("audio") if isinstance(message, dict) else None
        name = audio.get("id") if isinstance(audio, dict) else None
        if isinstance(name, str):
            parts = name.split("_")
            if len(parts) == 3 and parts[1].isdecimal() and len(parts[1]) < 4:
                return int(parts[1])
    return None
