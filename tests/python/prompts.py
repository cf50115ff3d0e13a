"""What a runtime asks its model for."""

from typing import Any

import pytest

from higgs_rt import Runtime


def watch_prompts(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The text and the history's transcripts of every prompt from now on."""
    asked: list[tuple[str, list[str]]] = []
    build = runtime._builder._prompt

    def spy(job: Any, text: str, speakers: Any, history: Any) -> Any:
        asked.append((text, [turn.transcript for turn in history]))
        return build(job, text, speakers, history)

    monkeypatch.setattr(runtime._builder, "_prompt", spy)
    return asked
