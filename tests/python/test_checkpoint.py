"""Random checkpoints load in transformers, agree between layouts; model files are found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from higgs_rt.checkpoint import resolve_model, write_random_checkpoint, write_random_codec
from higgs_rt.checkpoint.random_checkpoint import special_token_id
from higgs_rt.checkpoint.random_tokenizer import SPECIAL_TOKENS
from higgs_rt.checkpoint.safetensors_file import to_bfloat16_bits, write_safetensors
from higgs_rt.errors import CheckpointError

torch = pytest.importorskip("torch")
# Small tensors: more threads only wait for each other, badly so on a busy machine.
torch.set_num_threads(1)
safetensors_torch = pytest.importorskip("safetensors.torch")

SHAPES: list[dict[str, Any]] = [
    {},
    {"hidden": 96, "heads": 6, "kv_heads": 6, "layers": 3, "shards": 3, "seed": 1},
    {"hidden": 64, "heads": 8, "kv_heads": 2, "head_dim": 8, "layers": 6, "dtype": "bfloat16"},
    {"heads": 4, "kv_heads": 1, "head_dim": 32, "codebook_size": 100, "num_codebooks": 4},
]


def load_all(directory: Path) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors |= safetensors_torch.load_file(file)
    return tensors


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_loads_every_tensor(tmp_path: Path, shape: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    written = write_random_checkpoint(tmp_path, **shape)
    model, info = transformers.HiggsAudioV2ForConditionalGeneration.from_pretrained(
        tmp_path, dtype=torch.float32, use_text_head=True, output_loading_info=True
    )
    assert not {key: value for key, value in info.items() if value}
    ids = torch.randint(0, 250, (1, 12), generator=torch.Generator().manual_seed(0))
    columns = torch.randint(0, written.codebook_size + 2, (1, 6, written.num_codebooks))
    ids = torch.cat([ids, torch.full((1, 6), model.config.audio_token_id)], dim=1)
    with torch.no_grad():
        output = model(
            input_ids=ids,
            audio_input_ids=columns,
            audio_input_ids_mask=torch.ones(1, 6, dtype=torch.bool),
        )
    spread = float(output.logits.std())
    assert 1.0 < spread < 3.0, "logits should have a useful spread"


@pytest.mark.parametrize("shape", SHAPES)
def test_layouts_hold_the_same_numbers(tmp_path: Path, shape: dict[str, Any]) -> None:
    write_random_checkpoint(tmp_path / "hf", **shape)
    written = write_random_checkpoint(tmp_path / "original", layout="original", **shape)
    hf, original = load_all(tmp_path / "hf"), load_all(tmp_path / "original")
    renamed = {
        name.replace("model.embed_audio_tokens.embed_audio_tokens", "audio_codebook_embeddings")
        .replace("audio_lm_head", "audio_decoder_proj.audio_lm_head")
        .replace("text_lm_head", "audio_decoder_proj.text_lm_head")
        .removeprefix("model."): value
        for name, value in hf.items()
    }
    assert renamed.keys() == original.keys()
    assert all(torch.equal(renamed[name], original[name]) for name in original)
    config = json.loads((tmp_path / "original" / "config.json").read_text())
    assert config["audio_codebook_size"] == written.codebook_size
    assert config["text_config"]["num_hidden_layers"] == written.layers
    assert config["audio_dual_ffn_layers"] == list(range(written.layers))
    hf_config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert hf_config["codebook_size"] == written.codebook_size + 2


def test_original_names_are_those_of_the_release(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, layout="original", layers=1)
    layer = [
        *(f"self_attn.{part}_proj" for part in "qkvo"),
        *(f"{ffn}.{part}_proj" for ffn in ("mlp", "audio_mlp") for part in ("gate", "up", "down")),
        *(
            f"{kind}{norm}_layernorm"
            for kind in ("", "audio_")
            for norm in ("input", "post_attention")
        ),
    ]
    expected = {f"layers.0.{name}.weight" for name in layer} | {
        "embed_tokens.weight",
        "norm.weight",
        "audio_codebook_embeddings.weight",
        "audio_decoder_proj.audio_lm_head.weight",
        "audio_decoder_proj.text_lm_head.weight",
    }
    assert load_all(tmp_path).keys() == expected


def test_shards_follow_the_index(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "one", seed=3)
    write_random_checkpoint(tmp_path / "many", seed=3, shards=4)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    one = load_all(tmp_path / "one")
    assert index["weight_map"].keys() == one.keys()
    assert index["metadata"]["total_size"] == sum(4 * value.numel() for value in one.values())
    for name, file in index["weight_map"].items():
        assert torch.equal(safetensors_torch.load_file(tmp_path / "many" / file)[name], one[name])


def test_seeds_differ(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "a", seed=1)
    write_random_checkpoint(tmp_path / "b", seed=2)
    name = "model.norm.weight"
    assert not torch.equal(load_all(tmp_path / "a")[name], load_all(tmp_path / "b")[name])


def test_bfloat16_rounds_like_torch() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [rng.standard_normal(4096), [0.0, -0.0, 1.00390625, 1.01171875, 1e-40, 3e38]]
    ).astype(np.float32)
    bits = torch.from_numpy(to_bfloat16_bits(values).view(np.int16)).view(torch.bfloat16)
    assert torch.equal(bits, torch.from_numpy(values).to(torch.bfloat16))


def test_int32_tensors_stay_integers(tmp_path: Path) -> None:
    codes = np.arange(6, dtype=np.int32).reshape(2, 3)
    write_safetensors(tmp_path / "a.safetensors", {"codes": codes, "x": np.ones(3, np.float32)})
    loaded = safetensors_torch.load_file(tmp_path / "a.safetensors")
    assert loaded["codes"].dtype == torch.int32
    assert loaded["codes"].tolist() == codes.tolist()


def test_tokenizer_is_bytes_and_specials(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    write_random_checkpoint(tmp_path, vocab=300)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "Grüße,\n\n12 € "
    assert tokenizer.encode(text, add_special_tokens=False).ids == list(text.encode())
    for offset, token in SPECIAL_TOKENS.items():
        ids = tokenizer.encode(f"a{token}b", add_special_tokens=False).ids
        assert ids == [97, 300 - 32 + offset, 98]
        assert special_token_id(128000 + offset, 300) == 300 - 32 + offset
    assert special_token_id(128016, 128256) == 128016


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 4, "kv_heads": 3}, "kv_heads 3"),
        ({"head_dim": 15}, "head_dim 15"),
        ({"vocab": 20}, "vocab"),
        ({"layout": "other"}, "'other'"),
        ({"dtype": "int8"}, "'int8'"),
        ({"shards": 0}, "got 0"),
    ],
)
def test_impossible_checkpoints(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        write_random_checkpoint(tmp_path, **change)


def test_model_files_are_found(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "m", shards=2)
    write_random_codec(tmp_path / "m" / "codec")
    write_random_codec(tmp_path / "other", layout="original")
    files = resolve_model(tmp_path / "m")
    assert files.codec_dir == tmp_path / "m" / "codec"
    assert files.tokenizer == tmp_path / "m" / "tokenizer.json"
    assert resolve_model(str(tmp_path / "m"), tmp_path / "other").codec_dir == tmp_path / "other"


def test_everything_missing_is_listed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        resolve_model(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="got a file"):
        resolve_model(tmp_path / "file")
    (tmp_path / "m").mkdir()
    with pytest.raises(CheckpointError) as caught:
        resolve_model(tmp_path / "m")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "codec"):
        assert name in str(caught.value)
    write_random_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    write_random_codec(tmp_path / "m" / "codec")
    (tmp_path / "m" / "codec" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        resolve_model(tmp_path / "m")
    assert "tokenizer.json" in str(caught.value)
    assert "m/config.json" not in str(caught.value)
    assert "codec/model.safetensors" in str(caught.value)
