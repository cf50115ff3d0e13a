"""Write the language model's golden files with transformers as the reference.

    PYTHONPATH=python python tests/golden/make_lm_golden.py

Makes, from fixed seeds, small random checkpoints and the logits of a teacher-forced sequence that
mixes text, a reference recording's columns, text again and generated columns:

    lm/transformers/   fp32, GQA 2:1, one file
    lm/original/       bf16, GQA 4:1, two shards, original names
    lm/<layout>.json                 `text`: per position the token id, or -1 for an audio column;
                                     `columns`: the audio columns in order, 8 ids each
    lm/<layout>.logits.safetensors   logits fp32 [positions, codebooks, codebook vocabulary]

The reference always reads the transformers layout (bf16 weights are widened to fp32 there, as the
native CPU engine does); the original layout is written again from the same seed.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import HiggsAudioV2ForConditionalGeneration

from higgs_rt.checkpoint.random_checkpoint import write_random_checkpoint
from higgs_rt.checkpoint.safetensors_file import FloatArray, write_safetensors

COMMON: dict[str, Any] = {"vocab": 300, "codebook_size": 30, "num_codebooks": 8}
MODELS: dict[str, dict[str, Any]] = {
    "transformers": {
        **COMMON, "hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 40,
        "dtype": "float32", "shards": 1, "seed": 1,
    },
    "original": {
        **COMMON, "hidden": 48, "layers": 3, "heads": 4, "kv_heads": 1, "head_dim": 16, "ffn": 56,
        "dtype": "bfloat16", "shards": 2, "seed": 2,
    },
}  # fmt: skip
# Lengths of the runs of positions, beginning with text.
RUNS = (9, 13, 6, 17)


def random_sequence(rng: np.random.Generator) -> tuple[list[int], list[list[int]]]:
    """Token ids with -1 at audio positions, and the columns (BOS and EOS ids included)."""
    text: list[int] = []
    columns: list[list[int]] = []
    for index, length in enumerate(RUNS):
        if index % 2 == 0:
            text += rng.integers(0, 256, length).tolist()
        else:
            text += [-1] * length
            columns += rng.integers(0, COMMON["codebook_size"] + 2, (length, 8)).tolist()
            columns[-length] = [COMMON["codebook_size"]] * 8
    return text, columns


def reference_logits(directory: Path, text: list[int], columns: list[list[int]]) -> FloatArray:
    """fp32 logits [positions, codebooks, vocabulary] of the transformers model."""
    model = HiggsAudioV2ForConditionalGeneration.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()  # type: ignore[no-untyped-call]
    audio_id = model.config.audio_token_id
    ids = torch.tensor([[audio_id if token < 0 else token for token in text]])
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            audio_input_ids=torch.tensor([columns]),
            audio_input_ids_mask=torch.ones(1, len(columns), dtype=torch.bool),
        ).logits[0]
    shape = (len(text), model.config.num_codebooks, model.config.codebook_size)
    return np.asarray(logits.reshape(shape).numpy(), dtype=np.float32)


def main() -> None:
    root = Path(__file__).resolve().parent / "lm"
    for layout, options in MODELS.items():
        write_random_checkpoint(root / layout, layout=layout, **options)  # type: ignore[arg-type]
        (root / layout / "tokenizer.json").unlink(missing_ok=True)
        text, columns = random_sequence(np.random.default_rng(options["seed"]))
        with tempfile.TemporaryDirectory() as scratch:
            write_random_checkpoint(scratch, layout="transformers", **{**options, "shards": 1})
            logits = reference_logits(Path(scratch), text, columns)
        sequence = {"text": text, "columns": columns}
        (root / f"{layout}.json").write_text(json.dumps(sequence) + "\n")
        write_safetensors(root / f"{layout}.logits.safetensors", {"logits": logits})


if __name__ == "__main__":
    main()
