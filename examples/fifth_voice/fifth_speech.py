"""A voice that the demo model never heard, as a folder of wav and txt files.

    python fifth_speech.py --out FOLDER --lines 2400 --held-out FILE ... [--words LIST]

The speaker is flite's rms with a vocal tract and a pitch period a ninth shorter: spoken 9/8 times
as slowly, then played 9/8 times as fast. (Other synthesisers were tried: the demo's codec, which
knows four voices, garbles festival's ked and all of espeak-ng; docs/training.md has the figures.)
Sentences come from the demo corpus (another seed), none of them a held-out sentence. Recordings are
trimmed, 24 kHz, RMS 0.08, as the demo's clips are. `--sentences FILE` speaks the lines of a file
instead, e.g. the held-out ones as the teacher says them.
"""

from __future__ import annotations

import argparse
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

import flite_speech
from corpus import finish, grammar_line, normal_form, salad_line, word_list
from lexicon import LARGE, SMALL, vocabulary

VOICE = "rms"
SHORTER = Fraction(9, 8)  # of the vocal tract
SEED = 5
RATE = 24_000
FRAME = 960
MAX_FRAMES = 127
MAX_CHARACTERS = 60
LEVEL = 0.08


class FifthVoice:
    """The speaker."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` holds flite's libraries, if not the system."""
        usual = flite_speech.STRETCH[VOICE]
        flite_speech.STRETCH[VOICE] = usual * float(SHORTER)
        self._flite = flite_speech.Flite(folder)
        flite_speech.STRETCH[VOICE] = usual

    def speak(self, text: str) -> npt.NDArray[np.float32]:
        """Mono samples of an ASCII text at 24 kHz, trimmed to the speech, at the demo's level."""
        from scipy.signal import resample_poly

        samples = self._flite.speak(text, VOICE).samples.astype(np.float64) / 32768.0
        loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
        begin = max(0, int(loud[0]) - int(0.08 * flite_speech.SAMPLE_RATE))
        part = samples[begin : int(loud[-1]) + int(0.12 * flite_speech.SAMPLE_RATE)]
        ratio = Fraction(RATE, flite_speech.SAMPLE_RATE) / SHORTER
        wave = resample_poly(part, ratio.numerator, ratio.denominator)
        wave *= LEVEL / (float(np.sqrt(np.mean(wave**2))) + 1e-6)
        wave = np.pad(np.clip(wave, -0.99, 0.99), (0, -len(wave) % FRAME))
        return np.asarray(wave, np.float32)


def training_lines(count: int, words: list[str], held_out: set[str]) -> list[str]:
    """`count` distinct lines of the demo's three kinds, none of them held out."""
    rng = random.Random(SEED)
    common = vocabulary(LARGE)
    seen = set(held_out)
    lines: list[str] = []
    while len(lines) < count:
        kind = rng.random()
        if kind < 0.4:
            raw = grammar_line(rng, SMALL)
        elif kind < 0.85:
            raw = grammar_line(rng, LARGE)
        else:
            raw = salad_line(rng, words, common)
        text = finish(rng, raw)
        if normal_form(text) in seen or len(text) > MAX_CHARACTERS:
            continue
        seen.add(normal_form(text))
        lines.append(text)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=2400)
    parser.add_argument("--flite", type=Path, help="folder of flite's libraries")
    parser.add_argument("--words", type=Path, help="a word list, one word a line")
    parser.add_argument("--sentences", type=Path, help="speak these lines instead")
    parser.add_argument("--held-out", type=Path, nargs="*", default=[], help="never spoken")
    args = parser.parse_args()
    if args.sentences is not None:
        lines = [row for row in args.sentences.read_text(encoding="utf-8").splitlines() if row]
    else:
        rows = [r for file in args.held_out for r in file.read_text(encoding="utf-8").splitlines()]
        held_out = {normal_form(row) for row in rows if row}
        lines = training_lines(args.lines, word_list(args.words), held_out)
    args.out.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    voice = FifthVoice(args.flite)
    for number, text in enumerate(lines):
        wave = voice.speak(text)
        if args.sentences is None and len(wave) // FRAME > MAX_FRAMES:
            continue
        soundfile.write(args.out / f"{number:04d}.wav", wave, RATE, subtype="PCM_16")
        (args.out / f"{number:04d}.txt").write_text(text + "\n", encoding="utf-8")
        seconds += len(wave) / RATE
    print(f"{len(lines)} lines, {seconds:.0f} s of speech")


if __name__ == "__main__":
    main()
