# ruff: noqa: RUF001 (typographic characters are the subject)
"""Text that arrives in pieces, cut into sentences. Memory does not grow with the text."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A run without any end of a sentence is cut here; it bounds the memory and the work of a sentence.
MAX_SENTENCE_CHARS = 2000

_CLOSING = "\"'”’»)\\]」』】》）"
_OPENING = "\"'“‘«(¿¡[-–—「『"
_END = re.compile(rf"(?:[.!?…]+|[。！？｡؟।]+)[{_CLOSING}]*|\n[ \t\r]*(?:\n\s*)+")
_WIDE_END = re.compile(rf"[。！？｡][{_CLOSING}]*$")
_WIDE = re.compile("[\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af\uff00-\uff60]")
_LAST_WORD = re.compile(r"(\S*)$")

# Before a name or number: the full stop never ends a sentence.
_TITLES = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "rev",
        "hon",
        "gen",
        "col",
        "sgt",
        "capt",
        "lt",
        "cmdr",
        "gov",
        "sen",
        "rep",
        "pres",
        "mt",
        "ft",
        "vs",
        "no",
        "nos",
        "fig",
        "figs",
        "vol",
        "pp",
        "ca",
        "cf",
        "approx",
        "dept",
        "est",
        "e.g",
        "i.e",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
        "u.s",
        "u.k",
        "z.b",
        "d.h",
        "u.a",
        "bzw",
        "nr",
        "usw",
    ]
)
# May stand last: it ends a sentence when a capital follows.
_MAY_END = frozenset(
    ["etc", "inc", "ltd", "co", "corp", "jr", "sr", "a.m", "p.m", "ph.d", "b.c", "a.d", "al"]
)


@dataclass(frozen=True)
class Sentence:
    """One sentence without surrounding white space, and whether a paragraph ends behind it."""

    text: str
    ends_paragraph: bool = False


class SentenceSplitter:
    """`feed` text in any pieces, `close` at the end; both return the sentences that are complete.

    A sentence is complete when the text behind it tells so: "He paid 3." may go on with "14".
    """

    def __init__(self) -> None:
        self._text = ""
        self._searched = 0  # nothing before it ends a sentence

    def feed(self, text: str) -> list[Sentence]:
        """Take the next piece."""
        self._text += text
        return self._take(final=False)

    def close(self) -> list[Sentence]:
        """The rest; the splitter can be used for another text."""
        sentences = self._take(final=True)
        if rest := self._text.strip():
            sentences.append(Sentence(rest))
        self._text, self._searched = "", 0
        return sentences

    def _take(self, *, final: bool) -> list[Sentence]:
        sentences: list[Sentence] = []
        while True:
            cut = self._next_cut(final)
            if cut is None:
                return sentences
            end, paragraph = cut
            text = self._text[:end].strip()
            self._text, self._searched = self._text[end:], 0
            if text:
                sentences.append(Sentence(text, paragraph))
            elif paragraph and sentences:
                sentences[-1] = Sentence(sentences[-1].text, True)

    def _next_cut(self, final: bool) -> tuple[int, bool] | None:
        """End of the first sentence and whether it ends a paragraph; None: not known yet."""
        for match in _END.finditer(self._text, self._searched):
            end = match.end()
            if end > MAX_SENTENCE_CHARS:
                break
            if match.group()[0] == "\n":
                return end, True
            behind = self._text[end:]
            following = behind.lstrip()
            if not final and len(following.lstrip(_OPENING)) < 2:
                return self._cut_long()  # what follows decides
            if self._ends(match, behind, following):
                gap = behind[: len(behind) - len(following)]
                return end + len(gap), gap.count("\n") > 1
            self._searched = end
        return self._cut_long()

    def _ends(self, match: re.Match[str], behind: str, following: str) -> bool:
        mark = match.group()
        if _WIDE_END.search(mark):
            return True
        if not following:
            return True
        if behind[0].isspace() or _WIDE.match(following):
            return self._ends_before(match, following)
        # "said.Then": a slip, if letters are around and the next is a capital behind a small one.
        before = self._text[match.start() - 1 : match.start()]
        return (
            mark in (".", "!", "?")
            and before.islower()
            and following[0].isupper()
            and following[1:2].islower()
            and "." not in _last_word(self._text[: match.start()])
        )

    def _ends_before(self, match: re.Match[str], following: str) -> bool:
        """Whether a mark with white space behind it ends the sentence."""
        first = following.lstrip(_OPENING)[:1]
        if first.islower():
            return False
        mark = match.group()
        if mark[0] != "." or mark.startswith(".."):
            return True
        word = _last_word(self._text[: match.start()]).lower()
        if word in _MAY_END:
            return first.isupper()
        if word in _TITLES:
            return word == "no" and not first.isdigit()
        if len(word) == 1 and word.isalpha() and word != "i":
            return False  # an initial
        at_start = not self._text[: match.start() - len(word)].strip()
        return not (at_start and word.isdigit() and len(word) <= 3)  # the number of a list item

    def _cut_long(self) -> tuple[int, bool] | None:
        if len(self._text) <= MAX_SENTENCE_CHARS:
            return None
        space = max(self._text.rfind(mark, 0, MAX_SENTENCE_CHARS) for mark in " \n\t")
        return (space + 1 if space > MAX_SENTENCE_CHARS // 2 else MAX_SENTENCE_CHARS), False


def _last_word(text: str) -> str:
    found = _LAST_WORD.search(text[-24:])
    return found.group(1).lstrip(_OPENING) if found else ""
