# ruff: noqa: RUF001 (typographic characters are the subject)
"""Token ids, text rules and prompts of C++ (csrc/text) against those of this package.

Ids must be equal to those of `tokenizers` for a trained byte-level BPE in Llama-3 form, with and
without `ignore_merges`, and for the packaged model's file.
"""

from __future__ import annotations

import json
import random
import subprocess
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from higgs_rt.checkpoint.files import DEMO_DIRECTORY
from higgs_rt.errors import HiggsError
from higgs_rt.prompt import (
    AudioSegment,
    Profile,
    Reference,
    TextSegment,
    TextTokenizer,
    build_prompt,
    check_text,
    normalize_text,
    num_positions,
    spell_out,
)
from higgs_rt.prompt.tokenizer import REQUIRED
from higgs_rt.request import estimated_seconds
from llama_tokenizer import LLAMA_SPLIT
from native_build import build_directory

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
SNIPPETS = [
    *("'s", "'S", "'LL", "'ſ", "'re", "I'm", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000"),
    *("\x1c", "\u2028", "12", "1234567", "Ⅷ", "½", "²", "é", "e\u0301", "ß", "İ", "ﬁ", "Ǆ"),
    *(
        "你好",
        "こんにちは",
        "안녕",
        "नमस्ते",
        "مرحبا",
        "🙂",
        "👩‍🚀",
        "\ufe0f",
        "\U000323af",
        "\U00010d40",
    ),
    *("<|eot_id|>", "<|eot", "|>", "<|audio_eos|>", "<SE>", "</SE>", "...", "—", "((", "_", "\x00"),
    *("hello", " world", "Higgs", "the quick brown fox", "isn't", "https://a.b/c?d=1", "Dr.", "&"),
    *(
        "[SPEAKER0]",
        "[SPEAKER12] ",
        "[SPEAKER12345] ",
        "[laugh]",
        "[music end]",
        "20°C",
        "100%",
        "“quoted”",
        "（好）",
    ),
]


def texts(count: int, seed: int) -> list[str]:
    """Random mixtures of snippets, letters, and code points from all of Unicode."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.6:
                parts.append(rng.choice(SNIPPETS))
            elif kind < 0.8:
                parts.append("".join(rng.choices("abcdefgh ABC.,!?'\n ", k=rng.randint(1, 9))))
            else:
                code = rng.randrange(0xD800) if kind < 0.95 else rng.randrange(0xE000, 0x110000)
                parts.append(chr(code))
        made.append("".join(parts))
    return made


class Native:
    """The program prompt_tool with one tokenizer."""

    def __init__(self, tokenizer: Path) -> None:
        self._command = [str(build_directory() / "tests" / "cpp" / "prompt_tool"), str(tokenizer)]

    def ask(self, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """One answer for each question."""
        lines = "".join(json.dumps(question) + "\n" for question in questions)
        run = subprocess.run(
            self._command, input=lines.encode(), stdout=subprocess.PIPE, check=True, timeout=120
        )
        answers = [json.loads(line) for line in run.stdout.decode().splitlines()]
        assert len(answers) == len(questions)
        return answers

    def about(self, op: str, given: Sequence[str]) -> list[dict[str, Any]]:
        """The answers to one question about each text."""
        return self.ask([{"op": op, "text": text} for text in given])


def train(path: Path, *, ignore_merges: bool) -> Path:
    """A byte-level BPE in the form of Llama 3's file, trained on the tests' texts."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [line for file in sorted(DATA.glob("*.txt")) for line in file.read_text().splitlines()]
    tokenizer.train_from_iterator([*lines, *SNIPPETS * 3], trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in REQUIRED]
    )
    tokenizer.add_tokens([AddedToken(token, normalized=True) for token in ("<SE>", "</SE>")])
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module", params=["ignore_merges", "merges", "demo"])
def tokenizer_file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if request.param == "demo":
        return DEMO_DIRECTORY / "tokenizer.json"
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    return train(path, ignore_merges=request.param == "ignore_merges")


def test_ids_of_random_texts(tokenizer_file: Path) -> None:
    given = texts(4000, seed=1)
    tokenizer = TextTokenizer.load(tokenizer_file)
    answers = Native(tokenizer_file).about("encode", given)
    wrong = [
        text
        for text, answer in zip(given, answers, strict=True)
        if answer.get("ids") != tokenizer.encode(text)
    ]
    assert not wrong


def test_code_points_are_split_alike(tmp_path: Path) -> None:
    path = train(tmp_path / "tokenizer.json", ignore_merges=False)
    tokenizer = TextTokenizer.load(path)
    chars = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    # Where categories change, and samples between: all of them take half a minute.
    kinds = [unicodedata.category(char) for char in chars]
    edges = {at for at in range(1, len(chars)) if kinds[at] != kinds[at - 1]}
    chosen = edges | {at - 1 for at in edges} | set(range(0, len(chars), 29))
    points = [chars[at] for at in sorted(chosen)]
    # Between letters, digits, marks and spaces, so that each property shows in the ids.
    given = [
        "".join(f"ing{char}the 12{char}3 ,{char}. {char} \n" for char in points[at : at + 512])
        for at in range(0, len(points), 512)
    ]
    for text, answer in zip(given, Native(path).about("encode", given), strict=True):
        assert answer["ids"] == tokenizer.encode(text), f"from U+{ord(text[3]):04X}"


def test_normalisation_and_estimates() -> None:
    given = [text for text in texts(4000, seed=2) if text.strip()]
    native = Native(DEMO_DIRECTORY / "tokenizer.json")
    for text, answer in zip(given, native.about("normalize", given), strict=True):
        assert "".join(map(chr, answer["ids"])) == normalize_text(text)
    for text, answer in zip(given, native.about("seconds", given), strict=True):
        assert answer["seconds"] == estimated_seconds(text)


def test_the_same_texts_are_refused() -> None:
    # Python may know an older Unicode than the letters and numbers of csrc/text.
    known = [text for text in texts(3000, 3) if "Cn" not in map(unicodedata.category, text)]
    assert len(known) > 1000
    given = ["", " \n", "...", "[SPEAKER0] !", "a" * 5001, "<|x|>", "ok <| x |>", *known]
    answers = Native(DEMO_DIRECTORY / "tokenizer.json").about("check", given)
    for text, answer in zip(given, answers, strict=True):
        refused = ""
        try:
            check_text(text)
        except HiggsError as error:
            refused = str(error)
        if "letter or digit" in refused:  # quotes the text
            assert "letter or digit" in answer["error"]
        else:
            assert answer.get("error", "") == refused


def test_what_passes_needs_no_spelling_out() -> None:
    given = [text for text in texts(4000, seed=4) if text.strip()]
    answers = Native(DEMO_DIRECTORY / "tokenizer.json").about("written", given)
    passed = [text for text, answer in zip(given, answers, strict=True) if not answer]
    assert len(passed) > 500
    assert [text for text in passed if spell_out(text) != text] == []


def prompts() -> list[dict[str, Any]]:
    """Every layout under both conventions."""
    rng = np.random.default_rng(5)
    clips = [
        {"transcript": words, "codes": rng.integers(0, 1024, 8 * frames).tolist()}
        for words, frames in (("Who is it?", 5), ("  It is me, 你好. ", 11))
    ]
    described = [{"description": "feminine"}, {"description": " a deep voice "}]
    speakers = [[], clips[:1], clips, described, [clips[0], described[1]], [described[0], *clips]]
    return [
        {
            "op": "prompt",
            "text": text,
            "scene": scene,
            "placement": placement,
            "convention": convention,
            "speakers": chosen,
        }
        for text in (
            "Hello there.",
            "[SPEAKER1] Hi.\n[SPEAKER0] Oh!",
            " [SPEAKER10] a [SPEAKER9] b",
            "[SPEAKER1234] Hi. [SPEAKER12345] Oh!",
        )
        for scene in ("", "A quiet room.", " Rain, and wind. ")
        for placement in ("turns", "system")
        for convention in ("original", "transformers")
        for chosen in speakers
    ]


def python_prompt(question: dict[str, Any], tokenizer: TextTokenizer) -> dict[str, Any]:
    speakers = [
        Profile(one["description"])
        if "description" in one
        else Reference(np.array(one["codes"], np.int32).reshape(8, -1), one["transcript"])
        for one in question["speakers"]
    ]
    segments = build_prompt(
        question["text"],
        tokenizer,
        speakers=speakers,
        scene=question["scene"] or None,
        placement=question["placement"],
        convention=question["convention"],
        normalize=False,
    )
    rows = []
    for segment in segments:
        if isinstance(segment, TextSegment):
            rows.append([0, *segment.ids])
        else:
            assert isinstance(segment, AudioSegment)
            rows.append([1, *segment.codes.ravel().tolist()])
    return {"segments": rows, "positions": num_positions(segments)}


def test_prompts_of_every_layout(tokenizer_file: Path) -> None:
    tokenizer = TextTokenizer.load(tokenizer_file)
    questions = prompts()
    assert len(questions) == 288
    answers = Native(tokenizer_file).ask(questions)
    for question, answer in zip(questions, answers, strict=True):
        assert answer == python_prompt(question, tokenizer), question
