"""Write the codec's golden files with transformers as the reference.

    PYTHONPATH=python python tests/golden/make_codec_golden.py

Makes, from fixed seeds, one small random codec in both layouts and what the reference decodes:

    codec/transformers/{config.json,model.safetensors}
    codec/original/{config.json,decoder.safetensors}   original names, weight norms kept
    codec/golden.npz, codec/golden.safetensors         codes int32 [8, T], wave fp32 [960 T],
                                                       for T = 1, 7 and 40 (codes_T, wave_T)
                                                       noise fp32 [L] and its encoded codes;
                                                       speech int16 [L] at 24 kHz, its codes and
                                                       what they decode to
The reference runs with the stand-in for torchaudio where torchaudio is missing; only encoding
goes through it. `codec/speech.flac` is synthetic speech (flite, voice slt, "The sun rises in the
east.", 16 kHz) and is an input of this script.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from higgs_rt.audio import pcm16, prepare_reference
from higgs_rt.checkpoint.random_codec import small_codec_config, write_random_codec
from higgs_rt.checkpoint.safetensors_file import write_safetensors
from higgs_rt.codec.config import SemanticConfig
from higgs_rt.codec.export import export_decoder_safetensors
from reference.codec_reference import CodecReference

SEED = 20
FRAMES = (1, 7, 40)


def main() -> None:
    root = Path(__file__).resolve().parent / "codec"
    config = small_codec_config(
        decoder_hidden=32,
        encoder_hidden=2,
        semantic=SemanticConfig(
            hidden=16, layers=2, heads=2, ffn=24, conv_dim=(8,) * 7, pos_kernel=8, pos_groups=4
        ),
    )
    write_random_codec(root / "transformers", config, seed=SEED)
    with tempfile.TemporaryDirectory() as scratch:
        write_random_codec(scratch, config, seed=SEED, layout="original")
        (root / "original").mkdir(exist_ok=True)
        export_decoder_safetensors(scratch, root / "original" / "decoder.safetensors")
        text = (Path(scratch) / "config.json").read_text()
        (root / "original" / "config.json").write_text(text)

    reference = CodecReference(root / "transformers")
    rng = np.random.default_rng(SEED)
    arrays = {}
    for frames in FRAMES:
        codes = rng.integers(0, config.codebook_size, (config.num_codebooks, frames))
        arrays[f"codes_{frames}"] = codes.astype(np.int32)
        arrays[f"wave_{frames}"] = reference.decode(arrays[f"codes_{frames}"])
    arrays["noise"] = (0.1 * rng.standard_normal(960 * 8)).astype(np.float32)
    arrays["noise_codes"] = reference.encode(arrays["noise"])
    speech = pcm16(prepare_reference(root / "speech.flac"))
    arrays["speech_codes"] = reference.encode(speech.astype(np.float32) / 32767)
    arrays["speech_wave"] = reference.decode(arrays["speech_codes"])
    write_safetensors(root / "golden.safetensors", arrays)
    np.savez_compressed(root / "golden.npz", speech=speech, **arrays)


if __name__ == "__main__":
    main()
