"""The packaged codec through the native decoder, against transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from higgs_rt import Runtime
from higgs_rt.audio import prepare_reference
from higgs_rt.voices import VoiceStore
from reference.codec_reference import CodecReference

pytest.importorskip("transformers")
VOICES = ("awb", "kal16", "rms", "slt")


@pytest.fixture(scope="module")
def reference(demo_model: Path) -> CodecReference:
    return CodecReference(demo_model / "codec")


@pytest.fixture(scope="module")
def runtime(demo_model: Path) -> Runtime:
    return Runtime.load(demo_model)


@pytest.mark.parametrize("name", VOICES)
def test_resynthesis_of_the_recordings(
    name: str, demo_model: Path, reference: CodecReference, runtime: Runtime
) -> None:
    recording = next((demo_model / "references").glob(f"{name}.[fw]*"))
    codes = VoiceStore(demo_model / "voices", packaged=None).load(name).codes
    # Another machine may decide a few codes differently.
    assert np.mean(reference.encode(prepare_reference(recording)) == codes) > 0.99
    expected = np.clip(reference.decode(codes), -1, 1)
    np.testing.assert_allclose(runtime._native.decode_frames(codes), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 9, 60])
def test_random_codes(frames: int, reference: CodecReference, runtime: Runtime) -> None:
    codes = np.random.default_rng(frames).integers(0, 256, (8, frames), dtype=np.int32)
    expected = np.clip(reference.decode(codes), -1, 1)
    np.testing.assert_allclose(runtime._native.decode_frames(codes), expected, rtol=0, atol=1e-4)
