"""A small tokenizer.json that behaves like the released one where prompts can show it.

Special tokens have the released ids (spec 1.2), the text is split by the Llama-3 pattern, and the
words that the specification names (line breaks and roles) have their released ids. Every other
text falls apart into bytes (ids 0..255 in byte-level order). Like the released file it adds
<|begin_of_text|> by itself when asked to add special tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

from higgs_rt.checkpoint.random_tokenizer import SPECIAL_TOKENS, byte_symbols

FIRST_SPECIAL = 128000
# Byte-level spelling (Ċ is a line break, Ġ a space) -> id.
WORDS = {
    "ĊĊ": 271,
    ".ĊĊ": 382,
    "user": 882,
    "system": 9125,
    "assistant": 78191,
    "Generate": 32215,
    "Ġaudio": 7855,
    "Ġfollowing": 2768,
    "Ġinstruction": 7754,
}
LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_ids() -> dict[str, int]:
    """Byte-level symbols to ids in the usual order: printable bytes first."""
    symbols = byte_symbols()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {symbols[byte]: index for index, byte in enumerate([*printable, *others])}


def special_tokens() -> dict[str, int]:
    """String -> id of all special tokens."""
    return {text: FIRST_SPECIAL + offset for offset, text in SPECIAL_TOKENS.items()}


def write_llama_tokenizer(path: Path, without: tuple[str, ...] = ()) -> Path:
    """Write the tokenizer, leaving out the special tokens `without`; returns `path`."""
    specials = {text: at for text, at in special_tokens().items() if text not in without}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    begin = "<|begin_of_text|>"
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": at, "content": text, "special": True, **flags} for text, at in specials.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": LLAMA_SPLIT},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": False,
                },
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": begin, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {begin: {"id": begin, "ids": [FIRST_SPECIAL], "tokens": [begin]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {**byte_ids(), **WORDS, **specials},
            "merges": [],
        },
    }
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return path
