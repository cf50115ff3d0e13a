# ruff: noqa: RUF001 (typographic characters are the subject)
"""Sentences, turns and scripts, from text in any pieces and with flat memory."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from higgs_rt import InvalidRequestError
from higgs_rt.prompt import Turn, TurnMaker, split_turns
from higgs_rt.prompt.sentences import SentenceSplitter


def sentences(text: str) -> list[str]:
    splitter = SentenceSplitter()
    return [one.text for one in splitter.feed(text) + splitter.close()]


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith paid $3.14.", "He left at 5 p.m.", "Then J. R. Tolkien came."],
        ['"Really?" he said.', '"Yes!"', "She left."],
        ["The U.S. Army came.", "They won... or not.", "Wait…", "What?!", "Yes."],
        ["See e.g. this.", "No. 5 is alive.", "No.", "I do not."],
        ["1. Buy milk.", "2. Go home."],
        ["It was I.", "He went.", "Visit example.com now."],
        ["Tom, Dick, etc. are here.", "There were apples etc.", "We ate."],
        ["¿Qué?", "¡Hola!", "Das ist z.B. gut.", "Ja."],
        ["Hello", "no end"],
    ],
)
def test_sentences(expected: list[str]) -> None:
    joint = "\n\n" if expected == ["Hello", "no end"] else " "
    assert sentences(joint.join(expected)) == expected


def test_wide_punctuation() -> None:
    assert sentences("你好。今天天气很好！是吗？“对。”他说。") == [
        "你好。",
        "今天天气很好！",
        "是吗？",
        "“对。”",
        "他说。",
    ]
    assert sentences("He said.Then left.") == ["He said.", "Then left."]


def test_turns_are_full_sentences_where_they_fit() -> None:
    text = "One is here. Two is here. Three is a longer one, with a clause; and one more. Four."
    turns = [turn.text for turn in split_turns(text, 30)]
    assert turns == [
        "One is here. Two is here.",
        "Three is a longer one,",
        "with a clause; and one more.",
        "Four.",
    ]


def test_numbers_count_as_they_are_spoken() -> None:
    turns = list(split_turns("He has 1,234,567 apples. She has 7,654,321 pears.", 100))
    assert [turn.text[:7] for turn in turns] == ["He has ", "She has"]
    assert list(split_turns("He has 1.", 100, language=None)) == [Turn("He has 1.")]


def test_paragraphs_end_turns_that_are_half_full() -> None:
    turns = list(split_turns("A first paragraph.\n\nA second one.", 30))
    assert turns == [Turn("A first paragraph.", None, True), Turn("A second one.")]
    assert len(list(split_turns("A first paragraph.\n\nA second one.", 300))) == 1


def test_scripts_have_speakers() -> None:
    script = "Narration. [SPEAKER0] Hi there.\nI am Ann.\n[SPEAKER12]Ho. [SPEAKER0] Bye [laugh]."
    assert [(turn.speaker, turn.text) for turn in split_turns(script, 60)] == [
        (None, "Narration."),
        (0, "Hi there. I am Ann."),
        (12, "Ho."),
        (0, "Bye [laugh]."),
    ]


@pytest.mark.parametrize("digits", ["12345", "1" * 4400])
def test_a_tag_of_more_than_four_digits_is_text(digits: str) -> None:
    maker = TurnMaker(5000, language=None)
    maker.feed(f"[SPEAKER9999] Hi. [SPEAKER{digits}] Ho.")  # as a socket feeds it, in one piece
    maker.close()
    turns = list(iter(maker.pop, None))
    assert {turn.speaker for turn in turns} == {9999}
    assert digits[:1000] in turns[0].text


@pytest.mark.parametrize(
    "unit", ["x", "é", "word ", "漢", "a,b ", "👨‍👩‍👧a", "e\u0301", "字，", "1"]
)
def test_whatever_comes_turns_are_short_and_nothing_is_lost(unit: str) -> None:
    text = unit * 700
    turns = [turn.text for turn in split_turns(text, 78, language=None)]
    assert all(0 < len(turn) <= 78 for turn in turns)
    plain = "".join("".join(turns).replace(",", "").split())
    assert plain == "".join(text.replace(",", "").split())


TEXT = (
    'One two. Mr. X is 3.5 m tall! \n\n「はい。」そう。 [SPEAKER1] What?No… [SPEAKER20] "So." a.\n'
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(TEXT) * 3), max_size=30))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    text = TEXT * 3
    bounds = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(bounds)]
    assert list(split_turns(pieces, 78)) == list(split_turns(text, 78))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=400), st.integers(8, 60))
def test_any_text(text: str, size: int) -> None:
    for turn in split_turns(text, size):
        assert 0 < len(turn.text) <= size


def test_memory_is_flat() -> None:
    def endless(count: int) -> Iterator[str]:
        for index in range(count):
            yield f"Sentence {index} says that the fox, who paid $3.50, jumps over the lazy dog. "

    list(split_turns(endless(10), 78))  # what is loaded once
    peaks = []
    for count in (140, 1400):  # 10,000 and 100,000 characters
        tracemalloc.start()
        assert sum(1 for _ in split_turns(endless(count), 78)) >= count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000 < 200_000


def test_text_as_it_is_written() -> None:
    maker = TurnMaker(78)
    maker.feed("Hello the")
    assert maker.pop(eager=True) is None
    maker.feed("re. How are")
    assert maker.pop() is None
    assert maker.pop(eager=True) == Turn("Hello there.")
    maker.feed(" you")
    maker.flush()
    assert maker.pop(eager=True) == Turn("How are you")
    maker.feed("[SPEAK")
    maker.feed("ER3] I")
    maker.close()
    assert maker.pop() == Turn("I", 3)
    assert maker.pop() is None


def test_an_error_comes_behind_what_was_read_before_it() -> None:
    def broken() -> Iterator[str]:
        yield "One is here. Two is he"
        yield "re. Three. "
        raise OSError("gone")

    turns = split_turns(broken(), 25)
    assert [next(turns).text, next(turns).text] == ["One is here. Two is here.", "Three."]
    with pytest.raises(OSError, match="gone"):
        next(turns)


def test_limits() -> None:
    with pytest.raises(InvalidRequestError, match=r"\[max_turn_chars\].*8.*7"):
        list(split_turns("x", 7))
    with pytest.raises(InvalidRequestError, match=r"\[text\].*int"):
        list(split_turns([3], 70))  # type: ignore[list-item]
