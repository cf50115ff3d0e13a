"""The packaged demo checkpoint, in transformers: loads whole, speaks one prompt, follows the delay,
stops.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from higgs_rt.evaluation import read_lines, spoken_words
from higgs_rt.training.labels import IGNORE, column_labels, delayed_columns

DEMO = Path(__file__).resolve().parents[2] / "python" / "higgs_rt" / "data" / "demo"
SENTENCES = Path(__file__).resolve().parent.parent / "data" / "sentences.txt"
ORDINARY = SENTENCES.with_name("ordinary.txt")
VOCABULARY = Path(__file__).resolve().parent.parent / "data" / "vocabulary.txt"
CODES, BOS, EOS = 256, 256, 257
LIMIT = 375


def test_size() -> None:
    """At most 30 MB in all."""
    size = sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file())
    assert size <= 30_000_000, size


def test_tokenizer_round_trip() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    for text in ("Hello.", "naïve façade, 你好 😀", " two  spaces\tand\r\n", "<|eot_id|>\n\n"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert tokenizer.encode("Hé", add_special_tokens=False).ids == list("Hé".encode())


def test_held_out_sentences_use_the_vocabulary() -> None:
    words = set(VOCABULARY.read_text(encoding="utf-8").split())
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    assert len(sentences) >= 50
    assert len(words) <= 150
    for sentence in sentences:
        parts = sentence.lower().strip(".?!").split()
        assert 4 <= len(parts) <= 12, sentence
        assert {part.strip(",") for part in parts} <= words, sentence


def test_ordinary_sentences() -> None:
    """At least 30 of 8 to 12 words, most of them outside the small vocabulary."""
    words = set(VOCABULARY.read_text(encoding="utf-8").split())
    rows = [spoken_words(row) for row in read_lines(ORDINARY)]
    assert len(rows) >= 30
    assert all(8 <= len(row) <= 12 for row in rows)
    assert len({word for row in rows for word in row} - words) > 100


def test_labels_have_one_end_per_codebook() -> None:
    codes = torch.randint(0, CODES, (8, 11))
    labels = column_labels(codes, EOS)
    columns = delayed_columns(codes, BOS, EOS)
    assert columns.shape == labels.shape == (20, 8)
    assert (labels == EOS).sum(0).tolist() == [1] * 8
    for book in range(8):
        assert columns[: book + 1, book].tolist() == [BOS] * (book + 1)
        assert labels[: book + 1, book].tolist() == [IGNORE] * (book + 1)
        assert columns[book + 1 : book + 12, book].tolist() == codes[book].tolist()
        assert columns[book + 12 :, book].tolist() == [EOS] * (8 - book)


def test_speaks_and_stops_in_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    model, report = transformers.HiggsAudioV2ForConditionalGeneration.from_pretrained(
        DEMO, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    text = SENTENCES.read_text(encoding="utf-8").splitlines()[0]
    pieces = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n",
        "Generate audio following instruction.",
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
        text,
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n<|audio_out_bos|>",
    )
    ids = [i for p in pieces for i in tokenizer.encode(p, add_special_tokens=False).ids]
    assert ids[-1] == model.config.audio_bos_token_id
    torch.manual_seed(0)
    prompt = torch.tensor([ids])
    columns = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=LIMIT
    )[0]
    assert len(columns) < LIMIT
    end = int((columns[:, 0] == EOS).nonzero()[0])
    frames = end - 1
    assert 0.04 * frames == pytest.approx(2.0, abs=1.0)  # seconds of six words
    for book in range(8):
        assert columns[: book + 1, book].tolist() == [BOS] * (book + 1)
        assert (columns[book + 1 : book + 1 + frames, book] < CODES).all()
        assert columns[book + 1 + frames, book] == EOS


def test_configuration() -> None:
    model = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))
    assert (model["num_codebooks"], model["codebook_size"]) == (8, CODES + 2)
    assert (model["audio_stream_bos_id"], model["audio_stream_eos_id"]) == (BOS, EOS)
    codec = json.loads((DEMO / "codec" / "config.json").read_text(encoding="utf-8"))
    assert (codec["sample_rate"], codec["codebook_size"]) == (24_000, CODES)
