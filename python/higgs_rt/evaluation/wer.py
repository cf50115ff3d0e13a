# ruff: noqa: RUF001 (typographic characters are the subject)
"""Word error rate of transcripts against the texts that were spoken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from higgs_rt.errors import HiggsError, InvalidRequestError

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def spoken_words(text: str) -> list[str]:
    """Lower-case words of a text; punctuation is dropped, apostrophes inside words are kept."""
    return _WORD.findall(text.lower().replace("’", "'"))


def read_lines(path: str | Path) -> list[str]:
    """Non-blank lines of a UTF-8 file, stripped; InvalidRequestError when one has no words."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"[{path}] expected a text file, got: {error}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InvalidRequestError(f"[{path}] expected lines of text, got none")
    for number, line in enumerate(lines, 1):
        if not spoken_words(line):
            raise InvalidRequestError(f"[{path} line {number}] expected words, got {line!r}")
    return lines


@dataclass(frozen=True)
class Score:
    """Counts of an alignment of words; wer = (substitutions + deletions + insertions) / words."""

    wer: float
    substitutions: int
    deletions: int
    insertions: int
    words: int


def score(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> Score:
    """Align each hypothesis with its reference (neither re-normalised) and add up."""
    try:
        import jiwer
    except ImportError as error:
        raise HiggsError(
            f"[evaluate] expected jiwer (pip install 'higgs-rt[evaluate]'), got: {error}"
        ) from None
    result = jiwer.process_words(
        [" ".join(words) for words in references], [" ".join(words) for words in hypotheses]
    )
    return Score(
        wer=float(result.wer),
        substitutions=result.substitutions,
        deletions=result.deletions,
        insertions=result.insertions,
        words=sum(len(words) for words in references),
    )
