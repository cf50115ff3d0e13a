# ruff: noqa: RUF001 (typographic characters are the subject)
"""Numbers, dates, times, units, currency and abbreviations as they are said.

The one place where written forms are spelled out; num2words knows the numerals. English gets all of
it. Other languages (`LANGUAGES`) get their numerals; digits beside Chinese characters alone stay as
they are, for want of a table. Strangers write the texts: no pattern here may take more than linear
time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

from higgs_rt.errors import InvalidRequestError
from higgs_rt.prompt.languages import LANGUAGES

AUTO = "auto"
_MAX_DIGITS = 15  # of a whole number or a fraction; longer ones are said digit by digit

# What must survive as it is: speaker tags, sound events, addresses. Mail bounds the parts of an
# address; without bounds a run of "a@" is looked at again from each of its characters.
_PROTECTED = re.compile(
    r"(\[SPEAKER\d{1,4}\]|</?SE(?:_[se])?>|\bhttps?://\S+"
    r"|[^\s@]{1,64}@[^\s@]{1,255}\.\w{1,63})"
)
_HAS_WORK = re.compile(r"[\d&%#]|\b(?:[A-Z][a-z]{1,3}|e\.g|i\.e|etc|vs|approx)\.")
_KANA = re.compile("[\u3040-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7af\u1100-\u11ff]")
_HAN = re.compile("[\u3400-\u9fff]")

_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_MONTH = r"(?P<month>" + "|".join(f"{m}|{m[:3]}\\.?" for m in _MONTHS) + r"|Sept\.?)"
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALE = r"(?:\s?(?P<scale>thousand|million|billion|trillion|bn|mn|[kKmM](?![\w²³])))?"
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "bn": "billion"}
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "US$": ("US dollar", "US dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "USD": ("US dollar", "US dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"),
}
_UNITS = {
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "m/s": ("meter per second", "meters per second"),
    "mph": ("mile per hour", "miles per hour"),
    "km²": ("square kilometer", "square kilometers"),
    "m²": ("square meter", "square meters"),
    "m³": ("cubic meter", "cubic meters"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "m": ("meter", "meters"),
    "ft": ("foot", "feet"),
    "mi": ("mile", "miles"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "g": ("gram", "grams"),
    "lbs": ("pound", "pounds"),
    "lb": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "ml": ("milliliter", "milliliters"),
    "l": ("liter", "liters"),
    "TB": ("terabyte", "terabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "MB": ("megabyte", "megabytes"),
    "kB": ("kilobyte", "kilobytes"),
    "GHz": ("gigahertz", "gigahertz"),
    "MHz": ("megahertz", "megahertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "Hz": ("hertz", "hertz"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "kW": ("kilowatt", "kilowatts"),
    "W": ("watt", "watts"),
    "V": ("volt", "volts"),
    "ms": ("millisecond", "milliseconds"),
    "min": ("minute", "minutes"),
    "s": ("second", "seconds"),
    "h": ("hour", "hours"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
    "%": ("percent", "percent"),
}
_ABBREVIATIONS = {
    "Mr.": "Mister",
    "Mrs.": "Missus",
    "Ms.": "Miz",
    "Dr.": "Doctor",
    "Prof.": "Professor",
    "Jr.": "Junior",
    "Sr.": "Senior",
    "e.g.": "for example",
    "i.e.": "that is",
    "vs.": "versus",
    "approx.": "approximately",
    "etc.": "et cetera",
}
_FRACTIONS = {"2": ("half", "halves"), "3": ("third", "thirds"), "4": ("quarter", "quarters")}


def spell_out(text: str, language: str = AUTO) -> str:
    """`text` with its numbers, dates, units, currency and abbreviations in words.

    `language` is one of `LANGUAGES` ("en", "de", …) or "zh"; "auto" reads kana as Japanese, Hangul
    as Korean, leaves digits beside Chinese characters alone, and takes the rest for English.
    """
    chosen = _language_of(text) if language == AUTO else language
    _check_language(chosen)
    if chosen == "zh" or not _HAS_WORK.search(text):
        return text
    say = _english if chosen == "en" else lambda part: _numerals(part, chosen)
    parts = _PROTECTED.split(text)  # odd parts are protected
    return "".join(part if index % 2 else say(part) for index, part in enumerate(parts))


def check_language(language: object) -> str:
    """`language` when `spell_out` knows it, else InvalidRequestError that lists what it knows."""
    if not isinstance(language, str):
        raise InvalidRequestError(f"[language] expected a string, got {language!r}")
    if language != AUTO:
        _check_language(language)
    return language


def _check_language(language: str) -> None:
    from num2words import CONVERTER_CLASSES  # an older one knows fewer

    if language != "zh" and (language not in LANGUAGES or language not in CONVERTER_CLASSES):
        known = ", ".join(sorted({AUTO, "zh", *CONVERTER_CLASSES.keys() & LANGUAGES}))
        raise InvalidRequestError(f"[language] expected one of {known}, got {language!r}")


def _language_of(text: str) -> str:
    if _KANA.search(text):
        return "ja"
    if _HANGUL.search(text):
        return "ko"
    return "zh" if _HAN.search(text) else "en"


def _words(number: str, to: str = "cardinal", language: str = "en") -> str:
    """`number` in words; digit by digit where it is long or the library gives up."""
    from num2words import num2words

    plain = number.replace(",", "")
    whole, _, tail = plain.partition(".")
    if len(whole) > _MAX_DIGITS or (len(whole) > 1 and whole.startswith("0")):
        return _digits(plain, language)
    if tail and language == "en":
        return f"{_words(whole)} point {_digits(tail)}"
    if len(tail) > _MAX_DIGITS:
        return _digits(plain, language)
    value: Any = Decimal(plain) if tail else int(plain)
    try:
        spoken = str(num2words(value, to=to, lang=language))
    except Exception:  # of any kind: some languages look beyond the end of their tables
        spoken = ""
    if not spoken.strip():  # "0.25" in Welsh
        return _digits(plain, language)
    if language != "en":
        return spoken
    # One flow of words: no commas and hyphens within a number, and no "and".
    return re.sub(r"\band ", "", spoken.replace(",", "").replace("-", " "))


def _digits(text: str, language: str = "en") -> str:
    names = _digit_names(language)
    return " ".join(names[int(char)] if char.isdecimal() else "point" for char in text)


@cache
def _digit_names(language: str) -> tuple[str, ...]:
    from num2words import num2words

    return tuple(str(num2words(digit, lang=language)) for digit in range(10))


def _numerals(text: str, language: str) -> str:
    def say(match: re.Match[str]) -> str:
        return _words(match.group(), language=language)

    return re.sub(r"(?<![A-Za-z\d.,])\d+(?:\.\d+)?(?![A-Za-z\d])(?!\.\d)", say, text)


Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


def _english(text: str) -> str:
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text


def _abbreviation(match: re.Match[str]) -> str:
    said = _ABBREVIATIONS[match.group(1)]
    # "etc." may end the sentence: its full stop stays then.
    ends = match.group(1) == "etc." and not match.string[match.end() :].lstrip()[:1].islower()
    return said + ("." if ends else "")


def _iso_date(match: re.Match[str]) -> str:
    return _date(int(match["y"]), int(match["m"]), int(match["d"])) or match.group()


def _us_date(match: re.Match[str]) -> str:
    return _date(int(match["y"]), int(match["m"]), int(match["d"])) or match.group()


def _date(year: int, month: int, day: int) -> str | None:
    try:
        date(year, month, day)
    except ValueError:
        return None
    return f"{_MONTHS[month - 1]} {_words(str(day), 'ordinal')}, {_year(str(year))}"


def _month_day(match: re.Match[str]) -> str:
    month = next(m for m in _MONTHS if m.startswith(match["month"][:3]))
    year = f", {_year(match['y'])}" if match["y"] else ""
    return f"{month} {_words(match['d'], 'ordinal')}{year}"


def _year(year: str) -> str:
    return _words(year, "year")


def _time(match: re.Match[str]) -> str:
    hour, minute, half = match["h"], match["m"], match["half"]
    said = _words(str(int(hour)))
    if minute == "00":
        said += "" if half else " o'clock" if 1 <= int(hour) <= 12 else " hundred hours"
    else:
        said += (" oh " if minute[0] == "0" else " ") + _words(str(int(minute)))
    return said + (f" {half[0].upper()} M" if half else "")


def _money(match: re.Match[str]) -> str:
    one, many, cent, cents = _CURRENCIES[match["symbol"]]
    amount, scale = match["amount"].replace(",", ""), match["scale"]
    if scale:
        return f"{_words(amount)} {_SCALES.get(scale.lower(), scale)} {many}"
    whole, _, part = amount.partition(".")
    said = f"{_words(whole)} {one if whole == '1' else many}"
    if len(part) == 2 and int(part):
        small = f"{_words(str(int(part)))} {cent if int(part) == 1 else cents}"
        return small if whole == "0" else f"{said} and {small}"
    if part.strip("0"):
        return f"{_words(amount)} {many}"
    return said


def _unit(match: re.Match[str]) -> str:
    one, many = _UNITS[match["unit"]]
    return f"{_words(match['amount'])} {one if match['amount'] == '1' else many}"


def _range(match: re.Match[str]) -> str:
    """ "10-20" is a range, "555-1234" a telephone number."""
    first, second = match["a"], match["b"]
    if len(first) >= 3 and len(second) >= 3 and not _is_year(first):
        return f"{_digits(first)}, {_digits(second)}"
    say = _year if _is_year(first) and _is_year(second) else _words
    return f"{say(first)} to {say(second)}"


def _is_year(number: str) -> bool:
    return len(number) == 4 and "1100" <= number <= "2099"


def _fraction(match: re.Match[str]) -> str:
    names = _FRACTIONS.get(match["b"])
    if names is None:
        return f"{_words(match['a'])} over {_words(match['b'])}"
    return f"{_words(match['a'])} {names[0] if match['a'] == '1' else names[1]}"


def _decade(match: re.Match[str]) -> str:
    said = _year(match["d"])
    return said[:-1] + "ies" if said.endswith("y") else said + "s"


def _plain(match: re.Match[str]) -> str:
    number = match.group()
    begin, end = match.span()
    left = " " if match.string[max(begin - 1, 0) : begin].isalpha() else ""
    right = " " if match.string[end : end + 1].isalpha() else ""
    return left + _words(number) + right


def _dotted(match: re.Match[str]) -> str:
    return " point ".join(_words(part) for part in match.group().split("."))


_B = r"(?<![\w.,])"  # not inside of a word or number
_E = r"(?![\w])(?!\.\d)"
_UNIT_NAMES = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_SYMBOLS = "|".join(re.escape(symbol) for symbol in sorted(_CURRENCIES, key=len, reverse=True))
_YEAR_WORDS = r"(?:in|since|until|before|after|by|from|of|year|during|around|early|late)"

_RULES: tuple[Rule, ...] = (
    (
        re.compile(
            r"\b(" + "|".join(re.escape(one) for one in _ABBREVIATIONS) + r")(?=\s|$|[,;:)])"
        ),
        _abbreviation,
    ),
    (re.compile(r"\bNo\.\s?(?=\d)"), lambda _: "number "),
    (re.compile(r"(?<!\w)#(?=\d)"), lambda _: "number "),
    (re.compile(rf"{_B}(?P<y>\d{{4}})-(?P<m>\d\d)-(?P<d>\d\d){_E}"), _iso_date),
    (re.compile(rf"{_B}(?P<m>\d\d?)/(?P<d>\d\d?)/(?P<y>\d{{4}}){_E}"), _us_date),
    (
        re.compile(rf"\b{_MONTH}\s(?P<d>\d\d?)(?:st|nd|rd|th)?(?:,?\s(?P<y>\d{{4}}))?{_E}"),
        _month_day,
    ),
    (
        re.compile(rf"{_B}(?P<d>\d\d?)(?:st|nd|rd|th)?\s{_MONTH}(?:,?\s(?P<y>\d{{4}}))?(?!\w)"),
        _month_day,
    ),
    (
        re.compile(
            rf"{_B}(?P<h>[01]?\d|2[0-4]):(?P<m>[0-5]\d)"
            r"(?:\s?(?P<half>[aApP](?:\.[mM]\.|[mM]\b)))?(?![:\d])"
        ),
        _time,
    ),
    (
        re.compile(rf"(?P<symbol>US\$|[$€£¥₹])\s?(?P<amount>{_NUMBER}){_SCALE}(?![\d])"),
        _money,
    ),
    (re.compile(rf"{_B}(?P<amount>{_NUMBER}){_SCALE}\s?(?P<symbol>{_SYMBOLS})(?!\w)"), _money),
    (
        re.compile(rf"{_B}(?P<a>\d+(?:\.\d+)?)[-–](?P<b>\d+(?:\.\d+)?)(?![-–/\d])(?!\.\d)"),
        _range,
    ),
    (re.compile(rf"{_B}'?(?P<d>(?:1[1-9]|20)\d0)s\b"), _decade),
    (
        re.compile(rf"(?i:\b{_YEAR_WORDS}) (?P<y>1[1-9]\d\d|20\d\d)(?![\w%])(?![.,]\d)"),
        lambda match: match.group()[: -len(match["y"])] + _year(match["y"]),
    ),
    (
        re.compile(rf"(?<![\w.,])(?P<amount>{_NUMBER})\s?(?P<unit>{_UNIT_NAMES})(?![\w/²³])"),
        _unit,
    ),
    (re.compile(rf"{_B}(?P<a>\d{{1,3}})/(?P<b>\d{{1,3}})(?![/\d])"), _fraction),
    (
        re.compile(rf"{_B}(?P<d>\d+)(?:st|nd|rd|th)\b"),
        lambda match: _words(match["d"], "ordinal"),
    ),
    (re.compile(rf"{_B}\d+(?:\.\d+){{2,}}(?!\w)"), _dotted),
    (re.compile(r"(?<![\w.,)])[-−](?=\d)"), lambda _: "minus "),
    (re.compile(_NUMBER), _plain),
    (re.compile(r"\s?&\s?(?!\w+;)"), lambda _: " and "),
    (re.compile(r"(?<=\w)%"), lambda _: " percent"),
)
