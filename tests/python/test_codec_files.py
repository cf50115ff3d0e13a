"""Codec checkpoints: names of both layouts, export for the native decoder, malformed files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from higgs_rt.checkpoint.random_codec import small_codec_config, write_random_codec
from higgs_rt.codec.config import CodecConfig
from higgs_rt.codec.names import decoder_tensors, encoder_tensors, original_name
from higgs_rt.errors import CheckpointError

torch = pytest.importorskip("torch")
# Small tensors: more threads only wait for each other, badly so on a busy machine.
torch.set_num_threads(1)
safetensors_torch = pytest.importorskip("safetensors.torch")

from higgs_rt.codec import CodecEncoder  # noqa: E402
from higgs_rt.codec.export import export_decoder_safetensors  # noqa: E402

GOLDEN = Path(__file__).parent.parent / "golden" / "codec"


@pytest.mark.parametrize(
    ("ours", "original"),
    [
        ("acoustic_encoder.conv1.weight", "encoder.block.0.weight"),
        (
            "acoustic_encoder.block.0.res_unit1.snake1.alpha",
            "encoder.block.1.block.0.block.0.alpha",
        ),
        ("acoustic_encoder.block.4.res_unit3.conv2.bias", "encoder.block.5.block.2.block.3.bias"),
        ("acoustic_encoder.block.2.snake1.alpha", "encoder.block.3.block.3.alpha"),
        ("acoustic_encoder.block.2.conv1.weight", "encoder.block.3.block.4.weight"),
        ("acoustic_encoder.snake1.alpha", "encoder.block.6.alpha"),
        ("acoustic_encoder.conv2.bias", "encoder.block.7.bias"),
        ("acoustic_decoder.conv1.bias", "decoder_2.model.0.bias"),
        ("acoustic_decoder.block.0.snake1.alpha", "decoder_2.model.1.block.0.alpha"),
        ("acoustic_decoder.block.1.conv_t1.weight", "decoder_2.model.2.block.1.weight"),
        ("acoustic_decoder.block.4.res_unit1.conv1.bias", "decoder_2.model.5.block.2.block.1.bias"),
        (
            "acoustic_decoder.block.4.res_unit3.snake2.alpha",
            "decoder_2.model.5.block.4.block.2.alpha",
        ),
        ("acoustic_decoder.snake1.alpha", "decoder_2.model.6.alpha"),
        ("acoustic_decoder.conv2.weight", "decoder_2.model.7.weight"),
        ("quantizer.quantizers.3.codebook.embed", "quantizer.vq.layers.3._codebook.embed"),
        ("quantizer.quantizers.7.project_out.bias", "quantizer.vq.layers.7.project_out.bias"),
        ("fc.weight", "fc_prior.weight"),
        ("fc1.bias", "fc_post1.bias"),
        ("fc2.weight", "fc_post2.weight"),
        ("encoder_semantic.conv.weight", "encoder_semantic.conv.conv.weight"),
        (
            "encoder_semantic.conv_blocks.1.conv.bias",
            "encoder_semantic.conv_blocks.1.conv.conv.bias",
        ),
        (
            "encoder_semantic.conv_blocks.0.res_units.1.conv1.weight",
            "encoder_semantic.conv_blocks.0.res_units.1.conv1.conv.weight",
        ),
        (
            "encoder_semantic.conv_blocks.0.res_units.1.conv2.weight",
            "encoder_semantic.conv_blocks.0.res_units.1.conv2.weight",
        ),
        ("decoder_semantic.conv2.weight", "decoder_semantic.conv2.conv.weight"),
        ("semantic_model.encoder.layer_norm.bias", "semantic_model.encoder.layer_norm.bias"),
    ],
)
def test_original_names(ours: str, original: str) -> None:
    assert original_name(ours, num_blocks=5) == original


def test_decoding_equals_transformers(tmp_path: Path) -> None:
    """The plain decoder that the native one is tested with, on both layouts."""
    pytest.importorskip("transformers")
    from reference.codec_decoder_reference import CodecDecoderReference
    from reference.codec_reference import CodecReference

    config = write_random_codec(tmp_path / "hf", seed=5)
    write_random_codec(tmp_path / "original", seed=5, layout="original")
    codes = np.random.default_rng(0).integers(0, config.codebook_size, (8, 30)).astype(np.int32)
    expected = CodecReference(tmp_path / "hf").decode(codes)
    assert expected.shape == (30 * 960,)
    assert 0.05 < expected.std() < 1.0
    for layout in ("hf", "original"):
        wave = CodecDecoderReference(tmp_path / layout).decode(codes)
        np.testing.assert_allclose(wave, expected, atol=1e-5)


def test_golden_waves_are_reproduced() -> None:
    from reference.codec_decoder_reference import CodecDecoderReference

    golden = np.load(GOLDEN / "golden.npz")
    stored = safetensors_torch.load_file(GOLDEN / "golden.safetensors")
    decoder = CodecDecoderReference(GOLDEN / "transformers", torch.float64)
    for frames in (1, 7, 40):
        wave = decoder.decode(golden[f"codes_{frames}"])
        # The reference itself is fp32, through twenty layers of sines.
        np.testing.assert_allclose(wave, golden[f"wave_{frames}"], rtol=0, atol=5e-5)
        assert np.array_equal(stored[f"wave_{frames}"].numpy(), golden[f"wave_{frames}"])


def test_export_keeps_names_and_numbers(tmp_path: Path) -> None:
    write_random_codec(tmp_path, layout="original")
    assert export_decoder_safetensors(tmp_path) == tmp_path / "decoder.safetensors"
    # The encoder still reads the pickle, which is complete.
    CodecEncoder.load(tmp_path)
    exported = safetensors_torch.load_file(tmp_path / "decoder.safetensors")
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    assert all(torch.equal(state[name], value) for name, value in exported.items())
    decoding = ("decoder_2.", "fc_post2.")
    expected = {name for name in state if name.startswith(decoding)} | {
        name for name in state if name.endswith(("_codebook.embed", "project_out.weight"))
    }
    expected |= {name for name in state if name.endswith("project_out.bias")}
    assert exported.keys() == expected
    assert "decoder_2.model.1.block.1.weight_g" in exported


def test_export_refuses_the_transformers_layout(tmp_path: Path) -> None:
    write_random_codec(tmp_path)
    with pytest.raises(CheckpointError, match="original-layout"):
        export_decoder_safetensors(tmp_path, tmp_path / "out.safetensors")


Edit = Callable[[dict[str, Any]], None]


def drop(name: str) -> Edit:
    return lambda state: state.__delitem__(name)


def put(name: str, value: Any) -> Edit:
    return lambda state: state.__setitem__(name, value)


CONV = "acoustic_encoder.block.1.conv1.weight"
POS = "semantic_model.encoder.pos_conv_embed.conv.parametrizations.weight.original"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop(CONV), f"expected tensor {CONV}, got none"),
        (drop("fc.bias"), "expected tensor fc.bias"),
        (drop(f"{POS}0"), "original0, got none"),
        (drop("quantizer.quantizers.3.codebook.embed"), "quantizers.3.codebook.embed"),
        (put("fc.extra", torch.zeros(1)), "no further tensors, got fc.extra"),
        (put("semantic_model.encoder.layers.2.layer_norm.bias", torch.zeros(1)), "layers.2"),
        (put(CONV, torch.zeros(2, 3, 4)), r"block.1.conv1.weight\] expected shape \(16, 8, 10\)"),
        (put(f"{POS}0", torch.zeros(32, 1, 1)), r"original0\] expected shape \(1, 1, 16\)"),
        (put("fc.weight", torch.zeros(48, 48, dtype=torch.int32)), "floating point"),
        (put("quantizer.quantizers.9.project_in.bias", torch.zeros(8)), "index 8"),
    ],
)
def test_malformed_tensors_are_named(tmp_path: Path, edit: Edit, message: str) -> None:
    write_random_codec(tmp_path)
    state = safetensors_torch.load_file(tmp_path / "model.safetensors")
    edit(state)
    safetensors_torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        CodecEncoder.load(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            drop("encoder.block.2.block.4.weight_g"),
            "expected tensor encoder.block.2.block.4.weight_g",
        ),
        (drop("fc_prior.weight"), "expected tensor fc_prior.weight"),
        (put("unknown", torch.zeros(1)), "got unknown"),
        (
            put("encoder.block.0.weight_g", torch.zeros(1, 1, 7)),
            r"weight_g\] expected shape \(4, 1, 1\)",
        ),
        (
            put("fc_prior.bias", torch.zeros(3)),
            r"fc_prior.bias\] expected shape \(48,\), got \(3,\)",
        ),
    ],
)
def test_malformed_original_tensors_are_named(tmp_path: Path, edit: Edit, message: str) -> None:
    write_random_codec(tmp_path, layout="original")
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    edit(state)
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message):
        CodecEncoder.load(tmp_path)


@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_truncated_files(tmp_path: Path, layout: Any) -> None:
    write_random_codec(tmp_path, layout=layout)
    path = tmp_path / ("model.pth" if layout == "original" else "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=path.name):
        CodecEncoder.load(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="got none of them"):
        CodecEncoder.load(tmp_path)
    write_random_codec(tmp_path, shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors, got none"):
        CodecEncoder.load(tmp_path)
    write_random_codec(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json\] expected a configuration file"):
        CodecEncoder.load(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model_type",), "encodec", "expected model_type"),
        (("codebook_size",), 0, "codebook_size"),
        (("codebook_dim",), "8", "codebook_dim"),
        (("strides",), [2, 1], "strides"),
        (("acoustic_model_config", "downsampling_ratios"), [8, 5, 0], "downsampling_ratios"),
        (("acoustic_model_config", "upsampling_ratios"), [3, 2, 4, 5, 8], "upsampling_ratios"),
        (("acoustic_model_config", "hidden_size"), 17, "acoustic_encoder.conv2.weight"),
        (("semantic_model_config", "do_stable_layer_norm"), True, "do_stable_layer_norm"),
        (("semantic_model_config", "num_attention_heads"), 5, "heads"),
        (("semantic_sample_rate",), 17000, "whole number of semantic frames"),
    ],
)
def test_malformed_configurations(
    tmp_path: Path, path: tuple[str, ...], value: Any, message: str
) -> None:
    write_random_codec(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    target = config
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        CodecEncoder.load(tmp_path)


def test_released_configuration(tmp_path: Path) -> None:
    """The original release's config.json, with the shapes that its pickle holds."""
    released = {
        "n_filters": 32,
        "D": 256,
        "codebook_dim": 64,
        "target_bandwidths": [0.5, 1, 1.5, 2, 4],
        "ratios": [8, 5, 4, 2, 3],
        "sample_rate": 24000,
        "bins": 1024,
        "n_q": 8,
        "semantic_techer": "hubert_base_general",
    }
    (tmp_path / "config.json").write_text(json.dumps(released))
    expected = CodecConfig(layout="original")
    canonical = encoder_tensors(expected) | decoder_tensors(expected)
    shapes = {original_name(name, num_blocks=5): shape for name, shape in canonical.items()}
    shapes[f"{POS}1"] = shapes.pop(POS.removesuffix("parametrizations.weight.original") + "weight")
    assert CodecConfig.read(tmp_path / "config.json", shapes) == expected
    assert (expected.hop, expected.fused, expected.semantic_stride) == (960, 1024, 2)


def test_what_transformers_saves_is_loaded(tmp_path: Path) -> None:
    """`save_pretrained` with every field, and the mask embedding that HuBERT trains with."""
    pytest.importorskip("transformers")
    from reference.codec_reference import CodecReference

    write_random_codec(tmp_path / "written")
    reference = CodecReference(tmp_path / "written")
    reference.model.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "model.safetensors"
    state = safetensors_torch.load_file(file)
    state["semantic_model.masked_spec_embed"] = torch.zeros(32)
    safetensors_torch.save_file(state, file)
    samples = (0.1 * np.random.default_rng(0).standard_normal(960 * 6)).astype(np.float32)
    codes = CodecEncoder.load(tmp_path / "saved").encode(samples)
    np.testing.assert_array_equal(codes, reference.encode(samples))


def test_codebooks_are_counted_from_the_tensors(tmp_path: Path) -> None:
    """The released configuration's bandwidths would mean 16 codebooks; its tensors are 8."""
    write_random_codec(tmp_path, small_codec_config(num_codebooks=3))
    config = json.loads((tmp_path / "config.json").read_text())
    config["target_bandwidths"] = [0.5, 1, 1.5, 2, 4]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert CodecEncoder.load(tmp_path).config.num_codebooks == 3
