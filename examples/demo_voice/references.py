"""Speaks the four reference recordings that the package ships (24 kHz FLAC, with transcripts).

They are trimmed and have the level of the clips that the models learned from: a recording 9 dB
louder was cloned with another voice.

python references.py --out python/higgs_rt/data/demo/references
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile

from flite_speech import Flite
from synthesis import clip_of

SAMPLE_RATE = 24_000

TEXTS = {
    "slt": "The morning sun was warm in the garden.",
    "rms": "My brother walks to the harbor every day.",
    "awb": "We heard the wind over the dark hill.",
    "kal16": "A small boat crossed the cold river.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    flite = Flite()
    for voice, text in TEXTS.items():
        samples = clip_of(flite.speak(text, voice))[0].astype(np.int32)
        # Four bits less save a third of the file, 55 dB below the speech.
        samples = ((samples + 8) // 16 * 16).clip(-32768, 32752).astype(np.int16)
        soundfile.write(args.out / f"{voice}.flac", samples, SAMPLE_RATE, compression_level=1.0)
        (args.out / f"{voice}.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
