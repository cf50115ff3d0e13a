"""ChatML samples: one JSON object a line (JSONL), or a JSON list of them.

    {"messages": [{"role": "system", "content": "Generate audio following instruction."},
                  {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
                  {"role": "assistant", "content": {"type": "audio", "audio_url": "hello.wav"}}],
     "start_index": 0, "speaker": "anna"}

`content` is a text, a part, or a list of these. A part is {"type": "text", "text"} or {"type":
"audio", "audio_url"}; prepared data has "codes" (a file of the cache) there. Every field is
checked: an unknown one, an empty text or a role out of order is refused by file, line and field.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from higgs_rt.errors import HiggsError

ROLES = ("system", "scene", "user", "assistant")
_SAMPLE_FIELDS = {"messages", "start_index", "speaker", "seconds"}
_MESSAGE_FIELDS = {"role", "content", "recipient"}
_TEXT_FIELDS = {"type", "text"}
_AUDIO_FIELDS = {"type", "audio_url", "codes"}
MAX_SAMPLE_BYTES = 1 << 20


class SampleError(HiggsError, ValueError):
    """A sample is malformed; the message names file, line and field."""


@dataclass(frozen=True)
class AudioPart:
    """A recording (a path, relative to its file) or the file of its codes, or both."""

    audio_url: str = ""
    codes: str = ""


@dataclass(frozen=True)
class ChatMessage:
    """A message of a sample; audio by name."""

    role: str
    parts: tuple[str | AudioPart, ...]
    recipient: str | None = None


@dataclass(frozen=True)
class Sample:
    """A conversation; assistant messages from `start_index` on are trained. `place` names it."""

    messages: tuple[ChatMessage, ...]
    start_index: int = 0
    speaker: str = ""
    place: str = ""

    def audio(self) -> list[AudioPart]:
        """All its recordings, in order."""
        return [p for m in self.messages for p in m.parts if isinstance(p, AudioPart)]


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a .json or .jsonl file; SampleError at the first that is malformed."""
    for place, stored in read_rows(path):
        yield parse_sample(stored, place)


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(file:line or file:index, parsed value) of a .jsonl file, or a .json file with a list."""
    try:
        if path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(rows, list):
                raise SampleError(f"[{path}] expected a list of samples, got {type(rows).__name__}")
            yield from ((f"{path}:{index}", row) for index, row in enumerate(rows))
            return
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if len(line) > MAX_SAMPLE_BYTES:
                    raise SampleError(
                        f"[{path}:{number}] expected at most {MAX_SAMPLE_BYTES} characters, "
                        f"got {len(line)}"
                    )
                if line.strip():
                    yield f"{path}:{number}", _json(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SampleError(f"[{path}] expected JSON in UTF-8, got: {error}") from None


def _json(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise SampleError(f"[{place}] expected a JSON object, got: {error}") from None


def parse_sample(stored: Any, place: str) -> Sample:
    """One sample; SampleError names the field."""
    fields = _object(stored, place, _SAMPLE_FIELDS, ("messages",))
    rows = fields["messages"]
    if not isinstance(rows, list) or not rows:
        raise SampleError(f"[{place}: messages] expected a list of messages, got {_short(rows)}")
    messages = tuple(_message(row, f"{place}: messages[{i}]") for i, row in enumerate(rows))
    _check_order(messages, place)
    start = fields.get("start_index", 0)
    if not isinstance(start, int) or isinstance(start, bool) or not 0 <= start < len(messages):
        raise SampleError(
            f"[{place}: start_index] expected 0..{len(messages) - 1}, got {_short(start)}"
        )
    if not any(m.role == "assistant" for m in messages[start:]):
        raise SampleError(
            f"[{place}: messages] expected an assistant message from index {start} (start_index) "
            "on, got none"
        )
    speaker = fields.get("speaker", "")
    if not isinstance(speaker, str):
        raise SampleError(f"[{place}: speaker] expected a string, got {_short(speaker)}")
    return Sample(messages, start, speaker, place)


def _check_order(messages: tuple[ChatMessage, ...], place: str) -> None:
    """System and scene stand first; a user message is answered before the next one."""
    body = [m.role for m in messages]
    if "system" in body[1:]:
        index = 1 + body[1:].index("system")
        raise SampleError(f"[{place}: messages[{index}].role] expected system only first, got it")
    if "scene" in body and (
        body[0] != "system" or body[1:].count("scene") != 1 or (body[1] != "scene")
    ):
        raise SampleError(f"[{place}: messages] expected scene only after system, got {body}")
    spoken = [role for role in body if role in ("user", "assistant")]
    for first, second in itertools.pairwise(spoken):
        if first == second == "user":
            raise SampleError(
                f"[{place}: messages] expected an answer between two user messages, got {body}"
            )


def _message(stored: Any, place: str) -> ChatMessage:
    fields = _object(stored, place, _MESSAGE_FIELDS, ("role", "content"))
    role = fields["role"]
    if role not in ROLES:
        raise SampleError(f"[{place}.role] expected one of {', '.join(ROLES)}, got {_short(role)}")
    content = fields["content"]
    parts = content if isinstance(content, list) else [content]
    if not parts:
        raise SampleError(f"[{place}.content] expected a text or audio, got an empty list")
    recipient = fields.get("recipient")
    if recipient is not None and (role != "assistant" or not isinstance(recipient, str)):
        raise SampleError(
            f"[{place}.recipient] expected a string of an assistant message, got "
            f"{_short(recipient)} of {role}"
        )
    several = isinstance(content, list)
    return ChatMessage(
        role,
        tuple(
            _part(part, f"{place}.content" + (f"[{i}]" if several else ""))
            for i, part in enumerate(parts)
        ),
        recipient,
    )


def _part(stored: Any, place: str) -> str | AudioPart:
    if isinstance(stored, str):
        stored = {"type": "text", "text": stored}
    kind = stored.get("type") if isinstance(stored, dict) else None
    if kind == "text":
        text = _object(stored, place, _TEXT_FIELDS, ("text",))["text"]
        if not isinstance(text, str) or not text.strip():
            raise SampleError(f"[{place}.text] expected words, got {_short(text)}")
        _refuse_tokens(text, place)
        return text
    if kind == "audio":
        fields = _object(stored, place, _AUDIO_FIELDS, ())
        url, codes = fields.get("audio_url", ""), fields.get("codes", "")
        if not isinstance(url, str) or not isinstance(codes, str) or not (url or codes):
            raise SampleError(f"[{place}.audio_url] expected a file, got {_short(url)}")
        return AudioPart(url, codes)
    raise SampleError(f"[{place}.type] expected text or audio, got {_short(stored)}")


def _refuse_tokens(text: str, place: str) -> None:
    """A special token in data would become one in the prompt; scene and event marks may stand."""
    for token in (
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|AUDIO|>",
        "<|AUDIO_OUT|>",
        "<|audio_out_bos|>",
        "<|audio_bos|>",
        "<|audio_eos|>",
        "<|end_of_text|>",
        "<|recipient|>",
    ):
        if token in text:
            raise SampleError(f"[{place}.text] expected words, got the control token {token}")


def _object(stored: Any, place: str, known: set[str], needed: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(stored, dict):
        raise SampleError(f"[{place}] expected an object, got {_short(stored)}")
    unknown = sorted(stored.keys() - known)
    if unknown:
        raise SampleError(f"[{place}] expected fields {sorted(known)}, got {unknown}")
    for name in needed:
        if name not in stored:
            raise SampleError(f"[{place}.{name}] expected a value, got none")
    return stored


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def sample_row(sample: Sample, codes: dict[str, str] | None = None) -> dict[str, Any]:
    """The sample as one JSON row; `codes` names the cached codes of each recording."""
    codes = codes or {}

    def part_row(part: str | AudioPart) -> dict[str, str]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        found = codes.get(part.audio_url, part.codes)
        row = {"type": "audio"}
        if part.audio_url:
            row["audio_url"] = part.audio_url
        if found:
            row["codes"] = found
        return row

    messages = []
    for message in sample.messages:
        row: dict[str, Any] = {"role": message.role, "content": [*map(part_row, message.parts)]}
        if message.recipient is not None:
            row["recipient"] = message.recipient
        messages.append(row)
    stored: dict[str, Any] = {"messages": messages}
    if sample.start_index:
        stored["start_index"] = sample.start_index
    if sample.speaker:
        stored["speaker"] = sample.speaker
    return stored
