"""Writes unicode_table.inc: the properties of code points that prompts depend on.

Letters and numbers are those of the regular expressions of the `tokenizers` package, since token
ids must be equal to its; decimal digits and wide characters are those of Python's unicodedata.
Run it again, and the tests, when either knows a newer Unicode:
    python csrc/text/make_unicode_table.py
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import tokenizers
from tokenizers import Regex, pre_tokenizers

LAST = 0x10FFFF
PER_LINE = 10


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether the regular expression matches a character, by the engine of `tokenizers`."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    return lambda char: not split.pre_tokenize_str(char)


def entries() -> list[int]:
    """`first << 4 | properties` of each run of code points, in order; bits as in unicode.cpp."""
    letter, number = matcher(r"\p{L}"), matcher(r"\p{N}")
    runs: list[int] = []
    before = -1
    for code in range(LAST + 1):
        properties = 0
        if not 0xD800 <= code < 0xE000:
            char = chr(code)
            wide = unicodedata.east_asian_width(char) in "WF"
            properties = letter(char) | number(char) << 1 | char.isdecimal() << 2 | wide << 3
        if properties != before:
            runs.append(code << 4 | properties)
            before = properties
    return runs


def main() -> None:
    """Write the table beside this file."""
    runs = entries()
    lines = [
        f"// Written by make_unicode_table.py with tokenizers {tokenizers.__version__} (letters, "
        "numbers)",
        f"// and Unicode {unicodedata.unidata_version} of unicodedata (decimals, width).",
    ]
    for at in range(0, len(runs), PER_LINE):
        lines.append(" ".join(f"{run:#x}," for run in runs[at : at + PER_LINE]))
    Path(__file__).with_name("unicode_table.inc").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
