# ruff: noqa: RUF001 (typographic characters are the subject)
"""Written forms to spoken words: numbers, dates, times, units, currency, abbreviations."""

from __future__ import annotations

import re
import time

import pytest

from higgs_rt import InvalidRequestError
from higgs_rt.prompt import check_text, normalize_text, spell_out, split_turns
from higgs_rt.prompt.languages import LANGUAGES
from waiting import within


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("3 books", "three books"),
        (
            "1,234,567 men",
            "one million two hundred thirty four thousand five hundred sixty seven men",
        ),
        ("pi is 3.14", "pi is three point one four"),
        ("-5 and 007", "minus five and zero zero seven"),
        ("$1,234.50", "one thousand two hundred thirty four dollars and fifty cents"),
        ("$1 or $0.99", "one dollar or ninety nine cents"),
        ("$3.5 million", "three point five million dollars"),
        ("€20, 5 USD", "twenty euros, five US dollars"),
        ("12.5% of 5 km", "twelve point five percent of five kilometers"),
        ("1 kg at 100 km/h", "one kilogram at one hundred kilometers per hour"),
        ("20°C and 70°F", "twenty degrees Celsius and seventy degrees Fahrenheit"),
        ("2024-03-05", "March fifth, twenty twenty four"),
        ("3/14/1999", "March fourteenth, nineteen ninety nine"),
        ("on March 5, 2024", "on March fifth, twenty twenty four"),
        ("5 March 1999", "March fifth, nineteen ninety nine"),
        ("at 3:45 pm", "at three forty five P M"),
        ("14:05 or 9:00", "fourteen oh five or nine o'clock"),
        ("in 1999, the 1990s", "in nineteen ninety nine, the nineteen nineties"),
        ("1500 people", "one thousand five hundred people"),
        ("the 21st, 2nd", "the twenty first, second"),
        ("10-20 and 1999–2005", "ten to twenty and nineteen ninety nine to two thousand five"),
        ("call 555-1234", "call five five five, one two three four"),
        ("1/2 and 3/4", "one half and three quarters"),
        ("version 2.0.1", "version two point zero point one"),
        ("No. 5 and #6", "number five and number six"),
        ("MP3 & more", "MP three and more"),
        ("Dr. Smith vs. Mr. Jones", "Doctor Smith versus Mister Jones"),
        ("cats, dogs, etc. He left.", "cats, dogs, et cetera. He left."),
        ("[SPEAKER12] 5", "[SPEAKER12] five"),
        ("at https://a.b/1 5", "at https://a.b/1 five"),
        ("私は3個", "私は三個"),
        ("나는 3 개", "나는 삼 개"),
        ("我有3个", "我有3个"),
        ("no digits here", "no digits here"),
    ],
)
def test_written_to_spoken(written: str, spoken: str) -> None:
    assert spell_out(written) == spoken


def test_languages() -> None:
    assert spell_out("Ich habe 25 Hunde", "de") == "Ich habe fünfundzwanzig Hunde"
    assert spell_out("J'ai 2 chats", "fr") == "J'ai deux chats"
    with pytest.raises(InvalidRequestError, match=r"\[language\].*de.*'xx'"):
        spell_out("1", "xx")


def test_nothing_is_left_to_read_digit_by_digit() -> None:
    text = (
        "On 5/6/2023 at 7:30 a.m. 1,000 of 3.5 million (0.03%) paid $9.99-$12 for 2x 16GB, 4K, B2B."
    )
    assert not re.search(r"\d", spell_out(text))


def test_huge_numbers_and_long_runs_end_soon() -> None:
    begin = time.monotonic()
    assert spell_out("9" * 40).split() == ["nine"] * 40
    for run in ("1" * 2000, "1." * 1000, "1," * 1000, "1-" * 1000, "$" * 2000, "a@" * 1000):
        spell_out(run)
    assert time.monotonic() - begin < 5


def test_a_language_whose_numerals_loop_for_ever_is_not_known() -> None:
    from num2words import CONVERTER_CLASSES

    assert set(LANGUAGES) <= set(CONVERTER_CLASSES)
    with within(2), pytest.raises(InvalidRequestError, match=r"\[language\].* ar, auto, az,.*'am'"):
        spell_out("Hello 12345678.", "am")


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_number_is_too_much_for_a_language(language: str) -> None:
    with within(2):
        for number in ("3.14159", "1.5", "0.0000000", "0.25", "46.908301661", "9" * 15, "7" * 16):
            said = spell_out(f"<{number}>", language)
            assert len(said) > 2 and not re.search(r"[0-9]", said), (number, said)
        said = spell_out("1." + "3" * 300, language)
        three = spell_out("3", language)
        assert said.count(three) == 300


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("$1." + "1" * 5000, "one point" + " one" * 5000 + " dollars"),
        ("$1." + "0" * 5000, "one dollar"),
        ("1." + "3" * 300, "one point" + " three" * 300),
        ("1" * 5000 + "th", " ".join(["one"] * 5000)),
        ("٣" * 20, " ".join(["three"] * 20)),
    ],
)
def test_long_numbers_go_digit_by_digit(written: str, spoken: str) -> None:
    assert spell_out(written) == spoken


def test_addresses_are_protected() -> None:
    text = "2 for a.b1@c-d.example.com, 3 for https://a.b/1"
    assert spell_out(text) == "two for a.b1@c-d.example.com, three for https://a.b/1"


RUNS = [
    "a@",
    "a@1.",
    "a" * 64 + "@" + "b." * 127,
    "1",
    "1.",
    "1,",
    "1,111",
    "1-",
    "1/",
    "$1",
    "1 US$",
]
RUNS += [
    "& ",
    "&a",
    "1990s",
    "12:30 a",
    "etc. ",
    "<SE",
    "[SPEAKER1",
    "<|a",
    "\n",
    "\n ",
    "。”",
    ".",
    "a.a",
]


@pytest.mark.parametrize("run", RUNS)
def test_no_text_takes_more_than_linear_time(run: str) -> None:
    text = ("1 " + run * 20_000)[:20_000]
    with within(1.5):
        spell_out(text)
        normalize_text(text)
        check_text("x" + text, max_chars=30_000)
        list(split_turns(text, 250))


def test_tidying_comes_after() -> None:
    assert normalize_text(spell_out("It is 20°C （warm）")) == "It is twenty degrees Celsius warm."
