"""Cloning, ends, seeds and speed of a checkpoint through the native runtime on the CPU.

    python check_voices.py [--model DIR] [--utterances 500]

Speaks the lines of ``tests/data`` and fresh lines of the corpus grammar with the four stored voices
in turn, each utterance with its own seed, and prints how many ended by themselves, how many sound
nearest to the voice of their reference (see ``speakers.py``), whether the same seeds give the same
samples again, and the real-time factor. Ends with an error where a bound of the issue is missed.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corpus import MAX_CHARACTERS, TEXTS, finish, grammar_line
from flite_speech import VOICES, Flite
from higgs_rt import Runtime
from higgs_rt.audio import resample
from higgs_rt.evaluation import read_lines, speak_lines
from lexicon import LARGE
from speakers import RATE, NearestVoice
from synthesis import clip_of

FITTED = 60  # recordings of each voice to fit the nearest voice on, and as many to try it on
AGAIN = 40
TEMPERATURES = (0.7, 1.0)


def fresh_lines(count: int, seed: int) -> list[str]:
    """`count` lines of the corpus grammar over its large lexicon, drawn anew."""
    rng = random.Random(seed)
    lines: list[str] = []
    while len(lines) < count:
        line = finish(rng, grammar_line(rng, LARGE))
        if len(line) <= MAX_CHARACTERS:
            lines.append(line)
    return lines


def teacher_clips(lines: list[str]) -> dict[str, list[npt.NDArray[np.float32]]]:
    """flite's own recordings of `lines` with each voice, at 16 kHz."""
    flite = Flite()
    return {
        voice: [
            resample(np.float32(1 / 32768) * clip_of(flite.speak(line, voice))[0], 24_000, RATE)
            for line in lines
        ]
        for voice in VOICES
    }


def fitted_ears() -> NearestVoice:
    """The nearest voice, fitted on flite; prints how it does on recordings it was not fitted on."""
    lines = fresh_lines(2 * FITTED, seed=1)
    nearest = NearestVoice(teacher_clips(lines[:FITTED]))
    tried = teacher_clips(lines[FITTED:])
    right = sum(nearest(clip) == voice for voice, clips in tried.items() for clip in clips)
    print(f"nearest voice on held-out teacher recordings: {right} of {FITTED * len(VOICES)}")
    return nearest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="the packaged one by default")
    parser.add_argument("--voices", type=Path, help="folder of stored voices, if not the packaged")
    parser.add_argument("--utterances", type=int, default=500)
    parser.add_argument("--texts", type=Path, default=TEXTS)
    args = parser.parse_args()
    nearest = fitted_ears()
    known = read_lines(args.texts / "sentences.txt") + read_lines(args.texts / "ordinary.txt")
    known += ["a", "No!", "HELLO, OUT THERE.", "Twenty-one, 22, 23 and 24.", "hello", "café noir."]
    lines = known + fresh_lines(max(0, args.utterances - len(known)), seed=2)
    random.Random(3).shuffle(lines)
    lines = lines[: args.utterances]
    stops = 0
    table = {voice: dict.fromkeys(VOICES, 0) for voice in VOICES}
    seconds = passed = 0.0
    same = 0
    with Runtime.load(args.model, voices=args.voices) as runtime:
        for number, voice in enumerate(VOICES):
            mine = lines[number :: len(VOICES)]
            for part, temperature in enumerate(TEMPERATURES):
                texts = mine[part :: len(TEMPERATURES)]
                options = {"voice": voice, "seed": 1000 * number, "temperature": temperature}
                begin = time.monotonic()
                spoken = speak_lines(runtime, texts, **options)  # type: ignore[arg-type]
                passed += time.monotonic() - begin
                again = speak_lines(runtime, texts[: AGAIN // 8], **options)  # type: ignore[arg-type]
                same += sum(
                    np.array_equal(one.audio.samples, other.audio.samples)
                    for one, other in zip(again, spoken, strict=False)
                )
                for text, one in zip(texts, spoken, strict=True):
                    seconds += one.audio.seconds
                    if one.finish != "stop":
                        stops += 1
                        print(f"{voice} {temperature}: {one.finish} after {text!r}")
                    if one.audio.seconds > 0.8:
                        heard = nearest(resample(one.audio.samples, one.audio.sample_rate, RATE))
                        table[voice][heard] += 1
    print(f"{len(lines)} utterances, {stops} length stops")
    print(f"{same} of {AGAIN} spoken again with the same seed are the same, sample by sample")
    print(f"real-time factor {passed / seconds:.3f} ({seconds:.0f} s of speech in {passed:.0f} s)")
    shares = []
    for voice, counts in table.items():
        shares.append(counts[voice] / sum(counts.values()))
        print(f"{voice}: nearest to {counts}, {shares[-1]:.3f}")
    if stops or same < AGAIN or min(shares) < 0.9 or passed > 0.5 * seconds:
        raise SystemExit("expected no length stop, the same speech again, 0.9 of clones nearest")


if __name__ == "__main__":
    main()
