"""Whether a louder or softer reference is cloned as the same voice, through the native runtime.

    python check_levels.py [--model DIR] [--lines 12]

Adds the packaged reference recordings again at other levels (as far as full scale allows), speaks
fresh lines with each, and prints how many sound nearest to the voice of their reference.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from check_voices import fitted_ears, fresh_lines
from flite_speech import VOICES
from higgs_rt import Runtime
from higgs_rt.audio import resample
from higgs_rt.checkpoint.files import DEMO_DIRECTORY
from higgs_rt.evaluation import speak_lines
from higgs_rt.voices import VoiceStore
from speakers import RATE

DECIBELS = (-12.0, -6.0, 6.0, 9.0)


def add_voices(demo: Path, folder: Path, decibels: float) -> float:
    """Stores the four references, louder by `decibels`; returns the largest RMS."""
    store = VoiceStore(folder, codec_dir=demo / "codec", packaged=None)
    loudest = 0.0
    for voice in VOICES:
        wave, rate = soundfile.read(demo / "references" / f"{voice}.flac", dtype="float32")
        wave = wave * min(10.0 ** (decibels / 20.0), 0.99 / float(np.abs(wave).max()))
        file = folder / f"{voice}.wav"
        soundfile.write(file, wave, rate, subtype="FLOAT")
        said = (demo / "references" / f"{voice}.txt").read_text(encoding="utf-8").strip()
        store.add(voice, file, said, force=True)
        loudest = max(loudest, float(np.sqrt(np.mean(wave**2))))
    return loudest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEMO_DIRECTORY)
    parser.add_argument("--lines", type=int, default=12)
    args = parser.parse_args()
    nearest = fitted_ears()
    lines = fresh_lines(args.lines, seed=4)
    for decibels in DECIBELS:
        with tempfile.TemporaryDirectory() as name:
            loudest = add_voices(args.model, Path(name), decibels)
            right = {}
            with Runtime.load(args.model, voices=Path(name)) as runtime:
                for voice in VOICES:
                    spoken = speak_lines(runtime, lines, voice=voice, seed=0)
                    right[voice] = sum(
                        nearest(resample(one.audio.samples, one.audio.sample_rate, RATE)) == voice
                        for one in spoken
                    )
        print(f"references {decibels:+.0f} dB (RMS up to {loudest:.3f}): of {len(lines)} {right}")


if __name__ == "__main__":
    main()
