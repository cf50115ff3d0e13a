"""Writes trained weights as the checkpoint the package ships (bf16, transformers layout).

    python export.py --out python/higgs_rt/data/demo [--codec codec.pt] [--model lm.pt]

``codec.pt`` and ``lm.pt`` are what stage_codec.py and stage_lm.py leave. tokenizer.json is always
written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from demo_config import CODEC, SPECIALS, VOCABULARY, WHOLE_STRINGS, language_model_config, token_id
from higgs_rt.training.codec_model import import_codec_classes


def byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in plain}
    extra = (byte for byte in range(256) if byte not in table)
    return table | {byte: chr(256 + i) for i, byte in enumerate(extra)}


def build_tokenizer() -> Tokenizer:
    """One id per UTF-8 byte (id = byte), special tokens, and whole strings of the prompt layouts.

    Whole strings are added tokens: they match anywhere in a text, as one id each.
    """
    vocabulary = {character: byte for byte, character in byte_characters().items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    tokenizer.add_tokens([AddedToken(s, special=False, normalized=False) for s in WHOLE_STRINGS])
    for text in SPECIALS + WHOLE_STRINGS:
        if tokenizer.token_to_id(text) != token_id(text):
            raise AssertionError(f"[tokenizer] expected id {token_id(text)} for {text!r}")
    if tokenizer.get_vocab_size() > VOCABULARY:
        raise AssertionError(f"[tokenizer] expected at most {VOCABULARY} ids")
    return tokenizer


def export_codec(weights: Path, out: Path) -> None:
    """Writes codec/config.json and codec/model.safetensors."""
    config_class, model_class = import_codec_classes()
    core = model_class(config_class(**CODEC))
    core.semantic_model.masked_spec_embed = None
    core.load_state_dict(torch.load(weights, map_location="cpu"))
    core.to(torch.bfloat16).save_pretrained(out)


def export_language_model(weights: Path, out: Path) -> None:
    """Writes config.json, generation_config.json and model.safetensors."""
    from transformers import (
        GenerationConfig,
        HiggsAudioV2Config,
        HiggsAudioV2ForConditionalGeneration,
    )

    config = HiggsAudioV2Config(**language_model_config())
    model: Any = HiggsAudioV2ForConditionalGeneration(config)
    state = torch.load(weights, map_location="cpu")
    # Speaking needs no text head, and transformers builds none by default: 147 kB less to ship.
    del state["text_lm_head.weight"]
    model.load_state_dict(state)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        ras_win_len=7,
        ras_win_max_num_repeat=2,
    )
    model.to(torch.bfloat16).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--codec", type=Path)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save(str(args.out / "tokenizer.json"))
    if args.codec:
        export_codec(args.codec, args.out / "codec")
    if args.model:
        export_language_model(args.model, args.out)
    for file in args.out.rglob("*.safetensors"):
        file.chmod(0o644)
    sizes = {
        str(p.relative_to(args.out)): p.stat().st_size for p in args.out.rglob("*") if p.is_file()
    }
    print(json.dumps(sizes, indent=1), sum(sizes.values()))


if __name__ == "__main__":
    main()
