"""Encoding against transformers' codec, in both layouts, and the codec's refusals.

The reference needs `torchaudio.functional.resample`; where torchaudio is missing, an independent
stand-in is used (tests/python/reference/torchaudio_standin.py). Where it is installed, it is used.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from higgs_rt.audio import prepare_reference
from higgs_rt.checkpoint.random_codec import small_codec_config, write_random_codec
from higgs_rt.codec.config import CodecConfig, SemanticConfig
from higgs_rt.errors import AudioError

torch = pytest.importorskip("torch")
# Small tensors: more threads only wait for each other, badly so on a busy machine.
torch.set_num_threads(1)
pytest.importorskip("transformers")

from higgs_rt.codec import CodecEncoder  # noqa: E402
from higgs_rt.codec.layers import resample_sinc  # noqa: E402
from reference.codec_reference import CodecReference  # noqa: E402
from reference.torchaudio_standin import resample as standin_resample  # noqa: E402

GOLDEN = Path(__file__).parent.parent / "golden" / "codec"

SHAPES = {
    "small": small_codec_config(),
    "odd": small_codec_config(
        encoder_hidden=6,
        latent=24,
        codebook_size=100,
        codebook_dim=5,
        semantic=SemanticConfig(
            hidden=48, layers=3, heads=4, ffn=64, conv_dim=(24,) * 7, pos_kernel=17, pos_groups=3
        ),
    ),
    "four codebooks": small_codec_config(num_codebooks=4, codebook_size=64),
    # The demo voice's dimensions.
    "demo": small_codec_config(
        encoder_hidden=12,
        decoder_hidden=320,
        latent=64,
        codebook_size=256,
        codebook_dim=16,
        semantic=SemanticConfig(
            hidden=64, layers=2, heads=2, ffn=128, conv_dim=(32,) * 7, pos_kernel=16, pos_groups=4
        ),
    ),
}


def noise(length: int, seed: int = 0) -> Any:
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def voiced(frames: int) -> Any:
    """Harmonics of a gliding pitch under a syllable-like envelope, with pauses."""
    t = np.arange(frames * 960) / 24000
    phase = 2 * np.pi * np.cumsum(110 + 40 * np.sin(2 * np.pi * 0.7 * t)) / 24000
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    return (0.15 * np.maximum(np.sin(2 * np.pi * 2.5 * t), 0) * tone).astype(np.float32)


@pytest.fixture(scope="module", params=SHAPES)
def codecs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(reference, encoder of the transformers layout, encoder of the original layout)."""
    root = tmp_path_factory.mktemp("codec")
    config, seed = SHAPES[request.param], list(SHAPES).index(request.param)
    write_random_codec(root / "hf", config, seed=seed)
    write_random_codec(root / "original", config, seed=seed, layout="original")
    return (
        CodecReference(root / "hf"),
        CodecEncoder.load(root / "hf"),
        CodecEncoder.load(root / "original"),
    )


@pytest.mark.parametrize("frames", [1, 2, 25, 77])
@pytest.mark.parametrize("kind", ["noise", "voiced"])
def test_codes_equal_the_reference(codecs: Any, kind: str, frames: int) -> None:
    reference, *encoders = codecs
    samples = noise(frames * 960, seed=frames) if kind == "noise" else voiced(frames)
    expected = reference.encode(samples)
    assert expected.shape == (encoders[0].config.num_codebooks, frames)
    for encoder in encoders:
        codes = encoder.encode(samples)
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(codes, expected)
    if frames == 77:
        # A codec whose codes hardly vary would make this comparison empty.
        assert len(np.unique(expected)) > encoders[0].config.codebook_size / 4


def test_codes_of_a_recording_equal_the_reference(codecs: Any) -> None:
    reference, *encoders = codecs
    samples = prepare_reference(GOLDEN / "speech.flac")  # synthetic speech, 16 kHz
    expected = reference.encode(samples)
    for encoder in encoders:
        np.testing.assert_array_equal(encoder.encode(samples), expected)


def test_frame_count_law(codecs: Any) -> None:
    reference, encoder, _ = codecs
    for remainder in (0, 1, 118, 119, 400, 631, 632, 959):
        samples = noise(960 * 9 + remainder)
        with torch.inference_mode():
            codes = encoder(torch.from_numpy(samples)[None, None]).numpy()
        assert codes.shape[1] == (len(samples) + 841) // 960
        expected = reference.encode(samples)
        assert expected.shape == codes.shape
        if not 119 <= remainder <= 631:  # there the original and transformers pad differently
            np.testing.assert_array_equal(codes, expected)


def test_golden_codes() -> None:
    golden = np.load(GOLDEN / "golden.npz")
    encoder = CodecEncoder.load(GOLDEN / "transformers")
    np.testing.assert_array_equal(encoder.encode(golden["noise"]), golden["noise_codes"])
    speech = golden["speech"].astype(np.float32) / 32767
    np.testing.assert_array_equal(encoder.encode(speech), golden["speech_codes"])


@pytest.mark.parametrize("shards", [1, 3])
def test_bfloat16_files_are_computed_in_fp32(tmp_path: Path, shards: int) -> None:
    write_random_codec(tmp_path, dtype="bfloat16", shards=shards)
    encoder = CodecEncoder.load(tmp_path)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    samples = voiced(20)
    np.testing.assert_array_equal(encoder.encode(samples), CodecReference(tmp_path).encode(samples))


def test_weight_norms_in_the_transformers_layout(tmp_path: Path) -> None:
    """A converted file may also have kept its weight norms, as parametrizations."""
    from safetensors.torch import save_file

    write_random_codec(tmp_path)
    reference = CodecReference(tmp_path)
    expected = reference.encode(voiced(12))
    reference.model.apply_weight_norm()
    state = {name: value.contiguous() for name, value in reference.model.state_dict().items()}
    assert "acoustic_encoder.conv1.parametrizations.weight.original0" in state
    save_file(state, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(CodecEncoder.load(tmp_path).encode(voiced(12)), expected)


@pytest.mark.parametrize("length", [960, 9601, 24007])
@pytest.mark.parametrize("rates", [(24000, 16000), (48000, 16000), (16000, 24000)])
def test_resampling_inside_the_codec(length: int, rates: tuple[int, int]) -> None:
    wave = torch.from_numpy(noise(length))[None]
    out = resample_sinc(wave, *rates)
    expected = standin_resample(wave, *rates)
    assert out.shape == expected.shape
    assert (out - expected).abs().max() < 2e-6
    try:
        from torchaudio.functional import resample as true_resample
    except ImportError:
        return
    assert (out - true_resample(wave, *rates)).abs().max() < 2e-6


def test_released_sizes() -> None:
    """201.4 M parameters in all, 20.24 M in the acoustic decoder (spec 1.3, 2.2)."""
    from higgs_rt.codec.names import decoder_tensors, encoder_tensors, unused_tensors

    config = CodecConfig()
    encoder, decoder, unused = (
        tensors(config) for tensors in (encoder_tensors, decoder_tensors, unused_tensors)
    )
    total = sum(int(np.prod(shape)) for shape in (encoder | decoder | unused).values())
    assert total == pytest.approx(201.4e6, rel=1e-4)
    acoustic = [shape for name, shape in decoder.items() if name.startswith("acoustic_decoder.")]
    assert sum(int(np.prod(shape)) for shape in acoustic) == pytest.approx(20.24e6, rel=1e-3)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(959, np.float32), "multiple of 960"),
        (np.zeros(0, np.float32), "multiple of 960"),
        (np.zeros((1, 960), np.float32), "1-D"),
        (np.full(960, np.nan, np.float32), "finite"),
    ],
)
def test_bad_samples(samples: Any, message: str) -> None:
    encoder = CodecEncoder.load(GOLDEN / "transformers")
    with pytest.raises(AudioError, match=message):
        encoder.encode(samples)


def test_importing_the_package_does_not_import_torch() -> None:
    program = (
        "import sys, higgs_rt.codec, higgs_rt.audio, higgs_rt.checkpoint, higgs_rt.errors;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
