# ruff: noqa: RUF001 (typographic characters are the subject)
"""Long texts and dialogue scripts, cut into turns that a model speaks one after another."""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from higgs_rt.errors import InvalidRequestError
from higgs_rt.prompt.normalize import SPEAKER_TAG
from higgs_rt.prompt.sentences import Sentence, SentenceSplitter
from higgs_rt.prompt.spoken import AUTO, spell_out

MIN_TURN_CHARS = 8
_FEED_CHARS = 4096  # a long string is taken in slices, so that memory stays flat
_MAX_TAG_CHARS = 24  # "[SPEAKER12]", and some
# Where to cut a sentence that is too long, best first; the mark stays with the left part.
_CLAUSE_ENDS = (
    re.compile(r"[;:；：](?=\s|[^\x00-\x7f])|[；：]"),
    re.compile(r",(?=\s)|[，、]"),
    re.compile(r"\s(?=(?:and|or|but|because|which|that|when|while|und|aber|et|mais|y|pero)\s)"),
    re.compile(r"\s"),
)


@dataclass(frozen=True)
class Turn:
    """What is spoken in one go: at most `max_chars` characters, of one speaker.

    speaker: n of the tag [SPEAKERn] before it, None without tags. ends_paragraph: a blank line, or
    another speaker's tag, follows.
    """

    text: str
    speaker: int | None = None
    ends_paragraph: bool = False


class TurnMaker:
    """Sentences in, turns out. `feed` and `close`, then `pop` until None.

    Sentences are spelled out first (`language`; None: not at all), since that changes their length.
    Whole sentences fill a turn; one that is too long is cut at clauses, else at words, else
    anywhere between characters.
    """

    def __init__(self, max_chars: int, *, language: str | None = AUTO) -> None:
        if max_chars < MIN_TURN_CHARS:
            raise InvalidRequestError(
                f"[max_turn_chars] expected at least {MIN_TURN_CHARS}, got {max_chars}"
            )
        self._max_chars = max_chars
        self._language = language
        self._splitter = SentenceSplitter()
        self._held = ""  # may be the beginning of a tag
        self._speaker: int | None = None
        self._sentences: deque[tuple[Sentence, int | None]] = deque()
        self._closed = False

    def feed(self, text: str) -> None:
        """Take the next piece of the text."""
        text = self._held + text
        self._held = ""
        position = 0
        for tag in SPEAKER_TAG.finditer(text):
            self._add(self._splitter.feed(text[position : tag.start()]))
            self._end_speaker()
            self._speaker = int(tag.group(1).removeprefix("SPEAKER"))
            position = tag.end()
        rest = text[position:]
        bracket = rest.rfind("[")
        if bracket >= 0 and len(rest) - bracket < _MAX_TAG_CHARS and "]" not in rest[bracket:]:
            self._held, rest = rest[bracket:], rest[:bracket]
        self._add(self._splitter.feed(rest))

    def close(self) -> None:
        """No more text will come."""
        self._add(self._splitter.feed(self._held))
        self._held = ""
        self._add(self._splitter.close())
        self._closed = True

    def flush(self) -> None:
        """What was fed so far ends a sentence; more may be fed."""
        self._add(self._splitter.feed(self._held))
        self._held = ""
        self._add(self._splitter.close())

    def pop(self, *, eager: bool = False) -> Turn | None:
        """The next turn. None: it may still grow (`eager`: there is no complete sentence)."""
        parts: list[str] = []
        length = 0
        full = False
        for sentence, speaker in self._sentences:
            grown = length + len(sentence.text) + bool(parts)
            if parts and (grown > self._max_chars or speaker != self._sentences[0][1]):
                full = True
                break
            parts.append(sentence.text)
            length = grown
            if sentence.ends_paragraph and 2 * length >= self._max_chars:
                full = True
                break
        if not parts:
            return None
        if not (full or eager or self._closed):
            return None
        taken = [self._sentences.popleft() for _ in parts]
        return Turn(_joined(parts), taken[-1][1], taken[-1][0].ends_paragraph)

    def _end_speaker(self) -> None:
        self._add(self._splitter.close())
        if self._sentences:
            last, speaker = self._sentences[-1]
            self._sentences[-1] = (Sentence(last.text, True), speaker)

    def _add(self, sentences: Iterable[Sentence]) -> None:
        for sentence in sentences:
            text = sentence.text
            if self._language is not None:
                text = " ".join(spell_out(text, self._language).split())
            if not any(char.isalnum() for char in text):
                continue  # nothing to say: "* * *"
            parts = list(_cut(text, self._max_chars))
            for index, part in enumerate(parts):
                ends = sentence.ends_paragraph and index == len(parts) - 1
                self._sentences.append((Sentence(part, ends), self._speaker))


def split_turns(
    text: str | Iterable[str], max_chars: int, *, language: str | None = AUTO
) -> Iterator[Turn]:
    """The turns of a text, given whole or in pieces; of it no more than a few turns are held.

    An error while the text is read is raised behind the turns of what was read before it.
    """
    maker = TurnMaker(max_chars, language=language)
    pieces = slices(text)
    while True:
        try:
            piece = next(pieces, None)
        except Exception:
            maker.close()
            yield from iter(maker.pop, None)
            raise
        if piece is None:
            break
        maker.feed(piece)
        yield from iter(maker.pop, None)
    maker.close()
    yield from iter(maker.pop, None)


def slices(text: str | Iterable[str]) -> Iterator[str]:
    """A text in pieces of bounded size."""
    for piece in (text,) if isinstance(text, str) else text:
        if not isinstance(piece, str):
            raise InvalidRequestError(f"[text] expected strings, got {type(piece).__name__}")
        for begin in range(0, len(piece), _FEED_CHARS):
            yield piece[begin : begin + _FEED_CHARS]


def _cut(sentence: str, max_chars: int) -> Iterator[str]:
    """Parts of at most `max_chars` characters, of similar length, cut at the best places."""
    while len(sentence) > max_chars:
        at = _best_cut(sentence, max_chars)
        yield _closed_clause(sentence[:at].strip(), max_chars)
        sentence = sentence[at:].strip()
    if sentence:
        yield sentence


def _best_cut(sentence: str, max_chars: int) -> int:
    # One character is left for the comma that marks the cut. Not too early: half of what fits, or
    # of what is left when two parts suffice.
    limit = max_chars - 1
    least = min(limit, len(sentence)) // 3
    for pattern in _CLAUSE_ENDS:
        cuts = [match.end() for match in pattern.finditer(sentence, 0, limit + 1)]
        fitting = [cut for cut in cuts if least <= cut <= limit]
        if fitting:
            return fitting[-1]
    at = limit
    while at > 1 and _joins_left(sentence[at]):
        at -= 1
    return at


def _joins_left(char: str) -> bool:
    """Combining marks, joiners and variation selectors belong to the character before."""
    return unicodedata.category(char) in ("Mn", "Me", "Mc") or char in "\u200d\ufe0e\ufe0f"


def _closed_clause(part: str, max_chars: int) -> str:
    """A part cut between words goes on: a comma says so, where a full stop would end it."""
    if part[-1:].isalnum() and part[-1:].isascii() and len(part) < max_chars:
        return part + ","
    return part


def _joined(parts: list[str]) -> str:
    text = parts[0]
    for part in parts[1:]:
        wide = unicodedata.east_asian_width(text[-1]) in "WF"
        text += part if wide else f" {part}"
    return text
