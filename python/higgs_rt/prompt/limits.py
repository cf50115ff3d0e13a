"""What a text must be like before it becomes a prompt."""

from __future__ import annotations

import re

from higgs_rt.errors import InvalidRequestError
from higgs_rt.prompt.normalize import SPEAKER_TAG

DEFAULT_MAX_TEXT_CHARS = 5000  # of a transcript, scene or description
DEFAULT_MAX_LONG_CHARS = 200_000  # of a text in one string

# Control tokens of the prompt format; in a caller's text they would forge its structure.
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL_TOKEN = re.compile(r"<\|[^<>|\s]+\|>")


def check_text(text: str, *, field: str = "text", max_chars: int = DEFAULT_MAX_TEXT_CHARS) -> None:
    """Raise InvalidRequestError, naming `field`, unless `text` can be spoken.

    It must be at most `max_chars` characters, hold a letter or digit besides speaker tags, be
    encodable, and hold no control token of the prompt format.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"[{field}] expected a string, got {type(text).__name__}")
    if not text:
        raise InvalidRequestError(f"[{field}] expected at least one word, got an empty string")
    if len(text) > max_chars:
        raise InvalidRequestError(
            f"[{field}] expected at most {max_chars} characters, got {len(text)}"
        )
    if not text.strip():
        raise InvalidRequestError(f"[{field}] expected at least one word, got only white space")
    if _SURROGATE.search(text):
        raise InvalidRequestError(f"[{field}] expected valid Unicode, got an unpaired surrogate")
    refuse_control_tokens(text, field=field)
    words = SPEAKER_TAG.sub("", text)
    if not any(char.isalnum() for char in words):
        shown = text.strip() if len(text) <= 40 else text.strip()[:40] + "…"
        raise InvalidRequestError(f"[{field}] expected at least one letter or digit, got {shown!r}")


def refuse_control_tokens(text: str, *, field: str) -> None:
    """Raise InvalidRequestError, naming `field`, when `text` holds a control token.

    Ask again after normalisation: it makes ASCII of other brackets, so it can make a token.
    """
    control = _CONTROL_TOKEN.search(text)
    if control:
        raise InvalidRequestError(
            f"[{field}] expected no control tokens of the prompt format, got {control.group()}"
        )
