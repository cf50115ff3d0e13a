"""What a model says of itself beyond its checkpoint: `higgs_rt.json` beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from higgs_rt.errors import CheckpointError
from higgs_rt.prompt.turns import MIN_TURN_CHARS

SETTINGS_FILE = "higgs_rt.json"
Dialogue = Literal["tags", "voices"]


@dataclass(frozen=True)
class SpeechSettings:
    """How a model speaks; every field can be overridden in a request.

    max_turn_chars: characters (after normalisation) that the model speaks in one go.
    context_turns: earlier turns, text and codes, that the model hears again before the next one.
    dialogue: "tags": the model knows [SPEAKERn] tags and several references; "voices": it knows one
        reference at a time, so each turn is asked for with its own speaker's voice, without tag.
    temperature, top_k, top_p: sampling at which the model is understood best.
    """

    max_turn_chars: int = 400
    context_turns: int = 2
    dialogue: Dialogue = "tags"
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95


def read_settings(model_dir: Path) -> SpeechSettings:
    """The settings of a model; without a file the defaults. CheckpointError names the field."""
    path = model_dir / SETTINGS_FILE
    if not path.is_file():
        return SpeechSettings()
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"[{path}] expected JSON, got: {error}") from None
    known = {field.name for field in fields(SpeechSettings)}
    if not isinstance(stored, dict) or not stored.keys() <= known:
        got = sorted(stored.keys() - known) if isinstance(stored, dict) else type(stored).__name__
        raise CheckpointError(f"[{path}] expected an object of {sorted(known)}, got {got}")
    settings = replace(SpeechSettings(), **stored)
    _check(path, "max_turn_chars", settings.max_turn_chars, MIN_TURN_CHARS)
    _check(path, "context_turns", settings.context_turns, 0)
    _check(path, "top_k", settings.top_k, 0)
    _check_real(path, "temperature", settings.temperature, 0, 2)
    _check_real(path, "top_p", settings.top_p, 0.01, 1)
    if settings.dialogue not in get_args(Dialogue):
        raise CheckpointError(
            f"[{path}] dialogue: expected one of {get_args(Dialogue)}, got {settings.dialogue!r}"
        )
    return settings


def _check(path: Path, field: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CheckpointError(f"[{path}] {field}: expected an integer >= {least}, got {value!r}")


def _check_real(path: Path, field: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise CheckpointError(f"[{path}] {field}: expected {low}..{high}, got {value!r}")
