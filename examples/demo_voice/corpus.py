"""The demo corpus: lines of text to be spoken, each with a voice, and the held-out sentences.

    python corpus.py --out FOLDER --lines 220000 [--words /usr/share/dict/words]

writes ``lines.tsv`` (voice TAB text). Three kinds of line: sentences of a small grammar over the
small lexicon, the same over the large one, and runs of words drawn from a word list (Debian's
``wamerican``), which teach spelling. Everything is drawn from one seed; no held-out sentence is
among the lines (asserted).
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

from lexicon import LARGE, SMALL, Lexicon, vocabulary

SEED = 20261120
TEXTS = Path(__file__).resolve().parents[2] / "tests" / "data"  # held-out sentences
MAX_CHARACTERS = 78
PATTERNS = (
    "det noun verb_s det noun",
    "det adj noun verb_s det noun",
    "det noun verb_s det adj noun",
    "det adj noun verb_s det adj noun",
    "det noun intr_s prep det noun",
    "det adj noun intr_s adv",
    "det noun intr_s adv prep det adj noun",
    "pron aux verb det noun",
    "pron aux verb det adj noun prep det noun",
    "pron aux adv verb det noun",
    "det noun be prep det noun",
    "det noun be adj conj adj",
    "det adj noun be adv prep det noun",
    "num noun conj num noun",
    "prep det noun, det noun verb_s det noun",
    "prep det adj noun pron aux verb det noun",
    "pron aux verb det noun conj det noun",
    "det noun verb_s det noun conj det noun intr_s",
    "conj det noun intr_s, pron aux verb det noun",
    "det noun prep det noun be adj",
    "det noun conj det noun verb_s det adj noun prep det noun",
    "adv, det noun verb_s det noun adv",
)
QUESTIONS = (
    "wh be det noun",
    "wh be det adj noun prep det noun",
    "aux pron verb det noun",
    "aux pron verb det adj noun adv",
    "be det noun prep det noun",
    "wh aux pron verb det noun",
)
VOICE_SHARES = {"slt": 0.34, "rms": 0.22, "awb": 0.22, "kal16": 0.22}


def grammar_line(rng: random.Random, lexicon: Lexicon) -> str:
    """One sentence of the grammar without end punctuation, plus its mark."""
    question = rng.random() < 0.15
    pattern = rng.choice(QUESTIONS if question else PATTERNS)
    words = [
        rng.choice(lexicon[slot.rstrip(",")]) + ("," if slot.endswith(",") else "")
        for slot in pattern.split()
    ]
    return " ".join(words) + ("?" if question else "")


def salad_line(rng: random.Random, words: list[str], common: list[str]) -> str:
    """Three to eight words, a part of them rare, with now and then a comma or a number."""
    line = []
    for _ in range(rng.randint(3, 8)):
        chance = rng.random()
        if chance < 0.03:
            line.append(str(rng.randint(1, 99)))
        else:
            line.append(rng.choice(words if chance < 0.6 else common))
        if rng.random() < 0.06:
            line[-1] += ","
    return " ".join(line).rstrip(",")


def finish(rng: random.Random, line: str) -> str:
    """Case and end punctuation as users write them; always ends as the CLI's normalisation does."""
    line = re.sub(r"\bi\b", "I", line)
    if not line.endswith("?"):
        line += rng.choices([".", "!", "?", ",", ";"], [0.84, 0.08, 0.04, 0.02, 0.02])[0]
    chance = rng.random()
    if chance < 0.8:
        return line[0].upper() + line[1:]
    if chance < 0.83:
        return line.upper()
    return line


def normal_form(line: str) -> str:
    """Lower-case words only: two lines with one normal form are the same sentence."""
    return " ".join(re.findall(r"[a-z']+", line.lower()))


def word_list(path: Path | None) -> list[str]:
    """Plain lower-case words of 2 to 12 letters; the large lexicon alone without a list."""
    if path is None:
        return vocabulary(LARGE)
    text = path.read_text(encoding="utf-8")
    return [w for w in text.split() if re.fullmatch(r"[a-z]{2,12}", w)]


def corpus_lines(count: int, words: list[str], held_out: set[str]) -> list[tuple[str, str]]:
    """`count` distinct (voice, text) lines, none of them a held-out sentence."""
    rng = random.Random(SEED)
    common = vocabulary(LARGE)
    seen: set[str] = set(held_out)
    lines: list[tuple[str, str]] = []
    while len(lines) < count:
        kind = rng.random()
        if kind < 0.20:
            raw = grammar_line(rng, SMALL)
        elif kind < 0.55:
            raw = grammar_line(rng, LARGE)
        else:
            raw = salad_line(rng, words, common)
        text = finish(rng, raw)
        key = normal_form(text)
        if key in seen or len(text) > MAX_CHARACTERS:
            continue
        seen.add(key)
        voice = rng.choices(list(VOICE_SHARES), list(VOICE_SHARES.values()))[0]
        lines.append((voice, text))
    if any(normal_form(text) in held_out for _, text in lines):
        raise AssertionError("[corpus] expected no held-out sentence among the lines, got one")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=220_000)
    parser.add_argument("--words", type=Path, help="a word list, one word a line")
    parser.add_argument("--held-out", type=Path, nargs="+", required=True, help="never spoken")
    args = parser.parse_args()
    rows = [row for file in args.held_out for row in file.read_text(encoding="utf-8").splitlines()]
    held_out = {normal_form(row) for row in rows if row}
    lines = corpus_lines(args.lines, word_list(args.words), held_out)
    args.out.mkdir(parents=True, exist_ok=True)
    table = "".join(f"{voice}\t{text}\n" for voice, text in lines)
    (args.out / "lines.tsv").write_text(table, encoding="utf-8")
    mean = sum(len(text) for _, text in lines) / len(lines)
    print(f"{len(lines)} lines, mean {mean:.1f} characters, {len(word_list(args.words))} words")


if __name__ == "__main__":
    main()
