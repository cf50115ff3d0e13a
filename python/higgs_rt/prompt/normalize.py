# ruff: noqa: RUF001 (typographic characters are the subject)
"""Text normalisation of the original command line, in its order (spec 4.6). Pure functions."""

from __future__ import annotations

import re

# No more digits: a longer one is plain text, and int() takes every number that is found.
SPEAKER_TAG = re.compile(r"\[(SPEAKER\d{1,4})\]")

_PUNCTUATION = str.maketrans(
    {
        "，": ", ",
        "。": ".",
        "：": ":",
        "；": ";",
        "？": "?",
        "！": "!",
        "（": "(",
        "）": ")",
        "【": "[",
        "】": "]",
        "《": "<",
        "》": ">",
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "、": ",",
        "—": "-",
        "…": "...",
        "·": ".",
        "「": '"',
        "」": '"',
        "『": '"',
        "』": '"',
    }
)
_BRACKETS = str.maketrans({"(": " ", ")": " "})
_UNITS = (("°F", " degrees Fahrenheit"), ("°C", " degrees Celsius"))
_EVENTS = (
    ("[laugh]", "<SE>[Laughter]</SE>"),
    ("[humming start]", "<SE_s>[Humming]</SE_s>"),
    ("[humming end]", "<SE_e>[Humming]</SE_e>"),
    ("[music start]", "<SE_s>[Music]</SE_s>"),
    ("[music end]", "<SE_e>[Music]</SE_e>"),
    ("[music]", "<SE>[Music]</SE>"),
    ("[sing start]", "<SE_s>[Singing]</SE_s>"),
    ("[sing end]", "<SE_e>[Singing]</SE_e>"),
    ("[applause]", "<SE>[Applause]</SE>"),
    ("[cheering]", "<SE>[Cheering]</SE>"),
    ("[cough]", "<SE>[Cough]</SE>"),
)
_FINAL = (".", "!", "?", ",", ";", '"', "'", "</SE_e>", "</SE>")


def normalize_text(text: str) -> str:
    """Map punctuation to ASCII, name units and sound events, tidy white space, end the sentence.

    Line breaks are kept (they separate the turns of a dialogue), blank lines are not. Numbers are
    not spelled out.
    """
    text = text.strip().translate(_PUNCTUATION).translate(_BRACKETS)
    for written, spoken in (*_UNITS, *_EVENTS):
        text = text.replace(written, spoken)
    lines = (" ".join(line.split()) for line in text.split("\n"))
    text = "\n".join(line for line in lines if line).strip()
    return text if text.endswith(_FINAL) else text + "."


def speaker_tags(text: str) -> list[str]:
    """Distinct speakers of the tags `[SPEAKERn]`, sorted as strings (spec 4.2)."""
    return sorted(set(SPEAKER_TAG.findall(text)))
