# ruff: noqa: RUF001 (typographic characters are the subject)
"""Text normalisation, rule by rule in the specified order (spec 4.6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from higgs_rt.prompt import normalize_text, speaker_tags


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("Hello", "Hello."),
        ("  Hello.  ", "Hello."),
        ("你好，世界。", "你好, 世界."),
        ("一：二；三？四！五、六", "一:二;三?四!五,六."),
        ("《书》“引”‘单’", "<书>\"引\"'单'"),
        ("【注】「甲」『乙』", '[注]"甲""乙"'),
        ("wait— what… a·b", "wait- what... a.b."),
        ("a (b) c", "a b c."),
        ("a（b）c", "a b c."),
        ("It is 20°C, not 68°F", "It is 20 degrees Celsius, not 68 degrees Fahrenheit."),
        ("[laugh]", "<SE>[Laughter]</SE>"),
        ("Oh [cough]", "Oh <SE>[Cough]</SE>"),
        ("[applause] [cheering]", "<SE>[Applause]</SE> <SE>[Cheering]</SE>"),
        ("[humming start] la [humming end]", "<SE_s>[Humming]</SE_s> la <SE_e>[Humming]</SE_e>"),
        ("[music start] x [music end]", "<SE_s>[Music]</SE_s> x <SE_e>[Music]</SE_e>"),
        ("[music]", "<SE>[Music]</SE>"),
        ("[sing start] x [sing end]", "<SE_s>[Singing]</SE_s> x <SE_e>[Singing]</SE_e>"),
        ("【laugh】", "<SE>[Laughter]</SE>"),  # punctuation is mapped before events
        ("(laugh)", "laugh."),
        ("a \t b\n\n \n c  d", "a b\nc d."),
        ("[SPEAKER0] Hi.\n\n[SPEAKER1] Ho", "[SPEAKER0] Hi.\n[SPEAKER1] Ho."),
        ("why?", "why?"),
        ("stop;", "stop;"),
        ("well,", "well,"),
        ('"so"', '"so"'),
        ("the dogs'", "the dogs'"),
        ("then:", "then:."),
    ],
)
def test_rules(written: str, normalised: str) -> None:
    assert normalize_text(written) == normalised


@given(st.text())
def test_normalised_text_is_tidy_and_stays_as_it_is(text: str) -> None:
    once = normalize_text(text)
    assert once.strip() == once
    assert all(line.split() == line.split(" ") for line in once.split("\n"))
    assert once.endswith((".", "!", "?", ",", ";", '"', "'", "</SE_e>", "</SE>"))


def test_speaker_tags_are_distinct_and_sorted_as_strings() -> None:
    text = "[SPEAKER2] a [SPEAKER10] b [SPEAKER2] c [SPEAKER0] [SPEAKERX] SPEAKER7"
    assert speaker_tags(text) == ["SPEAKER0", "SPEAKER10", "SPEAKER2"]


def test_a_tag_of_more_than_four_digits_is_text() -> None:
    assert speaker_tags("[SPEAKER9999] a [SPEAKER12345] b [SPEAKER" + "1" * 4400 + "]") == [
        "SPEAKER9999"
    ]
