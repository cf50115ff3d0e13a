"""Compare our encoder's codes with transformers' codec over the true torchaudio.

    PYTHONPATH=python python tests/python/reference/run_codec_reference_torchaudio.py
        [--codec DIR ...] [--waves DIR] [--released] [--device cuda]

Run from the repository root on a machine that has torch, torchaudio, transformers and safetensors
(soundfile is not needed). The codecs are random ones of several shapes, the packaged demo codec
when it is there, and each `--codec`; `--released` adds a random codec of the released dimensions.
The signals are generated ones, the stored synthetic speech, and every `*.npy` (fp32 [L], 24 kHz)
of `--waves`. Prints the fraction of equal codes per pair. Exits 1 when any code differs and 2
when torchaudio is missing or a stand-in.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path.insert(0, str(HERE.parent))

from higgs_rt.checkpoint.random_codec import small_codec_config, write_random_codec  # noqa: E402
from higgs_rt.codec import CodecEncoder  # noqa: E402
from higgs_rt.codec.config import CodecConfig, SemanticConfig  # noqa: E402
from reference.codec_reference import CodecReference  # noqa: E402

FRAME = 960


def generated() -> dict[str, Any]:
    """Noise, a chirp and a gliding harmonic tone; 0.04 to 6 s of fp32 at 24 kHz."""
    rng = np.random.default_rng(7)
    t = np.arange(100 * FRAME) / 24000
    phase = 2 * np.pi * np.cumsum(120 + 50 * np.sin(4 * t)) / 24000
    signals = {
        "one frame": 0.1 * rng.standard_normal(FRAME),
        "noise": 0.1 * rng.standard_normal(150 * FRAME),
        "chirp": 0.3 * np.sin(2 * np.pi * (50 + 1400 * t) * t),
        "voiced": 0.1 * sum(np.sin(k * phase) / k for k in range(1, 25)),
    }
    return {name: np.asarray(values, dtype=np.float32) for name, values in signals.items()}


def all_waves(folder: Path | None) -> dict[str, Any]:
    waves = generated()
    golden = np.load(ROOT / "tests" / "golden" / "codec" / "golden.npz")
    waves["stored speech"] = golden["speech"].astype(np.float32) / 32767
    for path in sorted(folder.glob("*.npy")) if folder else ():
        wave = np.load(path).astype(np.float32)
        waves[path.stem] = np.pad(wave, (0, -len(wave) % FRAME))
    return waves


def all_codecs(scratch: Path, given: list[Path], released: bool) -> dict[str, Path]:
    configs = {
        "random small": small_codec_config(),
        "random wide": small_codec_config(
            encoder_hidden=12,
            latent=64,
            codebook_size=256,
            codebook_dim=16,
            semantic=SemanticConfig(
                hidden=64, heads=2, layers=3, ffn=128, conv_dim=(32,) * 7, pos_kernel=128
            ),
        ),
    }
    if released:
        configs["random, released dimensions"] = CodecConfig()
    codecs = {}
    for seed, (name, config) in enumerate(configs.items()):
        codecs[name] = scratch / str(seed)
        write_random_codec(codecs[name], config, seed=seed)
    demo = ROOT / "python" / "higgs_rt" / "data" / "demo" / "codec"
    if demo.is_dir():
        codecs["demo"] = demo
    return codecs | {str(path): path for path in given}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--codec", type=Path, action="append", default=[])
    parser.add_argument("--waves", type=Path)
    parser.add_argument("--released", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    try:
        import torchaudio
    except (ImportError, OSError) as error:
        print(f"torchaudio is needed here: {error}")
        return 2
    print(f"torch {torch.__version__}, torchaudio {torchaudio.__version__}, {options.device}")
    unequal = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in all_codecs(Path(scratch), options.codec, options.released).items():
            reference = CodecReference(path)
            if reference.uses_stand_in:
                print("expected the true torchaudio, got the stand-in")
                return 2
            reference.model.to(options.device)
            encoder = CodecEncoder.load(path).to(options.device)
            for label, wave in all_waves(options.waves).items():
                expected = reference.encode(wave)
                equal = encoder.encode(wave) == expected
                unequal += int(equal.size - equal.sum())
                distinct = len(np.unique(expected))
                print(
                    f"{name:28} {label:16} {equal.shape[1]:4} frames  {distinct:4} distinct  "
                    f"equal {equal.mean():.6f} ({equal.size - equal.sum()} differ)"
                )
    print(f"{unequal} codes differ")
    return int(unequal > 0)


if __name__ == "__main__":
    sys.exit(main())
